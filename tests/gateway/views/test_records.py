"""Tests of the records of the gateway's decisions: the metrics, the signal, and the variables in error reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory

from instaccess import signals
from instaccess.gateway import views
from instaccess.models import IssuedToken
from tests.support.error_reports import Unreadable, shown_variables
from tests.support.receiving import received
from tests.support.recorded import recorded
from tests.support.tokens import claims
from tests.support.verifying import status, verify

pytestmark = pytest.mark.django_db

SECRET = "the-secret-token"


def decisions() -> list[float]:
    """Return the numbers of accepted, refused and unavailable decisions, and of measured durations."""
    counted = [
        recorded("instaccess_gateway_decisions_total", decision=decision)
        for decision in ("accepted", "refused", "unavailable")
    ]
    return [*counted, recorded("instaccess_decision_duration_seconds_count")]


def stages() -> list[float]:
    """Return the numbers of measured durations of the stages `lookup` and `crypto`."""
    name = "instaccess_decision_stage_duration_seconds_count"
    return [recorded(name, stage=stage) for stage in ("lookup", "crypto")]


def growth(measure: Callable[[], list[float]], act: Callable[[], Any]) -> list[float]:
    before = measure()
    act()
    return [after - earlier for after, earlier in zip(measure(), before, strict=True)]


class TestTheMetricsOfTheGateway:
    def test_each_decision_is_counted_once_with_its_duration(self, token, settings):
        assert growth(decisions, lambda: status(token)) == [1, 0, 0, 1]
        assert growth(decisions, lambda: status("opaque")) == [0, 1, 0, 1]
        settings.INSTACCESS = {"LEEWAY": "1"}
        assert growth(decisions, lambda: status(token)) == [0, 0, 1, 1]

    def test_duration_of_the_cryptography_is_measured_only_for_a_token_that_is_not_cached(self, token):
        assert growth(stages, lambda: status(token)) == [1, 1]
        assert growth(stages, lambda: status(token)) == [1, 0]

    def test_no_stage_is_measured_for_a_token_that_needs_no_keys(self):
        assert growth(stages, lambda: status("opaque")) == [0, 0]


class TestTheSignalOfARefusal:
    def test_refusal_of_a_revoked_token_sends_one_signal_with_its_ids(self, issue, application):
        row, token = issue(application=application, service=True)
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)

        with received(signals.token_refused) as facts:
            verify(token)

        [sent] = facts
        assert (sent["role"], sent["reason"], sent["status"]) == ("gateway", "revoked", 401)
        assert (sent["jti"], sent["user_uuid"]) == (str(row.jti), row.user_uuid)
        assert (sent["client_id"], sent["ip_address"]) == (application.client_id, "127.0.0.1")

    def test_server_side_error_sends_one_signal_without_ids(self, token, settings):
        settings.INSTACCESS = {"LEEWAY": "1"}

        with received(signals.token_refused) as facts:
            verify(token)

        [sent] = facts
        assert (sent["role"], sent["reason"], sent["status"]) == ("gateway", "config", 503)
        assert (sent["jti"], sent["user_uuid"], sent["client_id"]) == ("", "", "")

    def test_accepted_token_sends_no_signal(self, token):
        with received(signals.token_refused) as facts:
            verify(token)

        assert facts == []


class TestTheReasonForAnotherBearerToken:
    @pytest.fixture
    def reason(self, caplog: pytest.LogCaptureFixture) -> Callable[[str], str]:
        def find(bearer: str) -> str:
            caplog.clear()
            verify(bearer)
            return str(caplog.records[0].reason)  # type: ignore[attr-defined]

        return find

    @pytest.mark.parametrize("setting", ["pass", "refuse"])
    def test_opaque_bearer_token_over_8_kib_is_refused_with_the_reason_too_long(self, reason, settings, setting):
        settings.INSTACCESS = {"OTHER_BEARERS": setting}

        assert reason("x" * 8193) == "too_long"

    def test_signed_token_of_an_accepted_issuer_is_refused_with_the_reason_already_decrypted(self, reason, make):
        assert reason(make.signed(claims(int(time.time())))) == "already_decrypted"

    def test_gateway_lets_other_bearer_tokens_pass_if_the_setting_comes_from_the_environment(self, settings):
        settings.INSTACCESS = {"OTHER_BEARERS": str(b"pass", "ascii")}

        assert status("opaque") == 204


class TestAnErrorReportOfTheGateway:
    @pytest.mark.parametrize(
        ("name", "read"),
        [
            ("_bearer_token", lambda text: views._bearer_token(RequestFactory().get("/", HTTP_AUTHORIZATION=text))),
            ("_allow_other_bearer", views._allow_other_bearer),
        ],
    )
    def test_p27_report_about_an_error_in_a_function_that_reads_a_header_does_not_contain_the_token(self, name, read):
        with pytest.raises(RuntimeError) as caught:
            read(Unreadable(SECRET))

        shown = shown_variables(caught.value)
        assert f"{name} " in shown
        assert SECRET not in shown
