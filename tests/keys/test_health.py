"""Tests for the key health that the admin shows."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instaccess.audit import revocation, rows
from instaccess.exceptions import ConfigError
from instaccess.issuer import issuing
from instaccess.keys import health, keks_for_revocation, lifecycle, provision
from instaccess.models import IssuedToken, Key
from tests.support.stored_keys import write

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def issue(user: Any) -> Callable[[], IssuedToken]:
    return lambda: issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())[0]


def load(back: timedelta = 15 * DAY) -> health.KeyHealth:
    return health.load_health(since=timezone.now() - back, now=timezone.now())


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


class TestTheKeysThatHealthLists:
    def test_health_lists_current_keys_first(self, initial_keys):
        state = load()

        assert [(key.use, key.status) for key in state.keys][2:] == [("sig", "future")]
        assert {(key.use, key.status) for key in state.keys[:2]} == {("sig", "current"), ("enc", "current")}
        assert state.totals == {"sig": 2, "enc": 1}
        assert state.total == 3

    def test_health_lists_a_current_key_before_a_future_key_that_was_created_earlier(self, initial_keys, clock):
        older = key_of(SIG, "future")
        clock.shift(DAY)
        newer = provision.generate(SIG)
        lifecycle.activate(newer.kid, force=True)
        signing = [key.kid for key in load().keys if key.use == SIG and key.status in {"current", "future"}]

        assert signing == [newer.kid, older.kid]

    def test_health_omits_keys_that_retired_long_ago(self, initial_keys, clock):
        old = lifecycle.rotate(SIG, force=True).retired
        clock.shift(DAY)
        lifecycle.rotate(SIG)  # This rotation erases the private key of the past key.
        clock.shift(9 * DAY)
        recent = lifecycle.rotate(SIG, force=True).retired

        assert {old.kid, recent.kid} <= {key.kid for key in load(15 * DAY).keys}
        kids = {key.kid for key in load(5 * DAY).keys}
        assert recent.kid in kids
        assert old.kid not in kids
        assert load(5 * DAY).total == 5

    def test_k12_health_includes_old_keys_that_still_have_a_private_key(self, initial_keys, clock):
        old = lifecycle.rotate(SIG, force=True).retired
        clock.shift(50 * DAY)

        assert old.kid in {key.kid for key in load().keys}

    def test_health_includes_keys_that_were_revoked_long_ago_if_they_have_live_tokens(
        self, initial_keys, clock, issue
    ):
        revoked = lifecycle.revoke(key_of(SIG, "current").kid).key
        clock.shift(50 * DAY)
        row = issue()
        assert revoked.kid not in {key.kid for key in load().keys}
        IssuedToken.objects.filter(pk=row.pk).update(signing_kid=revoked.kid)

        assert revoked.kid in {key.kid for key in load().keys}

    def test_health_limits_the_number_of_keys_but_includes_all_keys_in_use(self, initial_keys):
        template = key_of(SIG, "current")
        many = [
            Key(kid=f"kid-{n}", use=SIG, status="past", public_jwk=template.public_jwk, retired_at=START)
            for n in range(health.MAX_KEYS + 50)
        ]
        write(many)
        state = load()

        assert len(state.keys) == health.MAX_KEYS
        assert {key.kid for key in initial_keys} <= {key.kid for key in state.keys}
        assert state.total == health.MAX_KEYS + 53

    def test_health_takes_two_queries_for_any_number_of_keys(self, initial_keys, issue):
        issue()
        with CaptureQueriesContext(connection) as few:
            load()
        for use in (SIG, ENC, SIG):
            lifecycle.rotate(use, force=True)
            issue()
        with CaptureQueriesContext(connection) as more:
            load()

        assert len(few) == len(more) == 2


class TestTheLiveTokensOfAKey:
    def test_health_counts_a_live_token_for_both_of_its_keys(self, initial_keys, issue):
        issue()
        first = key_of(SIG, "current").kid
        lifecycle.rotate(SIG, force=True)
        issue()
        issue()

        assert load().live == {first: 1, key_of(SIG, "current").kid: 2, key_of(ENC, "current").kid: 3}

    def test_health_does_not_count_expired_and_revoked_tokens(self, initial_keys, issue, clock):
        issue()
        clock.shift(3600)
        revoked = issue()
        revocation.revoke(rows.live_tokens().filter(pk=revoked.pk), keks=keks_for_revocation(), reason="lost")

        assert load().live == {}

    def test_health_counts_an_unencrypted_token_for_its_signing_key(self, initial_keys, row):
        row(signing_kid="signing", encryption_kid="")

        assert load().live == {"signing": 1}


class TestBrokenKeys:
    def test_health_reports_no_problem_for_valid_keys(self, initial_keys):
        state = load()

        assert state.undecryptable == {}
        assert (state.altered, state.unreadable) == ((), ())

    def test_o6_health_reports_a_lost_key_encryption_key_for_every_key(self, initial_keys):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}):
            state = load()

        assert state.undecryptable == {key.kid: "kek_missing" for key in initial_keys}
        assert not state.derived

    def test_k7_health_reports_only_the_key_with_a_swapped_sealed_key(self, initial_keys):
        swapped, other = key_of(SIG, "current"), key_of(SIG, "future")
        Key.objects.filter(pk=swapped.pk).update(sealed_private_jwk=other.sealed_private_jwk)

        assert load().undecryptable == {swapped.kid: "seal_broken"}

    @pytest.mark.parametrize(
        "members", [{}, [], "text", 5, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA", "n": 5, "e": None}]
    )
    def test_health_reports_a_key_with_an_invalid_public_key(self, members, initial_keys):
        key = key_of(SIG, "future")
        Key.objects.filter(pk=key.pk).update(public_jwk=members)

        state = load()
        assert state.altered == (key,)
        assert key not in state.keys

    def test_health_reports_a_key_with_the_public_key_of_another_row(self, initial_keys):
        key = key_of(SIG, "future")
        Key.objects.filter(pk=key.pk).update(public_jwk=key_of(SIG, "current").public_jwk)

        state = load()
        assert state.altered == (key,)
        assert key not in state.keys

    def test_health_reports_no_problem_for_revoked_keys(self, initial_keys):
        lifecycle.revoke(key_of(SIG, "future").kid)

        assert load().altered == ()
        assert load().undecryptable == {}

    def test_k17_health_reports_a_modified_revoked_key(self, initial_keys):
        key = lifecycle.revoke(key_of(SIG, "future").kid).key
        Key.objects.filter(pk=key.pk).update(status="past")

        assert load().altered == (key,)

    def test_k17_health_reports_a_key_whose_row_an_attacker_marked_as_revoked_long_ago(self, initial_keys):
        key = key_of(SIG, "current")
        Key.objects.filter(pk=key.pk).update(status="revoked", revoked_at=START - 900 * DAY)

        assert load().altered == (key,)

    def test_health_raises_config_error_if_a_setting_is_invalid(self, initial_keys):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": []}), pytest.raises(ConfigError):
            load()


class TestHealthWithoutKeys:
    def test_the_health_of_a_database_without_keys_is_empty(self):
        assert load() == health.KeyHealth(derived=True)


class TestUndecryptableKeys:
    def test_undecryptable_returns_every_key_that_cannot_be_unsealed(self, initial_keys):
        Key.objects.filter(use=SIG).update(sealed_private_jwk="junk")
        errors = provision.undecryptable(Key.objects.all())

        assert {kid: error.code for kid, error in errors.items()} == {
            key.kid: "kek_missing" for key in Key.objects.filter(use=SIG)
        }

    def test_undecryptable_does_not_unseal_public_keys(self, initial_keys):
        Key.objects.all().update(sealed_private_jwk="")

        assert provision.undecryptable(Key.objects.all()) == {}
