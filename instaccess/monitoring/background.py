"""Functions that run in separate threads. Requests are then answered even if a server stalls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from django.db import Error as DbError
from django.db import connections

from .. import trust

T = TypeVar("T")

ANSWER_SECONDS = 0.7
"""The time, in seconds, after which a probe or a scrape is answered. Load balancers usually wait for a second."""


class Run(Generic[T]):
    """One run of a function. The run has ended, or is still in progress.

    Attributes:
        outcome: the value in a tuple, or the error. None if the run hasn't ended.
    """

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self.outcome: tuple[T] | Exception | None = None
        self._ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """The time since the start of the run."""
        return time.monotonic() - self._started_at

    def end(self, outcome: tuple[T] | Exception) -> None:
        self.outcome = outcome
        self._ended.set()

    def wait(self, deadline: float) -> tuple[T] | Exception | None:
        """Return the outcome, or None if the run hasn't ended at `deadline`, a time of the monotonic clock."""
        self._ended.wait(max(deadline - time.monotonic(), 0))
        return self.outcome


class Background(Generic[T]):
    """A function that runs in at most one thread per process. While a run stalls, later callers get the stalled run.

    Args:
        name: the name of the thread.
        function: the function to run. The function may raise any exception.
    """

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._name, self._function = name, function
        self._reset()
        # Threads don't survive a fork. If a thread of the parent holds the lock during a fork, the child can never
        # acquire the lock. The child therefore starts without a run and with a new lock.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._run: Run[T] | None = None

    def start(self) -> Run[T]:
        """Return the run that hasn't ended. If there is no such run, start a new run in a new thread."""
        with self._lock:
            if self._run is not None and not self._run.has_ended:
                return self._run
            run = self._run = Run()
            name = f"instaccess-monitoring-{self._name}"
            try:
                threading.Thread(target=self._execute, args=(run,), name=name, daemon=True).start()
            except RuntimeError as error:  # The operating system allows no more threads, or Python is shutting down.
                run.end(error)
            return run

    def _execute(self, run: Run[T]) -> None:
        outcome: tuple[T] | Exception = RuntimeError("interrupted")
        try:
            trust.open_own_connections()
            outcome = (self._function(),)
        except Exception as error:  # A hook or a cache backend of the project can raise any error.
            outcome = error
        finally:
            # Close the connections of this run, because each run opens new connections, and open connections would
            # stay open after the thread has ended.
            with suppress(DbError):
                connections.close_all()
            run.end(outcome)
