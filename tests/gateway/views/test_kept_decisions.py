"""Tests of case G35: the seconds for which the gateway lets a proxy keep a decision.

`tests/proxies/test_kept_decisions.py` tests nginx.
"""

from __future__ import annotations

import time

import pytest
import time_machine
from django.db import connection

from instaccess.conf import KEEPING_SLACK
from instaccess.gateway import views
from instaccess.keys import ring
from tests.gateway.views.test_faults import UnavailableDatabase
from tests.support.answers import INVALID, UNAVAILABLE, answer, signed_inside
from tests.support.verifying import verify

pytestmark = pytest.mark.django_db

KEEPING_HEADERS = ("X-Accel-Expires", "Vary")
LIFETIME = 3600


@pytest.fixture(autouse=True)
def keeping(settings) -> None:
    """Allow proxies to keep a decision for the longest time, three seconds."""
    settings.INSTACCESS = {"KEEP_DECISION_SECONDS": 3, "DENY_LIST_SECONDS": 0}


def kept_for(token: str) -> int:
    """Return the seconds for which a proxy may keep the decision about a valid token."""
    response = verify(token)
    assert response.status_code == 204
    if response["Cache-Control"] == "no-store":
        assert not set(KEEPING_HEADERS) & set(response)
        return 0
    seconds = int(response["X-Accel-Expires"])
    assert response["Cache-Control"] == f"private, max-age={seconds}, must-revalidate"
    assert response["Vary"] == "Authorization"
    return seconds


class TestTheDecisionAboutAValidToken:
    def test_g35_gateway_lets_a_proxy_keep_a_decision_for_keep_decision_seconds(self, ask, token):
        response = ask(headers=[("Authorization", f"Bearer {token}")])

        assert response["X-Accel-Expires"] == "3"
        assert response["Authorization"] == f"Bearer {signed_inside(token)}"
        assert kept_for(token) == 3

    def test_g35_gateway_does_not_let_a_proxy_keep_a_decision_by_default(self, token, settings):
        settings.INSTACCESS = {}

        assert kept_for(token) == 0

    def test_g35_gateway_sends_x_accel_expires_before_cache_control(self, token):
        names = list(verify(token))

        assert names.index("X-Accel-Expires") < names.index("Cache-Control")

    @pytest.mark.parametrize(
        ("remaining", "seconds"),
        [(60, 3), (KEEPING_SLACK + 3, 3), (4.999, 2), (4, 2), (3.5, 1), (3, 1), (2.999, 0), (2, 0), (0.001, 0)],
    )
    def test_g35_gateway_does_not_let_a_proxy_keep_a_decision_beyond_the_expiry_of_the_token(
        self, issue, remaining, seconds
    ):
        now = int(time.time())
        _, token = issue(now=now)

        with time_machine.travel(now + LIFETIME - remaining, tick=False):
            assert kept_for(token) == seconds

    @pytest.mark.parametrize("after", [-2, -1, 0, 1, 100])
    def test_g35_leeway_does_not_extend_the_time_for_which_a_decision_is_kept(self, issue, settings, after):
        settings.INSTACCESS |= {"LEEWAY": 300}
        now = int(time.time())
        _, token = issue(now=now)

        with time_machine.travel(now + LIFETIME + after, tick=False):
            assert kept_for(token) == 0

    def test_g35_time_for_which_a_decision_is_kept_starts_after_the_gateway_has_decided(self, issue, monkeypatch):
        now = int(time.time())
        _, token = issue(now=now)
        with time_machine.travel(now + LIFETIME - 60, tick=False) as traveller:
            unwrap = views.unwrapping.unwrap_with_settings

            def wait_and_unwrap(*args, **kwargs):
                traveller.shift(57)
                return unwrap(*args, **kwargs)

            monkeypatch.setattr(views.unwrapping, "unwrap_with_settings", wait_and_unwrap)
            assert kept_for(token) == 1


class TestADecisionThatMayNotBeKept:
    def test_g35_gateway_does_not_let_a_proxy_keep_a_refusal(self, token):
        for bearer in (None, "opaque", "a.b.c.d.e", signed_inside(token), token[:-8] + "AAAAAAAA"):
            response = verify(bearer)

            assert answer(response) == INVALID
            assert not set(KEEPING_HEADERS) & set(response)

    def test_g35_gateway_does_not_let_a_proxy_keep_a_server_side_error(self, token):
        ring.clear_cache()
        with connection.execute_wrapper(UnavailableDatabase()):
            response = verify(token)

        assert answer(response) == UNAVAILABLE
        assert not set(KEEPING_HEADERS) & set(response)

    def test_g35_gateway_does_not_let_a_proxy_keep_the_decision_about_an_opaque_bearer_token(self, settings):
        settings.INSTACCESS |= {"OTHER_BEARERS": "pass"}

        assert kept_for("opaque") == 0

    @pytest.mark.parametrize(("kept", "deny_list"), [(2, 2), (1, 3), (4, 0), (-1, 2), (True, 2), ("1", 2)])
    def test_g35_gateway_answers_503_if_a_revocation_could_take_effect_after_more_than_5_seconds(
        self, token, settings, caplog, kept, deny_list
    ):
        settings.INSTACCESS = {"KEEP_DECISION_SECONDS": kept, "DENY_LIST_SECONDS": deny_list}

        assert answer(verify(token)) == UNAVAILABLE
        assert "KEEP_DECISION_SECONDS" in caplog.text
        assert token not in caplog.text
