"""Tests of the successor of a revoked key, and of the number of keys that a rotation or a revocation generates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from instaccess import trust
from instaccess.exceptions import ConfigError
from instaccess.keys import lifecycle, provision
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, DAY, ENC, SECOND, SIG, key_of, kids, public_pem
from tests.support import key_texts

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("started")]


@pytest.fixture
def count_generated(monkeypatch: pytest.MonkeyPatch, rsa_pool: Any) -> Callable[[], int]:
    """Return a function that returns the number of key pairs that were generated so far."""
    generated: list[str] = []

    def generate(use: str) -> Any:
        generated.append(use)
        return rsa_pool.take_private(use)

    monkeypatch.setattr(trust, "generate_key", generate)
    return lambda: len(generated)


class TestARotationGeneratesNoMoreKeysThanItStores:
    """Tests of the number of generated keys, because generating a key can take more than a second."""

    @BOTH_USES
    def test_rotation_that_is_not_due_generates_no_key(self, use, count_generated):
        lifecycle.rotate(use)

        assert count_generated() == 0

    @BOTH_USES
    def test_rotation_generates_the_next_future_key(self, use, clock, count_generated):
        clock.shift(30 * DAY)
        generated = lifecycle.rotate(use).generated

        assert (count_generated(), [generated]) == (1, list(Key.objects.filter(use=use, status="future")))

    @BOTH_USES
    def test_forced_rotation_generates_the_next_future_key(self, use, count_generated):
        generated = lifecycle.rotate(use, force=True).generated

        assert (count_generated(), [generated]) == (1, list(Key.objects.filter(use=use, status="future")))

    @BOTH_USES
    def test_forced_rotation_without_a_future_key_generates_the_current_and_the_future_key(
        self, use, count_generated
    ):
        key_of(use, "future").delete()
        lifecycle.rotate(use, force=True)

        assert count_generated() == 2

    @BOTH_USES
    def test_forced_rotation_with_two_future_keys_generates_no_key(self, use, clock, count_generated):
        clock.shift(SECOND)
        second = provision.generate(use).kid
        before = count_generated()
        done = lifecycle.rotate(use, force=True)

        assert (count_generated() - before, done.generated) == (0, None)
        assert kids(use, "future") == [second]


class TestARevocationWithSeveralFutureKeys:
    @BOTH_USES
    def test_oldest_future_key_replaces_a_revoked_current_key_and_no_key_is_generated(self, use, clock):
        first = key_of(use, "future").kid
        clock.shift(SECOND)
        second = provision.generate(use).kid
        done = lifecycle.revoke(key_of(use, "current").kid)

        assert (kids(use, "current"), kids(use, "future")) == ([first], [second])
        assert done.generated is None

    @BOTH_USES
    def test_revocation_of_a_future_key_generates_no_key_if_another_future_key_remains(self, use):
        first = key_of(use, "future").kid
        second = provision.generate(use).kid
        done = lifecycle.revoke(first)

        assert (kids(use, "future"), done.generated) == ([second], None)

    def test_revoke_skips_and_logs_a_public_signing_key_and_makes_the_next_key_pair_current(
        self, clock, rsa_pool, caplog
    ):
        key_of(SIG, "future").delete()
        public = key_texts.import_key(public_pem(rsa_pool), use=SIG).kid
        clock.shift(SECOND)
        pair = provision.generate(SIG).kid
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.successor is not None
        assert done.successor.kid == pair
        assert (
            f"future signing key {public} was skipped, because its private key is not stored on this server"
            in caplog.text
        )

    def test_revoke_skips_a_key_pair_if_the_gateway_has_a_next_public_key(self, clock, rsa_pool):
        public = lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        clock.shift(SECOND)
        following = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        done = lifecycle.revoke(public.kid)

        assert done.successor == following


class TestARevocationWithoutAFutureKey:
    @BOTH_USES
    def test_revocation_of_a_past_key_generates_no_key(self, use):
        past = lifecycle.rotate(use, force=True).retired
        key_of(use, "future").delete()

        assert past is not None
        assert lifecycle.revoke(past.kid).generated is None
        assert kids(use, "future") == []

    @BOTH_USES
    def test_current_key_is_revoked_even_if_no_key_can_be_generated(self, use, monkeypatch):
        def fail(use: str) -> Any:
            raise ConfigError("INSTACCESS['KEY_SIZE'] is invalid")

        key_of(use, "future").delete()
        monkeypatch.setattr(trust, "generate_key", fail)
        current = key_of(use, "current").kid
        done = lifecycle.revoke(current)

        assert kids(use, "revoked") == [current]
        assert (done.successor, done.generated) == (None, None)
        assert done.failure == "INSTACCESS['KEY_SIZE'] is invalid"


class TestARevocationOfTheGatewaysKey:
    def test_revocation_of_a_key_generates_no_key_if_only_its_public_key_is_stored(self, rsa_pool, count_generated):
        public = lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        lifecycle.revoke(public.kid)

        assert count_generated() == 0
