"""The leaky bucket of an access token (contract §1): in memory with a stopped clock, and on real Redis."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.core.cache import cache, caches
from django.core.checks import run_checks
from django.db import connection
from django.test import Client, override_settings
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instaccess import issuer, keyring, throttling
from instaccess.exceptions import AuditError
from instaccess.models import IssuedToken, Key
from tests.conftest import ISSUE_URL
from tests.support import servers
from tests.support.answers import INSUFFICIENT_SCOPE, INVALID, INVALID_AS_USER_ID, UNAVAILABLE, answer, signed_inside
from tests.support.clocks import Clock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("throttled")]

START = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
THROTTLED = b"429 Too Many Requests (Rate Limit Exceeded)"


@pytest.fixture
def clock(initial_keys: Any) -> Iterator[Any]:
    """A clock that stands still until a test shifts it."""
    with time_machine.travel(START, tick=False) as clock:
        yield clock


@pytest.fixture
def token(clock: Any, make_access_token: Callable[..., Any]) -> Any:
    return make_access_token(expires=timezone.now() + timedelta(days=1))


def statuses(post: Callable[..., Any], token: Any, times: int) -> list[int]:
    return [post(token).status_code for _ in range(times)]


class TestABucket:
    def test_p18_lets_three_pass_at_once_and_no_fourth(self, post, token):
        assert statuses(post, token, 6) == [201, 201, 201, 429, 429, 429]
        assert IssuedToken.objects.count() == 3

    def test_lets_one_more_pass_as_soon_as_it_is_no_longer_full(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(0.998)
        assert statuses(post, token, 1) == [429]
        clock.shift(0.002)
        assert statuses(post, token, 2) == [201, 429]

    def test_then_lets_one_pass_each_20_seconds(self, post, token, clock):
        statuses(post, token, 3)
        clock.shift(1)
        statuses(post, token, 1)

        passed = []
        for second in range(1, 101):
            clock.shift(1)
            if post(token).status_code == 201:
                passed.append(second)
        assert passed == [20, 40, 60, 80, 100]

    def test_is_empty_again_after_a_minute(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(60)

        assert statuses(post, token, 4) == [201, 201, 201, 429]

    def test_is_not_filled_by_refusals(self, post, token, clock):
        statuses(post, token, 30)

        clock.shift(60)

        assert statuses(post, token, 4) == [201, 201, 201, 429]

    def test_leaks_nothing_when_the_clock_goes_back_and_goes_on_from_there(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(-3600)
        assert statuses(post, token, 1) == [429]

    def test_belongs_to_one_access_token_and_not_to_its_user_or_application(self, post, token, make_access_token):
        other = make_access_token(expires=token.expires)
        statuses(post, token, 4)

        assert statuses(post, other, 4) == [201, 201, 201, 429]

    def test_is_not_emptied_by_the_other_spellings_of_the_address(self, post, token):
        paths = [ISSUE_URL, ISSUE_URL + ".json", ISSUE_URL + "/", ISSUE_URL + "?x=1"]

        assert [post(token, url=path).status_code for path in paths] == [201, 201, 201, 429]

    @given(
        limit=st.integers(1, 60),
        cost=st.integers(1, 40),
        leak=st.integers(1, 9),
        pauses=st.lists(st.integers(0, 12), max_size=25),
    )
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_refuses_while_the_level_is_at_the_limit_and_only_then(self, limit, cost, leak, pauses):
        numbers = {"THROTTLE_LIMIT": limit, "THROTTLE_COST": cost, "THROTTLE_LEAK": leak}
        level, pk = 0, uuid.uuid4()
        with override_settings(INSTACCESS=numbers), time_machine.travel(START, tick=False) as clock:
            for pause in pauses:
                clock.shift(pause)
                level = max(level - pause * leak, 0)
                allowed = level < limit
                level += cost if allowed else 0
                assert throttling.charge(pk) == throttling.Level(allowed, level, charged=allowed)

    @given(
        pause=st.floats(0, 30, allow_nan=False),
        charges=st.integers(3, 8),
    )
    @hypothesis_settings(max_examples=40, deadline=None)
    def test_lets_whoever_waits_as_long_as_it_says_pass(self, pause, charges):
        pk = uuid.uuid4()
        with time_machine.travel(START, tick=False) as clock:
            for _ in range(charges):
                throttling.charge(pk)
            clock.shift(pause)
            level = throttling.charge(pk)
            if not level.allowed:
                clock.shift(level.retry_after)
                assert throttling.charge(pk).allowed


class TestTheRefusal:
    @pytest.fixture
    def refusal(self, post: Any, token: Any) -> Any:
        statuses(post, token, 3)
        return post(token)

    def test_is_literally_canvas_s(self, refusal):
        assert (refusal.status_code, refusal.content) == (429, THROTTLED)
        assert refusal["Content-Type"] == "text/plain; charset=utf-8"
        assert refusal["Cache-Control"] == "no-store"
        assert "WWW-Authenticate" not in refusal

    def test_says_when_to_come_back(self, refusal, post, token, clock):
        assert refusal["Retry-After"] == "1"
        clock.shift(1)
        assert post(token).status_code == 201
        assert post(token)["Retry-After"] == "20"

    def test_is_a_403_where_a_setting_says_so(self, post, token, settings):
        settings.INSTACCESS = {"THROTTLE_STATUS": 403}
        statuses(post, token, 3)

        refusal = post(token)

        assert (refusal.status_code, refusal.content) == (403, THROTTLED)
        assert refusal["Content-Type"] == "text/plain; charset=utf-8"

    def test_is_in_the_log_with_its_reason(self, post, token, caplog, user):
        statuses(post, token, 4)

        assert f"refused reason=throttled user={user.pk} " in caplog.text

    def test_comes_after_that_of_who_may_not_be_somebody_else(self, post, token):
        statuses(post, token, 3)

        assert answer(post(token, data={"as_user_id": "7"})) == INVALID_AS_USER_ID


class TestTheHeaders:
    def of(self, response: Any) -> dict[str, str]:
        names = ("X-Request-Cost", "X-Rate-Limit-Remaining", "Retry-After")
        return {name: response[name] for name in names if name in response}

    def test_of_a_token_tell_its_cost_and_what_is_left(self, post, token, clock):
        assert self.of(post(token)) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "400"}
        assert self.of(post(token)) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "200"}
        clock.shift(5)
        assert self.of(post(token)) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "50"}

    def test_of_a_throttled_request_tell_no_cost(self, post, token):
        statuses(post, token, 3)

        assert self.of(post(token)) == {"X-Rate-Limit-Remaining": "0", "Retry-After": "1"}

    def test_of_a_caller_who_is_nobody_tell_of_no_bucket(self, post, client, token, make_access_token):
        expired = make_access_token(expires=timezone.now() - timedelta(hours=1))
        decrypted = signed_inside(post(token).json()["token"])
        for response in (post(), post("unknown"), post(expired), post(decrypted), client.get(ISSUE_URL)):
            assert response.status_code in {401, 403, 405}
            assert self.of(response) == {"X-Request-Cost": "0"}
        assert self.of(client.options(ISSUE_URL)) == {"X-Request-Cost": "0"}

    def test_of_a_missing_scope_tell_what_is_left(self, post, clock, make_access_token):
        response = post(make_access_token(scope="read"))

        assert answer(response) == INSUFFICIENT_SCOPE
        assert self.of(response) == {"X-Request-Cost": "0", "X-Rate-Limit-Remaining": "600"}

    def test_of_a_bad_as_user_id_tell_what_is_left(self, post, token):
        post(token)

        response = post(token, data={"as_user_id": "nobody"})

        assert answer(response) == INVALID_AS_USER_ID
        assert self.of(response) == {"X-Request-Cost": "0", "X-Rate-Limit-Remaining": "400"}

    def test_of_a_fault_of_ours_tell_what_is_left_and_when_to_come_back(self, post, token):
        post(token)
        Key.objects.update(status="past")
        keyring.forget()

        response = post(token)

        assert answer(response) == UNAVAILABLE
        assert self.of(response) == {
            "X-Request-Cost": "0",
            "X-Rate-Limit-Remaining": "400",
            "Retry-After": "10",
        }

    def test_of_an_inactive_user_tell_of_no_bucket(self, post, token):
        get_user_model().objects.update(is_active=False)

        response = post(token)

        assert answer(response) == INVALID
        assert self.of(response) == {"X-Request-Cost": "0"}


class TestAFaultOfOurs:
    def test_costs_nothing(self, post, token, initial_keys):
        current = [key.pk for key in initial_keys if key.status == "current"]
        Key.objects.filter(pk__in=current).update(status="past")
        keyring.forget()
        assert statuses(post, token, 5) == [503] * 5

        for pk in current:
            Key.objects.filter(pk=pk).update(status="current")
        keyring.forget()

        assert statuses(post, token, 4) == [201, 201, 201, 429]


class TestTheSettings:
    def test_have_other_numbers(self, post, token, settings, clock):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 10, "THROTTLE_COST": 5, "THROTTLE_LEAK": 1}

        first, second, third = post(token), post(token), post(token)

        assert [first.status_code, second.status_code, third.status_code] == [201, 201, 429]
        assert (first["X-Request-Cost"], first["X-Rate-Limit-Remaining"]) == ("5", "5")
        assert third["Retry-After"] == "1"

    def test_let_one_pass_where_the_cost_is_over_the_limit(self, post, token, settings, clock):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 1, "THROTTLE_COST": 200}

        assert statuses(post, token, 2) == [201, 429]
        clock.shift(20)
        assert statuses(post, token, 2) == [201, 429]

    def test_can_turn_it_off(self, post, token, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        assert statuses(post, token, 6) == [201] * 6

    def test_turned_off_tells_of_no_limit(self, post, token, settings):
        """One client takes a remaining 0 on an answer of 201 for a refusal."""
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        assert "X-Rate-Limit-Remaining" not in post(token)
        assert "X-Rate-Limit-Remaining" not in post(token, data={"as_user_id": "nobody"})

    def test_name_the_cache(self, post, token, settings):
        settings.CACHES = {"default": {"BACKEND": LOCMEM}, "buckets": {"BACKEND": LOCMEM, "LOCATION": "buckets"}}
        settings.INSTACCESS = {"THROTTLE_CACHE": "buckets"}
        statuses(post, token, 3)

        cache.clear()
        assert statuses(post, token, 1) == [429]
        caches["buckets"].clear()
        assert statuses(post, token, 1) == [201]

    def test_that_name_no_cache_are_an_error_of_the_checks_and_a_503(self, post, token, settings):
        settings.INSTACCESS = {"THROTTLE_CACHE": "no-such"}

        assert "instaccess.E048" in {message.id for message in run_checks()}
        assert answer(post(token)) == UNAVAILABLE

    @pytest.mark.parametrize(
        ("backend", "limit", "warned"),
        [
            (LOCMEM, 600, True),
            ("django.core.cache.backends.dummy.DummyCache", 600, True),
            ("django.core.cache.backends.redis.RedisCache", 600, False),
            (LOCMEM, None, False),
        ],
        ids=["memory", "dummy", "redis", "off"],
    )
    def test_with_a_cache_of_each_process_alone_are_a_warning_before_deployment(
        self, settings, backend, limit, warned
    ):
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:6379/9"}}
        settings.INSTACCESS = {"THROTTLE_LIMIT": limit}

        found = {message.id for message in run_checks(include_deployment_checks=True)}

        assert ("instaccess.W009" in found) is warned


class TestWhatACacheHolds:
    def test_is_no_access_token_and_no_primary_key(self, post, clock, make_access_token):
        token = make_access_token(pk=987654321, expires=timezone.now() + timedelta(hours=1))
        post(token)

        held = repr(cache._cache) + repr([cache.get(key.removeprefix(":1:")) for key in cache._cache])

        assert "instaccess.bucket." in held
        assert "987654321" not in held
        assert token.token not in held

    def test_is_gone_when_the_bucket_is_empty(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(63)

        assert all(cache.get(key.removeprefix(":1:")) is None for key in list(cache._cache))


class TestACacheThatCannotBeMade:
    @pytest.mark.parametrize("backend", ["no.such.Backend", "django.core.cache.backends.memcached.PyMemcacheCache"])
    def test_is_a_503_and_the_log_names_the_setting(
        self, post, initial_keys, access_token, caplog, backend, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "pymemcache", None)
        with override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": "127.0.0.1:1"}}):
            assert answer(post(access_token)) == UNAVAILABLE

        assert "INSTACCESS['THROTTLE_CACHE'] is 'default', which can't be made" in caplog.text
        assert IssuedToken.objects.count() == 0


class TestATokenThatFailsWhileTheCacheIsAway:
    def test_gives_nothing_back_for_nothing_was_taken(self, post, initial_keys, access_token, monkeypatch):
        for _ in range(3):
            throttling.charge(access_token.pk)
        level = throttling.peek(access_token.pk).level

        def fail(**kwargs: Any) -> Any:
            monkeypatch.undo()
            throttling.forget()
            raise AuditError

        monkeypatch.setattr(issuer, "issue", fail)
        monkeypatch.setattr(throttling, "_two_steps", lambda *args: 1 / 0)

        assert post(access_token).status_code == 503
        assert level - 20 <= throttling.peek(access_token.pk).level <= level


REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9")
DJANGOS, DJANGO_REDIS = "django.core.cache.backends.redis.RedisCache", "django_redis.cache.RedisCache"


def on_redis(backend: str, url: str, **options: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": str(uuid.uuid4()), "OPTIONS": options}}


@pytest.mark.services
class TestABucketOnRedis:
    @pytest.fixture(params=[DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
    def redis(self, request: pytest.FixtureRequest, settings: Any, throttled: None) -> Iterator[Any]:
        """The default cache is a corner of Redis of this test's own. The redis-py client."""
        import redis

        # Put back here, before anybody clears "the cache": Django's would flush the whole database.
        with override_settings(CACHES=on_redis(request.param, REDIS_URL)), redis.Redis.from_url(REDIS_URL) as client:
            client.ping()
            yield client
            for key in self.buckets(client, settings):
                client.delete(key)

    def buckets(self, redis: Any, settings: Any) -> list[bytes]:
        return list(redis.scan_iter(f"{settings.CACHES['default']['KEY_PREFIX']}:*"))

    def age(self, redis: Any, settings: Any, seconds: float) -> None:
        """What a wait of so many seconds does, without one."""
        for key in self.buckets(redis, settings):
            redis.hincrbyfloat(key, "at", -seconds)

    @pytest.mark.django_db(transaction=True)
    def test_p18_lets_exactly_three_of_fifty_at_once_pass(self, redis, settings, initial_keys, access_token):
        # 10 s of leaking away from a fourth: a slow machine changes nothing.
        settings.INSTACCESS = {"THROTTLE_LIMIT": 500}
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

    def test_fills_and_leaks_as_the_contract_says(self, redis, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 500}
        allowed = [throttling.charge(7).allowed for _ in range(4)]
        self.age(redis, settings, 20)
        later = [throttling.charge(7).allowed for _ in range(2)]

        assert allowed == [True, True, True, False]
        assert later == [True, False]
        assert throttling.charge(8).allowed

    def test_is_empty_after_a_minute(self, redis, settings):
        for _ in range(3):
            throttling.charge(7)

        self.age(redis, settings, 60)

        assert throttling.peek(7) == throttling.Level(allowed=True, level=0)
        assert throttling.charge(7) == throttling.Level(allowed=True, level=200, charged=True)

    def test_stands_still_while_the_clock_of_redis_is_behind(self, redis, settings):
        throttling.charge(7)

        self.age(redis, settings, -3600)

        assert throttling.peek(7).level == 200
        assert throttling.charge(7).level == 400

    def test_is_looked_at_without_changing_it(self, redis, settings):
        assert throttling.peek(7) == throttling.Level(allowed=True, level=0)
        assert self.buckets(redis, settings) == []

    def test_takes_a_charge_back(self, redis, settings):
        throttling.charge(7)
        throttling.refund(7)

        assert throttling.peek(7).level == 0

    def test_is_forgotten_when_it_is_empty(self, redis, settings):
        throttling.charge(7)

        (key,) = self.buckets(redis, settings)
        assert 20_000 < redis.pttl(key) <= 22_000

    def test_holds_no_access_token_and_no_primary_key(self, redis, settings, initial_keys, make_access_token, post):
        token = make_access_token(pk=987654321)
        assert post(token).status_code == 201

        (key,) = self.buckets(redis, settings)
        held = repr(key) + repr(redis.hgetall(key))
        assert "987654321" not in held
        assert token.token not in held

    def test_that_somebody_else_s_value_stands_in_for_stops_nobody(self, redis, settings, caplog):
        throttling.forget()
        throttling.charge(7)
        (key,) = self.buckets(redis, settings)
        redis.delete(key)
        redis.set(key, "no bucket")

        assert throttling.charge(7).allowed
        assert "not throttling: cache 'default': ResponseError" in caplog.text


@pytest.mark.services
class TestTheConnectionToRedis:
    """One is kept for the next request."""

    @pytest.fixture(params=[DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def tap(self, backend: str) -> Iterator[servers.Tap]:
        tap = servers.Tap(urlsplit(REDIS_URL).port or 6379)
        few: dict[str, Any] = {"max_connections": 1}
        options = few if backend == DJANGOS else {"CONNECTION_POOL_KWARGS": few}
        with override_settings(CACHES=on_redis(backend, self.url(tap), **options)):
            yield tap
        tap.close()

    @staticmethod
    def url(tap: servers.Tap) -> str:
        return f"redis://{servers.HOST}:{tap.port}/{urlsplit(REDIS_URL).path.strip('/') or 0}"

    def levels(self, times: int) -> list[float]:
        return [throttling.charge(7).level for _ in range(times)]

    def test_serves_one_request_after_the_other(self, tap):
        assert self.levels(3) == [200, 400, 600]
        assert tap.connections == 1

    def test_that_the_server_has_closed_lets_nobody_through(self, tap, caplog):
        self.levels(3)

        tap.retarget(urlsplit(REDIS_URL).port or 6379)  # as a restart does, or a time limit for idle ones

        assert not throttling.charge(7).allowed
        assert caplog.text == ""

    def test_is_none_of_those_that_the_project_has_for_itself(self, tap):
        self.levels(1)

        cache.set("own", 1)
        assert cache.get("own") == 1
        cache.delete("own")

    def test_is_not_the_parents_in_a_process_that_was_forked(self, tap, monkeypatch):
        self.levels(1)

        monkeypatch.setattr(throttling.os, "getpid", lambda: -1)

        assert self.levels(1) == [400]
        assert tap.connections == 2

    def test_p18_is_there_for_a_burst_wider_than_the_pool(self, tap, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 500}
        start = threading.Barrier(20)

        def charge(_: int) -> bool:
            start.wait(60)
            return throttling.charge(7).allowed

        with ThreadPoolExecutor(20) as threads:
            allowed = list(threads.map(charge, range(20)))

        assert sum(allowed) == 3
        assert not throttling.charge(7).allowed

    def test_is_closed_when_it_is_of_no_more_use(self, tap):
        """Also where nobody collects garbage: what gunicorn is often told."""
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

    def test_is_not_one_for_every_thread_that_there_ever_was(self, tap, monkeypatch):
        monkeypatch.setattr(throttling, "_MOST_IDLE", 2)
        start = threading.Barrier(10)

        def peek(_: int) -> throttling.Level:
            start.wait(60)
            return throttling.peek(7)

        with ThreadPoolExecutor(10) as threads:
            list(threads.map(peek, range(10)))

        assert len(throttling._idle_clients()) <= 2

    def test_is_another_once_the_settings_name_another_server(self, tap, backend):
        self.levels(1)

        with override_settings(CACHES=on_redis(backend, self.url(tap))):
            assert self.levels(1) == [200]
        assert tap.connections == 2


@pytest.mark.services
class TestAClientOfTheProjectsOwn:
    @pytest.fixture(autouse=True)
    def forgotten(self) -> None:
        throttling.forget()

    def allowed(self, **options: Any) -> int:
        with override_settings(CACHES=on_redis(DJANGO_REDIS, REDIS_URL, **options)):
            return sum(throttling.charge(7).allowed for _ in range(6))

    def test_is_asked_with_what_the_project_gives_it(self):
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

    def test_is_asked_where_it_is_none_of_redis_py(self, monkeypatch):
        """django-valkey has the same interface."""
        monkeypatch.setitem(sys.modules, "redis", None)

        assert self.allowed() == 3


@pytest.mark.services
@pytest.mark.parametrize("backend", [DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
class TestRedisAway:
    @pytest.fixture(params=["nobody listens", "accepts and says nothing"])
    def port(self, request: pytest.FixtureRequest) -> Iterator[int]:
        if request.param == "nobody listens":
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
        throttling.forget()
        with override_settings(CACHES=on_redis(backend, f"redis://{servers.HOST}:{port}/9", **options)):
            yield clock

    def complaints(self, caplog: Any) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "instaccess.throttle"]

    def test_o2_issuing_goes_on(self, clock, post, initial_keys, access_token):
        assert statuses(post, access_token, 5) == [201] * 5

    def test_o2_the_headers_tell_of_an_empty_bucket(self, clock, post, initial_keys, access_token):
        assert post(access_token)["X-Rate-Limit-Remaining"] == "600"

    def test_o2_refusals_go_on_too(self, clock, post, initial_keys, make_access_token):
        assert answer(post(make_access_token(scope="read"))) == INSUFFICIENT_SCOPE

    def test_o2_the_log_says_so_once_a_minute(self, clock, caplog):
        for _ in range(3):
            throttling.charge(7)
        assert len(self.complaints(caplog)) == 1
        assert "not throttling: cache 'default': " in self.complaints(caplog)[0]

        clock.now += 59
        throttling.charge(7)
        assert len(self.complaints(caplog)) == 1

        clock.now += 1
        throttling.charge(7)
        assert len(self.complaints(caplog)) == 2
