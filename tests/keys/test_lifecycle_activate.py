"""A key is made current by hand: what `activate` does, refuses and leaves alone."""

from __future__ import annotations

import pytest

from instaccess.conf import conf
from instaccess.exceptions import KeyRefused, KeyUnavailable
from instaccess.keys import lifecycle, provision
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, ENC, SECOND, SIG, key_of, kids, public_pem, rows

pytestmark = pytest.mark.django_db


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
        public = provision.import_key(public_pem(rsa_pool), use=SIG)

        with pytest.raises(KeyRefused, match="can't sign"):
            lifecycle.activate(public.kid, force=True)

    def test_of_a_public_encryption_key_needs_no_lead_time(self, rsa_pool, issue):
        """The provider as Canvas runs it: the gateway's private half never was here."""
        public = provision.import_key(public_pem(rsa_pool), use=ENC)
        lifecycle.activate(public.kid)

        row, token = issue()
        assert row.encryption_kid == public.kid
        assert token.count(".") == 4

    def test_of_the_first_key_needs_no_lead_time(self, rsa_pool):
        Key.objects.all().delete()

        assert lifecycle.activate(provision.generate(SIG).kid).status == "current"

    def test_of_an_unknown_key_is_refused(self):
        with pytest.raises(KeyUnavailable, match="there is no key 'nothing-like-it'"):
            lifecycle.activate("nothing-like-it")

    def test_takes_the_beginning_of_a_kid(self):
        future = key_of(SIG, "future").kid

        assert lifecycle.activate(future[:6], force=True).kid == future
