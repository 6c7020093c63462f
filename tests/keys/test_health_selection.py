"""Tests of the keys that the key health selects: their order, the period, and the limits."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from instaccess.keys import health, lifecycle, provision
from instaccess.models import Key
from tests.keys.helpers import DAY, ENC, SECOND, SIG, START, key_of, public_pem
from tests.support import key_texts
from tests.support.stored_keys import write

pytestmark = pytest.mark.django_db


def listed(**options: Any) -> list[str]:
    """Return the kids of the keys that the key health lists. By default, the period is the last 15 days."""
    times = {"since": START - 15 * DAY, "now": START} | options
    return [key.kid for key in health.load_health(**times).keys]


@pytest.fixture
def past_key(started: None, clock: Any) -> str:
    """Return the kid of a past key that was retired at `START` and has no private key."""
    past = lifecycle.rotate(SIG, force=True).retired
    assert past is not None
    clock.shift(DAY)
    lifecycle.rotate(SIG)  # This rotation erases the private key of the past key.
    return past.kid


@pytest.mark.usefixtures("started")
class TestTheOrderOfKeys:
    def test_health_lists_current_then_future_then_past_then_revoked_keys(self, clock):
        Key.objects.filter(use=ENC).delete()
        oldest = key_of(SIG, "current").kid
        second = key_of(SIG, "future").kid
        clock.shift(SECOND)
        lifecycle.rotate(SIG, force=True)
        third = key_of(SIG, "future").kid
        clock.shift(SECOND)
        lifecycle.rotate(SIG, force=True)
        fourth = key_of(SIG, "future").kid
        clock.shift(SECOND)
        lifecycle.rotate(SIG, force=True)
        fifth = key_of(SIG, "future").kid
        clock.shift(SECOND)
        sixth, seventh, eighth = (provision.generate(SIG).kid for _ in range(3))
        for kid in (eighth, seventh):
            clock.shift(SECOND)
            lifecycle.revoke(kid)

        assert listed() == [
            fourth,
            # The oldest future key is first, because this key becomes current next.
            *[fifth, sixth],
            # The past key that was retired last is first.
            *[third, second, oldest],
            # The key that was revoked last is first.
            *[seventh, eighth],
        ]

    def test_health_sorts_past_keys_by_the_time_of_retirement_and_not_of_creation(self, clock):
        Key.objects.filter(use=ENC).delete()
        older = key_of(SIG, "future").kid
        clock.shift(DAY)
        newer = provision.generate(SIG).kid
        for kid in (newer, older):
            clock.shift(SECOND)
            lifecycle.activate(kid, force=True)
        clock.shift(SECOND)
        lifecycle.activate(provision.generate(SIG).kid, force=True)

        assert [kid for kid in listed() if kid in {older, newer}] == [older, newer]

    def test_health_sorts_revoked_keys_by_the_time_of_revocation_and_not_of_creation(self, clock):
        older = provision.generate(SIG).kid
        clock.shift(SECOND)
        newer = provision.generate(SIG).kid
        for kid in (newer, older):
            clock.shift(SECOND)
            lifecycle.revoke(kid)

        assert [kid for kid in listed() if kid in {older, newer}] == [older, newer]


class TestThePeriod:
    def test_health_lists_a_past_key_that_was_retired_at_the_start_of_the_period_or_later(self, past_key):
        assert past_key in listed(since=START - SECOND)
        assert past_key in listed(since=START)
        assert past_key not in listed(since=START + SECOND)

    @pytest.mark.usefixtures("started")
    def test_health_lists_a_key_that_was_revoked_at_the_start_of_the_period_or_later(self):
        revoked = lifecycle.revoke(key_of(ENC, "future").kid).key.kid

        assert revoked in listed(since=START - SECOND)
        assert revoked in listed(since=START)
        assert revoked not in listed(since=START + SECOND)

    @pytest.mark.usefixtures("started")
    def test_health_lists_the_current_public_key_of_a_gateway_no_matter_how_old_the_key_is(self, rsa_pool):
        kid = lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid).kid

        assert kid in listed(since=START + 900 * DAY)


@pytest.mark.usefixtures("started")
class TestTheLimits:
    def test_health_lists_at_most_a_hundred_keys(self):
        public = key_of(SIG, "current").public_jwk
        write(Key(kid=f"kid-{n}", use=SIG, status="past", public_jwk=public, retired_at=START) for n in range(110))

        assert len(listed()) == 100

    def test_kid_is_shortened_to_eight_characters(self):
        assert health.short_kid("0123456789") == "01234567"


@pytest.mark.usefixtures("started")
class TestTheLiveTokens:
    def test_health_counts_the_tokens_that_are_live_at_the_given_time(self, issue):
        issue()

        assert sum(health.load_health(since=START, now=START).live.values()) == 2
        assert health.load_health(since=START, now=START + timedelta(hours=3)).live == {}

    def test_health_does_not_count_the_live_tokens_if_the_caller_passes_the_counts(self, issue):
        issue()

        assert health.load_health(since=START, now=START, live={"kid": 7}).live == {"kid": 7}

    def test_live_tokens_counts_only_the_latest_tokens_up_to_the_given_limit(self, row):
        for age, kid in ((1, "second"), (2, "third"), (0, "first"), (3, "fourth")):
            row(age=age, signing_kid=kid, encryption_kid="")

        assert health.live_tokens(now=START, limit=2) == {"first": 1, "second": 1}
        assert set(health.live_tokens(now=START, limit=None)) == {"first", "second", "third", "fourth"}

    def test_live_tokens_returns_one_count_per_key_with_and_without_a_limit(self, row):
        for _ in range(3):
            row()

        assert health.live_tokens(now=START, limit=9) == health.live_tokens(now=START) == {"s": 3, "e": 3}


class TestHealthWithAKeyEncryptionKeyInTheSettings:
    def test_health_of_a_database_without_keys_is_empty_if_a_key_encryption_key_is_configured(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}):
            assert health.load_health(since=START, now=START) == health.KeyHealth()
