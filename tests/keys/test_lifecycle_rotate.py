"""One key follows another: what `rotate` does, refuses and leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from instaccess import trust
from instaccess.conf import conf
from instaccess.exceptions import KeyUnavailable, UnsealError
from instaccess.keys import lifecycle, provision, store
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, DAY, ENC, SECOND, SIG, START, accepted, key_of, kids, public_pem, rows

pytestmark = pytest.mark.django_db


def damage(key: Key) -> None:
    """Change one character of the sealed private half."""
    middle = len(key.sealed_private_jwk) // 2
    flipped = "A" if key.sealed_private_jwk[middle] != "A" else "B"
    text = key.sealed_private_jwk[:middle] + flipped + key.sealed_private_jwk[middle + 1 :]
    Key.objects.filter(pk=key.pk).update(sealed_private_jwk=text)


@pytest.mark.usefixtures("started")
class TestRotateWhenItIsNotDue:
    @BOTH_USES
    def test_k2_changes_nothing(self, use, clock):
        before = rows()
        clock.shift(30 * DAY - SECOND)
        done = lifecycle.rotate(use)

        assert rows() == before
        assert (done.retired, done.activated, done.generated, done.erased, done.lost_race) == (
            None,
            None,
            None,
            (),
            False,
        )

    def test_k2_says_when_it_may_happen(self, clock):
        clock.shift(DAY)

        assert lifecycle.rotate(SIG).next_due == START + 30 * DAY

    @BOTH_USES
    def test_k2_happens_by_force(self, use, clock):
        current, future = key_of(use, "current"), key_of(use, "future")
        clock.shift(SECOND)
        done = lifecycle.rotate(use, force=True)

        assert (done.retired, done.activated) == (current, future)
        assert done.next_due == START + SECOND + 30 * DAY

    def test_makes_the_future_key_that_is_missing(self, clock):
        key_of(SIG, "future").delete()
        done = lifecycle.rotate(SIG)

        assert done.generated == key_of(SIG, "future")
        assert done.activated is None


@pytest.mark.usefixtures("started")
class TestRotateWhenItIsDue:
    @pytest.fixture(autouse=True)
    def due(self, started, clock):
        clock.shift(30 * DAY)

    @BOTH_USES
    def test_the_future_key_takes_over_and_the_current_one_is_past(self, use):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        lifecycle.rotate(use)

        assert kids(use, "current") == [future]
        assert kids(use, "past") == [current]

    @BOTH_USES
    def test_a_new_future_key_is_made_sealed_and_published_ahead(self, use):
        done = lifecycle.rotate(use)

        assert kids(use, "future") == [done.generated.kid]
        assert done.generated.has_private
        assert done.generated.created_at == START + 30 * DAY

    def test_the_rows_say_when(self):
        lifecycle.rotate(SIG)

        assert key_of(SIG, "current").activated_at == START + 30 * DAY
        assert key_of(SIG, "past").retired_at == START + 30 * DAY

    def test_the_other_use_is_left_alone(self):
        before = list(Key.objects.filter(use=ENC).order_by("pk").values())
        lifecycle.rotate(SIG)

        assert list(Key.objects.filter(use=ENC).order_by("pk").values()) == before

    def test_a_second_time_at_once_does_nothing(self):
        lifecycle.rotate(SIG)
        before = rows()
        done = lifecycle.rotate(SIG)

        assert rows() == before
        assert done.activated is None

    def test_this_process_issues_under_the_new_key_at_once(self, issue, clock):
        assert issue()[0].signing_kid == key_of(SIG, "current").kid
        future = key_of(SIG, "future").kid
        lifecycle.rotate(SIG)

        assert issue()[0].signing_kid == future

    @BOTH_USES
    def test_tokens_under_the_retired_key_are_still_accepted(self, use, issue):
        _, token = issue()
        lifecycle.rotate(use)

        assert accepted(token)

    def test_a_key_made_long_after_the_call_began_counts_its_lead_time_from_then(self, monkeypatch, rsa_pool, clock):
        """Large keys take seconds to make: nobody could see the key before."""

        def slow(use: str) -> Any:
            clock.shift(20)
            return rsa_pool.take(use)

        monkeypatch.setattr(trust, "generate_jwk", slow)

        assert lifecycle.rotate(SIG).generated.created_at == START + 30 * DAY + 20 * SECOND


@pytest.mark.usefixtures("started")
class TestRotateAskedForACertainCurrentKey:
    def test_rotates_while_it_is_current(self):
        current = key_of(SIG, "current").kid

        assert lifecycle.rotate(SIG, force=True, expected_current=current).activated is not None

    def test_a7_does_nothing_once_it_is_not(self):
        current = key_of(SIG, "current").kid
        lifecycle.rotate(SIG, force=True, expected_current=current)
        before = rows()
        done = lifecycle.rotate(SIG, force=True, expected_current=current)

        assert done.lost_race
        assert done.activated is None
        assert rows() == before

    def test_k1_who_loses_the_race_while_making_its_key_changes_nothing(self, monkeypatch, rsa_pool):
        """The other one rotates after our decision and before our lock."""
        started: list[str] = []

        def generate(use: str) -> Any:
            if not started:
                started.append(use)
                lifecycle.rotate(SIG, force=True)
            return rsa_pool.take(use)

        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        monkeypatch.setattr(trust, "generate_jwk", generate)
        done = lifecycle.rotate(SIG, force=True)

        assert done.lost_race
        assert (done.retired, done.activated, done.generated) == (None, None, None)
        assert kids(SIG, "current") == [future]
        assert kids(SIG, "past") == [current]
        assert len(kids(SIG, "future")) == 1

    def test_who_finds_the_missing_future_key_made_meanwhile_makes_no_second(self, monkeypatch, rsa_pool):
        key_of(SIG, "future").delete()
        started: list[str] = []

        def generate(use: str) -> Any:
            if not started:
                started.append(use)
                lifecycle.rotate(SIG)
            return rsa_pool.take(use)

        monkeypatch.setattr(trust, "generate_jwk", generate)
        done = lifecycle.rotate(SIG)

        assert done.generated is None
        assert len(kids(SIG, "future")) == 1


@pytest.mark.usefixtures("started")
class TestRotateByForceWithoutAFutureKey:
    @BOTH_USES
    def test_makes_one_that_takes_over_and_one_for_the_future(self, use):
        key_of(use, "future").delete()
        done = lifecycle.rotate(use, force=True)

        assert kids(use, "current") == [done.activated.kid]
        assert kids(use, "future") == [done.generated.kid]
        assert kids(use, "past") == [done.retired.kid]

    def test_does_so_beside_a_public_signing_key_that_could_never_sign(self, rsa_pool):
        key_of(SIG, "future").delete()
        public = provision.import_key(public_pem(rsa_pool), use=SIG)
        done = lifecycle.rotate(SIG, force=True)

        assert done.activated is not None
        assert kids(SIG, "current") == [done.activated.kid]
        assert kids(SIG, "future") == sorted([public.kid, done.generated.kid])

    def test_is_refused_where_only_the_public_encryption_key_is_held(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        lifecycle.activate(provision.import_key(public_pem(rsa_pool), use=ENC).kid)
        before = rows()

        with pytest.raises(KeyUnavailable, match="import the next public key") as caught:
            lifecycle.rotate(ENC, force=True)
        assert "instaccess_keys import --use enc" in caught.value.detail
        assert rows() == before


class TestRotateWithoutACurrentKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_k8_makes_none_up_and_names_the_command(self, force):
        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            lifecycle.rotate(SIG, force=force)
        assert not Key.objects.exists()


@pytest.mark.usefixtures("started")
class TestAFutureKeyThatDoesNotOpen:
    @BOTH_USES
    @pytest.mark.parametrize("force", [False, True])
    def test_k7_never_becomes_current_by_rotation(self, use, force, clock):
        damage(key_of(use, "future"))
        clock.shift(30 * DAY)
        before = rows()

        with pytest.raises(UnsealError):
            lifecycle.rotate(use, force=force)
        assert rows() == before

    @BOTH_USES
    def test_k7_is_not_activated_either(self, use):
        damage(key_of(use, "future"))
        before = rows()

        with pytest.raises(UnsealError):
            lifecycle.activate(key_of(use, "future").kid, force=True)
        assert rows() == before

    @BOTH_USES
    def test_k7_is_passed_over_when_the_current_key_is_revoked(self, use, caplog):
        broken = key_of(use, "future")
        damage(broken)
        done = lifecycle.revoke(key_of(use, "current").kid)

        assert done.successor.kid != broken.kid
        assert kids(use, "current") == [done.successor.kid]
        assert f"future key skipped: seal_broken: the sealed private key of key {broken.kid}" in caplog.text

    def test_once_revoked_lets_rotation_go_on(self, clock):
        damage(key_of(SIG, "future"))
        done = lifecycle.revoke(key_of(SIG, "future").kid)
        clock.shift(30 * DAY)

        assert lifecycle.rotate(SIG).activated == done.generated


@pytest.mark.usefixtures("started")
class TestAPrivateHalf:
    @BOTH_USES
    def test_k12_stays_with_a_past_key_until_its_last_token_is_dead_and_goes_at_the_next_rotate(self, use, clock):
        past = lifecycle.rotate(use, force=True).retired
        clock.shift(SECOND * (conf.key_retention_seconds - 1))
        assert lifecycle.rotate(use).erased == ()
        assert Key.objects.get(pk=past.pk).has_private

        clock.shift(1)
        assert lifecycle.rotate(use).erased == (past,)
        assert Key.objects.get(pk=past.pk).sealed_private_jwk == ""

    def test_k12_that_was_erased_leaves_the_public_half_and_the_history(self, clock):
        past = lifecycle.rotate(SIG, force=True).retired
        clock.shift(DAY)
        lifecycle.rotate(SIG)
        row = Key.objects.get(pk=past.pk)

        assert row.public_jwk == past.public_jwk
        assert (row.status, row.retired_at) == ("past", START)


@pytest.mark.usefixtures("started")
class TestAChangeThatFailsHalfway:
    def test_o5_leaves_the_keys_as_they_were(self, clock):
        """The database refuses the last of the writes: the first ones are taken back with it."""
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


class TestTheDatabaseItself:
    @BOTH_USES
    def test_k1_refuses_a_second_current_key_of_one_use(self, use, initial_keys, rsa_pool):
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"), store.locked():
            store.store(rsa_pool.take(), use=use, status=Key.Status.CURRENT, now=START)
        assert len(kids(use, "current")) == 1
