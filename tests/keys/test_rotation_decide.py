"""Tests of `rotation.decide`, which decides which keys a rotation changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from instaccess.keys import rotation
from instaccess.models import Key
from tests.keys.helpers import DAY, ENC, HOUR, SECOND, SIG, START, TIMES, current_key, key, past_key


def decide(*rows: Key, now: datetime, use: Key.Use = SIG, **kwargs: Any) -> rotation.Decision:
    return rotation.decide(rows, use=use, now=now, times=TIMES, **kwargs)


class TestBeforeTheRotationInterval:
    def test_k2_no_key_change_is_due_before_the_rotation_interval_has_passed(self):
        decision = decide(current_key(), key("future"), now=START + 30 * DAY - SECOND)

        assert decision.nothing_to_do
        assert (decision.retire, decision.activate, decision.make_future) == (None, None, False)

    def test_k2_the_decision_contains_the_time_of_the_next_key_change(self):
        decision = decide(current_key(), key("future"), now=START + DAY)

        assert decision.next_due == START + 30 * DAY

    def test_decision_is_to_generate_a_future_key_if_there_is_no_future_key(self):
        decision = decide(current_key(), now=START + DAY)

        assert decision.make_future
        assert decision.activate is None
        assert decision.next_due == START + 30 * DAY

    def test_a_future_key_generated_late_delays_the_change_by_its_lead_time(self):
        late = START + 30 * DAY - SECOND
        decision = decide(current_key(), now=late)

        assert decision.next_due == late + TIMES.lead


class TestAfterTheRotationInterval:
    def test_the_future_key_becomes_current_when_the_rotation_interval_has_passed(self):
        now, current, future = START + 30 * DAY, current_key(), key("future")
        decision = decide(current, future, now=now)

        assert (decision.retire, decision.activate) == (current, future)

    def test_decision_is_to_generate_a_future_key_and_the_next_change_is_due_after_an_interval(self):
        now = START + 31 * DAY
        decision = decide(current_key(), key("future"), now=now)

        assert decision.make_future
        assert decision.next_due == now + TIMES.interval

    @pytest.mark.parametrize(("use", "other"), [(SIG, ENC), (ENC, SIG)])
    def test_decision_about_keys_of_one_use_ignores_the_keys_of_the_other_use(self, use, other):
        decision = decide(current_key(use=other), key("future", use=other), now=START + 30 * DAY, use=use)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_k4_a_future_key_does_not_become_current_before_its_lead_time_has_passed(self):
        now = START + 40 * DAY
        young = key("future", created=now - TIMES.lead + SECOND)

        assert decide(current_key(), young, now=now).activate is None
        assert decide(current_key(), young, now=now).next_due == now + SECOND
        assert decide(current_key(), young, now=now + SECOND).activate is young

    def test_k4_future_encryption_key_does_not_become_current_before_its_lead_time_has_passed(self):
        now = START + 40 * DAY
        young = key("future", use=ENC, created=now - TIMES.lead + SECOND)

        assert decide(current_key(use=ENC), young, now=now, use=ENC).activate is None


class TestTheCurrentKeyIsTheGatewaysPublicKey:
    NOW = START + 31 * DAY

    def gateway_key(self, status: str = "current", **columns: Any) -> Key:
        return key(status, use=ENC, private=False, **columns)

    def test_a_key_pair_of_this_issuer_does_not_replace_the_public_key_of_a_gateway(self):
        decision = decide(self.gateway_key(activated_at=START), key("future", use=ENC), now=self.NOW, use=ENC)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_a_forced_rotation_does_not_replace_the_public_key_of_a_gateway_with_a_key_pair(self):
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

    def test_no_key_change_is_due_if_only_a_key_pair_could_replace_the_public_key_of_a_gateway(self):
        public, pair = self.gateway_key("future"), key("future", use=ENC, created=START + DAY)
        decision = decide(current_key(use=ENC), public, pair, now=self.NOW, use=ENC)

        assert decision.activate == public
        assert (decision.make_future, decision.next_due) == (False, None)

    def test_a_future_key_pair_is_not_next_if_the_current_key_is_the_public_key_of_a_gateway(self):
        pair = key("future", use=ENC)

        assert rotation.is_next(pair, [pair, current_key(use=ENC)])
        assert rotation.is_next(pair, [pair])
        assert not rotation.is_next(pair, [pair, self.gateway_key(activated_at=START), current_key()])
        assert not rotation.is_next(pair, [current_key(), pair, self.gateway_key(activated_at=START)])


class TestAForcedRotation:
    def test_a_forced_rotation_ignores_the_rotation_interval(self):
        current, future = current_key(), key("future")
        decision = decide(current, future, now=START + HOUR, force=True)

        assert (decision.retire, decision.activate) == (current, future)
        assert decision.next_due == START + HOUR + TIMES.interval

    def test_a_forced_rotation_ignores_the_lead_time(self):
        assert decide(current_key(), key("future"), now=START + SECOND, force=True).activate is not None

    def test_a_forced_rotation_activates_no_key_if_there_is_no_future_key(self):
        decision = decide(current_key(), now=START + HOUR, force=True)

        assert decision.activate is None
        assert decision.make_future


class TestTheDecisionWithoutACurrentKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_k8_decision_without_a_current_key_is_to_generate_and_activate_no_key(self, force):
        decision = decide(key("future"), past_key(START), now=START + SECOND, force=force)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_decision_about_a_current_key_without_a_time_of_activation_is_to_change_nothing(self):
        decision = decide(key("current"), key("future"), now=START + 99 * DAY)

        assert decision.nothing_to_do
        assert decision.next_due is None

    def test_past_keys_are_erased_even_if_there_is_no_current_key(self):
        gone = past_key(START)

        assert decide(gone, now=START + DAY).erase == (gone,)


class TestSeveralFutureKeys:
    def test_first_stored_of_two_future_keys_with_the_same_time_of_creation_becomes_current(self):
        first, second = key("future", pk=2), key("future", pk=3)

        for rows in ((first, second), (second, first)):
            assert decide(current_key(pk=1), *rows, now=START + 30 * DAY).activate is first

    def test_the_oldest_future_key_becomes_current(self):
        older, younger = key("future", created=START - DAY), key("future", created=START)

        assert decide(current_key(), younger, older, now=START + 30 * DAY).activate is older

    def test_no_future_key_is_generated_if_another_future_key_remains(self):
        decision = decide(
            current_key(), key("future", created=START), key("future", created=START + DAY), now=START + 30 * DAY
        )

        assert not decision.make_future
        assert decision.next_due == START + 60 * DAY

    def test_next_key_change_is_due_when_the_oldest_remaining_future_key_is_ready(self):
        later = [key("future", created=START + days * DAY) for days in (40, 50)]
        decision = decide(current_key(), *later, now=START)

        assert decision.next_due == START + 40 * DAY + TIMES.lead
        decision = decide(current_key(), key("future", created=START - DAY), *later, now=START + 30 * DAY)
        assert decision.next_due == START + 60 * DAY
        decision = decide(current_key(), key("future", created=START - DAY), *later[1:], now=START, force=True)
        assert decision.next_due == START + 50 * DAY + TIMES.lead

    def test_a_future_key_that_is_ready_becomes_current_before_a_future_key_that_is_not_ready(self):
        now = START + 40 * DAY
        ready, young = key("future", created=now - DAY), key("future", created=now)

        assert decide(current_key(), young, ready, now=now).activate is ready


class TestAPublicEncryptionKey:
    def test_a_public_encryption_key_needs_no_lead_time(self):
        now = START + 40 * DAY
        fresh = key("future", use=ENC, created=now, private=False)

        assert decide(current_key(use=ENC, private=False), fresh, now=now, use=ENC).activate is fresh

    def test_no_key_is_generated_to_replace_the_public_key_of_a_gateway(self):
        """The app must generate no key, because the gateway couldn't decrypt tokens for a key pair of this issuer."""
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

    def test_a_past_key_without_a_private_key_is_not_erased_again(self):
        assert decide(current_key(), key("future"), past_key(START, private=False), now=START + DAY).nothing_to_do

    def test_only_past_keys_whose_last_token_has_expired_are_erased(self):
        old = [past_key(START - n * HOUR) for n in range(4)]
        decision = decide(current_key(), key("future"), *old, now=START)

        assert decision.erase == tuple(old[2:])
