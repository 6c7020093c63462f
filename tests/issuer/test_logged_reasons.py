"""Tests of the reason that the issuer logs for each refusal. Clients get the same response for several reasons."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings
from oauth2_provider.models import get_refresh_token_model

from instaccess.models import Key
from tests.conftest import ISSUE_URL
from tests.support.answers import signed_inside

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


def reasons(caplog: Any) -> list[str]:
    """Return the reasons in the log lines of the package, in order."""
    return [record.reason for record in caplog.records if hasattr(record, "reason")]


def refused(caplog: Any) -> list[tuple[str, Any, str]]:
    """Return the reason, the user and the client id in each log line about a refusal of the issuer, in order."""
    return [(record.reason, record.user, record.client_id) for record in caplog.records if hasattr(record, "reason")]


class TestTheReasonInTheLogOfTheIssuer:
    def test_reason_for_two_bearer_tokens_in_one_header_is_malformed_header(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer a b")

        assert reasons(caplog) == ["malformed_header"]

    def test_reason_for_a_bearer_token_that_is_too_long_is_too_long(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer " + "x" * 8193)

        assert reasons(caplog) == ["too_long"]

    def test_reason_for_a_bearer_token_of_the_largest_length_is_unknown_token(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer " + "x" * 8192)

        assert reasons(caplog) == ["unknown_token"]

    def test_reason_for_a_signed_inst_access_token_is_jwt_from_jwt(self, post, access_token, caplog):
        signed = signed_inside(post(access_token).json()["token"])

        post(signed)

        assert reasons(caplog) == ["jwt_from_jwt"]

    def test_reason_for_an_inst_access_token_with_another_signature_is_broken_jwt(self, post, access_token, caplog):
        head, payload, signature = signed_inside(post(access_token).json()["token"]).split(".")

        post(f"{head}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}")

        assert reasons(caplog) == ["broken_jwt"]

    def test_reason_for_a_token_that_the_validator_of_the_project_refuses_is_refused_by_validator(
        self, post, make_access_token, user, settings, caplog
    ):
        validator = "tests.issuer.test_oauth2_validator.PrefixValidator"
        settings.OAUTH2_PROVIDER = {**settings.OAUTH2_PROVIDER, "OAUTH2_VALIDATOR_CLASS": validator}
        token = make_access_token(token="bad-one")

        post(token)

        [record] = [record for record in caplog.records if record.name == "instaccess.issuer"]
        assert record.reason == "refused_by_validator"
        assert (record.user, record.client_id) == (user.pk, token.application.client_id)

    def test_reason_for_a_request_with_too_many_parameters_is_bad_request(self, post, access_token, caplog):
        with override_settings(DATA_UPLOAD_MAX_NUMBER_FIELDS=1):
            response = post(access_token, url=f"{ISSUE_URL}?a=1&b=2")

        assert response.status_code == 400
        assert reasons(caplog) == ["bad_request"]


class TestTheUserAndTheClientInTheLogOfTheIssuer:
    """Tests of the user and the client in a log line about an access token that exists."""

    @pytest.mark.parametrize(
        ("reason", "columns"),
        [("insufficient_scope", {"scope": "read"}), ("expired", {"expires": datetime(2020, 1, 1, tzinfo=UTC)})],
    )
    def test_log_of_a_refusal_names_the_user_and_the_client(
        self, post, make_access_token, user, application, caplog, reason, columns
    ):
        post(make_access_token(**columns))

        assert refused(caplog) == [(reason, user.pk, application.client_id)]

    def test_log_of_a_refusal_names_user_and_client_if_the_client_can_refresh_its_access_token(
        self, post, make_access_token, user, application, caplog
    ):
        token = make_access_token(expires=datetime(2020, 1, 1, tzinfo=UTC))
        get_refresh_token_model().objects.create(
            user=user, application=application, token="refresh", access_token=token
        )

        post(token)

        assert refused(caplog) == [("expired", user.pk, application.client_id)]

    def test_log_of_a_refusal_names_the_inactive_user_and_the_client(
        self, post, access_token, user, application, caplog
    ):
        get_user_model().objects.update(is_active=False)

        post(access_token)

        assert refused(caplog) == [("inactive_user", user.pk, application.client_id)]

    def test_log_of_a_refusal_names_the_client_of_an_access_token_without_a_user(
        self, post, make_access_token, application, caplog
    ):
        post(make_access_token(user=None))

        assert refused(caplog) == [("no_user", None, application.client_id)]

    def test_log_of_a_refusal_names_no_user_and_no_client_if_the_access_token_has_no_application(
        self, post, make_access_token, caplog
    ):
        post(make_access_token(application=None))

        assert refused(caplog) == [("no_application", None, "")]

    def test_log_of_a_refusal_names_the_client_and_the_user_who_is_not_allowed_to_masquerade(
        self, post, access_token, user, application, caplog
    ):
        post(access_token, data={"as_user_id": "4711"})

        assert refused(caplog) == [("as_user_id_not_allowed", user.pk, application.client_id)]

    def test_log_of_a_refusal_names_the_throttled_user_and_the_client(
        self, throttled, slow_leak, post, access_token, user, application, caplog
    ):
        for _ in range(4):
            post(access_token)

        assert refused(caplog) == [("throttled", user.pk, application.client_id)]


class TestTheReasonInTheLogOfAnInternalEndpoint:
    def test_jwks_endpoint_without_a_signing_key_logs_the_reason_no_key(self, client, caplog):
        Key.objects.all().delete()

        assert client.get("/internal/services/jwks").status_code == 503
        assert reasons(caplog) == ["no_key"]

    def test_reason_for_a_request_for_revocations_with_a_wrong_service_secret_is_service_secret(self, client, caplog):
        with override_settings(INSTACCESS={"SERVICE_SECRETS": ["s" * 32]}):
            response = client.get("/internal/services/revocations", headers={"Authorization": "Bearer other"})

        assert response.status_code == 401
        assert reasons(caplog) == ["service_secret"]
