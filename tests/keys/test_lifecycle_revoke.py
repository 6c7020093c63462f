"""A key is revoked: what `revoke` does to it, its successor and the tokens under it."""

from __future__ import annotations

import pytest

from instaccess.exceptions import KeyUnavailable
from instaccess.keys import lifecycle, provision, ring
from instaccess.models import IssuedToken, Key
from instaccess.tokens.claims import AFTERLIFE
from tests.keys.helpers import BOTH_USES, ENC, HOUR, SECOND, SIG, START, accepted, key_of, kids, public_pem, rows

pytestmark = pytest.mark.django_db


@pytest.mark.usefixtures("started")
class TestRevokeTheCurrentKey:
    @BOTH_USES
    def test_the_future_key_takes_over_and_a_new_future_key_is_made(self, use):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        done = lifecycle.revoke(current)

        assert kids(use, "revoked") == [current]
        assert kids(use, "current") == [future] == [done.successor.kid]
        assert kids(use, "future") == [done.generated.kid]

    @BOTH_USES
    def test_a_new_one_takes_over_where_there_is_no_future_key(self, use):
        key_of(use, "future").delete()
        done = lifecycle.revoke(key_of(use, "current").kid)

        assert kids(use, "current") == [done.successor.kid]
        assert kids(use, "future") == [done.generated.kid]

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
        public = lifecycle.activate(provision.import_key(public_pem(rsa_pool), use=ENC).kid)
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.generated) == (None, None)
        assert kids(ENC, "revoked") == [public.kid]
        with pytest.raises(KeyUnavailable):
            ring.current_ring().encryption_key()

    def test_nor_does_one_that_was_made_before_that_key_came(self, rsa_pool, caplog):
        made = key_of(ENC, "future")
        public = lifecycle.activate(provision.import_key(public_pem(rsa_pool), use=ENC).kid)
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.generated) == (None, None)
        assert kids(ENC, "future") == [made.kid]
        assert f"future key {made.kid} skipped" in caplog.text

    def test_nor_is_one_made_where_only_the_gateways_waits(self, rsa_pool):
        key_of(ENC, "future").delete()
        gateways = provision.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(key_of(ENC, "current").kid)

        assert (done.successor, done.generated) == (gateways, None)
        assert kids(ENC, "future") == []

    def test_the_gateways_next_public_key_takes_over_from_its_first(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        public = lifecycle.activate(provision.import_key(public_pem(rsa_pool), use=ENC).kid)
        following = provision.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(public.kid)

        assert done.successor == following
        assert done.generated is None

    def test_a_public_signing_key_does_not_count_as_a_future_one(self, rsa_pool):
        key_of(SIG, "future").delete()
        provision.import_key(public_pem(rsa_pool), use=SIG)
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.successor.has_private
        assert done.generated.has_private


@pytest.mark.usefixtures("started")
class TestRevokeAnotherKey:
    @BOTH_USES
    def test_of_the_future_the_current_one_stays_and_a_new_future_key_is_made(self, use):
        current = key_of(use, "current").kid
        done = lifecycle.revoke(key_of(use, "future").kid)

        assert done.successor is None
        assert kids(use, "current") == [current]
        assert kids(use, "future") == [done.generated.kid]

    @BOTH_USES
    def test_of_the_past_nothing_else_changes(self, use):
        past = lifecycle.rotate(use, force=True).retired.kid
        others = list(Key.objects.exclude(kid=past).order_by("pk").values())
        done = lifecycle.revoke(past)

        assert (done.successor, done.generated) == (None, None)
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
        public = provision.import_key(public_pem(rsa_pool), use=ENC)
        before = Key.objects.count()
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.generated) == (None, None)
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
        assert (done.successor, done.generated, done.tokens) == (None, None, 0)

    def test_marks_what_was_issued_in_between(self, issue):
        kid = key_of(SIG, "current").kid
        straggler, _ = issue()
        lifecycle.revoke(kid)
        IssuedToken.objects.update(revoked_at=None, revocation_reason="")

        assert lifecycle.revoke(kid, reason="laptop stolen").tokens == 1
        straggler.refresh_from_db()
        assert straggler.revocation_reason == "laptop stolen"
