"""Throttling with one leaky bucket per access token, as in Canvas (docs/wire-contract.md §1).

The buckets are stored in Django's cache. If the cache is unavailable, requests are not throttled: the issuer keeps
issuing tokens and logs an error.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.cache import caches

from ..conf import conf
from ..exceptions import ConfigError
from ..logs import get_logger
from .leaky_buckets import Bucket, Rate, find_missing_timeouts, open_bucket

logger = get_logger("instaccess.throttle")

_LOG_SECONDS = 60
"""The minimum time, in seconds, between two log messages of this process about an unavailable cache."""

_PAUSE_SECONDS = 1
"""The time, in seconds, for which the cache is not called after a failure.

Without this pause, a stalled cache would delay every request.
"""


@dataclass(frozen=True, slots=True)
class Level:
    """The level of a bucket after an operation.

    Attributes:
        allowed: whether the request may proceed.
        level: the level, in the units of THROTTLE_LIMIT.
        charged: whether the operation raised the level. False if throttling is off or the cache is unavailable.
    """

    allowed: bool
    level: float
    charged: bool = False

    @property
    def remaining(self) -> str | None:
        """The value of `X-Rate-Limit-Remaining`: the limit minus the level, such as `400.0`.

        The value is None if throttling is off.

        Canvas formats the number as Ruby formats a float. Python formats floats of this size in the same way. If a
        request fills the bucket, the 201 response contains the value 0.0. Some clients treat a response with 0.0 as a
        refusal.
        """
        if (limit := conf.throttle_limit) is None:
            return None
        return str(round(max(float(limit - self.level), 0.0), 3))

    @property
    def retry_after(self) -> int:
        """The time, in whole seconds, until the level is below the limit. The value is at least 1."""
        return max(math.floor((self.level - (conf.throttle_limit or 0)) / conf.throttle_leak), 0) + 1


_NOT_THROTTLED = Level(allowed=True, level=0.0)


class _Outage:
    """The time when this process last failed to use the cache, and the time when a failure was last logged."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._failed_at = self._logged_at = float("-inf")

    @property
    def is_recent(self) -> bool:
        """Whether the last failure was less than `_PAUSE_SECONDS` ago. During this time, the cache is not called."""
        return time.monotonic() - self._failed_at < _PAUSE_SECONDS

    def record(self, error: Exception) -> None:
        """Record that the cache failed. The failure is logged unless a failure was logged in the last minute."""
        self._failed_at = time.monotonic()
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            logger.error(
                "requests are not throttled, because the cache %(cache)r is unavailable: %(error)s",
                cache=conf.throttle_cache,
                error=type(error).__name__,
            )


_outage = _Outage()


def charge(access_token_pk: Any) -> Level:
    """Raise the level of an access token's bucket by the cost of one request, and return the new level.

    If the bucket is full, the level stays unchanged, and `allowed` is False in the result.

    Raises ConfigError if the cache in THROTTLE_CACHE can't be created.
    """
    return _with_bucket(access_token_pk, _charge)


def refund(access_token_pk: Any) -> None:
    """Lower the level of an access token's bucket by the cost of one request, after the request failed.

    Raises ConfigError if the cache in THROTTLE_CACHE can't be created.
    """
    _with_bucket(access_token_pk, _refund)


def peek(access_token_pk: Any) -> Level:
    """Return the level of an access token's bucket. The bucket stays unchanged.

    Raises ConfigError if the cache in THROTTLE_CACHE can't be created.
    """
    return _with_bucket(access_token_pk, _peek)


def check_cache() -> None:
    """Read a bucket to check that the cache is available, even during the pause after a failure.

    Does nothing if throttling is off.

    Raises the errors of the cache backend, and ConfigError.
    """
    if (limit := conf.throttle_limit) is not None:
        alias, rate = conf.throttle_cache, Rate(limit, conf.throttle_cost, conf.throttle_leak)
        open_bucket(alias, _cache(alias), "instaccess.health", rate).peek()


def missing_timeouts() -> list[str]:
    """Return the missing timeout options in CACHES. Without these options, a request could wait forever for Redis.

    Returns an empty list if throttling is off, or if the backend rejects the configuration of the cache. Raises
    ConfigError.
    """
    if conf.throttle_limit is None:
        return []
    cache = _cache(conf.throttle_cache)
    try:
        return find_missing_timeouts(cache)
    except Exception:
        # Each cache backend raises its own errors. `charge` logs the error when the first request arrives.
        return []


def reset() -> None:
    """Forget earlier cache failures, so that the next operation calls the cache again."""
    _outage.clear()


def _charge(bucket: Bucket) -> Level:
    allowed, level = bucket.charge()
    return Level(allowed=allowed, level=level, charged=allowed)


def _refund(bucket: Bucket) -> Level:
    bucket.refund()
    return _NOT_THROTTLED


def _peek(bucket: Bucket) -> Level:
    allowed, level = bucket.peek()
    return Level(allowed=allowed, level=level)


def _with_bucket(access_token_pk: Any, operation: Callable[[Bucket], Level]) -> Level:
    """Run an operation on the bucket of an access token, and return the level.

    Returns a level that allows the request if throttling is off or the cache is unavailable.
    """
    limit = conf.throttle_limit
    if limit is None or _outage.is_recent:
        return _NOT_THROTTLED
    alias, rate = conf.throttle_cache, Rate(limit, conf.throttle_cost, conf.throttle_leak)
    # Hash the primary key of the access token, because other programs may be able to read the keys of the cache.
    key = "instaccess.bucket." + hashlib.sha256(str(access_token_pk).encode()).hexdigest()[:32]
    cache = _cache(alias)
    try:
        return operation(open_bucket(alias, cache, key, rate))
    except Exception as error:  # Each cache backend raises its own errors.
        _outage.record(error)
        return _NOT_THROTTLED


def _cache(alias: str) -> Any:
    """Return the cache that CACHES configures under `alias`. Raises ConfigError."""
    try:
        return caches[alias]
    except Exception as error:  # The backend is unknown, its package is missing, or the backend rejects the options.
        raise ConfigError(
            f"the cache {alias!r} in INSTACCESS['THROTTLE_CACHE'] can't be created ({type(error).__name__}): correct "
            f"CACHES[{alias!r}]",
            setting="THROTTLE_CACHE",
        ) from None
