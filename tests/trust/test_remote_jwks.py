"""Tests of keys from a JWKS URL: the exact times of the reloads, and the callers that wait for a reload."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess.exceptions import SourceUnavailable
from instaccess.trust import MustWait, RemoteKeys, refreshed, remote_jwks
from tests.support.clocks import Clock, EventsOnAClock
from tests.support.servers import ScriptedServer, reply, scripted_server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(refreshed, "time", clock)
    monkeypatch.setattr(remote_jwks, "time", clock)
    return clock


@pytest.fixture
def key(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


def document(*keys: JWK) -> bytes:
    return json.dumps({"keys": [{"use": "sig", **key.export_public(as_dict=True)} for key in keys]}).encode()


@pytest.fixture
def server(key: JWK) -> Iterator[ScriptedServer]:
    with scripted_server(lambda handler: reply(handler, 200, document(key))) as server:
        yield server


@pytest.fixture
def keys(server: ScriptedServer, clock: Clock) -> RemoteKeys:
    return RemoteKeys(server.base_url, max_staleness=lambda: 60)


class TestTheIntervalOfAJWKSURL:
    @pytest.mark.parametrize(
        ("max_age", "interval"), [(0, 1), (1, 1), (2, 2), (10, 10), (299, 299), (300, 300), (301, 300), (86400, 300)]
    )
    def test_reload_interval_is_the_max_age_of_the_server_but_at_least_1_and_at_most_300_seconds(
        self, server, keys, key, clock, max_age, interval
    ):
        server.answer_with(200, document(key), Cache_Control=f"max-age={max_age}")
        keys.ensure_loaded()
        clock.advance(interval - 0.125)
        keys.ensure_loaded()
        assert len(server.requests) == 1
        clock.advance(0.125)
        keys.ensure_loaded()

        assert len(server.requests) == 2

    def test_reload_interval_is_300_seconds_if_the_server_sends_no_max_age(self, server, keys, clock):
        keys.ensure_loaded()
        clock.advance(299.875)
        keys.ensure_loaded()
        assert len(server.requests) == 1
        clock.advance(0.125)
        keys.ensure_loaded()

        assert len(server.requests) == 2


class TestAnUnknownKid:
    def test_unknown_kid_causes_a_reload_30_seconds_after_the_last_reload_and_not_earlier(self, server, keys, clock):
        assert "unknown" not in keys
        assert len(server.requests) == 2
        clock.advance(29.875)
        assert "unknown" not in keys
        assert len(server.requests) == 2
        clock.advance(0.125)
        assert "unknown" not in keys

        assert len(server.requests) == 3

    def test_unknown_kid_raises_no_error_until_the_last_valid_jwk_set_is_too_old(self, server, keys, clock):
        keys.ensure_loaded()
        server.answer_with(500)
        for age in (299, 350, 359):
            clock.now = 1000 + age
            assert "unknown" not in keys
        clock.now = 1000 + 360

        with pytest.raises(SourceUnavailable):
            keys.get("unknown")

    def test_new_key_is_used_after_the_reload_that_its_kid_caused(self, server, keys, key, rsa_pool):
        new = rsa_pool.take()
        keys.ensure_loaded()
        server.answer_with(200, document(key, new))

        assert keys[new.thumbprint()].thumbprint() == new.thumbprint()

    @pytest.mark.usefixtures("load_in_background")
    def test_caller_with_an_unknown_kid_waits_at_most_one_second_for_the_reload(
        self, server, keys, clock, monkeypatch
    ):
        keys.ensure_loaded()
        monkeypatch.setattr(refreshed, "threading", EventsOnAClock(clock))
        release = threading.Event()
        server.answer = lambda handler: release.wait(60)
        before = clock.now
        assert "unknown" not in keys
        release.set()

        assert clock.now - before == 1


class HeldLock:
    """A lock that another thread never releases. A caller that waits for the lock advances the simulated clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def acquire(self, timeout: float) -> bool:
        assert timeout >= 0, "the caller would wait forever"
        self._clock.advance(timeout)
        return False

    def locked(self) -> bool:
        return True


class TestAReloadInAnotherThread:
    @pytest.fixture
    def reloading(self, keys: RemoteKeys, clock: Clock) -> Clock:
        """Reload the JWK set because of an unknown kid, and simulate that another thread holds the lock."""
        assert "unknown" not in keys
        keys._refetch_lock = HeldLock(clock)  # type: ignore[assignment]
        return clock

    @pytest.mark.parametrize(
        ("since", "wait"), [(0, 1), (0.25, 0.75), (0.75, 0.25), (1, 0), (5, 0), (29.875, 0), (30, 1), (100, 1)]
    )
    def test_caller_waits_until_one_second_after_the_start_of_a_reload_in_another_thread(
        self, server, keys, reloading, clock, since, wait
    ):
        clock.advance(since)
        before = clock.now
        assert "another" not in keys

        assert clock.now - before == wait
        assert len(server.requests) == 2

    def test_first_caller_waits_one_second_if_another_thread_is_about_to_reload_the_jwk_set(self, keys, clock):
        keys._refetch_lock = HeldLock(clock)
        before = clock.now
        assert "unknown" not in keys

        assert clock.now - before == 1


class TestKeysWithoutWaiting:
    @pytest.mark.parametrize(
        ("since", "must_wait"), [(0, False), (0.875, False), (1, False), (29.875, False), (30, True), (100, True)]
    )
    def test_caller_must_wait_if_an_unknown_kid_would_cause_a_reload(self, keys, clock, since, must_wait):
        assert "unknown" not in keys
        clock.advance(since)

        assert self.must_wait(keys) is must_wait

    @pytest.mark.parametrize(
        ("since", "must_wait"), [(0, True), (0.875, True), (1, False), (29.875, False), (30, True)]
    )
    def test_unknown_kid_makes_the_caller_wait_in_the_first_second_of_a_reload_in_another_thread(
        self, keys, clock, since, must_wait
    ):
        assert "unknown" not in keys
        keys._refetch_lock = HeldLock(clock)
        clock.advance(since)

        assert self.must_wait(keys) is must_wait

    def must_wait(self, keys: RemoteKeys) -> bool:
        try:
            assert keys.without_waiting().get("another") is None
        except MustWait:
            return True
        return False

    def test_caller_with_a_known_kid_must_wait_only_if_the_jwk_set_is_missing_or_too_old(self, keys, key, clock):
        cached = keys.without_waiting()
        with pytest.raises(MustWait, match="must be loaded"):
            cached.get(key.thumbprint())
        keys.ensure_loaded()
        assert dict(cached) == dict(keys)
        assert len(cached) == 1
        clock.advance(300)

        with pytest.raises(MustWait, match="must be loaded"):
            cached.get(key.thumbprint())

    def test_caller_need_not_wait_for_a_known_kid_after_a_failed_load_until_the_jwk_set_is_too_old(
        self, server, keys, key, clock
    ):
        keys.ensure_loaded()
        server.answer_with(500)
        clock.advance(310)
        keys.ensure_loaded()
        cached = keys.without_waiting()
        clock.advance(49.875)
        assert cached[key.thumbprint()].thumbprint() == key.thumbprint()
        clock.advance(0.125)

        with pytest.raises(MustWait):
            cached.get(key.thumbprint())


class TestTheLogOfASkippedMember:
    def test_log_contains_at_most_255_characters_of_a_repeated_kid(self, key, caplog):
        member = {**key.export_public(as_dict=True), "kid": "k" * 300}
        remote_jwks.read_jwks({"keys": [member, member]})

        [record] = caplog.records
        assert record.kid == "k" * 255
