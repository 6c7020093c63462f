"""Tests of `isolated_view`, the decorator that makes a view independent of the settings of the project."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import AnonymousUser
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from instaccess import web


def view(request: HttpRequest) -> HttpResponse:
    """Answer the request."""
    return HttpResponse("answer")


class TestAnIsolatedView:
    def test_isolated_view_returns_the_response_of_the_wrapped_view_and_keeps_its_name(self, rf):
        isolated = web.isolated_view(view)

        assert isolated(rf.get("/")).content == b"answer"
        assert (isolated.__name__, isolated.__doc__) == ("view", "Answer the request.")

    def test_isolated_view_does_not_run_in_a_transaction_of_any_database(self, monkeypatch):
        default = connections.settings["default"]
        monkeypatch.setitem(default, "ATOMIC_REQUESTS", True)
        monkeypatch.setitem(connections.settings, "second", {**default, "ATOMIC_REQUESTS": True})
        isolated = web.isolated_view(view)

        # Django wraps a view that needs a transaction, and returns any other view unchanged.
        assert BaseHandler().make_view_atomic(isolated) is isolated
        assert BaseHandler().make_view_atomic(view) is not view

    def test_isolated_view_needs_no_csrf_token_and_no_login(self, rf):
        request = rf.get("/")
        request.user = AnonymousUser()
        middleware: Any = LoginRequiredMiddleware(view)

        assert middleware.process_view(request, web.isolated_view(view), (), {}) is None
        assert middleware.process_view(request, view, (), {}) is not None
        assert web.isolated_view(view).csrf_exempt  # type: ignore[attr-defined]


class TestReadsOwnCredentials:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/api/v1/inst_access_tokens", True),
            ("/internal/gateway/verify", True),
            ("/internal/services/jwks", True),
            ("/admin/", False),
            ("/no/such/page", False),
        ],
    )
    def test_only_views_of_the_app_read_their_own_credentials(self, path, expected):
        assert web.reads_own_credentials(RequestFactory().get(path)) is expected

    def test_reads_own_credentials_checks_the_resolved_view_instead_of_the_path(self, rf):
        request = rf.get("/no/such/page")
        request.resolver_match = type("Match", (), {"func": staticmethod(web.isolated_view(view))})()

        assert web.reads_own_credentials(request)

    @pytest.mark.parametrize("marked", [False, 0, 1, "yes", None])
    def test_view_reads_its_own_credentials_only_if_its_attribute_reads_own_credentials_is_true(self, rf, marked):
        request = rf.get("/")
        request.resolver_match = type("Match", (), {"func": type("View", (), {"reads_own_credentials": marked})})()

        assert not web.reads_own_credentials(request)
