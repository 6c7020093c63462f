"""How the keys stand, as it is read from the database."""

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


def look(back: timedelta = 15 * DAY) -> health.KeyHealth:
    return health.load_health(since=timezone.now() - back, now=timezone.now())


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


class TestTheKeysLookedAt:
    def test_are_those_in_use_current_ones_first(self, initial_keys):
        standing = look()

        assert [(key.use, key.status) for key in standing.keys][2:] == [("sig", "future")]
        assert {(key.use, key.status) for key in standing.keys[:2]} == {("sig", "current"), ("enc", "current")}
        assert standing.totals == {"sig": 2, "enc": 1}
        assert standing.total == 3

    def test_are_those_of_late_and_not_those_long_gone(self, initial_keys, clock):
        old = lifecycle.rotate(SIG, force=True).retired
        clock.shift(DAY)
        lifecycle.rotate(SIG)  # erases
        clock.shift(9 * DAY)
        late = lifecycle.rotate(SIG, force=True).retired

        assert {old.kid, late.kid} <= {key.kid for key in look(15 * DAY).keys}
        kids = {key.kid for key in look(5 * DAY).keys}
        assert late.kid in kids
        assert old.kid not in kids
        assert look(5 * DAY).total == 5

    def test_k12_are_old_ones_too_whose_private_half_was_not_erased(self, initial_keys, clock):
        old = lifecycle.rotate(SIG, force=True).retired
        clock.shift(50 * DAY)

        assert old.kid in {key.kid for key in look().keys}

    def test_are_long_revoked_ones_too_with_tokens_that_stand_as_live(self, initial_keys, clock, issue):
        bad = lifecycle.revoke(key_of(SIG, "current").kid).key
        clock.shift(50 * DAY)
        row = issue()
        assert bad.kid not in {key.kid for key in look().keys}
        IssuedToken.objects.filter(pk=row.pk).update(signing_kid=bad.kid)

        assert bad.kid in {key.kid for key in look().keys}

    def test_are_bounded_and_those_in_use_are_among_them(self, initial_keys):
        template = key_of(SIG, "current")
        many = [
            Key(kid=f"kid-{n}", use=SIG, status="past", public_jwk=template.public_jwk, retired_at=START)
            for n in range(health.MAX_KEYS + 50)
        ]
        Key.objects.bulk_create(many)
        standing = look()

        assert len(standing.keys) == health.MAX_KEYS
        assert {key.kid for key in initial_keys} <= {key.kid for key in standing.keys}
        assert standing.total == health.MAX_KEYS + 53

    def test_take_three_queries_however_many_there_are(self, initial_keys, issue):
        issue()
        with CaptureQueriesContext(connection) as few:
            look()
        for use in (SIG, ENC, SIG):
            lifecycle.rotate(use, force=True)
            issue()
        with CaptureQueriesContext(connection) as more:
            look()

        assert len(few) == len(more) == 3


class TestLiveTokens:
    def test_are_counted_under_each_of_their_keys(self, initial_keys, issue):
        issue()
        first = key_of(SIG, "current").kid
        lifecycle.rotate(SIG, force=True)
        issue()
        issue()

        assert look().live == {first: 1, key_of(SIG, "current").kid: 2, key_of(ENC, "current").kid: 3}

    def test_are_neither_expired_nor_revoked(self, initial_keys, issue, clock):
        issue()
        clock.shift(3600)
        revoked = issue()
        revocation.revoke(rows.live_tokens().filter(pk=revoked.pk), keks=keks_for_revocation(), reason="lost")

        assert look().live == {}

    def test_of_bare_tokens_count_under_their_signing_key_alone(self, initial_keys, row):
        row(signing_kid="signing", encryption_kid="")

        assert look().live == {"signing": 1}


class TestWhatIsBroken:
    def test_is_nothing_where_all_is_well(self, initial_keys):
        standing = look()

        assert standing.shut == {}
        assert standing.altered == frozenset()

    def test_o6_a_lost_key_encryption_key_shuts_them_all(self, initial_keys):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}):
            standing = look()

        assert standing.shut == {key.kid: "kek_missing" for key in initial_keys}
        assert not standing.derived

    def test_k7_swapped_rows_stay_shut_and_the_others_do_not(self, initial_keys):
        one, two = key_of(SIG, "current"), key_of(SIG, "future")
        Key.objects.filter(pk=one.pk).update(sealed_private_jwk=two.sealed_private_jwk)

        assert look().shut == {one.kid: "seal_broken"}

    @pytest.mark.parametrize(
        "members", [{}, [], "text", 5, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA", "n": 5, "e": None}]
    )
    def test_is_a_public_half_that_is_none(self, members, initial_keys):
        key = key_of(SIG, "future")
        Key.objects.filter(pk=key.pk).update(public_jwk=members)

        assert look().altered == {key.kid}

    def test_is_a_public_half_that_is_another_ones(self, initial_keys):
        key = key_of(SIG, "future")
        Key.objects.filter(pk=key.pk).update(public_jwk=key_of(SIG, "current").public_jwk)

        assert look().altered == {key.kid}

    def test_is_no_question_for_revoked_keys(self, initial_keys):
        key = lifecycle.revoke(key_of(SIG, "future").kid).key
        Key.objects.filter(pk=key.pk).update(public_jwk={}, sealed_private_jwk="junk")

        assert look().altered == frozenset()
        assert look().shut == {}

    def test_a_bad_setting_is_its_own_error(self, initial_keys):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": []}), pytest.raises(ConfigError):
            look()


class TestWithoutKeys:
    def test_there_is_nothing_to_say(self):
        assert look() == health.KeyHealth(derived=True)


class TestWhichKeysStayShut:
    def test_is_told_for_all_of_them(self, initial_keys):
        Key.objects.filter(use=SIG).update(sealed_private_jwk="junk")
        errors = provision.undecryptable(Key.objects.all())

        assert {kid: error.code for kid, error in errors.items()} == {
            key.kid: "kek_missing" for key in Key.objects.filter(use=SIG)
        }

    def test_leaves_public_halves_alone_out_of_it(self, initial_keys):
        Key.objects.all().update(sealed_private_jwk="")

        assert provision.undecryptable(Key.objects.all()) == {}
