"""Tests for the key ring: the reads of the database, and the keys in the key ring."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.db import OperationalError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from instaccess import trust
from instaccess.conf import conf
from instaccess.exceptions import KeyUnavailable
from instaccess.keys import lifecycle, provision
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.trust import refreshed
from tests.support import key_texts
from tests.support.clocks import Clock
from tests.support.failing import failing_after
from tests.support.stored_keys import write

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

SECOND = timedelta(seconds=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(refreshed, "time", clock)
    return clock


@pytest.fixture
def queries() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


def count_during(queries: CaptureQueriesContext, call: Callable[[], Any]) -> int:
    with queries:
        call()
    return len(queries)


@pytest.mark.usefixtures("initial_keys")
class TestTheCacheOfTheKeyRing:
    def test_the_first_read_of_the_key_ring_takes_one_query(self, clock, queries):
        assert count_during(queries, keys_ring.current_ring) == 1

    def test_the_key_ring_is_read_without_a_query_within_the_cache_time(self, clock, queries):
        keys_ring.current_ring()
        clock.now += conf.key_cache_seconds - 0.001

        assert count_during(queries, keys_ring.current_ring) == 0

    def test_the_key_ring_is_read_with_one_query_after_the_cache_time(self, clock, queries):
        keys_ring.current_ring()
        clock.now += conf.key_cache_seconds

        assert count_during(queries, lambda: (keys_ring.current_ring(), keys_ring.current_ring())) == 1

    @override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 5})
    def test_the_cache_time_of_the_key_ring_comes_from_the_setting(self, clock, queries):
        keys_ring.current_ring()
        clock.now += 4.9

        assert count_during(queries, keys_ring.current_ring) == 0

    @override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 0})
    def test_every_read_of_the_key_ring_takes_a_query_if_the_cache_time_is_zero(self, clock, queries):
        keys_ring.current_ring()

        assert count_during(queries, keys_ring.current_ring) == 1

    def test_the_key_ring_is_read_with_a_query_after_the_cache_was_cleared(self, clock, queries):
        keys_ring.current_ring()
        keys_ring.clear_cache()

        assert count_during(queries, keys_ring.current_ring) == 1

    @pytest.mark.parametrize(
        "read",
        [keys_ring.current_ring, trust.decryption_keys, trust.verification_keys],
        ids=lambda read: read.__name__,
    )
    def test_key_ring_raises_the_database_error_after_the_cache_time_unless_staleness_is_allowed(self, clock, read):
        read()
        clock.now += conf.key_cache_seconds

        with failing_after(0), pytest.raises(OperationalError):
            read()
        with failing_after(0):
            assert read(max_staleness=1)


@pytest.mark.usefixtures("initial_keys")
class TestAKeyThatHasNotChanged:
    def test_key_ring_does_not_parse_an_unchanged_key_again(self, clock):
        before = keys_ring.current_ring()
        private = before.signing_key().private()
        clock.now += conf.key_cache_seconds
        after = keys_ring.current_ring()

        assert after is not before
        assert all(new is old for new, old in zip(after.keys, before.keys, strict=True))
        assert after.signing_key().private() is private

    def test_key_ring_keeps_the_unsealed_private_key_of_a_key_that_retires(self, clock):
        current = keys_ring.load().signing_key()
        private = current.private()
        lifecycle.rotate(SIG, force=True)
        retired = next(key for key in keys_ring.load([current]).keys if key.kid == current.kid)

        assert (retired.status, retired.private()) == ("past", private)

    def test_a_rotation_does_not_change_key_rings_that_were_returned_before(self):
        before = keys_ring.load()
        current = before.signing_key().kid
        lifecycle.rotate(SIG, force=True)
        keys_ring.load(before.keys)

        assert before.signing_key().kid == current

    @pytest.mark.parametrize("sealed", ["resealed", "A resealed key"])
    def test_key_ring_parses_a_resealed_key_again(self, sealed):
        key = keys_ring.load().signing_key()
        Key.objects.filter(kid=key.kid).update(sealed_private_jwk=sealed)

        assert keys_ring.load([key]).signing_key() is not key


@pytest.mark.usefixtures("initial_keys")
class TestAChangeByAnotherProcess:
    """Tests of changes by another process, which can't clear the cache of this process."""

    def rotate_in_another_process(self) -> tuple[str, str]:
        current, future = (Key.objects.get(use=SIG, status=status) for status in ("current", "future"))
        write([current], status="past", retired_at=datetime.now(UTC))
        write([future], status="current", activated_at=datetime.now(UTC))
        return current.kid, future.kid

    def test_a_rotation_by_another_process_takes_effect_after_the_cache_time(self, clock):
        keys_ring.current_ring()
        old, new = self.rotate_in_another_process()
        clock.now += conf.key_cache_seconds - 0.001
        assert keys_ring.current_ring().signing_key().kid == old
        clock.now += 0.001
        assert keys_ring.current_ring().signing_key().kid == new

    def test_k10_a_revocation_by_another_process_takes_effect_within_five_seconds(self, clock):
        with override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 5}):
            kid = keys_ring.current_ring().signing_key().kid
            write(Key.objects.filter(kid=kid), status="revoked", sealed_private_jwk="")
            clock.now += 5
            ring = keys_ring.current_ring()

        assert kid not in ring.verification_keys()
        with pytest.raises(KeyUnavailable):
            ring.signing_key()


class TestTheKeyRingWithoutACurrentKey:
    @pytest.mark.parametrize(("use", "ask"), [("sig", "signing_key"), ("enc", "encryption_key")])
    def test_k8_key_ring_without_a_current_key_generates_no_key_and_the_error_names_instaccess_init(
        self, use, ask, initial_keys
    ):
        Key.objects.filter(use=use, status="current").delete()

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            getattr(keys_ring.load(), ask)()
        assert not Key.objects.filter(use=use, status="current").exists()

    def test_the_key_ring_of_a_database_without_keys_is_empty(self, db):
        ring = keys_ring.load()

        assert (ring.keys, ring.published(), ring.verification_keys(), ring.decryption_keys()) == ((), [], {}, {})


@pytest.mark.usefixtures("initial_keys")
class TestTheKeysInTheKeyRing:
    def test_the_key_ring_lists_current_keys_then_past_keys_latest_first_then_future_keys(self):
        with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
            expected = []
            for _ in range(3):
                traveller.shift(1)
                expected.insert(0, lifecycle.rotate(SIG, force=True).retired.kid)
            ring = keys_ring.load()

        statuses = [key.status for key in ring.keys if key.use == SIG]
        assert statuses == ["current", "past", "past", "past", "future"]
        assert [key.kid for key in ring.keys if key.use == SIG][1:4] == expected

    def test_the_key_ring_orders_past_keys_by_the_time_of_creation_and_not_by_the_id(self):
        with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
            for _ in range(4):
                traveller.shift(1)
                lifecycle.rotate(SIG, force=True)
            before = [key.kid for key in keys_ring.load().keys]
            # The first two signing keys may have the same time, because they may be stored in the same millisecond.
            third = Key.objects.filter(use=SIG).order_by("created_at", "id")[2]
            assert third.status == "past"
            Key.objects.filter(pk=third.pk).update(id=third.pk + 1000)

            assert [key.kid for key in keys_ring.load().keys] == before

    def test_the_key_ring_orders_keys_with_the_same_time_of_creation_by_their_ids(self):
        with time_machine.travel(datetime.now(UTC), tick=False):
            expected = [provision.generate(SIG).kid for _ in range(3)][::-1]

        assert [key.kid for key in keys_ring.load().keys if key.status == "future"][:3] == expected

    def test_a_revoked_key_is_not_in_the_key_ring(self):
        kid = keys_ring.load().signing_key().kid
        lifecycle.revoke(kid)

        assert kid not in [key.kid for key in keys_ring.load().keys]

    @pytest.mark.parametrize("use", list(Key.Use))
    def test_a_past_key_is_in_the_key_ring_until_its_last_token_has_expired(self, use):
        with time_machine.travel(START, tick=False) as traveller:
            past = lifecycle.rotate(use, force=True).retired.kid
            traveller.shift(SECOND * (conf.key_retention_seconds - 1))
            assert past in [key.kid for key in keys_ring.load().keys]
            traveller.shift(1)
            assert past not in [key.kid for key in keys_ring.load().keys]

    def test_a_public_encryption_key_can_encrypt_but_cannot_decrypt(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        key = rsa_pool.take()
        kid = lifecycle.activate(key_texts.import_key(key.export_public(), use=ENC).kid).kid
        ring = keys_ring.load()

        assert ring.encryption_key().kid == kid
        assert ring.decryption_keys() == {}
        with pytest.raises(KeyUnavailable, match="only the public key"):
            ring.encryption_key().private()

    def test_key_ring_decrypts_with_a_future_encryption_key(self):
        """The key ring must decrypt with a future key, because another worker may already encrypt for this key.

        After a rotation, each worker loads the new keys at another time.
        """
        kid = provision.generate(ENC).kid

        assert kid in keys_ring.load().decryption_keys()


class TestTheReprOfAKeyRing:
    def test_a1_the_repr_of_a_key_ring_contains_no_private_member(self, initial_keys):
        ring = keys_ring.load()
        private = ring.signing_key().private().reveal()
        text = repr(ring) + repr(ring.signing_key()) + str(SimpleNamespace(ring=ring))

        for name in ("d", "p", "q", "dp", "dq", "qi"):
            assert private[name] not in text
