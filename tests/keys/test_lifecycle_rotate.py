"""Tests for `rotate`: the changes, and the refused rotations."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess import trust
from instaccess.exceptions import KeyUnavailable
from instaccess.keys import lifecycle
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, DAY, ENC, SECOND, SIG, START, accepted, key_of, kids, public_pem, rows
from tests.support import key_texts

pytestmark = pytest.mark.django_db


@pytest.mark.usefixtures("started")
class TestRotateWhenItIsNotDue:
    @BOTH_USES
    def test_k2_rotate_changes_no_key_before_a_rotation_is_due(self, use, clock):
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

    def test_k2_rotate_returns_the_time_when_the_next_rotation_is_due(self, clock):
        clock.shift(DAY)

        assert lifecycle.rotate(SIG).next_due == START + 30 * DAY

    @BOTH_USES
    def test_k2_forced_rotation_changes_keys_before_a_rotation_is_due(self, use, clock):
        current, future = key_of(use, "current"), key_of(use, "future")
        clock.shift(SECOND)
        done = lifecycle.rotate(use, force=True)

        assert (done.retired, done.activated) == (current, future)
        assert done.next_due == START + SECOND + 30 * DAY

    def test_rotate_generates_a_future_key_if_there_is_no_future_key(self, clock):
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
    def test_rotate_makes_the_future_key_current_and_the_current_key_past(self, use):
        current, future = key_of(use, "current").kid, key_of(use, "future").kid
        lifecycle.rotate(use)

        assert kids(use, "current") == [future]
        assert kids(use, "past") == [current]

    @BOTH_USES
    def test_rotate_generates_and_seals_a_new_future_key(self, use):
        done = lifecycle.rotate(use)

        assert kids(use, "future") == [done.generated.kid]
        assert done.generated.has_private
        assert done.generated.created_at == START + 30 * DAY

    def test_rotate_stores_the_times_of_activation_and_retirement(self):
        lifecycle.rotate(SIG)

        assert key_of(SIG, "current").activated_at == START + 30 * DAY
        assert key_of(SIG, "past").retired_at == START + 30 * DAY

    def test_rotation_of_signing_keys_does_not_change_encryption_keys(self):
        before = list(Key.objects.filter(use=ENC).order_by("pk").values())
        lifecycle.rotate(SIG)

        assert list(Key.objects.filter(use=ENC).order_by("pk").values()) == before

    def test_an_immediate_second_rotate_changes_no_key(self):
        lifecycle.rotate(SIG)
        before = rows()
        done = lifecycle.rotate(SIG)

        assert rows() == before
        assert done.activated is None

    def test_the_process_that_rotates_signs_its_next_token_with_the_new_key(self, issue, clock):
        assert issue()[0].signing_kid == key_of(SIG, "current").kid
        future = key_of(SIG, "future").kid
        lifecycle.rotate(SIG)

        assert issue()[0].signing_kid == future

    @BOTH_USES
    def test_tokens_of_the_retired_key_are_still_accepted_after_a_rotation(self, use, issue):
        _, token = issue()
        lifecycle.rotate(use)

        assert accepted(token)

    def test_lead_time_of_a_key_begins_when_the_key_is_stored_and_not_when_its_generation_begins(
        self, monkeypatch, rsa_pool, clock
    ):
        """The lead time must begin when the key is stored, because other processes can't read the key earlier."""

        def generate_slowly(use: str) -> Any:
            clock.shift(20)
            return rsa_pool.take_private(use)

        monkeypatch.setattr(trust, "generate_key", generate_slowly)

        assert lifecycle.rotate(SIG).generated.created_at == START + 30 * DAY + 20 * SECOND


@pytest.mark.usefixtures("started")
class TestRotateWithAnExpectedCurrentKey:
    def test_rotate_changes_the_key_if_the_expected_key_is_current(self):
        current = key_of(SIG, "current").kid

        assert lifecycle.rotate(SIG, force=True, expected_current=current).activated is not None

    def test_a7_rotate_changes_nothing_if_the_expected_key_is_no_longer_current(self, clock):
        current = key_of(SIG, "current").kid
        lifecycle.rotate(SIG, force=True, expected_current=current)
        clock.shift(DAY)
        before = rows()
        done = lifecycle.rotate(SIG, force=True, expected_current=current)

        assert done.lost_race
        assert (done.activated, done.next_due) == (None, START + 30 * DAY)
        assert rows() == before

    def test_k1_rotate_changes_nothing_if_another_process_rotates_first(self, monkeypatch, rsa_pool):
        """Let another process rotate after the decision of this process, and before this process locks the rows."""
        calls: list[str] = []

        def generate(use: str) -> Any:
            if not calls:
                calls.append(use)
                lifecycle.rotate(SIG, force=True)
            return rsa_pool.take_private(use)

        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        monkeypatch.setattr(trust, "generate_key", generate)
        done = lifecycle.rotate(SIG, force=True)

        assert done.lost_race
        assert (done.retired, done.activated, done.generated) == (None, None, None)
        assert kids(SIG, "current") == [future]
        assert kids(SIG, "past") == [current]
        assert len(kids(SIG, "future")) == 1

    def test_rotate_stores_no_second_future_key_if_another_process_stores_a_future_key_first(
        self, monkeypatch, rsa_pool
    ):
        key_of(SIG, "future").delete()
        calls: list[str] = []

        def generate(use: str) -> Any:
            if not calls:
                calls.append(use)
                lifecycle.rotate(SIG)
            return rsa_pool.take_private(use)

        monkeypatch.setattr(trust, "generate_key", generate)
        done = lifecycle.rotate(SIG)

        assert done.generated is None
        assert len(kids(SIG, "future")) == 1


@pytest.mark.usefixtures("started")
class TestRotateByForceWithoutAFutureKey:
    @BOTH_USES
    def test_forced_rotation_generates_a_current_and_a_future_key_if_there_is_no_future_key(self, use):
        key_of(use, "future").delete()
        done = lifecycle.rotate(use, force=True)

        assert kids(use, "current") == [done.activated.kid]
        assert kids(use, "future") == [done.generated.kid]
        assert kids(use, "past") == [done.retired.kid]

    def test_forced_rotation_ignores_a_public_signing_key(self, rsa_pool):
        key_of(SIG, "future").delete()
        public = key_texts.import_key(public_pem(rsa_pool), use=SIG)
        done = lifecycle.rotate(SIG, force=True)

        assert done.activated is not None
        assert kids(SIG, "current") == [done.activated.kid]
        assert kids(SIG, "future") == sorted([public.kid, done.generated.kid])

    def test_forced_rotation_is_refused_if_only_the_public_encryption_key_is_stored(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        before = rows()

        with pytest.raises(KeyUnavailable, match="import the next public key") as caught:
            lifecycle.rotate(ENC, force=True)
        assert "instaccess_keys import --use enc" in caught.value.detail
        assert rows() == before


class TestRotateWithoutACurrentKey:
    @pytest.mark.parametrize("force", [False, True])
    def test_k8_rotate_without_a_current_key_generates_no_key_and_names_the_command_instaccess_init(self, force):
        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            lifecycle.rotate(SIG, force=force)
        assert not Key.objects.exists()
