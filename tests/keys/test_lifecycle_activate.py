"""Tests for `activate`: the changes, and the refused activations."""

from __future__ import annotations

import pytest

from instaccess.conf import conf
from instaccess.exceptions import KeyRefused, KeyUnavailable
from instaccess.keys import lifecycle, provision
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, ENC, SECOND, SIG, key_of, kids, public_pem, rows
from tests.support import key_texts

pytestmark = pytest.mark.django_db


@pytest.mark.usefixtures("started")
class TestActivate:
    @BOTH_USES
    def test_activate_makes_a_future_key_current_and_the_previous_key_past(self, use, clock):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        clock.shift(SECOND * conf.key_lead_seconds)
        key = lifecycle.activate(future)

        assert (key.kid, key.status) == (future, "current")
        assert (kids(use, "current"), kids(use, "past")) == ([future], [current])

    def test_k4_activate_refuses_a_key_before_its_lead_time_and_names_the_earliest_allowed_time(self, clock):
        clock.shift(SECOND * (conf.key_lead_seconds - 1))
        before = rows()

        with pytest.raises(KeyRefused, match=r"can't be activated before 2026-11-23 12:05:03 UTC.*--force"):
            lifecycle.activate(key_of(SIG, "future").kid)
        assert rows() == before

    def test_k4_forced_activation_makes_a_key_current_before_its_lead_time_has_passed(self):
        future = key_of(SIG, "future").kid

        assert lifecycle.activate(future, force=True).kid == future

    @pytest.mark.parametrize("status", ["current", "past", "revoked"])
    def test_activate_refuses_a_key_that_is_not_a_future_key(self, status):
        if status == "past":
            lifecycle.rotate(SIG, force=True)
        if status == "revoked":
            lifecycle.revoke(key_of(SIG, "future").kid)
        before = rows()

        with pytest.raises(KeyRefused, match=f"is {status}; only a future key"):
            lifecycle.activate(key_of(SIG, status).kid, force=True)
        assert rows() == before

    def test_activate_refuses_a_public_signing_key(self, rsa_pool):
        public = key_texts.import_key(public_pem(rsa_pool), use=SIG)

        with pytest.raises(KeyRefused, match="can't sign"):
            lifecycle.activate(public.kid, force=True)

    def test_a_public_encryption_key_can_be_activated_without_lead_time(self, rsa_pool, issue):
        """The app must accept a public key alone, because an issuer doesn't need the private key of a gateway."""
        public = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        lifecycle.activate(public.kid)

        row, token = issue()
        assert row.encryption_kid == public.kid
        assert token.count(".") == 4

    def test_the_first_key_can_be_activated_without_lead_time(self, rsa_pool):
        Key.objects.all().delete()

        assert lifecycle.activate(provision.generate(SIG).kid).status == "current"

    def test_activate_refuses_an_unknown_key(self):
        with pytest.raises(KeyUnavailable, match="there is no key 'nothing-like-it'"):
            lifecycle.activate("nothing-like-it")

    def test_activate_accepts_an_abbreviated_kid(self):
        future = key_of(SIG, "future").kid

        assert lifecycle.activate(future[:6], force=True).kid == future
