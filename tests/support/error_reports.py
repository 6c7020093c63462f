"""Functions and classes that read everything that logs, mails and error reports can contain.

`read_exception` is stricter than any error reporter. The function reads every local variable of every frame, also of
causes and of suppressed contexts. As Sentry does, the function also reads the items of every mapping and sequence.
"""

from __future__ import annotations

import html
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from django.core import mail
from django.core.signals import got_request_exception
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

import instaccess

PACKAGE = str(Path(instaccess.__file__).parent)
TESTS = str(Path(__file__).parent.parent)
# Skip the frames of the tests, the test client, the test runner and `logging`, because tests pass secrets to them.
# Skip the WSGI handler too, because its `environ` belongs to the server.
OUTSIDE = (
    TESTS,
    *("/django/test/", "/django/core/handlers/wsgi.py", "/logging/__init__.py"),
    *("/_pytest/", "/pluggy/", "/xdist/", "/execnet/"),
)


def read_exception(error: BaseException) -> str:
    """Return everything that an error reporter can collect from an exception, as one string."""
    lines: list[str] = []
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        lines += [repr(current), str(current), *read_value(current.args), *read_value(vars(current))]
        for frame, _ in traceback.walk_tb(current.__traceback__):
            lines += read_frame(frame)
        waiting += [current.__cause__, current.__context__]
    return "\n".join(lines)


def read_stack() -> str:
    """Return the local variables of all calling functions, which some error reporters add to a log record."""
    lines: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        lines += read_frame(frame)
        frame = frame.f_back
    return "\n".join(lines)


def is_outside(frame: FrameType) -> bool:
    """Return whether a frame belongs to the test or the server. Such a frame may contain secrets."""
    return any(part in frame.f_code.co_filename for part in OUTSIDE)


def read_frame(frame: FrameType) -> Iterator[str]:
    if is_outside(frame):
        return
    where = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
    for name, value in frame.f_locals.items():
        for text in read_value(value):
            yield f"{where} {name} = {text}"


def read_value(value: Any, depth: int = 5) -> Iterator[str]:
    """Yield the `repr` of a value and of the items in the value, down to `depth` levels of nested containers."""
    try:
        yield repr(value)
    # The `repr` of a lazy object can fail in these tests, because the `repr` runs a query.
    except Exception as error:
        yield f"no repr: {type(error).__name__}"
    # Use `type`, because `isinstance` would evaluate a lazy object.
    kind = type(value)
    if not depth or issubclass(kind, (str, bytes)):
        return
    members: list[Any] = []
    with suppress(Exception):
        if issubclass(kind, Mapping):
            members = [part for item in value.items() for part in item]
        elif issubclass(kind, (Sequence, AbstractSet)):
            members = list(value)
    for member in members:
        yield from read_value(member, depth - 1)


class Log(logging.Handler):
    """A log handler that reads each log record, the current exception, and the stack of each logged error."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.stacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts += [self.format(record), *read_value(vars(record))]
        if record.levelno < logging.ERROR:
            return
        self.stacks.append(read_stack())
        for error in (sys.exc_info()[1], record.exc_info and record.exc_info[1]):
            if error:
                self.texts.append(read_exception(error))


class CaughtExceptions(logging.Handler):
    """A log handler that stores the exception that is being handled when a record is logged, or None."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(sys.exc_info()[1])


class NewFrames(logging.Filter):
    """A log filter that drops a record if its exception has the same frames as an earlier exception, to save time."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[tuple[str, ...]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return error is None or self.is_new(error)

    def is_new(self, error: BaseException) -> bool:
        frames = tuple(line for line in traceback.format_exception(error) if line.startswith("  File"))
        new = frames not in self._known
        self._known.add(frames)
        return new


class Collector:
    """A collector of the logs, the mails and the error reports that an action causes."""

    def __init__(self) -> None:
        self.log = Log()
        self.exceptions: list[BaseException] = []
        self.new_frames = NewFrames()
        self._mailer = AdminEmailHandler(include_html=True)
        self._mailer.setLevel(logging.ERROR)
        self._mailer.addFilter(self.new_frames)
        self._loggers: list[tuple[logging.Logger, int, bool, bool, list[logging.Handler]]] = []

    def start(self) -> None:
        got_request_exception.connect(self._read_request_exception)
        for logger in map(logging.getLogger, list(logging.root.manager.loggerDict)):
            self._loggers.append((logger, logger.level, logger.disabled, logger.propagate, logger.handlers))
            logger.disabled, logger.propagate, logger.handlers = False, True, []
            logger.setLevel(logging.NOTSET)
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger("instaccess").setLevel(logging.DEBUG)
        logging.getLogger().addHandler(self.log)
        logging.getLogger().addHandler(self._mailer)

    def stop(self) -> None:
        got_request_exception.disconnect(self._read_request_exception)
        logging.getLogger().removeHandler(self.log)
        logging.getLogger().removeHandler(self._mailer)
        logging.getLogger().setLevel(self._level)
        for logger, level, disabled, propagate, handlers in self._loggers:
            logger.setLevel(level)
            logger.disabled, logger.propagate, logger.handlers = disabled, propagate, handlers

    def clear(self) -> None:
        self.log.texts.clear()
        self.log.stacks.clear()
        self.exceptions.clear()
        mail.outbox.clear()

    def _read_request_exception(self, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        self.exceptions.append(error)

    def texts(self, raised: BaseException | None = None) -> dict[str, str]:
        """Return all texts since the last call of `clear`, by kind of text.

        Args:
            raised: the exception that the action raised outside a request; None if there is no such exception.
        """
        texts = {
            "log": "\n".join(self.log.texts),
            "stack of a logged error": "\n".join(self.log.stacks),
            "text mail": "\n".join(message.body for message in mail.outbox),
            "HTML mail": html.unescape("\n".join(str(p[0]) for message in mail.outbox for p in message.alternatives)),
            "generic report": "\n".join(map(read_exception, [*self.exceptions, *filter(None, [raised])])),
        }
        if raised is not None and self.new_frames.is_new(raised):
            texts |= django_reports(raised)
        return texts


def django_reports(error: BaseException) -> dict[str, str]:
    """Return Django's own error reports about an exception that was raised outside a request, by format."""
    trace = error.__traceback__
    while trace is not None and is_outside(trace.tb_frame):
        trace = trace.tb_next
    error.__traceback__ = trace
    reporter = ExceptionReporter(None, type(error), error, trace)
    return {
        "text report": reporter.get_traceback_text(),
        "HTML report": html.unescape(reporter.get_traceback_html()),
    }


def shown_variables(error: BaseException) -> str:
    """Return the variables of this package's functions in a traceback, as Django's error reports show the variables.

    If DEBUG is off, Django hides the variables that the decorator `sensitive_variables` names.
    """
    shown = SafeExceptionReporterFilter()
    return "\n".join(
        f"{frame.f_code.co_name} {name} = {value!r}"
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if PACKAGE in frame.f_code.co_filename
        for name, value in shown.get_traceback_frame_variables(None, frame)
    )


class Unreadable(str):
    """A secret string that can't be split, to simulate a fault in the code that parses the secret."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name in {"count", "partition", "split"}:
            raise RuntimeError("the string can't be read")
        return (lambda *args: self) if name == "strip" else super().__getattribute__(name)
