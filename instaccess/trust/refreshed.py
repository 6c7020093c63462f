"""A cached value, such as the keys or the deny list, that the threads of a process share and reload at intervals.

This module imports no Django. Callers pass in the function that loads the value and the accepted age.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..exceptions import SourceUnavailable

logger = logging.getLogger("instaccess.snapshot")

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that a thread waits for another thread's load before it uses the cached value."""

LAST_PATIENCE = 10.0
"""Seconds that a thread waits for another thread's load if no cached value is recent enough to use."""


class Refreshed(Generic[T]):
    """A cached value. Only one thread at a time loads the value.

    Args:
        load: loads the value. Receives the cached value, or None if there is none. May raise any exception.
    """

    def __init__(self, load: Callable[[T | None], T]) -> None:
        self._load = load
        self._generation = 0
        self.clear_cache()
        # If a thread of the parent holds the lock during a fork, the child can never acquire the lock.
        os.register_at_fork(after_in_child=self.clear_cache)

    def clear_cache(self) -> None:
        """Drop the value, so that the next call of `get` loads it.

        If a load is running, its result is not stored, because the load may have read the data before this call.
        """
        self._generation += 1
        self._lock = threading.Lock()
        self._value: T | None = None
        self._failure: Exception | None = None
        self._loaded_at = self._failed_at = float("-inf")

    def get(self, *, interval: float, max_staleness: float = 0) -> T:
        """Return the value, at most `interval` seconds old, and load it if necessary.

        If loading fails, the cached value is returned for `max_staleness` more seconds. Loading is tried again after
        each `interval`.

        Other threads wait for the thread that loads the value. Otherwise, they would use an older deny list and
        accept a token that has been revoked in the meantime. After `PATIENCE` seconds, they treat the load as failed.

        Args:
            interval: the accepted age in seconds while loading works.
            max_staleness: seconds by which the value may be older while loading fails.

        Raises:
            SourceUnavailable: another thread's load takes too long, and no cached value is recent enough.
            Exception: any exception of `load`, if no cached value is recent enough.
        """
        if (value := self._value_younger_than(interval)) is not None:
            return value
        requested_at = time.monotonic()
        lock, cached_value = self._lock, self._value_younger_than(interval + max_staleness)
        # If the previous load failed, one thread tries again. The other threads use the cached value without
        # waiting.
        patience = 0.0 if self._failed_at > self._loaded_at else PATIENCE
        if not lock.acquire(timeout=LAST_PATIENCE if cached_value is None else patience):
            # Record a failure, so that the next threads don't also wait for the stalled thread.
            self._failed_at = max(self._failed_at, time.monotonic())
            if cached_value is None:
                raise SourceUnavailable("another thread has been loading this value for too long")
            return cached_value
        try:
            return self._refresh(requested_at, interval, max_staleness)
        finally:
            lock.release()

    def _refresh(self, requested_at: float, interval: float, max_staleness: float) -> T:
        started_at, generation = time.monotonic(), self._generation
        loaded_at, last = self._loaded_at, self._value
        if last is not None and (started_at - loaded_at < interval or loaded_at > requested_at):
            return last
        usable = self._value_younger_than(interval + max_staleness)
        if usable is not None and started_at - self._failed_at < interval:
            return usable
        if usable is None and self._failure is not None and self._failed_at >= requested_at:
            # Another thread's load failed during the wait. If each waiting thread tried again in turn, the last
            # thread would wait for the sum of all time-outs.
            raise self._failure.with_traceback(None)
        try:
            value = self._load(last)
        except Exception as error:
            if generation == self._generation:
                self._failure, self._failed_at = error, time.monotonic()
            usable = self._value_younger_than(interval + max_staleness)
            if usable is None:
                raise
            logger.warning("loading failed, so the cached value is still used (%s): %s", type(error).__name__, error)
            return usable
        if generation == self._generation:
            self._value, self._loaded_at, self._failure = value, started_at, None
        return value

    def _value_younger_than(self, seconds: float) -> T | None:
        # Read the time before the value. Otherwise, if another thread stored a new value in between, the old value
        # would be returned with the time of the new value.
        loaded_at, value = self._loaded_at, self._value
        return value if time.monotonic() - loaded_at < seconds else None
