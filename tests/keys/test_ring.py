"""Tests of the key ring: how often keys are read, which keys are skipped, and how threads share them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from instaccess.conf import conf
from instaccess.exceptions import KeyUnavailable, UnsealError
from instaccess.keys import lifecycle, provision
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.trust import refreshed
from tests.support import subproject
from tests.support.clocks import Clock

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


def flip_character(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def logged_errors(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.usefixtures("initial_keys")
class TestTheCacheOfTheKeyRing:
    def test_the_first_read_takes_one_query(self, clock, queries):
        assert count_during(queries, keys_ring.current_ring) == 1

    def test_no_query_is_made_within_the_cache_time(self, clock, queries):
        keys_ring.current_ring()
        clock.now += conf.key_cache_seconds - 0.001

        assert count_during(queries, keys_ring.current_ring) == 0

    def test_one_query_is_made_after_the_cache_time(self, clock, queries):
        keys_ring.current_ring()
        clock.now += conf.key_cache_seconds

        assert count_during(queries, lambda: (keys_ring.current_ring(), keys_ring.current_ring())) == 1

    @override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 5})
    def test_the_cache_time_is_the_setting(self, clock, queries):
        keys_ring.current_ring()
        clock.now += 4.9

        assert count_during(queries, keys_ring.current_ring) == 0

    @override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 0})
    def test_every_read_takes_a_query_if_the_cache_time_is_zero(self, clock, queries):
        keys_ring.current_ring()

        assert count_during(queries, keys_ring.current_ring) == 1

    def test_a_query_is_made_after_the_cache_was_cleared(self, clock, queries):
        keys_ring.current_ring()
        keys_ring.clear_cache()

        assert count_during(queries, keys_ring.current_ring) == 1


@pytest.mark.usefixtures("initial_keys")
class TestAKeyThatHasNotChanged:
    def test_an_unchanged_key_is_not_parsed_again(self, clock):
        before = keys_ring.current_ring()
        private = before.signing_key().private()
        clock.now += conf.key_cache_seconds
        after = keys_ring.current_ring()

        assert after is not before
        assert all(new is old for new, old in zip(after.keys, before.keys, strict=True))
        assert after.signing_key().private() is private

    def test_a_key_that_retires_keeps_its_unsealed_private_key(self, clock):
        current = keys_ring.load().signing_key()
        private = current.private()
        lifecycle.rotate(SIG, force=True)
        retired = next(key for key in keys_ring.load([current]).keys if key.kid == current.kid)

        assert (retired.status, retired.private()) == ("past", private)

    def test_a_rotation_does_not_change_key_rings_returned_before(self):
        before = keys_ring.load()
        current = before.signing_key().kid
        lifecycle.rotate(SIG, force=True)
        keys_ring.load(before.keys)

        assert before.signing_key().kid == current

    def test_a_resealed_key_is_parsed_again(self):
        key = keys_ring.load().signing_key()
        Key.objects.filter(kid=key.kid).update(sealed_private_jwk="resealed")

        assert keys_ring.load([key]).signing_key() is not key


@pytest.mark.usefixtures("initial_keys")
class TestAChangeByAnotherProcess:
    """Another process changes the database, and this process's cache is not cleared."""

    def rotate_in_another_process(self) -> tuple[str, str]:
        current, future = (Key.objects.get(use=SIG, status=status) for status in ("current", "future"))
        Key.objects.filter(pk=current.pk).update(status="past", retired_at=datetime.now(UTC))
        Key.objects.filter(pk=future.pk).update(status="current", activated_at=datetime.now(UTC))
        return current.kid, future.kid

    def test_a_rotation_by_another_process_takes_effect_after_the_cache_time(self, clock):
        keys_ring.current_ring()
        old, new = self.rotate_in_another_process()
        clock.now += conf.key_cache_seconds - 0.001
        assert keys_ring.current_ring().signing_key().kid == old
        clock.now += 0.001
        assert keys_ring.current_ring().signing_key().kid == new

    def test_k10_a_revocation_takes_effect_within_five_seconds_at_the_longest_cache_time(self, clock):
        with override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 5}):
            kid = keys_ring.current_ring().signing_key().kid
            Key.objects.filter(kid=kid).update(status="revoked", sealed_private_jwk="")
            clock.now += 5
            ring = keys_ring.current_ring()

        assert kid not in ring.verification_keys()
        with pytest.raises(KeyUnavailable):
            ring.signing_key()


class TestWithoutAKey:
    @pytest.mark.parametrize(("use", "ask"), [("sig", "signing_key"), ("enc", "encryption_key")])
    def test_k8_no_key_is_generated_and_the_error_names_the_command(self, use, ask, initial_keys):
        Key.objects.filter(use=use, status="current").delete()

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            getattr(keys_ring.load(), ask)()
        assert not Key.objects.filter(use=use, status="current").exists()

    def test_the_key_ring_of_a_database_without_keys_is_empty(self, db):
        ring = keys_ring.load()

        assert (ring.keys, ring.published(), ring.verification_keys(), ring.decryption_keys()) == ((), [], {}, {})


@pytest.mark.usefixtures("initial_keys")
class TestTheKeysInTheKeyRing:
    def test_keys_are_ordered_current_then_past_latest_first_then_future(self):
        with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
            expected = []
            for _ in range(3):
                traveller.shift(1)
                expected.insert(0, lifecycle.rotate(SIG, force=True).retired.kid)
            ring = keys_ring.load()

        statuses = [key.status for key in ring.keys if key.use == SIG]
        assert statuses == ["current", "past", "past", "past", "future"]
        assert [key.kid for key in ring.keys if key.use == SIG][1:4] == expected

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

    def test_a_public_encryption_key_encrypts_but_does_not_decrypt(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        key = rsa_pool.take()
        kid = lifecycle.activate(provision.import_key(key.export_public(), use=ENC).kid).kid
        ring = keys_ring.load()

        assert ring.encryption_key().kid == kid
        assert ring.decryption_keys() == {}
        with pytest.raises(KeyUnavailable, match="only the public key"):
            ring.encryption_key().private()

    def test_a_future_encryption_key_decrypts(self):
        """Another worker may have read a rotation before this worker does."""
        kid = provision.generate(ENC).kid

        assert kid in keys_ring.load().decryption_keys()


@pytest.mark.usefixtures("initial_keys")
class TestAModifiedSealedKey:
    @pytest.fixture
    def two(self):
        """Return a past and the current encryption key."""
        past = lifecycle.rotate(ENC, force=True).retired
        return past, Key.objects.get(use=ENC, status="current")

    @pytest.mark.parametrize("part", range(5))
    def test_k7_a_key_modified_in_any_part_is_skipped_and_the_other_keys_work(self, part, two, caplog):
        past, current = two
        parts = past.sealed_private_jwk.split(".")
        parts[part] = flip_character(parts[part], len(parts[part]) // 2)
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=".".join(parts))
        ring = keys_ring.load()

        with pytest.raises(UnsealError):
            ring.decryption_keys()[past.kid]
        opened = list(ring.decryption_keys())
        assert current.kid in opened
        assert past.kid not in opened
        signed = jose.sign(b"{}", ring.signing_key().private(), kid=ring.signing_key().kid)
        assert jose.verify(signed, ring.verification_keys())[0] == {}
        assert past.kid in logged_errors(caplog)[0]

    def test_k7_sealed_keys_swapped_between_rows_cannot_be_unsealed(self, two, caplog):
        past, current = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=current.sealed_private_jwk)
        Key.objects.filter(pk=current.pk).update(sealed_private_jwk=past.sealed_private_jwk)
        ring = keys_ring.load()

        for kid in (past.kid, current.kid):
            with pytest.raises(UnsealError):
                ring.decryption_keys()[kid]
        assert {past.kid, current.kid}.isdisjoint(list(ring.decryption_keys()))
        assert ring.signing_key().private().has_private
        assert all(any(kid in line for line in logged_errors(caplog)) for kid in (past.kid, current.kid))

    def test_k7_a_broken_key_is_logged_once(self, two, clock, caplog):
        past, _ = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=flip_character(past.sealed_private_jwk, 500))
        for _ in range(5):
            list(keys_ring.current_ring().decryption_keys())
            clock.now += conf.key_cache_seconds

        assert len(logged_errors(caplog)) == 1
        assert f"the sealed private key of key {past.kid} was modified" in logged_errors(caplog)[0]

    def test_k7_a_broken_current_signing_key_raises_and_no_other_key_signs(self):
        kid = keys_ring.load().signing_key().kid
        row = Key.objects.get(kid=kid)
        Key.objects.filter(kid=kid).update(sealed_private_jwk=flip_character(row.sealed_private_jwk, 500))

        with pytest.raises(UnsealError):
            keys_ring.load().signing_key().private()

    def test_k7_a_restored_key_works_again(self, two, clock):
        past, _ = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=flip_character(past.sealed_private_jwk, 500))
        assert past.kid not in list(keys_ring.current_ring().decryption_keys())
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=past.sealed_private_jwk)
        clock.now += conf.key_cache_seconds

        assert past.kid in list(keys_ring.current_ring().decryption_keys())

    def test_o6_public_keys_stay_usable_if_the_key_encryption_key_is_lost(self, caplog):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            ring = keys_ring.load()

            with pytest.raises(UnsealError, match="KEY_ENCRYPTION_KEYS"):
                list(ring.decryption_keys())
            assert len(ring.verification_keys()) == 2
        assert "KEY_ENCRYPTION_KEYS" in logged_errors(caplog)[0]


@pytest.mark.usefixtures("initial_keys")
class TestAModifiedPublicKey:
    def modify(self, kid: str, **members: Any) -> None:
        row = Key.objects.get(kid=kid)
        row.public_jwk = {**row.public_jwk, **members}
        row.save()

    @pytest.mark.parametrize("member", ["n", "e", "use", "kty"])
    def test_a_modified_public_key_is_skipped_and_the_other_keys_work(self, member, rsa_pool, caplog):
        future = Key.objects.get(status="future").kid
        other = {"n": rsa_pool.take()["n"], "e": "Aw", "use": "enc", "kty": "EC"}
        self.modify(future, **{member: other[member]})
        ring = keys_ring.load()

        assert set(ring.verification_keys()) == {ring.signing_key().kid}
        assert f"key {future} can't be used" in logged_errors(caplog)[0]

    @pytest.mark.parametrize("value", [{}, [], "text", 5])
    def test_an_invalid_public_key_is_skipped(self, value):
        future = Key.objects.get(status="future").kid
        Key.objects.filter(kid=future).update(public_jwk=value)

        assert future not in keys_ring.load().verification_keys()

    def test_a_public_key_modified_after_it_was_cached_is_skipped(self, rsa_pool):
        ring = keys_ring.load()
        kid = ring.signing_key().kid
        self.modify(kid, n=rsa_pool.take()["n"])

        assert kid not in keys_ring.load(ring.keys).verification_keys()

    def test_k9_a_private_member_added_to_a_public_key_is_not_published(self):
        kid = keys_ring.load().signing_key().kid
        private = keys_ring.load().signing_key().private()
        self.modify(kid, **{name: private[name] for name in ("d", "p", "q", "dp", "dq", "qi")})

        for published in keys_ring.load().published():
            assert set(published) == {"kty", "n", "e", "use", "alg", "kid"}


class TestThreads:
    @pytest.mark.django_db(transaction=True)
    def test_threads_share_one_query(self):
        provision.init()
        together, rings, counted = threading.Barrier(16), [], []

        def count(execute: Any, *args: Any) -> Any:
            counted.append(args[0])
            return execute(*args)

        def read() -> None:
            connection.ensure_connection()
            with connection.execute_wrapper(count):
                together.wait()
                rings.append(keys_ring.current_ring())
            connection.close()

        threads = [threading.Thread(target=read) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(rings) == 16
        assert all(ring is rings[0] for ring in rings)
        assert len(counted) == 1

    @pytest.mark.django_db(transaction=True)
    def test_threads_unseal_and_sign_with_a_key_at_the_same_time(self):
        provision.init()
        ring, together, signed = keys_ring.current_ring(), threading.Barrier(8), []

        def sign() -> None:
            together.wait()
            signed.append(jose.sign(b"{}", ring.signing_key().private(), kid=ring.signing_key().kid))

        threads = [threading.Thread(target=sign) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(signed) == 8
        assert len(set(signed)) == 1
        assert jose.verify(signed[0], ring.verification_keys())[0] == {}


@pytest.mark.own_database
class TestAProcessForkedWhileAThreadReadsTheKeys:
    def test_a_forked_child_reads_the_keys_without_waiting_for_the_parents_thread(self, rsa_pool, tmp_path):
        facts = subproject.run(
            "tests.projects.keyring_projects.fork",
            settings="tests.projects.keyring_projects.settings",
            folder=tmp_path,
            rsa_pool=rsa_pool,
        )

        assert facts == {
            "status": 0,
            "child": {"kid": facts["parent"], "private": True},
            "parent": facts["parent"],
        }


@pytest.fixture(scope="module")
def facts(tmp_path_factory, _rsa_pool):
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.keyring_projects.replica",
        settings="tests.projects.keyring_projects.settings",
        folder=tmp_path_factory.mktemp("replica"),
        rsa_pool=_rsa_pool,
    )


@pytest.mark.own_database
class TestAReplicaThatLags:
    def test_the_replica_of_this_test_lags(self, facts):
        assert facts["replica shows the revoked key as"] == "current"
        assert facts["replica shows tokens"] == 0

    def test_keys_are_read_from_the_primary_database(self, facts):
        assert not facts["revoked key is in the ring"]
        assert not facts["revoked key is published"]
        assert facts["signs now"]
        assert facts["rotates"]
        assert facts["listed"] == "revoked"

    def test_the_audit_log_is_read_from_the_primary_database(self, facts):
        assert facts["live tokens"] == 1
        assert facts["tokens marked"] == 1
        assert facts["audit has"]


class TestTheReprOfAKeyRing:
    def test_a1_the_repr_of_a_key_ring_contains_no_private_member(self, initial_keys):
        ring = keys_ring.load()
        private = ring.signing_key().private()
        text = repr(ring) + repr(ring.signing_key()) + str(SimpleNamespace(ring=ring))

        for name in ("d", "p", "q", "dp", "dq", "qi"):
            assert private[name] not in text
