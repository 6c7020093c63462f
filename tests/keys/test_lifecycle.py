"""One key follows another: what rotate, activate and revoke do, refuse, and leave alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from instaccess import issuer, jose, keymaterial, keyring, keys, keystore, lifecycle
from instaccess.claims import AFTERLIFE
from instaccess.conf import conf
from instaccess.exceptions import InvalidToken, KeyRefused, KeyUnavailable, UnsealError
from instaccess.models import IssuedToken, Key

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
BOTH_USES = pytest.mark.parametrize("use", [SIG, ENC])


@pytest.fixture
def clock() -> Any:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def started(clock: Any, db: None) -> None:
    """A deployment just begun, with a future key for both uses."""
    keys.init()
    keys.generate(ENC)


@pytest.fixture
def issue(user: Any) -> Callable[[], tuple[IssuedToken, str]]:
    return lambda: issuer.issue(user=user, origin=issuer.Origin("canvas.example.edu"), now=time.time())


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


def kids(use: Key.Use, status: str) -> list[str]:
    return sorted(Key.objects.filter(use=use, status=status).values_list("kid", flat=True))


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def public_pem(rsa_pool: Any) -> str:
    return keymaterial.to_text(rsa_pool.take(), file_format="pem", private=False)


def damage(key: Key) -> None:
    """Change one character of the sealed private half."""
    middle = len(key.sealed_private_jwk) // 2
    flipped = "A" if key.sealed_private_jwk[middle] != "A" else "B"
    text = key.sealed_private_jwk[:middle] + flipped + key.sealed_private_jwk[middle + 1 :]
    Key.objects.filter(pk=key.pk).update(sealed_private_jwk=text)


def accepted(token: str) -> bool:
    ring = keyring.load()
    try:
        signed, _ = jose.decrypt(token, ring.decryption_keys())
        jose.verify(signed, ring.verification_keys())
    except InvalidToken:
        return False
    return True


@pytest.mark.usefixtures("started")
class TestRotateWhenItIsNotDue:
    @BOTH_USES
    def test_k2_changes_nothing(self, use, clock):
        before = rows()
        clock.shift(30 * DAY - SECOND)
        done = lifecycle.rotate(use)

        assert rows() == before
        assert (done.retired, done.activated, done.made, done.erased, done.lost_race) == (None, None, None, (), False)

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

        assert done.made == key_of(SIG, "future")
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

        assert kids(use, "future") == [done.made.kid]
        assert done.made.has_private
        assert done.made.created_at == START + 30 * DAY

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

        monkeypatch.setattr(keymaterial, "generate_jwk", slow)

        assert lifecycle.rotate(SIG).made.created_at == START + 30 * DAY + 20 * SECOND


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
        monkeypatch.setattr(keymaterial, "generate_jwk", generate)
        done = lifecycle.rotate(SIG, force=True)

        assert done.lost_race
        assert (done.retired, done.activated, done.made) == (None, None, None)
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

        monkeypatch.setattr(keymaterial, "generate_jwk", generate)
        done = lifecycle.rotate(SIG)

        assert done.made is None
        assert len(kids(SIG, "future")) == 1


@pytest.mark.usefixtures("started")
class TestRotateByForceWithoutAFutureKey:
    @BOTH_USES
    def test_makes_one_that_takes_over_and_one_for_the_future(self, use):
        key_of(use, "future").delete()
        done = lifecycle.rotate(use, force=True)

        assert kids(use, "current") == [done.activated.kid]
        assert kids(use, "future") == [done.made.kid]
        assert kids(use, "past") == [done.retired.kid]

    def test_does_so_beside_a_public_signing_key_that_could_never_sign(self, rsa_pool):
        key_of(SIG, "future").delete()
        public = keys.import_key(public_pem(rsa_pool), use=SIG)
        done = lifecycle.rotate(SIG, force=True)

        assert done.activated is not None
        assert kids(SIG, "current") == [done.activated.kid]
        assert kids(SIG, "future") == sorted([public.kid, done.made.kid])

    def test_is_refused_where_only_the_public_encryption_key_is_held(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        lifecycle.activate(keys.import_key(public_pem(rsa_pool), use=ENC).kid)
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
        assert f"future key passed over: seal_broken: the sealed private half of key {broken.kid}" in caplog.text

    def test_once_revoked_lets_rotation_go_on(self, clock):
        damage(key_of(SIG, "future"))
        done = lifecycle.revoke(key_of(SIG, "future").kid)
        clock.shift(30 * DAY)

        assert lifecycle.rotate(SIG).activated == done.made


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
class TestActivate:
    @BOTH_USES
    def test_makes_a_future_key_current_and_the_one_before_past(self, use, clock):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        clock.shift(SECOND * conf.key_lead_seconds)
        key = lifecycle.activate(future)

        assert (key.kid, key.status) == (future, "current")
        assert (kids(use, "current"), kids(use, "past")) == ([future], [current])

    def test_k4_is_refused_before_the_lead_time_is_over_and_says_when(self, clock):
        clock.shift(SECOND * (conf.key_lead_seconds - 1))
        before = rows()

        with pytest.raises(KeyRefused, match=r"may be used from 2026-11-23 12:05:03 UTC on.*--force"):
            lifecycle.activate(key_of(SIG, "future").kid)
        assert rows() == before

    def test_k4_may_be_forced(self):
        future = key_of(SIG, "future").kid

        assert lifecycle.activate(future, force=True).kid == future

    @pytest.mark.parametrize("status", ["current", "past", "revoked"])
    def test_is_for_future_keys_only(self, status):
        if status == "past":
            lifecycle.rotate(SIG, force=True)
        if status == "revoked":
            lifecycle.revoke(key_of(SIG, "future").kid)
        before = rows()

        with pytest.raises(KeyRefused, match=f"is {status}; only a future key"):
            lifecycle.activate(key_of(SIG, status).kid, force=True)
        assert rows() == before

    def test_of_a_public_signing_key_is_refused_for_it_cannot_sign(self, rsa_pool):
        public = keys.import_key(public_pem(rsa_pool), use=SIG)

        with pytest.raises(KeyRefused, match="cannot sign"):
            lifecycle.activate(public.kid, force=True)

    def test_of_a_public_encryption_key_needs_no_lead_time(self, rsa_pool, issue):
        """The provider as Canvas runs it: the gateway's private half never was here."""
        public = keys.import_key(public_pem(rsa_pool), use=ENC)
        lifecycle.activate(public.kid)

        row, token = issue()
        assert row.encryption_kid == public.kid
        assert token.count(".") == 4

    def test_of_the_first_key_needs_no_lead_time(self, rsa_pool):
        Key.objects.all().delete()

        assert lifecycle.activate(keys.generate(SIG).kid).status == "current"

    def test_of_an_unknown_key_is_refused(self):
        with pytest.raises(KeyUnavailable, match="there is no key 'nothing-like-it'"):
            lifecycle.activate("nothing-like-it")

    def test_takes_the_beginning_of_a_kid(self):
        future = key_of(SIG, "future").kid

        assert lifecycle.activate(future[:6], force=True).kid == future


@pytest.mark.usefixtures("started")
class TestRevokeTheCurrentKey:
    @BOTH_USES
    def test_the_future_key_takes_over_and_a_new_future_key_is_made(self, use):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        done = lifecycle.revoke(current)

        assert kids(use, "revoked") == [current]
        assert kids(use, "current") == [future] == [done.successor.kid]
        assert kids(use, "future") == [done.made.kid]

    @BOTH_USES
    def test_a_new_one_takes_over_where_there_is_no_future_key(self, use):
        key_of(use, "future").delete()
        done = lifecycle.revoke(key_of(use, "current").kid)

        assert kids(use, "current") == [done.successor.kid]
        assert kids(use, "future") == [done.made.kid]

    @BOTH_USES
    def test_k10_its_private_half_is_erased(self, use):
        key = lifecycle.revoke(key_of(use, "current").kid).key

        assert key.sealed_private_jwk == ""
        assert Key.objects.get(pk=key.pk).sealed_private_jwk == ""
        assert Key.objects.get(pk=key.pk).revoked_at == START

    @BOTH_USES
    def test_k10_its_tokens_are_refused_and_new_ones_accepted_in_this_process_at_once(self, use, issue):
        _, before = issue()
        assert accepted(before)
        lifecycle.revoke(key_of(use, "current").kid)

        assert not accepted(before)
        assert accepted(issue()[1])

    def test_k10_it_is_out_of_the_jwks(self, client):
        current = key_of(SIG, "current").kid
        lifecycle.revoke(current)

        assert current not in [key["kid"] for key in client.get("/internal/services/jwks").json()["keys"]]

    def test_no_pair_of_ours_takes_over_from_the_gateways_public_key(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        public = lifecycle.activate(keys.import_key(public_pem(rsa_pool), use=ENC).kid)
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.made) == (None, None)
        assert kids(ENC, "revoked") == [public.kid]
        with pytest.raises(KeyUnavailable):
            keyring.current().encryption_key()

    def test_nor_does_one_that_was_made_before_that_key_came(self, rsa_pool, caplog):
        made = key_of(ENC, "future")
        public = lifecycle.activate(keys.import_key(public_pem(rsa_pool), use=ENC).kid)
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.made) == (None, None)
        assert kids(ENC, "future") == [made.kid]
        assert f"future key {made.kid} passed over" in caplog.text

    def test_nor_is_one_made_where_only_the_gateways_waits(self, rsa_pool):
        key_of(ENC, "future").delete()
        gateways = keys.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(key_of(ENC, "current").kid)

        assert (done.successor, done.made) == (gateways, None)
        assert kids(ENC, "future") == []

    def test_the_gateways_next_public_key_takes_over_from_its_first(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        public = lifecycle.activate(keys.import_key(public_pem(rsa_pool), use=ENC).kid)
        following = keys.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(public.kid)

        assert done.successor == following
        assert done.made is None

    def test_a_public_signing_key_does_not_count_as_a_future_one(self, rsa_pool):
        key_of(SIG, "future").delete()
        keys.import_key(public_pem(rsa_pool), use=SIG)
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.successor.has_private
        assert done.made.has_private


@pytest.mark.usefixtures("started")
class TestRevokeAnotherKey:
    @BOTH_USES
    def test_of_the_future_the_current_one_stays_and_a_new_future_key_is_made(self, use):
        current = key_of(use, "current").kid
        done = lifecycle.revoke(key_of(use, "future").kid)

        assert done.successor is None
        assert kids(use, "current") == [current]
        assert kids(use, "future") == [done.made.kid]

    @BOTH_USES
    def test_of_the_past_nothing_else_changes(self, use):
        past = lifecycle.rotate(use, force=True).retired.kid
        others = list(Key.objects.exclude(kid=past).order_by("pk").values())
        done = lifecycle.revoke(past)

        assert (done.successor, done.made) == (None, None)
        assert list(Key.objects.exclude(kid=past).order_by("pk").values()) == others
        assert kids(use, "revoked") == [past]

    def test_of_the_past_its_tokens_are_refused_and_those_under_the_current_one_are_not(self, issue):
        _, old = issue()
        past = lifecycle.rotate(SIG, force=True).retired.kid
        _, young = issue()
        lifecycle.revoke(past)

        assert not accepted(old)
        assert accepted(young)

    def test_of_which_only_the_public_half_is_held_makes_no_key(self, rsa_pool):
        public = keys.import_key(public_pem(rsa_pool), use=ENC)
        before = Key.objects.count()
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.made) == (None, None)
        assert Key.objects.count() == before

    def test_that_is_unknown_is_refused(self):
        with pytest.raises(KeyUnavailable, match="there is no key 'nothing-like-it'"):
            lifecycle.revoke("nothing-like-it")


@pytest.mark.usefixtures("started")
class TestTheTokensUnderARevokedKey:
    @BOTH_USES
    def test_are_marked_with_when_why_and_by_whom(self, use, issue, user, clock):
        row, _ = issue()
        clock.shift(10)
        done = lifecycle.revoke(key_of(use, "current").kid, reason="laptop stolen", by=user)
        row.refresh_from_db()

        assert done.tokens == 1
        assert (row.revoked_at, row.revoked_by) == (START + 10 * SECOND, user.username)
        assert row.revocation_reason == "laptop stolen"

    def test_are_marked_only_while_a_gateway_might_let_them_through(self, issue, clock):
        dead, _ = issue()
        clock.shift(AFTERLIFE * SECOND)
        # Expired for us, and not for a gateway whose leeway is larger or whose clock is slow.
        dying, _ = issue()
        clock.shift(HOUR)
        live, _ = issue()
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.tokens == 2
        assert set(IssuedToken.objects.exclude(revoked_at=None)) == {dying, live}
        assert dead not in IssuedToken.objects.exclude(revoked_at=None)

    def test_of_another_key_that_was_revoked_before_are_left_to_it(self, issue, user):
        other = key_of(SIG, "current").kid
        lifecycle.revoke(other)
        row, _ = issue()
        # A straggler: a worker that had not heard of the first revocation yet.
        IssuedToken.objects.filter(pk=row.pk).update(signing_kid=other)
        lifecycle.revoke(key_of(SIG, "current").kid, reason="laptop of Bob", by=user)
        row.refresh_from_db()

        assert row.revocation_reason != "laptop of Bob"

    def test_keep_the_reason_of_an_earlier_revocation(self, issue, user):
        row, _ = issue()
        IssuedToken.objects.update(revoked_at=START, revocation_reason="left the school")
        done = lifecycle.revoke(key_of(SIG, "current").kid, reason="laptop stolen", by=user)
        row.refresh_from_db()

        assert done.tokens == 0
        assert (row.revocation_reason, row.revoked_by) == ("left the school", "")

    def test_are_not_those_under_other_keys(self, issue):
        issue()
        lifecycle.rotate(SIG, force=True)
        other, _ = issue()
        lifecycle.revoke(key_of(SIG, "past").kid)
        other.refresh_from_db()

        assert other.revoked_at is None

    def test_have_a_reason_also_where_none_was_given(self, issue):
        row, _ = issue()
        lifecycle.revoke(key_of(SIG, "current").kid)
        row.refresh_from_db()

        assert row.revocation_reason == "its key was revoked"

    def test_a_reason_too_long_for_the_column_is_cut(self, issue):
        row, _ = issue()
        lifecycle.revoke(key_of(SIG, "current").kid, reason="x" * 300)
        row.refresh_from_db()

        assert row.revocation_reason == "x" * 255

    @BOTH_USES
    def test_that_a_worker_issued_after_the_revocation_are_marked_at_the_next_rotate(self, use, issue, clock):
        straggler, _ = issue()
        lifecycle.revoke(key_of(use, "current").kid)
        IssuedToken.objects.update(revoked_at=None, revocation_reason="")
        clock.shift(60)
        lifecycle.rotate(SIG)
        straggler.refresh_from_db()

        assert straggler.revoked_at == START + 60 * SECOND
        assert straggler.revocation_reason == "its key was revoked"


@pytest.mark.usefixtures("started")
class TestRevokeTwice:
    def test_changes_no_key(self):
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid)
        before = rows()
        done = lifecycle.revoke(kid)

        assert rows() == before
        assert (done.successor, done.made, done.tokens) == (None, None, 0)

    def test_marks_what_was_issued_in_between(self, issue):
        kid = key_of(SIG, "current").kid
        straggler, _ = issue()
        lifecycle.revoke(kid)
        IssuedToken.objects.update(revoked_at=None, revocation_reason="")

        assert lifecycle.revoke(kid, reason="laptop stolen").tokens == 1
        straggler.refresh_from_db()
        assert straggler.revocation_reason == "laptop stolen"


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
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"), keystore.locked():
            keystore.store(rsa_pool.take(), use=use, status=Key.Status.CURRENT, now=START)
        assert len(kids(use, "current")) == 1
