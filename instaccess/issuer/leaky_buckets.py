"""Leaky buckets in Django's cache.

An operation on a bucket is atomic on Redis. On other caches, reading and writing the level are two steps.

The level of a bucket falls once per second. If the level fell continuously, a full bucket would be below the limit
after a microsecond. A burst of requests would then get one token more than allowed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache

try:
    import redis
except ImportError:  # Redis is optional.
    redis = None

_SLACK = 0.001
"""The tolerance, in seconds, for rounding errors in the difference of two times."""

_MAX_CONNECTIONS = 2**31
"""The maximum number of connections to Redis: in effect unlimited, because each thread uses only one connection."""

# The Lua scripts use the clock of the Redis server, because the clocks of the workers may differ. The scripts return
# the level as a string, because Redis truncates Lua numbers to integers.
_READ = """
local limit, cost, leak = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local state = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = tonumber(state[1]) or 0, math.min(tonumber(state[2]) or now, now)
local seconds = math.floor(now - at + SLACK)
level = math.max(0, level - seconds * leak)
if level == 0 then at = now else at = at + seconds end
local allowed = level < limit
""".replace("SLACK", str(_SLACK))
_WRITE = """
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', at))
redis.call('PEXPIRE', KEYS[1], (math.ceil(level / leak) + 2) * 1000)
"""
_RETURN = "return {allowed and 1 or 0, tostring(level)}"
_CHARGE = _READ + "if allowed then level = level + cost end" + _WRITE + _RETURN
_REFUND = _READ + "level = math.max(0, level - cost)" + _WRITE + _RETURN
_PEEK = _READ + _RETURN


@dataclass(frozen=True, slots=True)
class Rate:
    """The parameters of a bucket.

    Attributes:
        limit: the level at which the bucket is full.
        cost: the amount by which a request raises the level.
        leak: the amount by which the level falls per second.
    """

    limit: int
    cost: int
    leak: int


class Bucket(Protocol):
    """The operations on a leaky bucket, which limits the requests with one access token."""

    def charge(self) -> tuple[bool, float]:
        """Raise the level by the cost of a request, unless the bucket is full.

        Returns whether the level was below the limit, and the new level.
        """

    def refund(self) -> None:
        """Lower the level by the cost of a request."""

    def peek(self) -> tuple[bool, float]:
        """Return whether the level is below the limit, and the level. The bucket stays unchanged."""


def open_bucket(alias: str, cache: Any, key: str, rate: Rate) -> Bucket:
    """Return the bucket with this key in the cache that `CACHES` configures under `alias`.

    Raises the errors of the cache backend.
    """
    if isinstance(cache, RedisCache) or hasattr(getattr(cache, "client", None), "get_client"):
        return RedisBucket(_shared_client.get(alias, cache), cache.make_key(key), rate)
    return CacheBucket(cache, key, rate)


def find_missing_timeouts(cache: Any) -> list[str]:
    """Return the names of the timeout options that a Redis cache lacks.

    The names are in lower case for Django's backend, and in upper case for django-redis. From redis-py 8 on, the
    timeouts have default values. Returns an empty list for a cache other than Redis, for a client with another class
    of connection pool, such as a client of a cluster, and if redis-py isn't installed.
    """
    is_djangos = isinstance(cache, RedisCache)
    if redis is None or not (is_djangos or hasattr(getattr(cache, "client", None), "get_client")):
        return []
    client = (cache._cache if is_djangos else cache.client).get_client(write=True)
    pool: Any = getattr(client, "connection_pool", None)
    if type(pool) not in {redis.ConnectionPool, redis.BlockingConnectionPool}:
        return []
    # Creating this object opens no connection. The object applies the defaults of redis-py and options in the URL.
    connection = pool.connection_class(**pool.connection_kwargs)
    names = [name for name in ("socket_timeout", "socket_connect_timeout") if getattr(connection, name, 0) is None]
    return names if is_djangos else [name.upper() for name in names]


class RedisBucket:
    """A bucket on Redis. Each operation is one atomic script, so the level is exact across processes."""

    def __init__(self, client: Any, key: str, rate: Rate) -> None:
        self._client, self._key, self._rate = client, key, rate

    def charge(self) -> tuple[bool, float]:
        return self._run(_CHARGE)

    def refund(self) -> None:
        self._run(_REFUND)

    def peek(self) -> tuple[bool, float]:
        return self._run(_PEEK)

    def _run(self, script: str) -> tuple[bool, float]:
        rate = self._rate
        allowed, level = self._client.eval(script, 1, self._key, rate.limit, rate.cost, rate.leak)
        return bool(allowed), float(level)


class CacheBucket:
    """A bucket in a cache other than Redis. Reading and writing are two steps, so a burst may exceed the limit."""

    def __init__(self, cache: Any, key: str, rate: Rate) -> None:
        self._cache, self._key, self._rate = cache, key, rate

    def charge(self) -> tuple[bool, float]:
        level, at = self._read()
        allowed = level < self._rate.limit
        if allowed:
            level += self._rate.cost
        self._write(level, at)
        return allowed, level

    def refund(self) -> None:
        level, at = self._read()
        self._write(max(0.0, level - self._rate.cost), at)

    def peek(self) -> tuple[bool, float]:
        level, _ = self._read()
        return level < self._rate.limit, level

    def _read(self) -> tuple[float, float]:
        """Return the current level, and the time of the last leak in seconds since the epoch."""
        now = time.time()
        level, at = self._cache.get(self._key) or (0.0, now)
        seconds = math.floor(max(now - at, 0.0) + _SLACK)
        level = max(0.0, level - seconds * self._rate.leak)
        return level, min(at + seconds, now) if level else now

    def _write(self, level: float, at: float) -> None:
        # The entry expires soon after the bucket is empty, so that unused buckets don't fill the cache.
        self._cache.set(self._key, (level, at), timeout=math.ceil(level / self._rate.leak) + 2)


class _SharedClient:
    """The Redis client that all threads of a process share, with the cache settings that the client was created from.

    Django creates a cache object per thread, or per request under ASGI. Without sharing, each cache object would open
    a separate connection. Sharing is safe because redis-py's pools are thread-safe and reconnect after a fork.
    """

    def __init__(self) -> None:
        self._settings: Any = None
        self._client: Any = None

    def get(self, alias: str, cache: Any) -> Any:
        """Return the client for a cache, and replace the shared client if the settings of the cache changed."""
        settings = caches.settings[alias]
        if self._settings is not settings:
            self._client = _create_client(cache)
            self._settings = settings
        return self._client


def _create_client(cache: Any) -> Any:
    """Create a Redis client with the connection settings of a cache and a separate connection pool.

    The project may limit the connections of the cache's pool (`max_connections`). If a burst of requests exhausted
    this pool, the cache would seem to be unavailable, and the burst would not be throttled.

    Returns the cache's own client if redis-py isn't installed, or if the client or its pool has a class that this
    function doesn't support. Clients for clusters, Sentinel and valkey have such classes.
    """
    client = (cache._cache if isinstance(cache, RedisCache) else cache.client).get_client(write=True)
    if redis is None or type(client) is not redis.Redis:
        return client
    pool = client.connection_pool
    if type(pool) not in {redis.ConnectionPool, redis.BlockingConnectionPool}:
        return client
    own_pool = redis.ConnectionPool(
        connection_class=pool.connection_class, max_connections=_MAX_CONNECTIONS, **pool.connection_kwargs
    )
    return redis.Redis(connection_pool=own_pool)


_shared_client = _SharedClient()
