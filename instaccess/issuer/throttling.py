"""Canvas's leaky bucket, one per access token (contract §1), in Django's cache.

On Redis every request is one atomic script, exact over all processes. Other caches read and write in two steps: a
burst may slip a token or two through. A cache that is away stops nobody: issuing goes on, and the log says so.

A bucket leaks second by second. If it leaked all the time, a full one would be below its limit again after a
microsecond, and a burst got a token more than it should.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache

from ..conf import conf
from ..exceptions import ConfigError

logger = logging.getLogger("instaccess.throttle")

_COMPLAIN_SECONDS = 60

_SLACK = 0.001
"""Seconds that the sum of two times may be off by."""

# Redis's own clock: the workers' may differ. Numbers come back as text, for Redis cuts fractions off.
_SCRIPT = """
local limit, cost, leak, charged = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local state = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = tonumber(state[1]) or 0, math.min(tonumber(state[2]) or now, now)
local seconds = math.floor(now - at + SLACK)
level = math.max(0, level - seconds * leak)
if level == 0 then at = now else at = at + seconds end
local allowed = level < limit
if charged == 1 and allowed then level = level + cost end
if charged == -1 then level = math.max(0, level - cost) end
if charged ~= 0 then
  redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', at))
  redis.call('PEXPIRE', KEYS[1], (math.ceil(level / leak) + 2) * 1000)
end
return {allowed and 1 or 0, tostring(level)}
""".replace("SLACK", str(_SLACK))

_MOST_IDLE = 32
"""So many connections are kept for the next requests: as many as threads ask at once, in most servers."""

_PAUSE_SECONDS = 1
"""After a failure the cache is left alone for so long: one that hangs would hold up every request."""

_complained_at = _failed_at = float("-inf")


@dataclass(frozen=True, slots=True)
class Level:
    """How full a bucket is, whether the request was let in, and whether that raised the level: not so while the cache
    is away."""

    allowed: bool
    level: float
    charged: bool = False

    @property
    def remaining(self) -> str | None:
        """`X-Rate-Limit-Remaining`: what is left until refusals begin. None where the throttle is off: some clients
        take 0 on an answer of 201 for a refusal."""
        if (limit := conf.throttle_limit) is None:
            return None
        left = max(limit - self.level, 0.0)
        return f"{left:.3f}".rstrip("0").rstrip(".")

    @property
    def retry_after(self) -> int:
        """Whole seconds until the level has fallen below the limit; at least one."""
        return max(math.floor((self.level - (conf.throttle_limit or 0)) / conf.throttle_leak), 0) + 1


def charge(access_token_pk: Any) -> Level:
    """Let a request in and raise the level by its cost, or find the bucket full and change nothing."""
    return _move(access_token_pk, 1)


def refund(access_token_pk: Any) -> None:
    """Take a charge back: no token came of it, and that was our fault."""
    _move(access_token_pk, -1)


def peek(access_token_pk: Any) -> Level:
    """How full the bucket is."""
    return _move(access_token_pk, 0)


def reset() -> None:
    """Forget that the cache was away: it is asked, and complained of, anew."""
    global _complained_at, _failed_at  # noqa: PLW0603
    _complained_at = _failed_at = float("-inf")


def _move(access_token_pk: Any, charged: int) -> Level:
    limit = conf.throttle_limit
    if limit is None or time.monotonic() - _failed_at < _PAUSE_SECONDS:
        return Level(allowed=True, level=0.0)
    alias, cost, leak = conf.throttle_cache, conf.throttle_cost, conf.throttle_leak
    # The key is no secret, but whoever can read the cache need not learn primary keys of access tokens.
    key = "instaccess.bucket." + hashlib.sha256(str(access_token_pk).encode()).hexdigest()[:32]
    cache = _cache(alias)
    try:
        answer = _ask_redis(cache, _SCRIPT, 1, cache.make_key(key), limit, cost, leak, charged)
        allowed, level = _two_steps(cache, key, limit, charged) if answer is None else answer
        return Level(allowed=bool(allowed), level=float(level), charged=bool(allowed) and charged == 1)
    except Exception as error:  # every cache backend has errors of its own
        _complain(error)
        return Level(allowed=True, level=0.0)


def _cache(alias: str) -> Any:
    try:
        return caches[alias]
    except Exception as error:  # no such backend, a package that is missing, options it does not take
        raise ConfigError(
            f"INSTACCESS['THROTTLE_CACHE'] is {alias!r}, which can't be made ({type(error).__name__}): see CACHES",
            setting="THROTTLE_CACHE",
        ) from None


def _ask_redis(cache: Any, *script: Any) -> Any:
    """What the script answers, run by Django's own Redis cache or by django-redis; None for other caches.

    Django makes a client for each call, which takes a connection out of a pool and puts it back: together longer than
    the call. And `caches` has a cache, and so a pool, for each thread; under ASGI for each request, whose connections
    would be used once and let go in the thread of the event loop. django-redis has one pool for the process: a burst
    of requests that empties it must not pass for a cache that is away. Here a client has one connection, and is kept.
    """
    if not isinstance(cache, RedisCache) and not hasattr(getattr(cache, "client", None), "get_client"):
        return None
    idle = _idle_clients()
    client = _connected(idle) or _new_client(cache)
    is_own = getattr(client, "connection", None) is not None
    try:
        answer = client.eval(*script)
    except BaseException:
        if is_own:
            _hang_up(client)  # who knows what it would read next
        raise
    if is_own and len(idle) < _MOST_IDLE:
        idle.append(client)
    elif is_own:
        _hang_up(client)
    return answer


# The process, the cache's settings, and the clients for them that nobody talks through at the moment.
_kept: tuple[int, Any, deque[Any]] = 0, None, deque()
_parents: list[deque[Any]] = []


def _idle_clients() -> deque[Any]:
    global _kept  # noqa: PLW0603
    pid, of, clients = _kept
    configured = caches.settings[conf.throttle_cache]
    if pid != os.getpid():
        # Forked: those are the parent's, who must go on with them. To let them go would take their locks, which a
        # thread of the parent may have held at the fork.
        _parents.append(clients)
    elif of is configured:
        return clients
    _kept = os.getpid(), configured, deque()
    return _kept[2]


def _connected(idle: deque[Any]) -> Any:
    """One of these whose connection is open and quiet; None where there is none. The server may have closed it."""
    while True:
        try:
            client = idle.pop()
        except IndexError:
            return None
        with suppress(Exception):
            if not client.connection.can_read():
                return client
        _hang_up(client)


def _hang_up(client: Any) -> None:
    """Close the connection of a client of ours: it and its pool refer to each other, and would keep it open."""
    with suppress(Exception):
        client.connection.disconnect()
        client.connection_pool.disconnect()


def _new_client(cache: Any) -> Any:
    """A client with a pool of its own: the project's own calls may be all that the cache's has connections for."""
    if isinstance(cache, RedisCache):
        own: Any = caches.create_connection(conf.throttle_cache)
        client = own._cache.get_client(None, write=True)
        return client.client() if hasattr(client, "client") else client  # that of a cluster keeps its connections
    client = cache.client.get_client(write=True)
    pool: Any = getattr(client, "connection_pool", None)
    try:
        import redis  # noqa: PLC0415  (django-redis brings it)
    except ImportError:  # another library of that interface, such as valkey's
        return client
    if type(client) is not redis.Redis or type(pool) not in {redis.ConnectionPool, redis.BlockingConnectionPool}:
        # The project's own kind, or one that looks for its servers by itself, as those of clusters and sentinels do.
        return client
    pool = redis.ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs)
    own_client: Any = redis.Redis(connection_pool=pool)
    return own_client.client()


def _two_steps(cache: Any, key: str, limit: int, charged: int) -> tuple[bool, float]:
    now = time.time()
    level, at = cache.get(key) or (0.0, now)
    seconds = math.floor(max(now - at, 0.0) + _SLACK)
    level = max(0.0, level - seconds * conf.throttle_leak)
    at = min(at + seconds, now) if level else now
    allowed = level < limit
    if charged == 1 and allowed:
        level += conf.throttle_cost
    elif charged == -1:
        level = max(0.0, level - conf.throttle_cost)
    if charged:
        cache.set(key, (level, at), timeout=math.ceil(level / conf.throttle_leak) + 2)
    return allowed, level


def _complain(error: Exception) -> None:
    global _complained_at, _failed_at  # noqa: PLW0603  (what this process has met, not what a request has)
    _failed_at = time.monotonic()
    if time.monotonic() - _complained_at >= _COMPLAIN_SECONDS:
        _complained_at = time.monotonic()
        logger.error("not throttling: cache %r: %s", conf.throttle_cache, type(error).__name__)
