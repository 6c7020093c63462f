"""Tests of the tracebacks that the issuer logs after an unexpected error, which must contain no access token."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings
from oauth2_provider.oauth2_validators import OAuth2Validator

from tests.conftest import ISSUE_URL
from tests.support.answers import UNAVAILABLE, answer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

FORM = "application/x-www-form-urlencoded"
MESSAGE = "cannot check Bearer {}"
MANY_PARAMETERS = f"{ISSUE_URL}?{'a=1&' * 2000}"


class QuotingValidator(OAuth2Validator):
    """A validator of the project that fails with an error whose message contains the access token."""

    def validate_bearer_token(self, token: str, scopes: Any, request: Any) -> bool:
        raise ZeroDivisionError(MESSAGE.format(token))


@pytest.fixture(autouse=True)
def quoting_validator(settings: Any) -> None:
    settings.OAUTH2_PROVIDER = {**settings.OAUTH2_PROVIDER, "OAUTH2_VALIDATOR_CLASS": QuotingValidator}


class TestTheTracebackOfAnErrorThatQuotesTheAccessToken:
    def test_p8_traceback_contains_a_placeholder_instead_of_the_token_in_the_header(self, post, access_token, caplog):
        assert answer(post(access_token)) == UNAVAILABLE

        [line] = [record.getMessage() for record in caplog.records if record.name == "instaccess.issuer"]
        assert line.startswith("the issuer could not issue a token: Traceback (most recent call last):")
        assert line.endswith("ZeroDivisionError: cannot check Bearer [credential]")
        assert access_token.token not in caplog.text

    @pytest.mark.parametrize("place", ["query", "form"])
    def test_p8_traceback_contains_a_placeholder_instead_of_the_token_in_a_parameter(
        self, post, access_token, caplog, place
    ):
        parameter = f"access_token={access_token.token}"
        with override_settings(INSTACCESS={"ALLOW_TOKEN_IN_PARAMETERS": True}):
            response = (
                post(url=f"{ISSUE_URL}?{parameter}")
                if place == "query"
                else post(data=parameter.encode(), content_type=FORM)
            )

        assert answer(response) == UNAVAILABLE
        assert "ZeroDivisionError: cannot check Bearer [credential]" in caplog.text
        assert access_token.token not in caplog.text


class TestAnErrorWhoseCredentialsCannotBeRead:
    @pytest.mark.parametrize(("allowed", "url"), [(True, MANY_PARAMETERS), ("yes", ISSUE_URL)])
    def test_p8_log_contains_only_the_class_and_the_frames_of_an_error_if_credentials_cannot_be_read(
        self, post, access_token, caplog, allowed, url
    ):
        with override_settings(INSTACCESS={"ALLOW_TOKEN_IN_PARAMETERS": allowed}):
            response = post(access_token, url=url)

        assert answer(response) == UNAVAILABLE
        assert "ZeroDivisionError" in caplog.text
        assert "in validate_bearer_token" in caplog.text
        assert "cannot check" not in caplog.text
        assert access_token.token not in caplog.text
