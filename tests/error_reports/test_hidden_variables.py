"""Tests that Django's error reports hide the local variables of the issuer that contain a token."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from django.test import RequestFactory

from instaccess import web
from instaccess.issuer import authentication, views
from tests.conftest import ISSUE_URL
from tests.support.error_reports import shown_variables

TOKEN = "access-token-of-a-client"


class TestTheReportOfAnUnexpectedErrorInTheIssuer:
    def test_p27_report_hides_the_access_token_that_the_issuer_reads_from_the_header(self, monkeypatch):
        def fail(text: str) -> NoReturn:
            raise ZeroDivisionError

        request = RequestFactory().post(ISSUE_URL, headers={"Authorization": f"Bearer {TOKEN}"})
        monkeypatch.setattr(authentication, "Opaque", fail)

        with pytest.raises(ZeroDivisionError) as caught:
            authentication.bearer_token(request)

        variables = shown_variables(caught.value)
        assert "bearer_token text = " in variables
        assert TOKEN not in variables

    @pytest.mark.django_db
    @pytest.mark.usefixtures("initial_keys")
    def test_p27_report_hides_the_token_that_the_issuer_has_issued(self, post, access_token, monkeypatch):
        issued: list[str] = []

        def fail(body: dict[str, str], **kwargs: Any) -> NoReturn:
            issued.append(body["token"])
            raise ZeroDivisionError

        def reraise(view: Any, error: Exception) -> NoReturn:
            raise error

        monkeypatch.setattr(web, "json_response", fail)
        monkeypatch.setattr(views.IssueView, "handle_exception", reraise)

        with pytest.raises(ZeroDivisionError) as caught:
            post(access_token)

        variables = shown_variables(caught.value)
        assert "post text = " in variables
        assert issued[0] not in variables
        assert access_token.token not in variables
