"""Tests that Django's error reports contain no parameters of a request to a view that takes secrets."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.signals import got_request_exception
from django.http import HttpResponse
from django.urls import reverse

from instaccess import web

IMPORT = "/admin/instaccess/key/import/"


@pytest.fixture
def request_(rf: Any) -> Any:
    """Return a request to the page that imports a key, with a secret in the query, in the form and in a file."""
    request = rf.post(f"{IMPORT}?key=secret", {"text": "secret", "file": SimpleUploadedFile("key.pem", b"secret")})
    request.POST  # noqa: B018  (parses the form)
    return request


def is_empty(request: Any) -> bool:
    parameters = (request.GET, request.POST, request.FILES, request.META["QUERY_STRING"])
    # Read `body` too, because `body` raises an exception if the form was parsed but not removed.
    return not any(parameters) and request.body == b"" and "secret" not in request.get_full_path()


class TestAViewThatTakesSecrets:
    def test_k14_django_hides_every_form_field_of_a_view_that_takes_secrets(self, request_):
        web.takes_secrets(lambda request: HttpResponse())(request_)

        assert request_.sensitive_post_parameters == "__ALL__"

    @pytest.mark.parametrize(
        ("status", "empty"), [(200, False), (401, False), (499, False), (500, True), (503, True)]
    )
    def test_k14_parameters_of_a_request_are_removed_only_if_django_reports_the_response(
        self, request_, status, empty
    ):
        web.takes_secrets(lambda request: HttpResponse(status=status))(request_)

        assert is_empty(request_) is empty

    def test_decorated_view_that_takes_secrets_keeps_its_attributes(self):
        def view(request: Any) -> HttpResponse:
            return HttpResponse()

        view.csrf_exempt = True  # type: ignore[attr-defined]

        assert web.takes_secrets(view).csrf_exempt  # type: ignore[attr-defined]


class TestAFailedRequestToAViewThatTakesSecrets:
    def test_k14_parameters_of_a_failed_request_are_removed_even_if_the_view_was_not_called(self, request_):
        got_request_exception.send(sender=None, request=request_)

        assert is_empty(request_)

    @pytest.mark.parametrize("path", ["/admin/instaccess/key/", "/no/such/page/"])
    def test_parameters_of_a_failed_request_are_kept_if_the_view_takes_no_secrets(self, rf, path):
        request = rf.post(f"{path}?x=1", {"y": "2"})
        got_request_exception.send(sender=None, request=request)

        assert (request.GET["x"], request.POST["y"]) == ("1", "2")

    def test_removal_of_parameters_ignores_a_failure_outside_a_request(self):
        got_request_exception.send(sender=None, request=None)

    def test_import_page_has_the_path_that_these_tests_request(self):
        assert reverse("admin:instaccess_key_import") == IMPORT
