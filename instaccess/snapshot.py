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

logger = logging.getLogger("instaccess.snapshot")

T = TypeVar("T")


class Snapshot(Generic[T]):
    """One value, read by one thread at a time while the others go on with the last.

    Args:
        load: reads the value; gets the last one, or None at first. May raise anything.
    """

    def __init__(self, load: Callable[[T | None], T]) -> None:
        self._load = load
        self.forget()
        # A lock that a thread of the parent held at the fork would never be released in the child.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Read anew at the next call."""
        self._lock = threading.Lock()
        self._value: T | None = None
        self._read_at = self._failed_at = float("-inf")

    def get(self, *, interval: float, max_staleness: float = 0) -> T:
        """The value as it was at most `interval` seconds ago.

        When reading fails, the last value serves for `max_staleness` seconds more, and reading is tried again after
        each `interval`; then what `load` raises comes through.
        """
        if time.monotonic() - self._read_at < interval and self._value is not None:
            return self._value
        lock, kept = self._lock, self._value if self._usable(interval + max_staleness) else None
        if not lock.acquire(blocking=kept is None) and kept is not None:
            # Another thread is reading; waiting for it would let one slow database hold all of them.
            return kept
        try:
            return self._refreshed(interval, max_staleness)
        finally:
            lock.release()

    def _refreshed(self, interval: float, max_staleness: float) -> T:
        started = time.monotonic()
        if self._value is not None and started - self._read_at < interval:
            return self._value
        if self._usable(interval + max_staleness) and started - self._failed_at < interval:
            return self._kept()
        try:
            self._value = self._load(self._value)
        except Exception as error:
            self._failed_at = started
            if not self._usable(interval + max_staleness):
                raise
            logger.warning("reading failed, going on with what there is: %s: %s", type(error).__name__, error)
            return self._kept()
        self._read_at = started
        return self._value

    def _usable(self, age: float) -> bool:
        return self._value is not None and time.monotonic() - self._read_at < age

    def _kept(self) -> T:
        if self._value is None:
            raise RuntimeError("there is no value yet")
        return self._value
