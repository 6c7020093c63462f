"""Background threads for health checks and metrics, so that a stalled database can't delay the responses."""

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
"""The maximum time, in seconds, until a probe or a scrape is answered. Load balancers usually wait for one second."""


class Run(Generic[T]):
    """One run of a function in a background thread, in progress or ended.

    Attributes:
        outcome: a tuple with the return value of the function, or the exception. None while the run is in progress.
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
        """The time since the start of the run, in seconds."""
        return time.monotonic() - self._started_at

    def end(self, outcome: tuple[T] | Exception) -> None:
        self.outcome = outcome
        self._ended.set()

    def wait(self, deadline: float) -> tuple[T] | Exception | None:
        """Wait until the run ends, or until `deadline`, which is a value of `time.monotonic()`.

        Returns the outcome, or None if the run is still in progress.
        """
        self._ended.wait(max(deadline - time.monotonic(), 0))
        return self.outcome


class Background(Generic[T]):
    """A function that runs in at most one thread per process. While a run is in progress, `start` returns this run.

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
        """Return the run that is in progress. If no run is in progress, start a run in a new thread."""
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
            # Close the connections that this run has opened, because they would stay open after the thread has ended.
            with suppress(DbError):
                connections.close_all()
            run.end(outcome)
