"""Tests of the metrics of a service: refusals of tokens and server-side errors."""

from __future__ import annotations

from typing import Any

from instaccess.service import TokenUser
from tests.service.helpers import ask, good
from tests.support.recorded import recorded


def refusals(reason: str) -> float:
    return recorded("instaccess_refusals_total", role="service", reason=reason)


class TestTheMetricsOfAService:
    def test_refusal_of_a_token_is_counted_once_with_its_reason(self, service: Any, settings: Any):
        settings.INSTACCESS["ACCOUNT_UUID"] = "ours"
        before = refusals("wrong_account")

        assert ask(good(service)).status_code == 401

        assert refusals("wrong_account") == before + 1

    def test_server_side_error_is_counted_once_as_a_fault(self, service: Any, settings: Any):
        settings.INSTACCESS = {"VERIFICATION_KEYS": ["/no/such/file"], "USER_HOOK": TokenUser}
        before = refusals("fault")

        assert ask(good(service)).status_code == 503

        assert refusals("fault") == before + 1

    def test_accepted_token_and_foreign_token_are_not_counted(self, service: Any):
        counted = ("no_credentials", "foreign_issuer", "fault")
        before = [refusals(reason) for reason in counted]

        assert ask(good(service)).status_code == 200
        assert ask("Bearer opaque").status_code == 401

        assert [refusals(reason) for reason in counted] == before


class TestTheLogOfARefusal:
    def test_log_of_a_service_contains_at_most_64_characters_of_each_id(
        self, service: Any, settings: Any, caplog: Any
    ):
        settings.INSTACCESS["ACCOUNT_UUID"] = "ours"

        ask(good(service, jti="j" * 100, sub="s" * 64, client_id="c" * 65))

        [record] = caplog.records
        assert (record.jti, record.user_uuid, record.client_id) == ("j" * 64, "s" * 64, "c" * 64)
