"""Tests of the system check for timeouts of a Redis cache (case O18)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.test import override_settings

from instaccess.issuer.checks import check_cache_timeouts
from tests.support.caches import DJANGO_REDIS, DJANGOS, on_redis

pytestmark = pytest.mark.services

NO_TIMEOUTS = {"socket_timeout": None, "socket_connect_timeout": None}


def unique_url() -> str:
    """Return a URL that no other test uses, because django-redis caches the options of each URL."""
    return f"redis://{uuid.uuid4()}.example.edu:6379/0"


def check(backend: str, url: str = "", **options: Any) -> list[CheckMessage]:
    with override_settings(CACHES=on_redis(backend, url or unique_url(), **options)):
        return check_cache_timeouts()


class TestTimeoutsOfRedis:
    def test_o18_deployment_check_names_the_timeouts_that_djangos_redis_cache_lacks(self):
        [message] = check(DJANGOS, **NO_TIMEOUTS)

        assert message.id == "instaccess.W035"
        assert "'default' in INSTACCESS['THROTTLE_CACHE'] has no socket_timeout and no socket_conn" in message.msg
        assert "Set CACHES['default']['OPTIONS']['socket_timeout'] = 0.5 and CACHES['default']" in message.hint

    def test_o18_deployment_check_names_the_timeouts_that_django_redis_lacks(self):
        [message] = check(DJANGO_REDIS, CONNECTION_POOL_KWARGS=NO_TIMEOUTS)

        assert "CACHES['default']['OPTIONS']['SOCKET_TIMEOUT'] = 0.5" in message.hint
        assert "CACHES['default']['OPTIONS']['SOCKET_CONNECT_TIMEOUT'] = 0.5" in message.hint

    def test_deployment_check_accepts_timeouts_in_the_options_of_a_redis_cache(self):
        assert check(DJANGOS, socket_timeout=0.5, socket_connect_timeout=0.5) == []
        assert check(DJANGO_REDIS, SOCKET_TIMEOUT=0.5, SOCKET_CONNECT_TIMEOUT=0.5) == []

    def test_deployment_check_accepts_timeouts_in_the_url_of_a_redis_cache(self):
        assert check(DJANGOS, f"{unique_url()}?socket_timeout=0.5&socket_connect_timeout=0.5") == []

    def test_deployment_check_applies_socket_timeout_to_connection_attempts_as_redis_py_does(self):
        assert check(DJANGOS, socket_timeout=0.5, socket_connect_timeout=None) == []

    def test_deployment_check_ignores_the_cache_if_throttling_is_off(self, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        assert check(DJANGOS, **NO_TIMEOUTS) == []

    def test_deployment_check_ignores_a_url_that_redis_py_rejects(self):
        assert check(DJANGOS, "no-redis://redis.example.edu", **NO_TIMEOUTS) == []

    def test_deployment_check_ignores_caches_without_redis(self):
        assert check_cache_timeouts() == []
