"""How often the issuer and the gateway refuse, by hour and reason.

Refusals are counted in memory. They are written when a request ends and the last write of this process is at least
`INTERVAL` seconds ago, so a flood of bad tokens costs each worker one short write in that time. No client waits for
the write, because the answer has been sent by then. A worker that is killed loses the counts it has not written yet.

No token, no address and no text of a request is counted. Reasons are codes of `Reason`; client and user come from
this app's rows, or from a token whose signature has been checked. Without a table (a gateway of its own) nothing is
counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from django.core.signals import request_finished

from ..exceptions import Reason
from .tally import Kind, Tally

logger = logging.getLogger("instaccess.refusals")

INTERVAL = 10
"""Seconds between two writes of a process, and between two attempts while the database is unavailable."""

KINDS = 200
"""How many different (role, reason, client, user) a process tells apart within an hour."""

# Strings, because an extension may raise an error with a code that is not a Reason.
_REASONS = frozenset(map(str, Reason))
_LOG_SECONDS = 60
_TRIM_SECONDS = 3600
_MAX_ID_CHARS = 255
_DISPATCH_UID = "instaccess.refusals"


class Table(Protocol):
    """Where counts are written. `apps.py` passes in `audit.refusal_counts`."""

    def connection(self) -> Any:
        """The connection of the database that holds the table."""

    def add(self, counts: Mapping[Kind, int]) -> None:
        """Add to the table: all of the counts, or none. Raises DatabaseError."""

    def trim(self) -> bool:
        """Delete old and surplus rows. Returns False if there are more to delete."""


class RefusalCounter:
    """Counts refusals in memory and writes them to a table now and then. Shared by the threads of a process."""

    def __init__(self) -> None:
        self._tally = Tally(kinds=KINDS, hours=24)
        self._table: Table | None = None
        self._reset_times()
        os.register_at_fork(after_in_child=self._reset_times)

    def start(self, table: Table) -> None:
        """Count from now on, and write to this table."""
        self._table = table
        request_finished.connect(self._write_when_due, dispatch_uid=_DISPATCH_UID)
        atexit.register(self._write_at_exit)

    def stop(self) -> None:
        """Count nothing any longer, and drop what has not been written."""
        request_finished.disconnect(dispatch_uid=_DISPATCH_UID)
        atexit.unregister(self._write_at_exit)
        self._table = None
        self._tally.forget()

    def count(self, role: str, reason: Reason, *, client_id: str = "", user_uuid: str = "") -> None:
        """Count one refusal in memory. Takes some microseconds, does no I/O and never fails.

        Args:
            role: a value of `RefusalCount.Role`.
            reason: a code that is not in `Reason`, as an extension may raise, is counted as `Reason.OTHER`.
            client_id, user_uuid: who was refused, if that is known from a source that can be trusted.
        """
        if self._table is None:
            return
        known = str(reason) if reason in _REASONS else str(Reason.OTHER)
        hour = int(time.time()) // 3600
        self._tally.add(Kind(hour, str(role), known, _identifier(client_id), _identifier(user_uuid)))

    def flush(self) -> int:
        """Write pending counts now, in two statements and a short transaction. Returns the number of refusals.

        Never raises: counts that can't be written are kept for later, and the log says so once a minute. Inside a
        caller's transaction they are part of that transaction.
        """
        with self._lock:
            return self._flush()

    def reset(self) -> None:
        """Drop pending counts. The next write comes after `INTERVAL`."""
        self._tally.forget()
        self._reset_times()

    def _reset_times(self) -> None:
        # Also after a fork: a lock that a thread of the parent held would never be released in the child.
        self._lock = threading.Lock()
        self._attempted_at = time.monotonic()
        self._logged_at = self._trimmed_at = float("-inf")
        self._failed = False
        self._database: Any = None

    def _is_due(self) -> bool:
        return time.monotonic() - self._attempted_at >= INTERVAL

    def _write_when_due(self, **kwargs: Any) -> None:
        """At the end of each request, after the answer has been sent."""
        if self._table is None or not self._tally or (self._database is not None and not self._is_due()):
            return
        try:
            connection = self._table.connection()
            self._database = connection.settings_dict["NAME"]
            # In the transaction of a host project's test, the write would show up among that test's queries.
            if not self._is_due() or connection.in_atomic_block or not self._lock.acquire(blocking=False):
                return
            try:
                if self._is_due():
                    self._flush()
            finally:
                self._lock.release()
        except Exception as error:  # a router of the project, or a database that is not configured
            self._log_failure(error)

    def _write_at_exit(self) -> None:
        """The last counts of a worker that ends in good order."""
        if self._table is None or not self._tally or self._failed or not self._lock.acquire(blocking=False):
            return
        try:
            # After a host project's test run the settings name the real database again. Counts of tests are not
            # for that database.
            if self._table.connection().settings_dict["NAME"] == self._database:
                self._flush()
        except Exception as error:
            self._log_failure(error)
        finally:
            self._lock.release()

    def _flush(self) -> int:
        table, counts = self._table, self._tally.take()
        if table is None or not counts:
            return 0
        written = False
        try:
            connection = table.connection()
            was_open = connection.connection is not None
            try:
                table.add(counts)
                written = True
                if time.monotonic() - self._trimmed_at >= _TRIM_SECONDS and table.trim():
                    self._trimmed_at = time.monotonic()
            finally:
                # The request has ended, so Django no longer closes a connection that was opened here.
                if not was_open and not connection.in_atomic_block:
                    connection.close()
        except Exception as error:  # a request that has been answered must not fail because of its count
            self._log_failure(error)
        finally:
            # After the attempt, not before it: a database that stalls gets its pause as well.
            self._attempted_at = time.monotonic()
            self._failed = not written
            if not written:
                self._tally.put_back(counts)
        return sum(counts.values()) if written else 0

    def _log_failure(self, error: Exception) -> None:
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            logger.warning("counts of refusals not written, kept for later: %s: %s", type(error).__name__, error)


def _identifier(text: Any) -> str:
    # Printable ASCII only, which every database can store: client ids are such by RFC 6749 appendix A.1.
    storable = isinstance(text, str) and len(text) <= _MAX_ID_CHARS and text.isascii() and text.isprintable()
    return text if storable else ""


counter = RefusalCounter()
