"""Tests of stored keys: the lock for changes, the columns of a new key, and the columns that a change writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from instaccess.keys import lifecycle, provision, store
from instaccess.models import Key, KeyLock
from tests.keys.helpers import BOTH_USES, ENC, SIG, START, key_of

pytestmark = pytest.mark.django_db

MILLISECONDS = datetime(2026, 11, 23, 12, 0, 0, 999_000, tzinfo=UTC)


class TestTheLockForKeys:
    def test_each_change_of_keys_updates_the_row_of_the_lock_and_creates_the_row_if_it_is_missing(self):
        KeyLock.objects.all().delete()

        for changes in (1, 2):
            with store.locked():
                assert list(KeyLock.objects.values_list("pk", "changes")) == [(1, changes)]
        assert list(KeyLock.objects.values_list("pk", "changes")) == [(1, 2)]


class TestANewKey:
    @pytest.mark.parametrize(("use", "alg"), [(SIG, "RS256"), (ENC, "")])
    def test_only_a_signing_key_is_stored_with_the_signing_algorithm(self, use, alg):
        kid = provision.generate(use).kid

        assert Key.objects.get(kid=kid).alg == alg


class TestTheTimesOfAKey:
    @pytest.mark.usefixtures("started")
    def test_times_of_creation_activation_retirement_and_revocation_are_rounded_down_to_milliseconds(self, clock):
        clock.move_to(START + timedelta(microseconds=999_999))
        current, future = key_of(SIG, "current"), key_of(SIG, "future")

        done = lifecycle.rotate(SIG, force=True)
        lifecycle.revoke(current.kid)

        current.refresh_from_db()
        future.refresh_from_db()
        assert (current.retired_at, current.revoked_at) == (MILLISECONDS, MILLISECONDS)
        assert future.activated_at == MILLISECONDS
        assert done.generated is not None
        assert Key.objects.get(kid=done.generated.kid).created_at == MILLISECONDS

    @pytest.mark.parametrize(("microseconds", "stored"), [(0, 0), (999, 0), (1000, 1000), (999_999, 999_000)])
    def test_time_of_creation_of_a_key_is_rounded_down_to_milliseconds_in_any_time_zone(self, microseconds, stored):
        hour = datetime(2026, 11, 23, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=45)))
        key = provision.generate(SIG, now=hour + timedelta(microseconds=microseconds))

        assert Key.objects.get(pk=key.pk).created_at == hour + timedelta(microseconds=stored)


@pytest.mark.usefixtures("started")
class TestAKeyThatIsResealedDuringAChange:
    """Tests with a reseal in another process. A reseal doesn't wait for the lock for changes."""

    @BOTH_USES
    def test_replacement_of_the_current_key_keeps_private_keys_that_were_resealed_meanwhile(self, use):
        current, future = key_of(use, "current"), key_of(use, "future")
        Key.objects.filter(use=use).update(sealed_private_jwk="resealed")

        store.succeed(current, future, START)

        assert {row.sealed_private_jwk for row in Key.objects.filter(use=use)} == {"resealed"}
        assert Key.objects.get(pk=future.pk).status == "current"
