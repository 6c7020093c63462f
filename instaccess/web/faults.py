"""Log lines about server-side errors. During an outage, the number of lines is limited.

In an outage, a database or another server is unavailable. Without the limit, each failed request would write a
traceback. A process logs each kind of outage at most once per minute, and at most one traceback per minute for all
kinds together. Further errors of the same kind are counted. The count is logged after the minute, or before the next
line of this kind. Errors with a cause other than an outage, such as a fault in a hook, are always logged.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.signals import request_finished
from django.db import Error as DbError
from django.http.response import HttpResponseBase

from .. import database_errors
from ..exceptions import InstAccessError, Reason, SourceUnavailable
from ..logs import Logger
from .unexpected import describe_unexpected

SECONDS = 60
"""The minimum time, in seconds, between two lines about the same kind of outage, and between two tracebacks."""

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep


@dataclass(frozen=True, slots=True)
class Fault:
    """The description of a server-side error, which is logged after the `except` block has ended.

    The object contains no reference to the exception, because log handlers and error reporters could reach a token in
    the frames of the exception.

    Attributes:
        message: the log message with the placeholders `%(error)s` and `%(detail)s`.
        error: the class name of the exception.
        reason: the reason code.
        detail: the message of the exception, or its traceback.
        brief: the text that replaces a traceback in `detail` if the process has logged a traceback in the last
            minute.
        kind: the cause of an outage, and the line of code that failed. None for every other error.
    """

    message: str
    error: str
    reason: Reason
    detail: str
    brief: str = ""
    kind: tuple[str, ...] | None = None

    @classmethod
    def of(cls, message: str, error: BaseException, *, detail: str = "") -> Fault:
        """Describe an exception that is being handled.

        Args:
            message: the log message without the description, such as `the gateway could not check the token`.
            detail: the description of the exception, without secrets. By default, the description of a database error
                or an error of this package is its class and message. The description of every other error is its
                class and stack frames.
        """
        name, kind = type(error).__name__, _outage_kind(error)
        reason = error.code if isinstance(error, InstAccessError) else Reason.FAULT
        if detail:
            brief = _last_message(detail, error) + _place(error) if kind and "\n" in detail else ""
            return cls(f"{message}: %(detail)s", name, reason, detail, brief, kind)
        if isinstance(error, (DbError, InstAccessError)):
            detail = database_errors.describe(error)
            return cls(f"{message} (%(error)s): %(detail)s", name, reason, detail, "", kind)
        return cls(f"{message}: %(detail)s", name, reason, describe_unexpected(error), "", kind)

    def log(self, logger: Logger, *, level: int = logging.ERROR) -> bool:
        """Log the error, or count the error if it repeats a recent outage. Returns whether the error was logged."""
        return outages.log(self, logger, level)


@dataclass(slots=True)
class _Outage:
    """An outage that was logged. `count` is the number of later errors of the same kind."""

    fault: Fault
    logger: Logger
    level: int
    logged_at: float
    count: int = 0


class OutageLog:
    """The outages that this process has logged in the last minute. All threads share one object."""

    def __init__(self) -> None:
        self.clear()
        # If a thread of the parent holds the lock during a fork, the child can never acquire the lock. The child
        # therefore gets a new lock. The child starts without counts, because the parent logs the counts.
        os.register_at_fork(after_in_child=self.clear)

    def clear(self) -> None:
        """Delete the recorded outages. The next error is then logged with its traceback, and not only counted."""
        self._lock = threading.Lock()
        self._recent: dict[tuple[str, ...], _Outage] = {}
        self._traced_at = float("-inf")

    def log(self, fault: Fault, logger: Logger, level: int) -> bool:
        """Log an error, or count the error if it repeats an outage of the last minute.

        Returns whether the error was logged.
        """
        detail = fault.detail
        if fault.kind is not None:
            key, now = (logger.name, fault.message, *fault.kind), time.monotonic()
            with self._lock:
                previous = self._recent.get(key)
                if previous is not None and now - previous.logged_at < SECONDS:
                    previous.count += 1
                    return False
                self._recent[key] = _Outage(fault, logger, level, now)
                if fault.brief and now - self._traced_at < SECONDS:
                    detail = fault.brief
                elif fault.brief:
                    self._traced_at = now
            request_finished.connect(self._log_counts_when_due)  # Repeated calls have no effect.
            if previous is not None:
                _log_count(previous, now)
        logger.log(level, fault.message, stacklevel=4, error=fault.error, reason=fault.reason, detail=detail)
        return True

    def _log_counts_when_due(self, **kwargs: Any) -> None:
        """Log the counts of the outages that were logged at least a minute ago.

        Django calls this method when a request has ended.
        """
        if not self._recent:
            return
        now = time.monotonic()
        with self._lock:
            over = [key for key, outage in self._recent.items() if now - outage.logged_at >= SECONDS]
            ended = [self._recent.pop(key) for key in over]
        for outage in ended:
            _log_count(outage, now)


def skip_request_log(response: HttpResponseBase) -> None:
    """Prevent Django from logging the 503 for an error that was counted and not logged.

    Otherwise, Django would log a line for each 503 during an outage.
    """
    response._has_been_logged = True  # type: ignore[attr-defined]


def _log_count(outage: _Outage, now: float) -> None:
    if outage.count:
        outage.logger.log(
            outage.level,
            "the same error occurred %(count)d more times in %(seconds)d seconds (%(error)s): %(repeated)s",
            count=outage.count,
            seconds=round(now - outage.logged_at),
            error=outage.fault.error,
            reason=outage.fault.reason,
            repeated=outage.fault.message.partition(" (%")[0].partition(": %")[0],
        )


def _outage_kind(error: BaseException) -> tuple[str, ...] | None:
    """Return the exception classes, the error code and the place of an outage, or None for any other error."""
    if not isinstance(error, SourceUnavailable) and not database_errors.is_outage(error):
        return None
    classes = [type(each).__name__ for each in database_errors.chain(error)]
    return (*classes, database_errors.code(error), _place(error))


def _last_message(trace: str, error: BaseException) -> str:
    """Return the class and the message of an error as one line.

    The message is read from the traceback, from which the caller has removed the credentials of the client. If the
    traceback contains no message, only the class is returned.
    """
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    found, _, message = f"\n{trace}".rpartition(f"\n{name}:")
    return " ".join(f"{name}: {message}".split()) if found else name


def _place(error: BaseException) -> str:
    """Return the innermost file and line of this package in a traceback, such as ` (audit/recording.py:93)`."""
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        if (name := frame.f_code.co_filename).startswith(_PACKAGE):
            return f" ({name.removeprefix(_PACKAGE)}:{line})"
    return ""


outages = OutageLog()
