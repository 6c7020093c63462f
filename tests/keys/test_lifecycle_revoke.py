"""Tests for `revoke`: its effects on the revoked key, on the future key, and on the tokens of the revoked key."""

from __future__ import annotations

import pytest

from instaccess.exceptions import KeyUnavailable
from instaccess.keys import lifecycle, ring
from instaccess.models import IssuedToken, Key
from instaccess.tokens import AFTERLIFE
from tests.keys.helpers import BOTH_USES, ENC, HOUR, SECOND, SIG, START, accepted, key_of, kids, public_pem, rows
from tests.support import key_texts

pytestmark = pytest.mark.django_db


@pytest.mark.usefixtures("started")
class TestRevokeTheCurrentKey:
    @BOTH_USES
    def test_revoking_the_current_key_makes_the_future_key_current_and_generates_a_new_future_key(self, use):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        done = lifecycle.revoke(current)

        assert kids(use, "revoked") == [current]
        assert kids(use, "current") == [future] == [done.successor.kid]
        assert kids(use, "future") == [done.generated.kid]

    @BOTH_USES
    def test_revoking_the_current_key_generates_a_new_current_key_if_there_is_no_future_key(self, use):
        key_of(use, "future").delete()
        done = lifecycle.revoke(key_of(use, "current").kid)

        assert kids(use, "current") == [done.successor.kid]
        assert kids(use, "future") == [done.generated.kid]

    @BOTH_USES
    def test_k10_the_private_key_of_a_revoked_key_is_erased(self, use):
        key = lifecycle.revoke(key_of(use, "current").kid).key

        assert key.sealed_private_jwk == ""
        assert Key.objects.get(pk=key.pk).sealed_private_jwk == ""
        assert Key.objects.get(pk=key.pk).revoked_at == START

    @BOTH_USES
    def test_k10_the_process_that_revokes_a_key_refuses_the_tokens_of_the_key_immediately(self, use, issue):
        _, before = issue()
        assert accepted(before)
        lifecycle.revoke(key_of(use, "current").kid)

        assert not accepted(before)
        assert accepted(issue()[1])

    def test_k10_a_revoked_key_is_removed_from_the_jwks(self, client):
        current = key_of(SIG, "current").kid
        lifecycle.revoke(current)

        assert current not in [key["kid"] for key in client.get("/internal/services/jwks").json()["keys"]]

    def test_revoke_generates_no_key_if_the_public_key_of_a_gateway_is_revoked(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        public = lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.generated) == (None, None)
        assert kids(ENC, "revoked") == [public.kid]
        with pytest.raises(KeyUnavailable):
            ring.current_ring().encryption_key()

    def test_a_key_pair_generated_earlier_does_not_replace_the_public_key_of_a_gateway(self, rsa_pool, caplog):
        generated = key_of(ENC, "future")
        public = lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.generated) == (None, None)
        assert kids(ENC, "future") == [generated.kid]
        skipped = f"future encryption key {generated.kid} was skipped, because the gateway may lack its private key"
        assert skipped in caplog.text

    def test_revoke_generates_no_future_key_if_the_public_key_of_a_gateway_becomes_current(self, rsa_pool):
        key_of(ENC, "future").delete()
        gateways = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(key_of(ENC, "current").kid)

        assert (done.successor, done.generated) == (gateways, None)
        assert kids(ENC, "future") == []

    def test_revoking_the_public_key_of_a_gateway_makes_its_next_public_key_current(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        public = lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        following = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(public.kid)

        assert done.successor == following
        assert done.generated is None

    def test_a_public_signing_key_does_not_become_current_after_a_revocation(self, rsa_pool):
        key_of(SIG, "future").delete()
        key_texts.import_key(public_pem(rsa_pool), use=SIG)
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.successor.has_private
        assert done.generated.has_private


@pytest.mark.usefixtures("started")
class TestRevokeAnotherKey:
    @BOTH_USES
    def test_revoking_a_future_key_keeps_the_current_key_and_generates_a_new_future_key(self, use):
        current = key_of(use, "current").kid
        done = lifecycle.revoke(key_of(use, "future").kid)

        assert done.successor is None
        assert kids(use, "current") == [current]
        assert kids(use, "future") == [done.generated.kid]

    @BOTH_USES
    def test_revoking_a_past_key_changes_no_other_key(self, use):
        past = lifecycle.rotate(use, force=True).retired.kid
        others = list(Key.objects.exclude(kid=past).order_by("pk").values())
        done = lifecycle.revoke(past)

        assert (done.successor, done.generated) == (None, None)
        assert list(Key.objects.exclude(kid=past).order_by("pk").values()) == others
        assert kids(use, "revoked") == [past]

    def test_revoking_a_past_key_refuses_only_the_tokens_of_the_revoked_key(self, issue):
        _, old = issue()
        past = lifecycle.rotate(SIG, force=True).retired.kid
        _, young = issue()
        lifecycle.revoke(past)

        assert not accepted(old)
        assert accepted(young)

    def test_revoking_a_public_key_generates_no_key(self, rsa_pool):
        public = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        before = Key.objects.count()
        done = lifecycle.revoke(public.kid)

        assert (done.successor, done.generated) == (None, None)
        assert Key.objects.count() == before

    def test_revoke_refuses_an_unknown_key(self):
        with pytest.raises(KeyUnavailable, match="there is no key 'nothing-like-it'"):
            lifecycle.revoke("nothing-like-it")


@pytest.mark.usefixtures("started")
class TestTheTokensOfARevokedKey:
    @BOTH_USES
    def test_live_tokens_of_a_revoked_key_are_marked_as_revoked_with_time_reason_and_operator(
        self, use, issue, user, clock
    ):
        row, _ = issue()
        clock.shift(10)
        done = lifecycle.revoke(key_of(use, "current").kid, reason="laptop stolen", by=user)
        row.refresh_from_db()

        assert done.tokens == 1
        assert (row.revoked_at, row.revoked_by) == (START + 10 * SECOND, user.username)
        assert row.revocation_reason == "laptop stolen"

    def test_expired_tokens_of_a_revoked_key_are_marked_as_revoked_while_a_gateway_may_accept_them(
        self, issue, clock
    ):
        expired, _ = issue()
        clock.shift(AFTERLIFE * SECOND)
        # A gateway with a larger leeway or a slow clock may accept this token, although the token has expired.
        expiring, _ = issue()
        clock.shift(HOUR)
        live, _ = issue()
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.tokens == 2
        assert set(IssuedToken.objects.exclude(revoked_at=None)) == {expiring, live}
        assert expired not in IssuedToken.objects.exclude(revoked_at=None)

    def test_tokens_of_a_key_that_was_revoked_earlier_do_not_get_the_reason_of_a_later_revocation(self, issue, user):
        other = key_of(SIG, "current").kid
        lifecycle.revoke(other)
        row, _ = issue()
        # Simulate a worker with cached keys that issues a token after the first revocation.
        IssuedToken.objects.filter(pk=row.pk).update(signing_kid=other)
        lifecycle.revoke(key_of(SIG, "current").kid, reason="laptop of Bob", by=user)
        row.refresh_from_db()

        assert row.revocation_reason != "laptop of Bob"

    def test_tokens_revoked_earlier_keep_their_reason_when_their_key_is_revoked(self, issue, user):
        row, _ = issue()
        IssuedToken.objects.update(revoked_at=START, revocation_reason="left the school")
        done = lifecycle.revoke(key_of(SIG, "current").kid, reason="laptop stolen", by=user)
        row.refresh_from_db()

        assert done.tokens == 0
        assert (row.revocation_reason, row.revoked_by) == ("left the school", "")

    def test_revoking_a_key_does_not_mark_tokens_of_other_keys_as_revoked(self, issue):
        issue()
        lifecycle.rotate(SIG, force=True)
        other, _ = issue()
        lifecycle.revoke(key_of(SIG, "past").kid)
        other.refresh_from_db()

        assert other.revoked_at is None

    def test_tokens_of_a_key_that_is_revoked_without_a_reason_get_a_default_reason(self, issue):
        row, _ = issue()
        lifecycle.revoke(key_of(SIG, "current").kid)
        row.refresh_from_db()

        assert row.revocation_reason == "the key of the token was revoked"

    def test_revoke_truncates_a_reason_that_is_too_long(self, issue):
        row, _ = issue()
        lifecycle.revoke(key_of(SIG, "current").kid, reason="x" * 300)
        row.refresh_from_db()

        assert row.revocation_reason == "x" * 255

    @BOTH_USES
    def test_tokens_issued_after_the_revocation_of_their_key_are_marked_as_revoked_at_the_next_rotation(
        self, use, issue, clock
    ):
        late_row, _ = issue()
        lifecycle.revoke(key_of(use, "current").kid)
        IssuedToken.objects.update(revoked_at=None, revocation_reason="")
        clock.shift(60)
        lifecycle.rotate(SIG)
        late_row.refresh_from_db()

        assert late_row.revoked_at == START + 60 * SECOND
        assert late_row.revocation_reason == "the key of the token was revoked"


@pytest.mark.usefixtures("started")
class TestRevokeTwice:
    def test_a_second_revocation_of_a_key_changes_no_key(self):
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid)
        before = rows()
        done = lifecycle.revoke(kid)

        assert rows() == before
        assert (done.successor, done.generated, done.tokens) == (None, None, 0)

    def test_a_second_revocation_of_a_key_revokes_tokens_that_were_issued_since_the_first_revocation(self, issue):
        kid = key_of(SIG, "current").kid
        late_row, _ = issue()
        lifecycle.revoke(kid)
        IssuedToken.objects.update(revoked_at=None, revocation_reason="")

        assert lifecycle.revoke(kid, reason="laptop stolen").tokens == 1
        late_row.refresh_from_db()
        assert late_row.revocation_reason == "laptop stolen"
