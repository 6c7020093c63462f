"""The keys that a process works with: how often they are read, what is left out, who shares them."""

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
from instaccess.trust import refreshed as snapshot
from tests.support import subproject
from tests.support.clocks import Clock

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(snapshot, "time", clock)
    return clock


@pytest.fixture
def queries() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


def count_during(queries: CaptureQueriesContext, call: Callable[[], Any]) -> int:
    with queries:
        call()
    return len(queries)


def flipped(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def complaints(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.usefixtures("initial_keys")
class TestReadingTheKeys:
    def test_takes_one_query(self, clock, queries):
        assert count_during(queries, keys_ring.current_ring) == 1

    def test_takes_none_until_the_cache_time_is_over(self, clock, queries):
        keys_ring.current_ring()
        clock.now += conf.key_cache_seconds - 0.001

        assert count_during(queries, keys_ring.current_ring) == 0

    def test_takes_one_again_then(self, clock, queries):
        keys_ring.current_ring()
        clock.now += conf.key_cache_seconds

        assert count_during(queries, lambda: (keys_ring.current_ring(), keys_ring.current_ring())) == 1

    @override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 5})
    def test_follows_the_setting(self, clock, queries):
        keys_ring.current_ring()
        clock.now += 4.9

        assert count_during(queries, keys_ring.current_ring) == 0

    @override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 0})
    def test_takes_one_each_time_where_nothing_may_be_kept(self, clock, queries):
        keys_ring.current_ring()

        assert count_during(queries, keys_ring.current_ring) == 1

    def test_takes_one_after_they_were_forgotten(self, clock, queries):
        keys_ring.current_ring()
        keys_ring.clear_cache()

        assert count_during(queries, keys_ring.current_ring) == 1


@pytest.mark.usefixtures("initial_keys")
class TestAKeyThatHasNotChanged:
    def test_is_not_parsed_again(self, clock):
        before = keys_ring.current_ring()
        private = before.signing_key().private()
        clock.now += conf.key_cache_seconds
        after = keys_ring.current_ring()

        assert after is not before
        assert all(new is old for new, old in zip(after.keys, before.keys, strict=True))
        assert after.signing_key().private() is private

    def test_keeps_its_open_private_half_when_it_retires(self, clock):
        held = keys_ring.load().signing_key()
        private = held.private()
        lifecycle.rotate(SIG, force=True)
        retired = next(key for key in keys_ring.load([held]).keys if key.kid == held.kid)

        assert (retired.status, retired.private()) == ("past", private)

    def test_leaves_rings_that_were_handed_out_as_they_were(self):
        before = keys_ring.load()
        current = before.signing_key().kid
        lifecycle.rotate(SIG, force=True)
        keys_ring.load(before.keys)

        assert before.signing_key().kid == current

    def test_is_opened_anew_after_it_was_resealed(self):
        held = keys_ring.load().signing_key()
        Key.objects.filter(kid=held.kid).update(sealed_private_jwk="resealed")

        assert keys_ring.load([held]).signing_key() is not held


@pytest.mark.usefixtures("initial_keys")
class TestAChangeMadeElsewhere:
    """In another process: the database has it, and this process was not told."""

    def rotate_elsewhere(self) -> tuple[str, str]:
        current, future = (Key.objects.get(use=SIG, status=status) for status in ("current", "future"))
        Key.objects.filter(pk=current.pk).update(status="past", retired_at=datetime.now(UTC))
        Key.objects.filter(pk=future.pk).update(status="current", activated_at=datetime.now(UTC))
        return current.kid, future.kid

    def test_is_seen_when_the_cache_time_is_over(self, clock):
        keys_ring.current_ring()
        old, new = self.rotate_elsewhere()
        clock.now += conf.key_cache_seconds - 0.001
        assert keys_ring.current_ring().signing_key().kid == old
        clock.now += 0.001
        assert keys_ring.current_ring().signing_key().kid == new

    def test_k10_a_revocation_is_seen_within_five_seconds_whatever_the_setting(self, clock):
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
    def test_k8_none_is_made_up_and_the_error_names_the_command(self, use, ask, initial_keys):
        Key.objects.filter(use=use, status="current").delete()

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            getattr(keys_ring.load(), ask)()
        assert not Key.objects.filter(use=use, status="current").exists()

    def test_a_ring_is_empty(self, db):
        ring = keys_ring.load()

        assert (ring.keys, ring.published(), ring.verification_keys(), ring.decryption_keys()) == ((), [], {}, {})


@pytest.mark.usefixtures("initial_keys")
class TestWhichKeysAreThere:
    def test_current_then_past_then_future_the_latest_past_one_first(self):
        with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
            expected = []
            for _ in range(3):
                traveller.shift(1)
                expected.insert(0, lifecycle.rotate(SIG, force=True).retired.kid)
            ring = keys_ring.load()

        statuses = [key.status for key in ring.keys if key.use == SIG]
        assert statuses == ["current", "past", "past", "past", "future"]
        assert [key.kid for key in ring.keys if key.use == SIG][1:4] == expected

    def test_revoked_ones_are_not(self):
        kid = keys_ring.load().signing_key().kid
        lifecycle.revoke(kid)

        assert kid not in [key.kid for key in keys_ring.load().keys]

    @pytest.mark.parametrize("use", list(Key.Use))
    def test_past_ones_are_until_their_last_token_is_dead(self, use):
        with time_machine.travel(START, tick=False) as traveller:
            past = lifecycle.rotate(use, force=True).retired.kid
            traveller.shift(SECOND * (conf.key_retention_seconds - 1))
            assert past in [key.kid for key in keys_ring.load().keys]
            traveller.shift(1)
            assert past not in [key.kid for key in keys_ring.load().keys]

    def test_a_public_encryption_key_encrypts_and_is_none_to_decrypt_with(self, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        key = rsa_pool.take()
        kid = lifecycle.activate(provision.import_key(key.export_public(), use=ENC).kid).kid
        ring = keys_ring.load()

        assert ring.encryption_key().kid == kid
        assert ring.decryption_keys() == {}
        with pytest.raises(KeyUnavailable, match="only the public key"):
            ring.encryption_key().private()

    def test_a_future_encryption_key_decrypts_already(self):
        """Another worker may have heard of its rotation before this one."""
        kid = provision.generate(ENC).kid

        assert kid in keys_ring.load().decryption_keys()


@pytest.mark.usefixtures("initial_keys")
class TestK7ASealedKeyThatWasTamperedWith:
    @pytest.fixture
    def two(self):
        """An encryption key that is current and one that is past."""
        past = lifecycle.rotate(ENC, force=True).retired
        return past, Key.objects.get(use=ENC, status="current")

    @pytest.mark.parametrize("part", range(5))
    def test_k7_flipped_in_any_part_it_is_left_out_and_the_others_work(self, part, two, caplog):
        past, current = two
        parts = past.sealed_private_jwk.split(".")
        parts[part] = flipped(parts[part], len(parts[part]) // 2)
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=".".join(parts))
        ring = keys_ring.load()

        with pytest.raises(UnsealError):
            ring.decryption_keys()[past.kid]
        opened = list(ring.decryption_keys())
        assert current.kid in opened
        assert past.kid not in opened
        signed = jose.sign(b"{}", ring.signing_key().private(), kid=ring.signing_key().kid)
        assert jose.verify(signed, ring.verification_keys())[0] == {}
        assert past.kid in complaints(caplog)[0]

    def test_k7_swapped_between_rows_neither_opens(self, two, caplog):
        past, current = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=current.sealed_private_jwk)
        Key.objects.filter(pk=current.pk).update(sealed_private_jwk=past.sealed_private_jwk)
        ring = keys_ring.load()

        for kid in (past.kid, current.kid):
            with pytest.raises(UnsealError):
                ring.decryption_keys()[kid]
        assert {past.kid, current.kid}.isdisjoint(list(ring.decryption_keys()))
        assert ring.signing_key().private().has_private
        assert all(any(kid in line for line in complaints(caplog)) for kid in (past.kid, current.kid))

    def test_k7_it_is_said_once_however_often_it_is_tried(self, two, clock, caplog):
        past, _ = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=flipped(past.sealed_private_jwk, 500))
        for _ in range(5):
            list(keys_ring.current_ring().decryption_keys())
            clock.now += conf.key_cache_seconds

        assert len(complaints(caplog)) == 1
        assert f"the sealed private key of key {past.kid} was modified" in complaints(caplog)[0]

    def test_k7_a_signing_key_that_does_not_open_is_an_error_not_another_key(self):
        kid = keys_ring.load().signing_key().kid
        row = Key.objects.get(kid=kid)
        Key.objects.filter(kid=kid).update(sealed_private_jwk=flipped(row.sealed_private_jwk, 500))

        with pytest.raises(UnsealError):
            keys_ring.load().signing_key().private()

    def test_k7_restored_it_works_again(self, two, clock):
        past, _ = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=flipped(past.sealed_private_jwk, 500))
        assert past.kid not in list(keys_ring.current_ring().decryption_keys())
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=past.sealed_private_jwk)
        clock.now += conf.key_cache_seconds

        assert past.kid in list(keys_ring.current_ring().decryption_keys())

    def test_o6_under_a_lost_key_encryption_key_none_opens_and_the_public_halves_stay(self, caplog):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            ring = keys_ring.load()

            with pytest.raises(UnsealError, match="KEY_ENCRYPTION_KEYS"):
                list(ring.decryption_keys())
            assert len(ring.verification_keys()) == 2
        assert "KEY_ENCRYPTION_KEYS" in complaints(caplog)[0]


@pytest.mark.usefixtures("initial_keys")
class TestAPublicHalfThatWasAltered:
    def alter(self, kid: str, **members: Any) -> None:
        row = Key.objects.get(kid=kid)
        row.public_jwk = {**row.public_jwk, **members}
        row.save()

    @pytest.mark.parametrize("member", ["n", "e", "use", "kty"])
    def test_is_left_out_and_the_others_work(self, member, rsa_pool, caplog):
        future = Key.objects.get(status="future").kid
        other = {"n": rsa_pool.take()["n"], "e": "Aw", "use": "enc", "kty": "EC"}
        self.alter(future, **{member: other[member]})
        ring = keys_ring.load()

        assert set(ring.verification_keys()) == {ring.signing_key().kid}
        assert f"key {future} can't be used" in complaints(caplog)[0]

    @pytest.mark.parametrize("value", [{}, [], "text", 5])
    def test_is_left_out_when_it_is_none_at_all(self, value):
        future = Key.objects.get(status="future").kid
        Key.objects.filter(kid=future).update(public_jwk=value)

        assert future not in keys_ring.load().verification_keys()

    def test_is_noticed_though_the_key_was_read_before(self, rsa_pool):
        ring = keys_ring.load()
        kid = ring.signing_key().kid
        self.alter(kid, n=rsa_pool.take()["n"])

        assert kid not in keys_ring.load(ring.keys).verification_keys()

    def test_k9_that_got_a_private_member_does_not_publish_it(self):
        kid = keys_ring.load().signing_key().kid
        private = keys_ring.load().signing_key().private()
        self.alter(kid, **{name: private[name] for name in ("d", "p", "q", "dp", "dq", "qi")})

        for published in keys_ring.load().published():
            assert set(published) == {"kty", "n", "e", "use", "alg", "kid"}


class TestThreads:
    @pytest.mark.django_db(transaction=True)
    def test_share_one_reading(self):
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
    def test_open_and_sign_with_a_key_at_the_same_time(self):
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
class TestAChildForkedWhileAThreadReadsTheKeys:
    def test_reads_them_itself_instead_of_waiting_for_that_thread(self, rsa_pool, tmp_path):
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
class TestWithAReplicaThatLags:
    def test_the_replica_does_lag(self, facts):
        assert facts["replica shows the revoked key as"] == "current"
        assert facts["replica shows tokens"] == 0

    def test_keys_are_read_where_they_are_written(self, facts):
        assert not facts["revoked key is in the ring"]
        assert not facts["revoked key is published"]
        assert facts["signs now"]
        assert facts["rotates"]
        assert facts["listed"] == "revoked"

    def test_the_audit_is_read_where_it_is_written(self, facts):
        assert facts["live tokens"] == 1
        assert facts["tokens marked"] == 1
        assert facts["audit has"]


class TestARingInTheLog:
    def test_a1_shows_no_private_member(self, initial_keys):
        ring = keys_ring.load()
        private = ring.signing_key().private()
        text = repr(ring) + repr(ring.signing_key()) + str(SimpleNamespace(ring=ring))

        for name in ("d", "p", "q", "dp", "dq", "qi"):
            assert private[name] not in text
