"""A cached value, such as the keys or the deny list, that the threads of a process share and reload at intervals.

A separate thread reloads the value before the value becomes too old. Requests therefore don't wait for a database or
another server. A request waits only if the value is too old, and only for a limited time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from django.db import connections

from .. import database_errors, web
from ..exceptions import SourceUnavailable
from ..logs import get_logger
from .loading import DatabaseThread, LoadingThread, load_from_database

logger = get_logger("instaccess.snapshot")

T = TypeVar("T")

_FAILED = "loading the keys or the deny list failed, so the cached value is kept"

PATIENCE = 0.5
"""The maximum time, in seconds after the start of a load, for which callers wait before they use the cached value.

A gateway may wait for the keys and then for the deny list. The proxies in the examples wait longer than twice this
time for the gateway.
"""

LAST_PATIENCE = 5.0
"""The maximum time, in seconds after the start of a load, for which callers wait if no cached value is usable.

A cached value is usable if the value is less than `interval` + `max_staleness` seconds old (see `Refreshed.get`).
"""

AHEAD = 0.75
"""The fraction of the interval after which a request for the value starts a reload in the background."""

STALLED_SECONDS = 2.0
"""The time, in seconds, after which a load counts as stalled and a new load is started.

The connection of a stalled load may be dead. The time doubles with each stalled load, up to `MAX_STALLED_SECONDS`. If
no value is cached, the time starts at `LAST_PATIENCE` instead.
"""

MAX_STALLED_SECONDS = 30.0
"""The largest value, in seconds, of the time after which a load counts as stalled."""

RECENT_TROUBLE = 10.0
"""The time, in seconds, for which callers wait less after a load failed or a caller stopped waiting for a slow load.

If callers always waited for `LAST_PATIENCE`, a database outage would block every thread repeatedly.
"""


class _Held(NamedTuple, Generic[T]):
    """A loaded value, and the time when its load started.

    The age of the value counts from the start of the load, because the load may have read the data immediately.
    """

    value: T | None
    loaded_at: float

    def younger_than(self, seconds: float) -> T | None:
        return self.value if time.monotonic() - self.loaded_at < seconds else None


class _LoadIsSlow(SourceUnavailable):
    """The error for a load that has not ended in time."""


class _Load(Generic[T]):
    """A load that is running or has ended.

    Attributes:
        started_at: the start of the load, in seconds on the monotonic clock.
        outcome: a tuple that contains the loaded value, or the error of the load.
    """

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.outcome: tuple[T] | Exception = SourceUnavailable("loading the keys or the deny list was interrupted")
        self._traceback: TracebackType | None = None
        self._ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def end(self) -> None:
        """Mark the load as ended, and wake the waiting threads. The outcome must not change afterwards."""
        if isinstance(self.outcome, Exception):
            self._traceback = self.outcome.__traceback__
        self._ended.set()

    def wait(self, patience: float) -> None:
        """Wait until the load ends. Raises _LoadIsSlow after `patience` seconds from the start of the load."""
        # If the time has already passed, the argument is negative, and `Event.wait` returns immediately.
        if not self._ended.wait(self.started_at + patience - time.monotonic()):
            raise _LoadIsSlow("loading the keys or the deny list takes too long")

    def result(self, patience: float) -> T:
        """Wait until the load ends, and return the loaded value.

        Args:
            patience: the maximum time to wait, in seconds from the start of the load.

        Raises _LoadIsSlow if the load takes longer, or the error of the load.
        """
        self.wait(patience)
        if isinstance(self.outcome, Exception):
            # Set the original traceback, because each waiting thread adds its frames to the shared exception.
            raise self.outcome.with_traceback(self._traceback)
        (value,) = self.outcome
        return value


class Refreshed(Generic[T]):
    """A cached value that is loaded by at most one thread at a time, unless a load stalls.

    Args:
        load: a function that loads the value. The argument is the cached value, or None if no value is cached. The
            function may raise any exception.
        find_alias: a function that returns the alias of the database that `load` queries. Pass None instead of a
            function if `load` doesn't query a database.
    """

    in_background = True
    """Whether separate threads load values. Tests set False, because a load must use the transaction of the test."""

    def __init__(self, load: Callable[[T | None], T], find_alias: Callable[[], str] | None = None) -> None:
        self._load = load
        self._find_alias = find_alias
        self.clear_cache()
        # Threads don't survive a fork. If a thread of the parent holds the lock during a fork, the child can never
        # acquire the lock. The child therefore starts without threads and with a new lock.
        os.register_at_fork(after_in_child=self.clear_cache)

    def clear_cache(self) -> None:
        """Drop the cached value. The next call of `get` then loads the value.

        If a load is running, its result is not cached, because the load may have read the data before this call.
        """
        # A load stores its result only if `_generation` has been the same object since the start of the load.
        self._generation = object()
        self._lock = threading.Lock()
        self._thread: LoadingThread | None = None
        self._running: _Load[T] | None = None
        self._stalled = 0
        self._held: _Held[T] = _Held(None, float("-inf"))
        # `_failed_at` is the time of the last failed load. `_waited_at` is the last time when a caller stopped
        # waiting for a slow load.
        self._failed_at = self._waited_at = float("-inf")

    @property
    def age(self) -> float | None:
        """The seconds since the load of the cached value began. None if no value is cached."""
        held = self._held
        return None if held.value is None else time.monotonic() - held.loaded_at

    @property
    def cached(self) -> T | None:
        """The cached value, even if the value is too old. None if no value is cached."""
        return self._held.value

    def get(self, *, interval: float, max_staleness: float, patience: float | None = None) -> T:
        """Return the cached value if the value is less than `interval` seconds old, or else load the value.

        If loading fails, the cached value is returned while the value is less than `interval` + `max_staleness`
        seconds old, and loading is tried again after each `interval`. Callers wait for a running load, because a
        gateway with an old deny list could accept a token that was revoked after the deny list was loaded. A load
        that takes too long counts as failed.

        Args:
            interval: the maximum age, in seconds, while loading works.
            max_staleness: the time, in seconds, by which the age may exceed `interval` while loading fails.
            patience: the maximum time, in seconds from the start of a load, to wait for the load; PATIENCE by
                default. The argument is ignored if no cached value is less than `interval` + `max_staleness` seconds
                old.

        Raises:
            SourceUnavailable: loading takes too long, and no cached value is less than `interval` + `max_staleness`
                seconds old.
            Exception: any exception of `load`, if no cached value is less than `interval` + `max_staleness` seconds
                old.
        """
        if (value := self.get_without_waiting(interval=interval, max_staleness=max_staleness)) is not None:
            return value
        requested_at = time.monotonic()
        usable = self._held.younger_than(interval + max_staleness)
        patience = self._patience(requested_at, PATIENCE if patience is None else patience, usable is not None)
        try:
            return self._start_or_join(requested_at, interval, patience).result(patience)
        except Exception as error:
            if isinstance(error, _LoadIsSlow):
                self._waited_at = time.monotonic()
            if (usable := self._held.younger_than(interval + max_staleness)) is None:
                raise
            return usable

    def get_without_waiting(self, *, interval: float, max_staleness: float) -> T | None:
        """Return the value that `get` would return immediately, or None if `get` would have to load the value.

        This method has the same arguments as `get`. If the value is nearly too old, the value is reloaded in the
        background.
        """
        held = self._held
        if (value := held.younger_than(interval)) is not None:
            if self.in_background and held.younger_than(interval * AHEAD) is None:
                self._load_ahead(interval)
            return value
        usable = held.younger_than(interval + max_staleness)
        return usable if time.monotonic() - self._failed_at < interval else None

    def _patience(self, now: float, patience: float, has_usable_value: bool) -> float:
        """Return the maximum time, in seconds, to wait for a load. The time is shorter after a failure or stall."""
        trouble = now - max(self._failed_at, self._waited_at) < RECENT_TROUBLE
        if has_usable_value:
            return 0.0 if trouble else patience
        return PATIENCE if trouble else LAST_PATIENCE

    def _load_ahead(self, interval: float) -> None:
        """Start a load in a separate thread, unless a load is running or has failed recently."""
        running = self._running
        has_failed = time.monotonic() - self._failed_at < interval
        if not has_failed and (running is None or running.has_ended) and self._may_use_thread():
            self._start(running, stalled=False)

    def _start_or_join(self, requested_at: float, interval: float, patience: float) -> _Load[T]:
        """Return the running load if the load started at most `interval` seconds before the request.

        If the running load started earlier, wait until the load ends or stalls. Then, or if no load is running, start
        a load and return the new load.

        Args:
            requested_at: the time of the request, in seconds on the monotonic clock.
            interval: the maximum time, in seconds, between the start of the load and the request.
            patience: the maximum time, in seconds, to wait for the end of an older load.

        Raises _LoadIsSlow if an older load doesn't end in time.
        """
        while (running := self._running) is not None and not running.has_ended:
            if running.started_at >= requested_at - interval:
                return running
            if self._has_stalled(running) and self._may_use_thread():
                return self._start(running, stalled=True)
            running.wait(patience)
        return self._start(running, stalled=False)

    def _has_stalled(self, load: _Load[T]) -> bool:
        first = LAST_PATIENCE if self._held.value is None else STALLED_SECONDS
        limit: float = min(first * 2**self._stalled, MAX_STALLED_SECONDS)
        return time.monotonic() - load.started_at >= limit

    def _may_use_thread(self) -> bool:
        """Return whether a separate thread may load the value.

        In an open transaction, the caller's thread loads the value, because other connections can't read the changes
        of the transaction.
        """
        if not self.in_background:
            return False
        return self._find_alias is None or not connections[self._find_alias()].in_atomic_block

    def _start(self, previous: _Load[T] | None, *, stalled: bool) -> _Load[T]:
        """Start a load, unless another thread has started a load since `previous`. Returns the latest load.

        Args:
            previous: the latest load when the caller decided to start a load.
            stalled: whether the new load replaces a stalled load.
        """
        with self._lock:
            if self._running is not previous and self._running is not None:
                return self._running
            self._stalled += stalled
            load = self._running = _Load()
            run = partial(self._run, load, self._generation, self._held.value)
            in_thread = self._may_use_thread() and self._hand_over(run)
        if not in_thread:
            run()
        return load

    def _hand_over(self, function: Callable[[], None]) -> bool:
        """Run a function in the loading thread, or in a new thread. Returns False if no thread can be started."""
        if self._thread is not None and self._thread.offer(function):
            return True
        try:
            self._thread = LoadingThread() if self._find_alias is None else DatabaseThread()
        except RuntimeError as error:  # The operating system allows no more threads, or Python is shutting down.
            logger.warning(
                "no thread can be started, so requests load the keys and the deny list: %(detail)s", detail=str(error)
            )
            return False
        return self._thread.offer(function)

    def _run(self, load: _Load[T], generation: object, last: T | None) -> None:
        try:
            value = self._query(last)
            load.outcome = (value,)
            if generation is self._generation and load.started_at >= self._held.loaded_at:
                self._held, self._stalled = _Held(value, load.started_at), 0
        except Exception as error:
            load.outcome = error
            if generation is self._generation:
                self._failed_at = time.monotonic()
            if last is not None:
                message = f"{_FAILED} ({type(error).__name__})"
                detail = database_errors.describe(error) or "-"
                web.Fault.of(message, error, detail=detail).log(logger, level=logging.WARNING)
        finally:
            load.end()

    def _query(self, last: T | None) -> T:
        if self._find_alias is None:
            return self._load(last)
        return load_from_database(lambda: self._load(last), self._find_alias())
