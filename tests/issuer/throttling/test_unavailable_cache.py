"""Tests of throttling with an unavailable cache of any backend, or with a cache that rejects its configuration."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured

from instaccess.exceptions import ConfigError
from instaccess.issuer import leaky_buckets, throttling
from instaccess.issuer.throttling import Level
from tests.support.clocks import Clock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("throttled")]

NOT_THROTTLED = Level(allowed=True, level=0.0, charged=False)


class Unreliable(LocMemCache):
    """A cache whose server can be unavailable. `reads` is the number of calls of `get`."""

    available = False
    reads = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        Unreliable.reads += 1
        if not Unreliable.available:
            raise ConnectionError("the cache server is unavailable")
        return super().get(*args, **kwargs)


class Rejecting(LocMemCache):
    """A cache that rejects its configuration when its client is created, as django-redis does."""

    @property
    def client(self) -> Any:
        raise ImproperlyConfigured("unknown client class")


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> type[Unreliable]:
    """Use a cache whose server is unavailable, and return the class of the cache."""
    monkeypatch.setattr(Unreliable, "available", False)
    monkeypatch.setattr(Unreliable, "reads", 0)
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Unreliable", "LOCATION": "unreliable"}}
    caches["default"].clear()
    return Unreliable


@pytest.fixture
def clock(server: type[Unreliable], monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(throttling, "time", clock)
    throttling.reset()
    return clock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "instaccess.throttle"]


class TestAnUnavailableCache:
    def test_o2_requests_are_neither_throttled_nor_charged_while_the_cache_is_unavailable(self, clock):
        assert [throttling.charge(7) for _ in range(5)] == [NOT_THROTTLED] * 5
        assert throttling.peek(7) == NOT_THROTTLED

    def test_o2_issuer_issues_tokens_and_reports_an_empty_bucket_while_the_cache_is_unavailable(
        self, clock, post, access_token, initial_keys
    ):
        response = post(access_token)

        assert (response.status_code, response["X-Rate-Limit-Remaining"]) == (201, "600.0")

    def test_o2_outage_of_the_cache_is_logged_once_per_minute(self, clock, caplog):
        for _ in range(3):
            throttling.charge(7)
            clock.advance(19)
        assert lines(caplog) == [
            "requests are not throttled, because the cache 'default' is unavailable: ConnectionError"
        ]

        clock.advance(2)
        throttling.charge(7)
        assert len(lines(caplog)) == 1
        clock.advance(1)
        throttling.charge(7)
        assert len(lines(caplog)) == 2

    def test_o2_cache_is_not_called_for_one_second_after_a_failure(self, clock, server):
        throttling.charge(7)
        clock.advance(0.5)
        throttling.charge(7)
        assert server.reads == 1

        clock.advance(0.5)
        throttling.charge(7)
        assert server.reads == 2

    def test_o2_requests_are_throttled_again_at_most_one_second_after_the_cache_is_available(self, clock, server):
        throttling.charge(7)
        server.available = True
        assert throttling.charge(7) == NOT_THROTTLED

        clock.advance(1)
        assert throttling.charge(7) == Level(allowed=True, level=200, charged=True)

    def test_reset_lets_throttling_call_the_cache_and_log_an_error_again_immediately(self, clock, server, caplog):
        throttling.charge(7)
        throttling.reset()
        throttling.charge(7)

        assert server.reads == 2
        assert len(lines(caplog)) == 2

    def test_cache_is_not_called_if_throttling_is_off(self, clock, server, settings, caplog):
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        assert (throttling.charge(7), throttling.peek(7)) == (NOT_THROTTLED, NOT_THROTTLED)
        assert (server.reads, lines(caplog)) == (0, [])


class TestTheCheckOfTheCache:
    def test_check_cache_fails_while_the_cache_is_unavailable_even_shortly_after_a_failure(self, clock, server):
        throttling.charge(7)

        with pytest.raises(ConnectionError):
            throttling.check_cache()
        assert server.reads == 2

    def test_check_cache_succeeds_as_soon_as_the_cache_is_available(self, clock, server):
        throttling.charge(7)
        server.available = True

        throttling.check_cache()

    def test_check_cache_does_not_call_the_cache_if_throttling_is_off(self, clock, server, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        throttling.check_cache()

        assert server.reads == 0


class TestTheTimeoutsOfACacheOtherThanRedis:
    def test_missing_timeouts_is_empty_for_a_cache_in_memory(self):
        assert leaky_buckets.find_missing_timeouts(caches["default"]) == []
        assert throttling.missing_timeouts() == []

    def test_missing_timeouts_is_empty_for_a_cache_that_rejects_its_configuration(self, settings):
        settings.CACHES = {"default": {"BACKEND": f"{__name__}.Rejecting"}}

        assert throttling.missing_timeouts() == []

    def test_missing_timeouts_raises_config_error_if_the_cache_cannot_be_created(self, settings):
        settings.CACHES = {"default": {"BACKEND": "no.such.Backend"}}
        with pytest.raises(ConfigError) as error:
            throttling.missing_timeouts()
        assert error.value.setting == "THROTTLE_CACHE"

        settings.INSTACCESS = {"THROTTLE_LIMIT": None}
        assert throttling.missing_timeouts() == []


class TestAProjectWithoutRedisPy:
    def test_throttling_limits_requests_even_if_redis_py_is_not_installed(self):
        program = (
            "import sys\n"
            "sys.modules['redis'] = None\n"
            "import django\n"
            "django.setup()\n"
            "from instaccess.issuer import throttling\n"
            "print([throttling.charge(7).allowed for _ in range(4)])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

        assert done.stdout == "[True, True, True, False]\n", done.stderr
