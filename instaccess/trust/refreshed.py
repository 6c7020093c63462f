"""A value that a process reads now and then and its threads share: keys, the deny list, somebody's JWKS.

No Django here; what is read, and how old it may get, is passed in.
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
"""Seconds that a thread waits for another one's reading before it goes on with what there is."""

LAST_PATIENCE = 10.0
"""Seconds that it waits when there is nothing to go on with."""


class Refreshed(Generic[T]):
    """One value, read by one thread at a time.

    Args:
        load: reads the value; gets the last one, or None at first. May raise anything.
    """

    def __init__(self, load: Callable[[T | None], T]) -> None:
        self._load = load
        self._generation = 0
        self.forget()
        # A lock that a thread of the parent held at the fork would never be released in the child.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Read anew at the next call. What is being read meanwhile is not kept: it may be older than the wish."""
        self._generation += 1
        self._lock = threading.Lock()
        self._value: T | None = None
        self._failure: Exception | None = None
        self._read_at = self._failed_at = float("-inf")

    def get(self, *, interval: float, max_staleness: float = 0) -> T:
        """The value as it was at most `interval` seconds ago.

        When reading fails, the last value serves for `max_staleness` seconds more, and reading is tried again after
        each `interval`; then what `load` raises comes through. A reading that takes longer than `PATIENCE` counts as
        failed for the threads that wait for it. As long as it may succeed they do wait: going on with an older value
        would let through what has been revoked since.
        """
        if (value := self._kept(interval)) is not None:
            return value
        asked = time.monotonic()
        lock, kept = self._lock, self._kept(interval + max_staleness)
        # The source was away a moment ago: one thread tries it again, the others need not wait to learn the same.
        patience = 0.0 if self._failed_at > self._read_at else PATIENCE
        if not lock.acquire(timeout=LAST_PATIENCE if kept is None else patience):
            # Whoever reads hangs. The next threads need not wait to learn the same.
            self._failed_at = max(self._failed_at, time.monotonic())
            if kept is None:
                raise SourceUnavailable("another thread's reading does not end")
            return kept
        try:
            return self._refreshed(asked, interval, max_staleness)
        finally:
            lock.release()

    def _refreshed(self, asked: float, interval: float, max_staleness: float) -> T:
        started, generation, read_at, last = time.monotonic(), self._generation, self._read_at, self._value
        if last is not None and (started - read_at < interval or read_at > asked):
            return last
        kept = self._kept(interval + max_staleness)
        if kept is not None and started - self._failed_at < interval:
            return kept
        if kept is None and self._failure is not None and self._failed_at >= asked:
            # It failed while we waited for it. Trying again, one thread after the other, would take for ever.
            raise self._failure.with_traceback(None)
        try:
            value = self._load(last)
        except Exception as error:
            if generation == self._generation:
                self._failure, self._failed_at = error, time.monotonic()
            kept = self._kept(interval + max_staleness)
            if kept is None:
                raise
            logger.warning("reading failed, going on with what there is: %s: %s", type(error).__name__, error)
            return kept
        if generation == self._generation:
            self._value, self._read_at, self._failure = value, started, None
        return value

    def _kept(self, age: float) -> T | None:
        # In this order: between the two a new value may come, and an old one must not pass for as young.
        read_at, value = self._read_at, self._value
        return value if time.monotonic() - read_at < age else None
