"""Tests of the reason that the issuer logs for each refusal. Clients get the same response for several reasons."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from instaccess.models import Key
from tests.conftest import ISSUE_URL
from tests.support.answers import signed_inside

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


def reasons(caplog: Any) -> list[str]:
    """Return the reasons in the log lines of the package, in order."""
    return [record.reason for record in caplog.records if hasattr(record, "reason")]


class TestTheReasonInTheLogOfTheIssuer:
    def test_reason_for_two_bearer_tokens_in_one_header_is_malformed_header(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer a b")

        assert reasons(caplog) == ["malformed_header"]

    def test_reason_for_a_bearer_token_that_is_too_long_is_too_long(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer " + "x" * 8193)

        assert reasons(caplog) == ["too_long"]

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


class TestTheReasonInTheLogOfAnInternalEndpoint:
    def test_jwks_endpoint_without_a_signing_key_logs_the_reason_no_key(self, client, caplog):
        Key.objects.all().delete()

        assert client.get("/internal/services/jwks").status_code == 503
        assert reasons(caplog) == ["no_key"]

    def test_reason_for_a_revocation_list_without_the_service_secret_is_service_secret(self, client, caplog):
        with override_settings(INSTACCESS={"SERVICE_SECRETS": ["s" * 32]}):
            response = client.get("/internal/services/revocations", headers={"Authorization": "Bearer other"})

        assert response.status_code == 401
        assert reasons(caplog) == ["service_secret"]
