"""Health checks in threads of their own, so that a probe is answered although a server stalls.

Each check of a process has at most one thread. While a check stalls, later probes report the stalled check and start
no other thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from django.db import Error as DbError
from django.db import connections

from .. import trust
from .findings import Finding, Status, describe

ANSWER_SECONDS = 0.7
"""Seconds after which a probe is answered. Load balancers usually wait for a second."""


class _Run:
    """One run of a check, which may not have ended yet."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self._finding: Finding | None = None
        self._ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def end(self, finding: Finding) -> None:
        self._finding = finding
        self._ended.set()

    def wait(self, deadline: float) -> Finding | None:
        """Return the finding, or None if the check hasn't ended at the deadline, a time of the monotonic clock."""
        self._ended.wait(max(deadline - time.monotonic(), 0))
        return self._finding


class Check:
    """A health check of this process.

    Args:
        name: the name of the check in the response.
        function: returns the finding. Any exception is an error.
        roles: the roles that need the part that is checked.
        required: whether the roles can't answer requests without the part. Otherwise, an error is only a warning.
    """

    def __init__(
        self, name: str, function: Callable[[], Finding | None], *, roles: Iterable[str], required: bool
    ) -> None:
        self.name, self.roles = name, frozenset(roles)
        self._function = function
        self._failure = Status.ERROR if required else Status.WARNING
        self._reset()
        # Threads don't survive a fork. If a thread of the parent holds the lock during a fork, the child can never
        # acquire the lock.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def start(self) -> _Run:
        """Start a run in a new thread, unless a run hasn't ended. Returns the run that hasn't ended."""
        with self._lock:
            if self._run is not None and not self._run.has_ended:
                return self._run
            run = self._run = _Run()
            thread = threading.Thread(
                target=self._execute, args=(run,), name=f"instaccess-health-{self.name}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # The operating system allows no more threads, or Python is shutting down.
                run.end(Finding(self._failure, "no thread can be started"))
            return run

    def finding(self, run: _Run, deadline: float) -> Finding:
        """Return the finding of a run. If the run hasn't ended at the deadline, the finding reports this."""
        if (finding := run.wait(deadline)) is not None:
            return finding
        pending = round(time.monotonic() - run.started_at, 1)
        return Finding(self._failure, "no answer yet", {"pending_seconds": pending})

    def _execute(self, run: _Run) -> None:
        finding = Finding(self._failure, "the check was interrupted")
        try:
            trust.open_own_connections()
            finding = self._function() or Finding()
        except Exception as error:  # A hook or a cache backend of the project can raise any error.
            finding = Finding(self._failure, describe(error))
        finally:
            # Each run opens new connections. A stalled query would otherwise block the check until the operating
            # system notices that the connection is dead.
            with suppress(DbError):
                connections.close_all()
            run.end(finding)


_checks: dict[str, Check] = {}


def add_check(
    name: str, function: Callable[[], Finding | None], *, roles: Iterable[str], required: bool = True
) -> None:
    """Add a health check. The arguments are those of `Check`. `apps.py` adds the checks that need the tables."""
    _checks[name] = Check(name, function, roles=roles, required=required)


def run_checks(roles: Iterable[str]) -> tuple[Mapping[str, Finding], Mapping[str, bool]]:
    """Run the checks of these roles at the same time, and wait at most `ANSWER_SECONDS` for all of them.

    Returns a mapping from the name of a check to its finding, and a mapping from each role to whether the role is
    ready.
    """
    wanted = frozenset(roles)
    deadline = time.monotonic() + ANSWER_SECONDS
    checks = [check for check in _checks.values() if check.roles & wanted]
    runs = [check.start() for check in checks]
    findings = {check.name: check.finding(run, deadline) for check, run in zip(checks, runs, strict=True)}
    failed = [check for check in checks if findings[check.name].status == Status.ERROR]
    return findings, {role: not any(role in check.roles for check in failed) for role in sorted(wanted)}
