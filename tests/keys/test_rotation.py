"""Tests of the key lifecycle: single decisions, then months of rotations on a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instaccess.conf import conf
from instaccess.issuer import issuing
from instaccess.keys import lifecycle, provision, rotation
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, Key
from instaccess.tokens import jose

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
TIMES = rotation.Times(interval=30 * DAY, lead=timedelta(seconds=303), retention=timedelta(seconds=3663))


def key(status: str, *, use: Key.Use = SIG, created: datetime = START, private: bool = True, **columns: Any) -> Key:
    """Return an unsaved row, because the decision needs no database."""
    return Key(
        kid=f"{use}-{status}-{created:%d%H%M%S}",
        use=use,
        status=status,
        created_at=created,
        sealed_private_jwk="sealed" if private else "",
        **columns,
    )


def current_key(since: datetime = START, **columns: Any) -> Key:
    return key("current", created=since, activated_at=since, **columns)


def past_key(retired: datetime, **columns: Any) -> Key:
    return key("past", created=retired - 30 * DAY, activated_at=retired - 30 * DAY, retired_at=retired, **columns)


def decide(*rows: Key, now: datetime, use: Key.Use = SIG, **kwargs: Any) -> rotation.Decision:
    return rotation.decide(rows, use=use, now=now, times=TIMES, **kwargs)


class TestBeforeTheIntervalHasPassed:
    def test_k2_nothing_is_due_before_the_interval_has_passed(self):
        decision = decide(current_key(), key("future"), now=START + 30 * DAY - SECOND)

        assert decision.nothing_to_do
        assert (decision.retire, decision.activate, decision.make_future) == (None, None, False)

    def test_k2_the_decision_contains_when_the_change_is_due(self):
        decision = decide(current_key(), key("future"), now=START + DAY)

        assert decision.next_due == START + 30 * DAY

    def test_a_missing_future_key_must_be_generated(self):
        decision = decide(current_key(), now=START + DAY)

        assert decision.make_future
        assert decision.activate is None
        assert decision.next_due == START + 30 * DAY

    def test_a_future_key_generated_late_delays_the_change_by_its_lead_time(self):
        late = START + 30 * DAY - SECOND
        decision = decide(current_key(), now=late)

        assert decision.next_due == late + TIMES.lead


class TestAfterTheInterval:
    def test_the_future_key_becomes_current_when_the_interval_has_passed(self):
        now, current, future = START + 30 * DAY, current_key(), key("future")
        decision = decide(current, future, now=now)

        assert (decision.retire, decision.activate) == (current, future)

    def test_a_new_future_key_must_be_generated_and_the_next_change_is_due_after_an_interval(self):
        now = START + 31 * DAY
        decision = decide(current_key(), key("future"), now=now)

        assert decision.make_future
        assert decision.next_due == now + TIMES.interval

    def test_keys_of_the_other_use_are_ignored(self):
        decision = decide(current_key(), key("future"), now=START + 30 * DAY, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_k4_a_future_key_does_not_become_current_before_its_lead_time_has_passed(self):
        now = START + 40 * DAY
        young = key("future", created=now - TIMES.lead + SECOND)

        assert decide(current_key(), young, now=now).activate is None
        assert decide(current_key(), young, now=now).next_due == now + SECOND
        assert decide(current_key(), young, now=now + SECOND).activate is young

    def test_k4_an_encryption_key_pair_has_the_same_lead_time(self):
        now = START + 40 * DAY
        young = key("future", use=ENC, created=now - TIMES.lead + SECOND)

        assert decide(current_key(use=ENC), young, now=now, use=ENC).activate is None


class TestTheCurrentKeyIsTheGatewaysPublicKey:
    NOW = START + 31 * DAY

    def gateway_key(self, status: str = "current", **columns: Any) -> Key:
        return key(status, use=ENC, private=False, **columns)

    def test_a_key_pair_generated_here_does_not_replace_the_public_key_of_a_gateway(self):
        decision = decide(self.gateway_key(activated_at=START), key("future", use=ENC), now=self.NOW, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_force_does_not_replace_the_public_key_of_a_gateway_by_a_key_pair(self):
        decision = decide(
            self.gateway_key(activated_at=START), key("future", use=ENC), now=self.NOW, use=ENC, force=True
        )

        assert decision.activate is None

    def test_the_next_public_key_of_a_gateway_becomes_current_before_an_older_key_pair(self):
        following = self.gateway_key("future", created=START + DAY)
        decision = decide(
            self.gateway_key(activated_at=START), key("future", use=ENC), following, now=self.NOW, use=ENC
        )

        assert decision.activate == following
        assert (decision.make_future, decision.next_due) == (False, None)

    def test_no_change_is_due_if_only_a_key_pair_remains_behind_the_public_key_of_a_gateway(self):
        public, pair = self.gateway_key("future"), key("future", use=ENC, created=START + DAY)
        decision = decide(current_key(use=ENC), public, pair, now=self.NOW, use=ENC)

        assert decision.activate == public
        assert (decision.make_future, decision.next_due) == (False, None)

    def test_a_key_pair_is_next_only_after_a_key_pair(self):
        pair = key("future", use=ENC)

        assert rotation.is_next(pair, [pair, current_key(use=ENC)])
        assert rotation.is_next(pair, [pair])
        assert not rotation.is_next(pair, [pair, self.gateway_key(activated_at=START), current_key()])


class TestAForcedRotation:
    def test_force_ignores_the_interval(self):
        current, future = current_key(), key("future")
        decision = decide(current, future, now=START + HOUR, force=True)

        assert (decision.retire, decision.activate) == (current, future)
        assert decision.next_due == START + HOUR + TIMES.interval

    def test_force_ignores_the_lead_time(self):
        assert decide(current_key(), key("future"), now=START + SECOND, force=True).activate is not None

    def test_force_activates_nothing_if_there_is_no_future_key(self):
        decision = decide(current_key(), now=START + HOUR, force=True)

        assert decision.activate is None
        assert decision.make_future


class TestWithoutACurrentKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_k8_without_a_current_key_no_key_is_generated_or_activated(self, force):
        decision = decide(key("future"), past_key(START), now=START + SECOND, force=force)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_without_a_current_key_past_keys_are_erased(self):
        gone = past_key(START)

        assert decide(gone, now=START + DAY).erase == (gone,)


class TestSeveralFutureKeys:
    def test_the_oldest_future_key_becomes_current(self):
        older, younger = key("future", created=START - DAY), key("future", created=START)

        assert decide(current_key(), younger, older, now=START + 30 * DAY).activate is older

    def test_no_future_key_is_generated_if_another_one_remains(self):
        decision = decide(
            current_key(), key("future", created=START), key("future", created=START + DAY), now=START + 30 * DAY
        )

        assert not decision.make_future
        assert decision.next_due == START + 60 * DAY

    def test_a_ready_future_key_comes_before_a_key_that_is_not_ready(self):
        now = START + 40 * DAY
        ready, young = key("future", created=now - DAY), key("future", created=now)

        assert decide(current_key(), young, ready, now=now).activate is ready


class TestAPublicEncryptionKey:
    def test_a_public_encryption_key_needs_no_lead_time(self):
        now = START + 40 * DAY
        fresh = key("future", use=ENC, created=now, private=False)

        assert decide(current_key(use=ENC, private=False), fresh, now=now, use=ENC).activate is fresh

    def test_no_key_is_generated_behind_the_public_key_of_a_gateway(self):
        """The gateway could not decrypt a token encrypted for a key pair generated here."""
        decision = decide(current_key(use=ENC, private=False), now=START + 40 * DAY, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_no_key_is_generated_after_a_public_encryption_key_replaced_a_key_pair(self):
        decision = decide(current_key(use=ENC), key("future", use=ENC, private=False), now=START + 30 * DAY, use=ENC)

        assert decision.activate is not None
        assert not decision.make_future
        assert decision.next_due is None


class TestAPublicSigningKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_a_public_signing_key_never_becomes_current(self, force):
        decision = decide(current_key(), key("future", private=False), now=START + 40 * DAY, force=force)

        assert decision.activate is None
        assert decision.make_future


class TestAPastKey:
    def test_k12_a_past_key_is_not_erased_while_its_tokens_may_be_live(self):
        old = past_key(START, use=ENC)
        decision = decide(current_key(START, use=ENC), old, now=START + TIMES.retention - SECOND, use=ENC)

        assert decision.erase == ()
        assert not rotation.is_gone(old, now=START + TIMES.retention - SECOND, times=TIMES)

    @pytest.mark.parametrize("use", list(Key.Use))
    def test_k12_a_past_key_is_erased_when_its_last_token_has_expired(self, use):
        old = past_key(START, use=use)
        now = START + TIMES.retention

        assert decide(current_key(START, use=use), old, now=now, use=use).erase == (old,)
        assert rotation.is_gone(old, now=now, times=TIMES)

    def test_a_past_key_is_erased_once(self):
        assert decide(current_key(), key("future"), past_key(START, private=False), now=START + DAY).nothing_to_do

    def test_only_the_past_keys_that_are_gone_are_erased(self):
        old = [past_key(START - n * HOUR) for n in range(4)]
        decision = decide(current_key(), key("future"), *old, now=START)

        assert decision.erase == tuple(old[2:])


class TestTheForecast:
    """The forecast assumes that each rotation happens when it is due."""

    def test_the_forecast_changes_the_current_key_when_each_change_is_due(self):
        predicted = rotation.forecast(
            [current_key(), key("future")], now=START + 10 * DAY, times=TIMES, until=START + 100 * DAY
        )

        assert [row.status for row in predicted] == ["past", "past"]
        assert predicted[0].retired_at == predicted[1].activated_at == START + 30 * DAY
        assert predicted[1].retired_at == START + 60 * DAY

    def test_the_forecast_ends_at_the_given_time(self):
        predicted = rotation.forecast([current_key(), key("future")], now=START, times=TIMES, until=START + 29 * DAY)

        assert [row.status for row in predicted] == ["current", "future"]

    def test_the_forecast_rotates_overdue_keys_immediately(self):
        now = START + 40 * DAY
        predicted = rotation.forecast([current_key(), key("future")], now=now, times=TIMES, until=now)

        assert predicted[0].retired_at == predicted[1].activated_at == now

    def test_the_forecast_considers_but_does_not_return_keys_that_are_not_generated_yet(self):
        predicted = rotation.forecast([current_key()], now=START, times=TIMES, until=START + 365 * DAY)

        assert [row.retired_at for row in predicted] == [START + 30 * DAY]

    def test_the_forecast_keeps_the_order_and_does_not_change_the_given_rows(self):
        rows = [key("future", use=ENC), current_key(), current_key(use=ENC, since=START - 10 * DAY), key("future")]
        before = [(row.kid, row.status, row.activated_at, row.retired_at) for row in rows]
        predicted = rotation.forecast(rows, now=START, times=TIMES, until=START + 25 * DAY)

        assert [row.status for row in predicted] == ["current", "current", "past", "future"]
        assert [row.kid for row in predicted] == [row.kid for row in rows]
        assert [(row.kid, row.status, row.activated_at, row.retired_at) for row in rows] == before

    def test_the_forecast_ends_if_the_next_key_must_be_imported(self):
        now = START + 99 * DAY
        predicted = rotation.forecast(
            [current_key(use=ENC, private=False)], now=now, times=TIMES, until=now + 999 * DAY
        )

        assert predicted[0].retired_at is None

    def test_the_forecast_ends_if_the_lead_time_is_zero(self):
        times = rotation.Times(interval=DAY, lead=timedelta(), retention=HOUR)
        now = START + 2 * DAY

        assert rotation.forecast([current_key()], now=now, times=times, until=now)[0].retired_at == now


class TestServedAt:
    def test_a_current_key_has_served_after_its_interval(self):
        assert rotation.served_at(current_key(), TIMES) == START + 30 * DAY

    @pytest.mark.parametrize("status", ["future", "past", "revoked"])
    def test_only_a_current_key_has_a_time_when_it_has_served(self, status):
        assert rotation.served_at(key(status, activated_at=START), TIMES) is None


class TestGoneAt:
    @pytest.mark.parametrize("status", ["future", "current", "revoked"])
    def test_only_a_past_key_can_be_gone(self, status):
        row = key(status, retired_at=START)

        assert rotation.gone_at(row, TIMES) is None
        assert not rotation.is_gone(row, now=START + 1000 * DAY, times=TIMES)


class TestLifecycleTimes:
    def test_the_durations_come_from_the_settings(self):
        settings = {"KEY_ROTATION_DAYS": 7, "JWKS_MAX_AGE": 600, "KEY_CACHE_SECONDS": 5, "LEEWAY": 10}
        with override_settings(INSTACCESS=settings):
            assert keys_ring.lifecycle_times() == rotation.Times(
                interval=7 * DAY, lead=timedelta(seconds=605), retention=timedelta(seconds=3600 + 60 + 10 + 5)
            )


@dataclass
class Deployment:
    """An issuer, a gateway and a service on a simulated clock.

    The service keeps its copy of the JWK set for the whole max-age.
    """

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
        """Decrypt and verify every live token with the current key ring. Returns the number of tokens."""
        # The previous keys are passed so that they are not parsed again, which would slow the test down.
        self.ring = keys_ring.load(self.ring.keys)
        self.tokens = [(text, end) for text, end in self.tokens if datetime.now(UTC) < end + SECOND * conf.leeway]
        for text, _ in self.tokens:
            signed, _ = jose.decrypt(text, self.ring.decryption_keys())
            jose.verify(signed, self.ring.verification_keys())
        return len(self.tokens)


def kids_to_publish(now: datetime) -> set[str]:
    """Compute the kids that must be published: future and current keys, and past keys within their retention."""
    retention = SECOND * conf.key_retention_seconds
    return {
        row.kid
        for row in Key.objects.filter(use=SIG)
        if row.status in {"future", "current"} or (row.status == "past" and now < row.retired_at + retention)
    }


@pytest.mark.django_db
class TestTenRotations:
    @override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 3, "KEY_CACHE_SECONDS": 0})
    def test_k3_ten_rotations_accept_every_live_token_and_publish_exactly_the_right_kids(self, client, user):
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
                clock.shift(3599)  # The last second of the tokens.
                assert deployment.accept_all() == 2
                clock.shift(3 * HOUR + SECOND)  # cron runs every four hours.
            days = (datetime.now(UTC) - START) / DAY

        assert 30 <= days <= 33
        # The successor is published for a whole max-age before each change, so up to three keys are published.
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


# Seconds between the runs of cron: usually hours, sometimes seconds, sometimes days while the machine is off.
CRON = st.lists(
    st.one_of(st.integers(0, 90_000), st.integers(0, 600), st.integers(0, 900_000)), min_size=3, max_size=14
)


@pytest.mark.django_db
class TestRandomSchedulesAndSettings:
    @given(settings=deployments(), cron=CRON)
    @hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_live_token_is_refused_and_no_key_signs_before_its_lead_time_on_any_schedule(
        self, rsa_pool, user, settings, cron
    ):
        rsa_pool.rewind()
        Key.objects.all().delete()
        IssuedToken.objects.all().delete()
        keys_ring.clear_cache()
        with override_settings(INSTACCESS=settings), time_machine.travel(START, tick=False) as clock:
            provision.init()
            stale = keys_ring.load()  # The cache of a worker that read the keys just before a change.
            live: list[tuple[str, str, datetime]] = []
            for pause in cron:
                for use in Key.Use:
                    done = lifecycle.rotate(use)
                    if done.activated is not None:
                        assert datetime.now(UTC) >= done.activated.created_at + SECOND * conf.key_lead_seconds
                        # A JWK set from a worker with an old cache, kept for the whole max-age, contains the key.
                        assert conf.key_lead_seconds >= conf.jwks_max_age + conf.key_cache_seconds
                clock.shift(conf.key_cache_seconds)  # The other worker may use the old keys until then.
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
                # A worker may have cached these keys just before the next run of cron.
                stale = keys_ring.load(stale.keys)
