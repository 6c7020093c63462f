"""Tests that Django's error reports hide the tokens and the claims in the variables of a service's functions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory

from instaccess.exceptions import InvalidToken, KeyUnavailable
from instaccess.service import InstAccessAuthentication, RequestAuthentication, Verifier
from instaccess.service.lenient_parsing import find_bearer, find_issuers, is_inst_access_token
from instaccess.web import Refusal
from tests.service.helpers import good
from tests.support.error_reports import CaughtExceptions, Unreadable, shown_variables

SECRET = "the-secret-token"


class WithUnreadableToken(RequestAuthentication):
    def get_bearer(self, request: Any) -> str | None:
        return Unreadable(SECRET)


def request(authorization: str) -> Any:
    return RequestFactory().get("/", HTTP_AUTHORIZATION=authorization)


READERS: dict[str, Callable[[str], Any]] = {
    "find_bearer": find_bearer,
    "find_issuers": find_issuers,
    "is_inst_access_token": lambda token: is_inst_access_token(token, ["an issuer"]),
    "Verifier.is_ours": lambda token: Verifier.from_settings().is_ours(token),
    "Verifier.read_payload": lambda token: Verifier.from_settings().read_payload(token),
    "RequestAuthentication.is_ours": lambda token: RequestAuthentication().is_ours(token),
    "RequestAuthentication.verify": lambda token: RequestAuthentication().verify(token),
    "RequestAuthentication.get_bearer": lambda header: RequestAuthentication().get_bearer(request(header)),
    "RequestAuthentication._read_payload": lambda token: WithUnreadableToken()._read_payload(request("")),
}


class TestAnErrorReportOfAService:
    @pytest.mark.parametrize("name", READERS)
    def test_p27_report_about_an_error_in_a_function_that_reads_a_token_does_not_contain_the_token(
        self, service, name
    ):
        with pytest.raises(RuntimeError) as caught:
            READERS[name](Unreadable(SECRET))

        shown = shown_variables(caught.value)
        assert f"{name.rpartition('.')[2]} " in shown
        assert SECRET not in shown

    def test_p27_error_of_the_user_hook_reaches_the_project_and_its_report_does_not_contain_the_payload(
        self, service, settings
    ):
        def fail(claims: Any) -> Any:
            raise LookupError("the directory is unavailable")

        settings.INSTACCESS["USER_HOOK"] = fail

        with pytest.raises(LookupError) as caught:
            InstAccessAuthentication().authenticate(request(good(service, color="blue")))

        shown = shown_variables(caught.value)
        assert "authenticate_request payload = '****" in shown
        assert "'color': 'blue', 'iss'" not in shown

    @pytest.mark.parametrize("error", [InvalidToken(SECRET), KeyUnavailable("the keys are unavailable")])
    def test_p27_log_handler_of_a_service_cannot_reach_the_error_that_refuses_a_token(self, monkeypatch, error):
        def fail(self: Any, token: str) -> Any:
            raise error

        handler = CaughtExceptions()
        monkeypatch.setattr(RequestAuthentication, "_read_payload", fail)
        monkeypatch.setattr(logging.getLogger("instaccess.service"), "handlers", [handler])

        with pytest.raises(Refusal):
            RequestAuthentication().authenticate_request(request(""))

        assert handler.found == [None]
