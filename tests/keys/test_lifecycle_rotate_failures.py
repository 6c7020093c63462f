"""Tests of rotations with undecryptable keys, with past keys without live tokens, and with failing statements."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from instaccess.conf import KeyEncryptionKey, conf
from instaccess.exceptions import UnsealError
from instaccess.keys import lifecycle, sealing, store
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, DAY, SECOND, SIG, START, key_of, kids, rows

pytestmark = pytest.mark.django_db


def damage(key: Key) -> None:
    """Change one character of the sealed private key."""
    middle = len(key.sealed_private_jwk) // 2
    flipped = "A" if key.sealed_private_jwk[middle] != "A" else "B"
    text = key.sealed_private_jwk[:middle] + flipped + key.sealed_private_jwk[middle + 1 :]
    Key.objects.filter(pk=key.pk).update(sealed_private_jwk=text)


@pytest.mark.usefixtures("started")
class TestAFutureKeyThatCannotBeUnsealed:
    @BOTH_USES
    @pytest.mark.parametrize("force", [False, True])
    def test_k7_an_undecryptable_future_key_does_not_become_current_in_a_rotation(self, use, force, clock):
        damage(key_of(use, "future"))
        clock.shift(30 * DAY)
        before = rows()

        with pytest.raises(UnsealError):
            lifecycle.rotate(use, force=force)
        assert rows() == before

    @BOTH_USES
    def test_k7_an_undecryptable_future_key_cannot_be_activated(self, use):
        damage(key_of(use, "future"))
        before = rows()

        with pytest.raises(UnsealError):
            lifecycle.activate(key_of(use, "future").kid, force=True)
        assert rows() == before

    @BOTH_USES
    def test_k7_an_undecryptable_future_key_is_skipped_when_the_current_key_is_revoked(self, use, caplog):
        undecryptable = key_of(use, "future")
        damage(undecryptable)
        done = lifecycle.revoke(key_of(use, "current").kid)

        assert done.successor.kid != undecryptable.kid
        assert kids(use, "current") == [done.successor.kid]
        problem = f"seal_broken: the sealed private key of key {undecryptable.kid}"
        assert f"a future key was skipped: {problem}" in caplog.text

    def test_rotate_succeeds_after_the_undecryptable_future_key_was_revoked(self, clock):
        damage(key_of(SIG, "future"))
        done = lifecycle.revoke(key_of(SIG, "future").kid)
        clock.shift(30 * DAY)

        assert lifecycle.rotate(SIG).activated == done.generated


@pytest.mark.usefixtures("started")
class TestACurrentKeyThatCannotBeUnsealed:
    @BOTH_USES
    def test_k7_current_key_with_a_damaged_private_key_is_replaced_at_the_next_rotation(self, use, clock):
        damaged, future = key_of(use, "current"), key_of(use, "future")
        damage(damaged)
        clock.shift(30 * DAY)

        assert (lifecycle.rotate(use).activated, kids(use, "past")) == (future, [damaged.kid])

    @BOTH_USES
    @pytest.mark.parametrize("force", [False, True])
    def test_o6_current_key_that_is_sealed_with_a_lost_key_encryption_key_is_not_replaced(self, use, force, clock):
        current, lost = key_of(use, "current"), KeyEncryptionKey(bytes(32))
        private = sealing.unseal(current.sealed_private_jwk, kid=current.kid, use=use, keks=conf.key_encryption_keys)
        sealed = sealing.seal(private, kid=current.kid, use=use, keks=[lost])
        Key.objects.filter(pk=current.pk).update(sealed_private_jwk=sealed)
        clock.shift(30 * DAY)
        before = rows()

        with pytest.raises(UnsealError, match="KEY_ENCRYPTION_KEYS") as caught:
            lifecycle.rotate(use, force=force)
        assert caught.value.code == "kek_missing"
        assert rows() == before

    @BOTH_USES
    @pytest.mark.parametrize("force", [False, True])
    def test_o6_rotation_changes_no_key_if_the_key_encryption_key_is_lost(self, use, force, clock, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        clock.shift(30 * DAY)
        before = rows()

        with pytest.raises(UnsealError, match="KEY_ENCRYPTION_KEYS"):
            lifecycle.rotate(use, force=force)
        assert rows() == before


@pytest.mark.usefixtures("started")
class TestThePrivateKeyOfAPastKey:
    @BOTH_USES
    def test_k12_rotate_erases_a_private_key_once_its_last_token_has_expired(self, use, clock):
        past = lifecycle.rotate(use, force=True).retired
        clock.shift(SECOND * (conf.key_retention_seconds - 1))
        assert lifecycle.rotate(use).erased == ()
        assert Key.objects.get(pk=past.pk).has_private

        clock.shift(1)
        assert lifecycle.rotate(use).erased == (past,)
        assert Key.objects.get(pk=past.pk).sealed_private_jwk == ""

    def test_k12_the_public_key_and_the_times_of_an_erased_key_are_kept(self, clock):
        past = lifecycle.rotate(SIG, force=True).retired
        clock.shift(DAY)
        lifecycle.rotate(SIG)
        row = Key.objects.get(pk=past.pk)

        assert row.public_jwk == past.public_jwk
        assert (row.status, row.retired_at) == ("past", START)


@pytest.mark.usefixtures("started")
class TestARotationThatFailsHalfway:
    def test_o5_a_rotation_whose_last_statement_fails_changes_no_key(self, clock):
        """Let the database refuse the last statement. The transaction must then undo the earlier statements."""
        clock.shift(30 * DAY)
        before = rows()

        def refuse_inserts(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("INSERT") and "instaccess_key" in sql:
                sql = "SELECT no_such_column FROM instaccess_key WHERE %s = %s"
                params = (1, 1)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(refuse_inserts), pytest.raises(Exception, match="no_such_column"):
            lifecycle.rotate(SIG)
        assert rows() == before
        assert lifecycle.rotate(SIG).activated is not None


class TestTheUniqueConstraintOfTheDatabase:
    @BOTH_USES
    def test_k1_the_database_refuses_a_second_current_key_of_the_same_use(self, use, initial_keys, rsa_pool):
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"), store.locked():
            store.store(rsa_pool.take(), use=use, status=Key.Status.CURRENT, now=START)
        assert len(kids(use, "current")) == 1
