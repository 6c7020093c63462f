"""Tests of `is_usable_client`, with which a service refuses tokens of deleted or unusable applications."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import DataError, connection
from oauth2_provider.models import get_application_model

from instaccess.issuer.oauth2_validator import is_usable_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of the requests that `Application.is_usable` receives."""
    received: list[Any] = []

    def is_usable(self: Any, request: Any) -> bool:
        received.append(request)
        return True

    monkeypatch.setattr(get_application_model(), "is_usable", is_usable)
    return received


class TestAKnownApplication:
    def test_known_application_is_usable(self, application):
        assert is_usable_client(application.client_id)

    def test_application_is_not_usable_if_its_method_is_usable_returns_false(self, application, monkeypatch):
        monkeypatch.setattr(get_application_model(), "is_usable", lambda self, request: False)

        assert not is_usable_client(application.client_id)

    def test_application_is_found_by_its_client_id_among_several_applications(self, application, monkeypatch):
        other = get_application_model().objects.create(name="Other", client_type="public")
        monkeypatch.setattr(get_application_model(), "is_usable", lambda self, request: self.pk == other.pk)

        assert [is_usable_client(each.client_id) for each in (application, other)] == [False, True]

    def test_method_is_usable_receives_the_request_with_the_bearer_token(self, application, requests, rf):
        request = rf.get("/courses/", headers={"Authorization": "Bearer abc"}, REMOTE_ADDR="198.51.100.7")
        is_usable_client(application.client_id, request)

        [received] = requests
        assert received.uri == "http://testserver/courses"
        assert (received.headers["Authorization"], received.headers["REMOTE_ADDR"]) == ("Bearer abc", "198.51.100.7")

    def test_method_is_usable_receives_an_empty_request_if_there_is_no_request(self, application, requests):
        is_usable_client(application.client_id)

        assert [(received.uri, received.body) for received in requests] == [("", None)]


class TestAnUnknownApplication:
    @pytest.mark.parametrize("client_id", ["", "unknown", "a\x00b", "\ud800", "x" * 10_000])
    def test_application_with_an_unknown_client_id_is_not_usable(self, application, client_id):
        assert not is_usable_client(client_id)

    @pytest.mark.parametrize("error", [DataError, ValueError])
    def test_application_with_a_client_id_that_the_database_rejects_is_not_usable(self, application, error):
        def reject(*args: Any) -> Any:
            raise error("invalid value")

        with connection.execute_wrapper(reject):
            assert not is_usable_client(application.client_id)

    def test_client_id_in_another_case_is_not_usable_even_if_the_database_ignores_case(self, application):
        get_application_model().objects.update(client_id="aBc")

        def ignore_case(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            return execute(re.sub(r"(\S+client_id\S) = %s", r"LOWER(\1) = LOWER(%s)", sql), params, many, context)

        with connection.execute_wrapper(ignore_case):
            assert get_application_model().objects.filter(client_id="ABC").exists()
            assert [is_usable_client(text) for text in ("ABC", "aBc", "abc")] == [False, True, False]
