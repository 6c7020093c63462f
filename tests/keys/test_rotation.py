"""When one key follows another: the decision by itself, then months of it with a clock that is ours."""

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
    """A row that was never saved: the decision needs no database."""
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


class TestBeforeTheIntervalIsOver:
    def test_k2_nothing_is_to_be_done(self):
        decision = decide(current_key(), key("future"), now=START + 30 * DAY - SECOND)

        assert decision.nothing_to_do
        assert (decision.retire, decision.activate, decision.make_future) == (None, None, False)

    def test_k2_it_says_when_it_will_be_due(self):
        decision = decide(current_key(), key("future"), now=START + DAY)

        assert decision.next_due == START + 30 * DAY

    def test_a_missing_future_key_is_wanted(self):
        decision = decide(current_key(), now=START + DAY)

        assert decision.make_future
        assert decision.activate is None
        assert decision.next_due == START + 30 * DAY

    def test_a_future_key_made_late_puts_the_change_off_until_its_lead_time_is_over(self):
        late = START + 30 * DAY - SECOND
        decision = decide(current_key(), now=late)

        assert decision.next_due == late + TIMES.lead


class TestWhenTheIntervalIsOver:
    def test_the_future_key_takes_over(self):
        now, current, future = START + 30 * DAY, current_key(), key("future")
        decision = decide(current, future, now=now)

        assert (decision.retire, decision.activate) == (current, future)

    def test_a_new_future_key_is_wanted_and_the_next_change_is_an_interval_away(self):
        now = START + 31 * DAY
        decision = decide(current_key(), key("future"), now=now)

        assert decision.make_future
        assert decision.next_due == now + TIMES.interval

    def test_keys_of_the_other_use_are_left_alone(self):
        decision = decide(current_key(), key("future"), now=START + 30 * DAY, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_k4_a_future_key_is_not_used_before_its_lead_time_is_over(self):
        now = START + 40 * DAY
        young = key("future", created=now - TIMES.lead + SECOND)

        assert decide(current_key(), young, now=now).activate is None
        assert decide(current_key(), young, now=now).next_due == now + SECOND
        assert decide(current_key(), young, now=now + SECOND).activate is young

    def test_k4_a_private_encryption_key_has_the_same_lead_time_for_the_gateway_to_read_it(self):
        now = START + 40 * DAY
        young = key("future", use=ENC, created=now - TIMES.lead + SECOND)

        assert decide(current_key(use=ENC), young, now=now, use=ENC).activate is None


class TestWhereTheGatewaysPublicKeyIsCurrent:
    NOW = START + 31 * DAY

    def gateways(self, status: str = "current", **columns: Any) -> Key:
        return key(status, use=ENC, private=False, **columns)

    def test_a_pair_that_was_made_here_never_takes_over_for_the_gateway_lacks_it(self):
        decision = decide(self.gateways(activated_at=START), key("future", use=ENC), now=self.NOW, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_not_by_force_either(self):
        decision = decide(
            self.gateways(activated_at=START), key("future", use=ENC), now=self.NOW, use=ENC, force=True
        )

        assert decision.activate is None

    def test_its_next_public_key_does_though_it_was_imported_after_that_pair_was_made(self):
        following = self.gateways("future", created=START + DAY)
        decision = decide(self.gateways(activated_at=START), key("future", use=ENC), following, now=self.NOW, use=ENC)

        assert decision.activate == following
        assert (decision.make_future, decision.next_due) == (False, None)

    def test_once_it_has_taken_over_from_ours_the_pair_that_waits_is_no_next_one(self):
        gateways, ours = self.gateways("future"), key("future", use=ENC, created=START + DAY)
        decision = decide(current_key(use=ENC), gateways, ours, now=self.NOW, use=ENC)

        assert decision.activate == gateways
        assert (decision.make_future, decision.next_due) == (False, None)

    def test_ours_is_in_line_only_after_ours(self):
        ours = key("future", use=ENC)

        assert rotation.is_next(ours, [ours, current_key(use=ENC)])
        assert rotation.is_next(ours, [ours])
        assert not rotation.is_next(ours, [ours, self.gateways(activated_at=START), current_key()])


class TestByForce:
    def test_the_interval_does_not_count(self):
        current, future = current_key(), key("future")
        decision = decide(current, future, now=START + HOUR, force=True)

        assert (decision.retire, decision.activate) == (current, future)
        assert decision.next_due == START + HOUR + TIMES.interval

    def test_the_lead_time_does_not_count(self):
        assert decide(current_key(), key("future"), now=START + SECOND, force=True).activate is not None

    def test_nothing_is_made_up_where_there_is_no_future_key(self):
        decision = decide(current_key(), now=START + HOUR, force=True)

        assert decision.activate is None
        assert decision.make_future


class TestWithoutACurrentKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_k8_none_is_made_up_and_the_future_one_does_not_step_in(self, force):
        decision = decide(key("future"), past_key(START), now=START + SECOND, force=force)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_what_is_gone_is_erased_all_the_same(self):
        gone = past_key(START)

        assert decide(gone, now=START + DAY).erase == (gone,)


class TestSeveralFutureKeys:
    def test_the_one_that_waited_longest_is_next(self):
        older, younger = key("future", created=START - DAY), key("future", created=START)

        assert decide(current_key(), younger, older, now=START + 30 * DAY).activate is older

    def test_no_other_one_is_wanted_then(self):
        decision = decide(
            current_key(), key("future", created=START), key("future", created=START + DAY), now=START + 30 * DAY
        )

        assert not decision.make_future
        assert decision.next_due == START + 60 * DAY

    def test_one_that_is_ready_goes_before_one_that_is_not(self):
        now = START + 40 * DAY
        ready, young = key("future", created=now - DAY), key("future", created=now)

        assert decide(current_key(), young, ready, now=now).activate is ready


class TestAPublicEncryptionKey:
    def test_needs_no_lead_time_since_its_owner_could_open_it_before_we_had_it(self):
        now = START + 40 * DAY
        fresh = key("future", use=ENC, created=now, private=False)

        assert decide(current_key(use=ENC, private=False), fresh, now=now, use=ENC).activate is fresh

    def test_is_followed_by_none_that_we_make(self):
        """The gateway makes the pair and keeps the private half: one that we made it could not open."""
        decision = decide(current_key(use=ENC, private=False), now=START + 40 * DAY, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_that_takes_over_from_a_pair_of_ours_ends_our_making_of_keys(self):
        decision = decide(current_key(use=ENC), key("future", use=ENC, private=False), now=START + 30 * DAY, use=ENC)

        assert decision.activate is not None
        assert not decision.make_future
        assert decision.next_due is None


class TestAPublicSigningKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_never_becomes_current_for_it_cannot_sign(self, force):
        decision = decide(current_key(), key("future", private=False), now=START + 40 * DAY, force=force)

        assert decision.activate is None
        assert decision.make_future


class TestAPastKey:
    def test_k12_keeps_its_private_half_while_a_token_under_it_may_live(self):
        old = past_key(START, use=ENC)
        decision = decide(current_key(START, use=ENC), old, now=START + TIMES.retention - SECOND, use=ENC)

        assert decision.erase == ()
        assert not rotation.is_gone(old, now=START + TIMES.retention - SECOND, times=TIMES)

    @pytest.mark.parametrize("use", list(Key.Use))
    def test_k12_loses_it_when_the_last_one_is_dead(self, use):
        old = past_key(START, use=use)
        now = START + TIMES.retention

        assert decide(current_key(START, use=use), old, now=now, use=use).erase == (old,)
        assert rotation.is_gone(old, now=now, times=TIMES)

    def test_is_erased_once(self):
        assert decide(current_key(), key("future"), past_key(START, private=False), now=START + DAY).nothing_to_do

    def test_may_be_one_of_many(self):
        old = [past_key(START - n * HOUR) for n in range(4)]
        decision = decide(current_key(), key("future"), *old, now=START)

        assert decision.erase == tuple(old[2:])


class TestTheForecast:
    """What rotations at the right moments will have done."""

    def test_lets_each_key_follow_the_one_before_as_the_decision_says(self):
        then = rotation.forecast(
            [current_key(), key("future")], now=START + 10 * DAY, times=TIMES, until=START + 100 * DAY
        )

        assert [row.status for row in then] == ["past", "past"]
        assert then[0].retired_at == then[1].activated_at == START + 30 * DAY
        assert then[1].retired_at == START + 60 * DAY

    def test_stops_where_it_is_asked_to(self):
        then = rotation.forecast([current_key(), key("future")], now=START, times=TIMES, until=START + 29 * DAY)

        assert [row.status for row in then] == ["current", "future"]

    def test_does_what_is_overdue_at_once(self):
        now = START + 40 * DAY
        then = rotation.forecast([current_key(), key("future")], now=now, times=TIMES, until=now)

        assert then[0].retired_at == then[1].activated_at == now

    def test_thinks_of_keys_that_are_not_made_yet_and_hands_none_out(self):
        then = rotation.forecast([current_key()], now=START, times=TIMES, until=START + 365 * DAY)

        assert [row.retired_at for row in then] == [START + 30 * DAY]

    def test_leaves_the_uses_apart_and_the_order_and_the_rows_as_they_are(self):
        rows = [key("future", use=ENC), current_key(), current_key(use=ENC, since=START - 10 * DAY), key("future")]
        before = [(row.kid, row.status, row.activated_at, row.retired_at) for row in rows]
        then = rotation.forecast(rows, now=START, times=TIMES, until=START + 25 * DAY)

        assert [row.status for row in then] == ["current", "current", "past", "future"]
        assert [row.kid for row in then] == [row.kid for row in rows]
        assert [(row.kid, row.status, row.activated_at, row.retired_at) for row in rows] == before

    def test_ends_where_the_next_key_comes_from_its_owner(self):
        now = START + 99 * DAY
        then = rotation.forecast([current_key(use=ENC, private=False)], now=now, times=TIMES, until=now + 999 * DAY)

        assert then[0].retired_at is None

    def test_comes_to_an_end_where_no_key_needs_lead_time(self):
        times = rotation.Times(interval=DAY, lead=timedelta(), retention=HOUR)
        now = START + 2 * DAY

        assert rotation.forecast([current_key()], now=now, times=times, until=now)[0].retired_at == now


class TestWhenACurrentKeyHasServed:
    def test_is_an_interval_after_it_became_current(self):
        assert rotation.served_at(current_key(), TIMES) == START + 30 * DAY

    @pytest.mark.parametrize("status", ["future", "past", "revoked"])
    def test_is_a_question_for_current_keys_only(self, status):
        assert rotation.served_at(key(status, activated_at=START), TIMES) is None


class TestWhenAKeyIsGone:
    @pytest.mark.parametrize("status", ["future", "current", "revoked"])
    def test_is_a_question_for_past_keys_only(self, status):
        row = key(status, retired_at=START)

        assert rotation.gone_at(row, TIMES) is None
        assert not rotation.is_gone(row, now=START + 1000 * DAY, times=TIMES)


class TestTheTimes:
    def test_come_from_the_settings(self):
        settings = {"KEY_ROTATION_DAYS": 7, "JWKS_MAX_AGE": 600, "KEY_CACHE_SECONDS": 5, "LEEWAY": 10}
        with override_settings(INSTACCESS=settings):
            assert keys_ring.lifecycle_times() == rotation.Times(
                interval=7 * DAY, lead=timedelta(seconds=605), retention=timedelta(seconds=3600 + 60 + 10 + 5)
            )


@dataclass
class Deployment:
    """An issuer, a gateway and a service that keeps its copy of the JWKS as long as it may, on a clock of ours."""

    user: Any
    clock: Any
    tokens: list[tuple[str, datetime]] = field(default_factory=list)
    ring: keys_ring.KeyRing = field(default_factory=keys_ring.KeyRing)

    def issue(self) -> None:
        row, text = issuing.issue(
            user=self.user, origin=issuing.Origin("canvas.example.edu"), now=datetime.now(UTC).timestamp()
        )
        self.tokens.append((text, row.expires_at))

    def open_all(self) -> int:
        """Open and verify every live token with the keys of this moment; returns how many there were."""
        # The keys of a moment ago are handed on only to spare the test parsing them again.
        self.ring = keys_ring.load(self.ring.keys)
        self.tokens = [(text, end) for text, end in self.tokens if datetime.now(UTC) < end + SECOND * conf.leeway]
        for text, _ in self.tokens:
            signed, _ = jose.decrypt(text, self.ring.decryption_keys())
            jose.verify(signed, self.ring.verification_keys())
        return len(self.tokens)


def kids_to_publish(now: datetime) -> set[str]:
    """From the rows: future and current keys, and past ones while a token under them may live."""
    retention = SECOND * conf.key_retention_seconds
    return {
        row.kid
        for row in Key.objects.filter(use=SIG)
        if row.status in {"future", "current"} or (row.status == "past" and now < row.retired_at + retention)
    }


@pytest.mark.django_db
class TestTenRotations:
    @override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 3, "KEY_CACHE_SECONDS": 0})
    def test_k3_every_live_token_is_accepted_and_exactly_the_right_kids_are_published(self, client, user):
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
                assert deployment.open_all() == 2
                served = [key["kid"] for key in client.get("/internal/services/jwks").json()["keys"]]
                assert len(served) == len(set(served))
                assert set(served) == kids_to_publish(datetime.now(UTC))
                published.append(frozenset(served))
                clock.shift(3599)  # the tokens' last second
                assert deployment.open_all() == 2
                clock.shift(3 * HOUR + SECOND)  # cron calls every four hours
            days = (datetime.now(UTC) - START) / DAY

        assert 30 <= days <= 33
        # Before each change the successor was out for at least one whole JWKS lifetime; around it, three are.
        assert {len(kids) for kids in published} == {2, 3}
        assert Key.objects.filter(use=SIG).count() == 12
        assert Key.objects.filter(use=SIG).exclude(sealed_private_jwk="").count() <= 3

    @override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 1, "KEY_CACHE_SECONDS": 0})
    def test_k12_private_halves_go_with_the_last_token_and_not_before(self, user):
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


# Seconds until cron calls the next time: some hours, and now and then a burst or a machine that was off for days.
CRON = st.lists(
    st.one_of(st.integers(0, 90_000), st.integers(0, 600), st.integers(0, 900_000)), min_size=3, max_size=14
)


@pytest.mark.django_db
class TestWhateverTheScheduleAndTheSettings:
    @given(settings=deployments(), cron=CRON)
    @hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_live_token_is_ever_refused_and_no_key_signs_before_its_lead_time_is_over(
        self, rsa_pool, user, settings, cron
    ):
        rsa_pool.rewind()
        Key.objects.all().delete()
        IssuedToken.objects.all().delete()
        keys_ring.clear_cache()
        with override_settings(INSTACCESS=settings), time_machine.travel(START, tick=False) as clock:
            provision.init()
            stale = keys_ring.load()  # what a worker still works with that has read its keys just before a change
            live: list[tuple[str, str, datetime]] = []
            for pause in cron:
                for use in Key.Use:
                    done = lifecycle.rotate(use)
                    if done.activated is not None:
                        assert datetime.now(UTC) >= done.activated.created_at + SECOND * conf.key_lead_seconds
                        # A copy of the JWKS from a worker that was behind, kept as long as allowed, has the key.
                        assert conf.key_lead_seconds >= conf.jwks_max_age + conf.key_cache_seconds
                clock.shift(conf.key_cache_seconds)  # for so long the other worker may issue under the old keys
                fresh = keys_ring.load(stale.keys)
                for ring in (stale, fresh):
                    end = datetime.now(UTC) + SECOND * (conf.lifetime + conf.leeway)
                    live.append((ring.signing_key().kid, ring.encryption_key().kid, end))
                stale = fresh
                then = datetime.now(UTC) + SECOND * pause
                last_moments = sorted({end - SECOND for *_, end in live if end - SECOND <= then})
                for moment in [*last_moments, then]:
                    clock.move_to(moment)
                    ring = keys_ring.load(stale.keys)
                    opened, verified = ring.decryption_keys(), ring.verification_keys()
                    for signing, encryption, end in live:
                        if moment < end:
                            assert signing in verified
                            assert encryption in opened
                live = [token for token in live if token[2] > then]
                # Just before cron calls again, this is what a worker may hold on to.
                stale = keys_ring.load(stale.keys)
