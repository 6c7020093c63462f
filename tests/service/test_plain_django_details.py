"""Tests of how Django runs the middleware, and of the properties of a view that the decorator doesn't change."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from instaccess.service import InstAccessMiddleware, token_required
from tests.service.helpers import USER, good
from tests.service.test_plain_django import AsgiClient, bearer


class Recording(InstAccessMiddleware):
    """A subclass of the middleware that records whether Django passes an asynchronous function to the middleware."""

    is_async: list[bool] = []

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        self.is_async.append(iscoroutinefunction(get_response))


@pytest.fixture
def project(settings: Any, service: Any) -> Any:
    settings.ROOT_URLCONF = "tests.service.plain_urls"
    settings.MIDDLEWARE = [f"{__name__}.Recording"]
    Recording.is_async.clear()
    return settings


class TestTheMiddlewareInAProject:
    @pytest.mark.parametrize(("client", "is_async"), [(Client, False), (AsgiClient, True)])
    def test_django_runs_the_middleware_without_adapting_it_to_wsgi_or_asgi(self, project, service, client, is_async):
        response = client().post("/sync/", **bearer(good(service, sub=USER)))

        assert response.json()["user"] == USER
        assert Recording.is_async == [is_async]

    @pytest.mark.parametrize("path", ["/internal/gateway/verify", "/api/v1/inst_access_tokens"])
    def test_request_to_a_view_that_reads_the_header_itself_has_no_claims_and_no_user(self, project, service, path):
        seen: list[Any] = []

        def view(request: Any) -> HttpResponse:
            seen.append((request.instaccess, str(request.user)))
            return HttpResponse()

        InstAccessMiddleware(view)(RequestFactory().post(path, **bearer(good(service))))

        assert seen == [(None, "NoUser")]


def sync_view(request: HttpRequest) -> HttpResponse:
    """Return a response synchronously."""
    return HttpResponse()


async def async_view(request: HttpRequest) -> HttpResponse:
    """Return a response asynchronously."""
    return HttpResponse()


class TestADecoratedView:
    @pytest.mark.parametrize("view", [sync_view, async_view])
    @pytest.mark.parametrize("decorate", [token_required, token_required(allow=[])])
    def test_decorated_view_keeps_its_name_and_docstring_and_stays_synchronous_or_asynchronous(self, view, decorate):
        decorated = decorate(view)

        assert (decorated.__name__, decorated.__doc__) == (view.__name__, view.__doc__)
        assert iscoroutinefunction(decorated) == iscoroutinefunction(view)
