"""Counts of the requests that the issuer and the gateway refuse, by hour and reason.

Refusals are counted in memory. The counts are written to the database when a request ends, at most every `INTERVAL`
seconds. A flood of invalid tokens therefore causes one short write per worker and interval. Clients don't wait for
the write, because the response has already been sent. If a worker is killed, its unwritten counts are lost.

The counts never contain a token, an address or text from a request. Reasons are codes of `Reason`. The client id and
the user uuid come from this app's tables, or from a token whose signature has been verified. A gateway without the
app's tables doesn't store counts.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from django.core.signals import request_finished

from .. import database_errors
from ..exceptions import Reason
from ..logs import get_logger
from .recorder import metrics
from .tally import Kind, Tally

logger = get_logger("instaccess.refusals")

INTERVAL = 10
"""The minimum time, in seconds, between two attempts of a process to write its counts."""

KINDS = 200
"""The maximum number of combinations of role, reason, client and user that a process counts separately per hour.

Refusals of further combinations are counted without client and user.
"""

# Reason codes are compared as strings, because a hook may raise an error whose code isn't a `Reason`.
_REASONS = frozenset(map(str, Reason))
_LOG_SECONDS = 60
_TRIM_SECONDS = 3600
_MAX_ID_CHARS = 255


class Table(Protocol):
    """The interface to the table that stores the counts.

    `instaccess/apps.py` passes in the module `audit.refusal_counts`.
    """

    def connection(self) -> Any:
        """Return the connection to the database that contains the table."""

    def add(self, counts: Mapping[Kind, int]) -> None:
        """Add all counts to the table in one transaction. Raises DatabaseError."""

    def trim(self) -> bool:
        """Delete old and surplus rows, up to a limit per call. Returns False if more rows must be deleted."""


class RefusalCounter:
    """A counter of refusals that writes its counts to a table at intervals. Each process has one counter."""

    def __init__(self) -> None:
        self._tally = Tally(kinds=KINDS, hours=24)
        self._table: Table | None = None
        self._reset_times()
        os.register_at_fork(after_in_child=self._reset_times)

    def start(self, table: Table) -> None:
        """Start counting. From now on, the counts are written to the table."""
        self._table = table
        request_finished.connect(self._write_when_due)
        atexit.register(self._write_at_exit)

    def count(self, role: str, reason: Reason, *, client_id: str = "", user_uuid: str = "") -> None:
        """Count one refusal in memory. This method does no I/O and never raises an error.

        Args:
            role: a value of `RefusalCount.Role`.
            reason: a code. A hook's own code, which isn't in `Reason`, is counted as `Reason.OTHER`.
            client_id, user_uuid: the client and user that were refused, if known from a trusted source.
        """
        metrics.refused(role, reason)
        if self._table is None:
            return
        reason_code = str(reason) if reason in _REASONS else str(Reason.OTHER)
        hour = int(time.time()) // 3600
        self._tally.add(Kind(hour, str(role), reason_code, _identifier(client_id), _identifier(user_uuid)))

    def flush(self) -> int:
        """Write the pending counts now, in a short transaction, and return the number of refusals written.

        This method never raises an error. Counts that can't be written are kept for the next attempt, and a warning
        is logged at most once per minute. If the caller is in a transaction, the write is part of the transaction.
        """
        with self._lock:
            return self._flush()

    def reset(self) -> None:
        """Discard the pending counts, and restart the interval until the next write."""
        self._tally.forget()
        self._reset_times()

    def _reset_times(self) -> None:
        # If a thread of the parent holds the lock during a fork, the child can never acquire the lock. The child
        # therefore calls this method, which creates a new lock.
        self._lock = threading.Lock()
        self._attempted_at = time.monotonic()
        self._logged_at = self._trimmed_at = float("-inf")
        self._failed = False
        self._database: Any = None

    def _is_due(self) -> bool:
        return time.monotonic() - self._attempted_at >= INTERVAL

    def _write_when_due(self, **kwargs: Any) -> None:
        """Write pending counts if the interval has passed.

        Django calls this method after the response has been sent.
        """
        if self._table is None or not self._tally or (self._database is not None and not self._is_due()):
            return
        try:
            connection = self._table.connection()
            self._database = connection.settings_dict["NAME"]
            # Do not write inside a transaction. The tests of a project run in a transaction, and an additional query
            # would break tests that count queries.
            if not self._is_due() or connection.in_atomic_block or not self._lock.acquire(blocking=False):
                return
            try:
                if self._is_due():
                    self._flush()
            finally:
                self._lock.release()
        except Exception as error:  # A database router of the project, for example, can raise any error.
            self._log_failure(error)

    def _write_at_exit(self) -> None:
        """Write the pending counts of a worker that exits normally."""
        if self._table is None or not self._tally or self._failed or not self._lock.acquire(blocking=False):
            return
        try:
            # After a test run of a host project, the settings name the real database again. Without this comparison,
            # the counts of the tests would be written to the real database.
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
                # The request has ended, so Django does not close a connection that `add` opened. Without this call,
                # the connection would stay open.
                if not was_open and not connection.in_atomic_block:
                    connection.close()
        except Exception as error:  # Counting must never make a request fail.
            self._log_failure(error)
        finally:
            # Set the time after the attempt. If the time were set before the attempt, the next attempt could follow a
            # stalled attempt without a pause.
            self._attempted_at = time.monotonic()
            self._failed = not written
            if not written:
                self._tally.put_back(counts)
        return sum(counts.values()) if written else 0

    def _log_failure(self, error: Exception) -> None:
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            logger.warning(
                "the counts of refusals could not be written, or old counts could not be deleted (%(error)s): "
                "%(detail)s",
                error=type(error).__name__,
                detail=database_errors.describe(error),
            )


def _identifier(text: Any) -> str:
    # Only printable ASCII is kept, because every database can store printable ASCII. RFC 6749 appendix A.1 allows no
    # other characters in a client id.
    storable = isinstance(text, str) and len(text) <= _MAX_ID_CHARS and text.isascii() and text.isprintable()
    return text if storable else ""


counter = RefusalCounter()
