"""Tests for months of rotations on a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.test import override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instaccess.conf import conf
from instaccess.issuer import issuing
from instaccess.keys import lifecycle, provision
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, Key
from instaccess.tokens import jose
from tests.keys.helpers import DAY, ENC, HOUR, SECOND, SIG, START


@dataclass
class Deployment:
    """A deployment on a simulated clock: its live tokens, and the key ring that decrypts and verifies the tokens."""

    user: Any
    clock: Any
    tokens: list[tuple[str, datetime]] = field(default_factory=list)
    ring: keys_ring.KeyRing = field(default_factory=keys_ring.KeyRing)

    def issue(self) -> None:
        row, text = issuing.issue(
            user=self.user, origin=issuing.Origin("canvas.example.edu"), now=datetime.now(UTC).timestamp()
        )
        self.tokens.append((text, row.expires_at))

    def accept_all(self) -> int:
        """Decrypt and verify every live token with the current key ring, and return the number of tokens."""
        # Pass the previous keys, because parsing all keys at each load would slow down the test.
        self.ring = keys_ring.load(self.ring.keys)
        self.tokens = [(text, end) for text, end in self.tokens if datetime.now(UTC) < end + SECOND * conf.leeway]
        for text, _ in self.tokens:
            signed, _ = jose.decrypt(text, self.ring.decryption_keys())
            jose.verify(signed, self.ring.verification_keys())
        return len(self.tokens)


def kids_to_publish(now: datetime) -> set[str]:
    """Return the kids that must be published: future and current keys, and past keys within their retention."""
    retention = SECOND * conf.key_retention_seconds
    return {
        row.kid
        for row in Key.objects.filter(use=SIG)
        if row.status in {"future", "current"} or (row.status == "past" and now < row.retired_at + retention)
    }


@pytest.mark.django_db
class TestTenRotations:
    @override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 3, "KEY_CACHE_SECONDS": 0})
    def test_k3_in_ten_rotations_every_live_token_is_accepted_and_every_unexpired_kid_is_published(
        self, client, user
    ):
        rotations = {SIG: 0, ENC: 0}
        published: list[frozenset[str]] = []
        with time_machine.travel(START, tick=False) as clock:
            provision.init()
            deployment = Deployment(user, clock)
            while min(rotations.values()) < 10:
                deployment.issue()
                for use in Key.Use:
                    rotations[use] += lifecycle.rotate(use).activated is not None
                deployment.issue()
                assert deployment.accept_all() == 2
                served = [key["kid"] for key in client.get("/internal/services/jwks").json()["keys"]]
                assert len(served) == len(set(served))
                assert set(served) == kids_to_publish(datetime.now(UTC))
                published.append(frozenset(served))
                clock.shift(3599)  # Check the tokens one second before they expire.
                assert deployment.accept_all() == 2
                clock.shift(3 * HOUR + SECOND)  # cron runs every four hours.
            days = (datetime.now(UTC) - START) / DAY

        assert 30 <= days <= 33
        # Two keys are published: the current key and the future key. After a rotation, the past key is also published
        # until its retention ends.
        assert {len(kids) for kids in published} == {2, 3}
        assert Key.objects.filter(use=SIG).count() == 12
        assert Key.objects.filter(use=SIG).exclude(sealed_private_jwk="").count() <= 3

    @override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 1, "KEY_CACHE_SECONDS": 0})
    def test_k12_rotations_erase_a_private_key_when_its_last_token_has_expired(self, user):
        with time_machine.travel(START, tick=False) as clock:
            provision.init()
            lifecycle.rotate(ENC)
            clock.shift(DAY)
            retired = lifecycle.rotate(ENC).retired
            clock.shift(SECOND * (conf.key_retention_seconds - 1))
            assert lifecycle.rotate(ENC).erased == ()
            assert Key.objects.get(pk=retired.pk).has_private
            clock.shift(1)
            assert lifecycle.rotate(ENC).erased == (retired,)
            assert not Key.objects.get(pk=retired.pk).has_private


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, Any]:
    max_age, cache = draw(st.integers(0, 80_000)), draw(st.integers(0, 5))
    settings = {
        "KEY_ROTATION_DAYS": draw(st.integers(1, 3)),
        "JWKS_MAX_AGE": max_age,
        "KEY_CACHE_SECONDS": cache,
        "LEEWAY": draw(st.integers(0, 300)),
        "LIFETIME": draw(st.integers(1, 3600)),
    }
    if draw(st.booleans()):
        settings["KEY_LEAD_SECONDS"] = max_age + cache + draw(st.integers(0, 1000))
    if draw(st.booleans()):
        settings["KEY_RETENTION_SECONDS"] = 3600 + 60 + 300 + 5 + draw(st.integers(0, 100_000))
    return settings


# The pauses between the runs of cron, in seconds. Most pauses last hours, some last minutes, and some last days,
# because the machine is off.
CRON = st.lists(
    st.one_of(st.integers(0, 90_000), st.integers(0, 600), st.integers(0, 900_000)), min_size=3, max_size=14
)


@pytest.mark.django_db
class TestRandomSchedulesAndSettings:
    @given(settings=deployments(), cron=CRON)
    @hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_live_token_is_refused_and_no_key_signs_before_its_lead_time_on_any_schedule(
        self, rsa_pool, user, settings, cron
    ):
        rsa_pool.rewind()
        Key.objects.all().delete()
        IssuedToken.objects.all().delete()
        keys_ring.clear_cache()
        with override_settings(INSTACCESS=settings), time_machine.travel(START, tick=False) as clock:
            provision.init()
            stale = keys_ring.load()  # Simulate a worker that has read the keys just before a change.
            live: list[tuple[str, str, datetime]] = []
            for pause in cron:
                for use in Key.Use:
                    done = lifecycle.rotate(use)
                    if done.activated is not None:
                        assert datetime.now(UTC) >= done.activated.created_at + SECOND * conf.key_lead_seconds
                        # With this lead time, every cached JWKS contains the key before the key signs.
                        assert conf.key_lead_seconds >= conf.jwks_max_age + conf.key_cache_seconds
                # Until this time, the worker with the stale keys may use its cached keys.
                clock.shift(conf.key_cache_seconds)
                fresh = keys_ring.load(stale.keys)
                for ring in (stale, fresh):
                    end = datetime.now(UTC) + SECOND * (conf.lifetime + conf.leeway)
                    live.append((ring.signing_key().kid, ring.encryption_key().kid, end))
                stale = fresh
                then = datetime.now(UTC) + SECOND * pause
                last_seconds = sorted({end - SECOND for *_, end in live if end - SECOND <= then})
                for time in [*last_seconds, then]:
                    clock.move_to(time)
                    ring = keys_ring.load(stale.keys)
                    decryption, verification = ring.decryption_keys(), ring.verification_keys()
                    for signing_kid, encryption_kid, end in live:
                        if time < end:
                            assert signing_kid in verification
                            assert encryption_kid in decryption
                live = [token for token in live if token[2] > then]
                # Simulate a worker that caches the keys just before the next run of cron.
                stale = keys_ring.load(stale.keys)
