"""Tests of the leaky bucket of an access token (docs/wire-contract.md §1), on a real Redis server."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client, override_settings

from instaccess.issuer import leaky_buckets, throttling
from instaccess.models import IssuedToken
from tests.conftest import ISSUE_URL
from tests.issuer.throttling.helpers import statuses
from tests.support import servers
from tests.support.answers import INSUFFICIENT_SCOPE, answer
from tests.support.caches import DJANGO_REDIS, DJANGOS, REDIS_URL, on_redis
from tests.support.clocks import Clock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("throttled")]


@pytest.mark.services
class TestABucketOnRedis:
    @pytest.fixture(params=[DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
    def redis(self, request: pytest.FixtureRequest, settings: Any, throttled: None) -> Iterator[Any]:
        """Put the default cache on Redis with a key prefix for this test, and yield a redis-py client."""
        import redis

        # Restore CACHES before the fixture `throttled` clears the cache, so that Django doesn't flush all of Redis.
        with override_settings(CACHES=on_redis(request.param, REDIS_URL)), redis.Redis.from_url(REDIS_URL) as client:
            client.ping()
            yield client
            for key in self.buckets(client, settings):
                client.delete(key)

    def buckets(self, redis: Any, settings: Any) -> list[bytes]:
        return list(redis.scan_iter(f"{settings.CACHES['default']['KEY_PREFIX']}:*"))

    def age(self, redis: Any, settings: Any, seconds: float) -> None:
        """Move the time of all buckets back by the given number of seconds, instead of waiting."""
        for key in self.buckets(redis, settings):
            redis.hincrbyfloat(key, "at", -seconds)

    @pytest.mark.django_db(transaction=True)
    def test_p18_redis_allows_exactly_three_of_fifty_parallel_requests(
        self, redis, slow_leak, initial_keys, access_token
    ):
        start = threading.Barrier(50)

        def ask(_: int) -> int:
            try:
                start.wait(60)
                headers = {"Authorization": f"Bearer {access_token.token}"}
                return Client().post(ISSUE_URL, headers=headers).status_code
            finally:
                connection.close()

        with ThreadPoolExecutor(50) as threads:
            answers = list(threads.map(ask, range(50)))

        assert sorted(answers) == [201] * 3 + [429] * 47
        assert IssuedToken.objects.count() == 3

    def test_bucket_on_redis_fills_and_leaks_as_in_the_wire_contract(self, redis, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 500}
        allowed = [throttling.charge(7).allowed for _ in range(4)]
        self.age(redis, settings, 20)
        later = [throttling.charge(7).allowed for _ in range(2)]

        assert allowed == [True, True, True, False]
        assert later == [True, False]
        assert throttling.charge(8).allowed

    def test_bucket_on_redis_is_empty_after_a_minute(self, redis, settings):
        for _ in range(3):
            throttling.charge(7)

        self.age(redis, settings, 60)

        assert throttling.peek(7) == throttling.Level(allowed=True, level=0)
        assert throttling.charge(7) == throttling.Level(allowed=True, level=200, charged=True)

    def test_level_on_redis_does_not_change_after_the_clock_of_redis_was_set_back(self, redis, settings):
        throttling.charge(7)

        self.age(redis, settings, -3600)

        assert throttling.peek(7).level == 200
        assert throttling.charge(7).level == 400

    def test_peek_does_not_write_to_redis(self, redis, settings):
        assert throttling.peek(7) == throttling.Level(allowed=True, level=0)
        assert self.buckets(redis, settings) == []

    def test_refund_undoes_a_charge_on_redis(self, redis, settings):
        throttling.charge(7)
        throttling.refund(7)

        assert throttling.peek(7).level == 0

    def test_redis_key_expires_when_the_bucket_is_empty(self, redis, settings):
        started = time.monotonic()
        throttling.charge(7)

        (key,) = self.buckets(redis, settings)
        remaining = redis.pttl(key)
        # On a busy machine, the remaining time can fall by seconds before the test reads it.
        elapsed = (time.monotonic() - started) * 1000
        assert 20_000 - elapsed < remaining <= 22_000

    def test_redis_contains_no_access_token_and_no_primary_key(
        self, redis, settings, initial_keys, make_access_token, post
    ):
        token = make_access_token(pk=987654321)
        assert post(token).status_code == 201

        (key,) = self.buckets(redis, settings)
        held = repr(key) + repr(redis.hgetall(key))
        assert "987654321" not in held
        assert token.token not in held

    def test_throttling_allows_requests_if_another_program_has_overwritten_the_redis_key(
        self, redis, settings, caplog
    ):
        throttling.reset()
        throttling.charge(7)
        (key,) = self.buckets(redis, settings)
        redis.delete(key)
        redis.set(key, "no bucket")

        assert throttling.charge(7).allowed
        assert "requests are not throttled, because the cache 'default' is unavailable: ResponseError" in caplog.text


@pytest.mark.services
@pytest.mark.usefixtures("slow_leak")
class TestTheConnectionToRedis:
    """Tests of the connections that throttling opens, reuses and replaces outside the project's connection pool."""

    @pytest.fixture(params=[DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def tap(self, backend: str) -> Iterator[servers.WireTap]:
        tap = servers.WireTap(urlsplit(REDIS_URL).port or 6379)
        few: dict[str, Any] = {"max_connections": 1}
        options = few if backend == DJANGOS else {"CONNECTION_POOL_KWARGS": few}
        with override_settings(CACHES=on_redis(backend, self.url(tap), **options)):
            yield tap
        tap.close()

    @staticmethod
    def url(tap: servers.WireTap) -> str:
        return f"redis://{servers.HOST}:{tap.port}/{urlsplit(REDIS_URL).path.strip('/') or 0}"

    def levels(self, times: int) -> list[float]:
        """Charge the bucket, and return the levels, rounded to hundreds because the bucket leaks in real time."""
        return [round(throttling.charge(7).level, -2) for _ in range(times)]

    def test_throttling_reuses_its_connection_to_redis_for_the_next_request(self, tap):
        assert self.levels(3) == [200, 400, 600]
        assert tap.connections == 1

    def test_throttling_replaces_a_closed_connection_and_still_refuses_requests(self, tap, caplog):
        self.levels(3)

        # Simulate a restart or an idle timeout of Redis. In both cases, Redis closes the connection.
        tap.retarget(urlsplit(REDIS_URL).port or 6379)

        assert not throttling.charge(7).allowed
        assert caplog.text == ""

    def test_throttling_does_not_use_a_connection_of_the_pool_of_the_project(self, tap):
        self.levels(1)

        cache.set("own", 1)
        assert cache.get("own") == 1
        cache.delete("own")

    def test_forked_process_opens_its_own_connection_to_redis(self, tap, monkeypatch):
        self.levels(1)

        monkeypatch.setattr(os, "getpid", lambda: -1)

        assert self.levels(1) == [400]
        assert tap.connections == 2

    def test_p18_throttling_counts_a_burst_that_exceeds_the_connection_pool_of_the_project(self, tap):
        start = threading.Barrier(20)

        def charge(_: int) -> bool:
            start.wait(60)
            return throttling.charge(7).allowed

        with ThreadPoolExecutor(20) as threads:
            allowed = list(threads.map(charge, range(20)))

        assert sum(allowed) == 3
        assert not throttling.charge(7).allowed

    def test_closed_connections_to_redis_leave_no_open_file_descriptors(self, tap):
        """Disable garbage collection, because the collector would close connections that the app forgets to close."""
        self.levels(1)
        before = len(os.listdir("/proc/self/fd"))
        gc.disable()
        try:
            for _ in range(20):
                tap.retarget(urlsplit(REDIS_URL).port or 6379)
                throttling.peek(7)
            assert len(os.listdir("/proc/self/fd")) <= before + 2
        finally:
            gc.enable()

    def test_throttling_opens_a_new_connection_when_the_settings_change(self, tap, backend):
        self.levels(1)

        with override_settings(CACHES=on_redis(backend, self.url(tap))):
            assert self.levels(1) == [200]
        assert tap.connections == 2


@pytest.mark.services
@pytest.mark.usefixtures("slow_leak")
class TestARedisClientClassOfTheProject:
    @pytest.fixture(autouse=True)
    def forgotten(self) -> None:
        throttling.reset()

    def allowed(self, **options: Any) -> int:
        with override_settings(CACHES=on_redis(DJANGO_REDIS, REDIS_URL, **options)):
            return sum(throttling.charge(7).allowed for _ in range(6))

    def test_redis_client_class_of_the_project_receives_its_options(self):
        import redis

        class Own(redis.Redis):
            def __init__(self, *args: Any, tenant: str, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)

        globals()["Own"] = Own
        try:
            own = {"REDIS_CLIENT_CLASS": f"{__name__}.Own", "REDIS_CLIENT_KWARGS": {"tenant": "a"}}
            assert self.allowed(**own) == 3
        finally:
            del globals()["Own"]

    def test_client_of_django_redis_is_used_if_redis_py_is_not_installed(self, monkeypatch):
        """Hide redis-py, because a project with django-valkey doesn't need redis-py."""
        monkeypatch.setattr(leaky_buckets, "redis", None)

        assert self.allowed() == 3


@pytest.mark.services
@pytest.mark.parametrize("backend", [DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
class TestAnUnavailableRedisServer:
    @pytest.fixture(params=["no server", "accepts and never answers"])
    def port(self, request: pytest.FixtureRequest) -> Iterator[int]:
        if request.param == "no server":
            yield servers.free_port()
            return
        with socket.create_server((servers.HOST, 0), backlog=100) as listener:
            yield listener.getsockname()[1]

    @pytest.fixture
    def clock(self, backend: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
        names = ("socket_timeout", "socket_connect_timeout")
        options = {name if backend == DJANGOS else name.upper(): 0.05 for name in names}
        clock = Clock(frozen=True)
        monkeypatch.setattr(throttling, "time", clock)
        throttling.reset()
        with override_settings(CACHES=on_redis(backend, f"redis://{servers.HOST}:{port}/9", **options)):
            yield clock

    def logged_errors(self, caplog: Any) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "instaccess.throttle"]

    def test_o2_issuer_issues_tokens_without_throttling_while_redis_is_unavailable(
        self, clock, post, initial_keys, access_token
    ):
        assert statuses(post, access_token, 5) == [201] * 5

    def test_o2_x_rate_limit_remaining_shows_an_empty_bucket_while_redis_is_unavailable(
        self, clock, post, initial_keys, access_token
    ):
        assert post(access_token)["X-Rate-Limit-Remaining"] == "600.0"

    def test_o2_issuer_refuses_an_access_token_without_the_scope_while_redis_is_unavailable(
        self, clock, post, initial_keys, make_access_token
    ):
        assert answer(post(make_access_token(scope="read"))) == INSUFFICIENT_SCOPE

    def test_o2_issuer_logs_that_redis_is_unavailable_once_per_minute(self, clock, caplog):
        for _ in range(3):
            throttling.charge(7)
        (line,) = self.logged_errors(caplog)
        assert "requests are not throttled, because the cache 'default' is unavailable: " in line

        clock.now += 59
        throttling.charge(7)
        assert len(self.logged_errors(caplog)) == 1

        clock.now += 1
        throttling.charge(7)
        assert len(self.logged_errors(caplog)) == 2
