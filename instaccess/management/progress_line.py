"""The progress line of long-running commands, and a context manager that lets Ctrl-C stop the work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from ..audit import Advance

INTERRUPTED = 128 + signal.SIGINT
"""The exit status of a command that Ctrl-C has stopped. Shells report the same status for a program."""

_INTERVAL = 0.2
"""The minimum time between two updates of the line, in seconds."""


class ProgressLine:
    """A line on standard error that shows the number of rows, the rate and the remaining time.

    Callers pass an instance as the argument `progress` (see `audit.Progress`). The line is rewritten in place, and
    contains only ASCII characters. If standard error isn't a terminal, nothing is written, and no rows are counted.

    Attributes:
        stop_requested: True if the work must stop at the end of the current batch.
    """

    def __init__(self, stream: OutputWrapper, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock, self._is_terminal = stream, clock, stream.isatty()
        self._step, self._done, self._total = "", 0, 0
        self._started = self._shown = clock()
        self._width = 0
        self.stop_requested = False

    def __call__(self, step: str, count: Callable[[], int] | None) -> Advance:
        """Begin a step, and return the `Advance` function of the step (see `audit.Progress`)."""
        self._stop_if_requested()
        self._step, self._done = step, 0
        self._total = count() if count is not None and self._is_terminal else 0
        self._started = self._clock()
        self._show()
        return self._advance

    def hide(self) -> None:
        """Write nothing from now on."""
        self._is_terminal = False

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._width:
            self._write(" " * self._width)
            self._width = 0

    def summary(self) -> str:
        """Describe the current step and the number of rows, such as "verifying, after 20,000 of 90,000 rows"."""
        return f"{self._step}, after {self._rows()}" if self._step else ""

    def _advance(self, rows: int) -> None:
        self._done += rows
        if self._clock() - self._shown >= _INTERVAL:
            self._show()
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt

    def _rows(self) -> str:
        # Other processes may add rows during the work. The work can then process more rows than were counted, so show
        # the larger of both numbers as the total.
        return f"{self._done:,}{f' of {max(self._total, self._done):,}' if self._total else ''} rows"

    def _show(self) -> None:
        if not self._is_terminal:
            return
        self._shown = self._clock()
        text = f"{self._step}: {self._rows()}"
        if self._done and (seconds := self._shown - self._started) > 0:
            rate = self._done / seconds
            text += f", {rate:,.0f} rows/s"
            if self._total:
                text += f", {timedelta(seconds=round(max(self._total - self._done, 0) / rate))} left"
        text = text[: self._columns() - 1]
        self._write(text.ljust(self._width))
        self._width = len(text)

    def _write(self, text: str) -> None:
        # The cursor returns to the start of the line, so that the next line of the log overwrites the progress line.
        self._stream.write(f"{text}\r", style_func=str, ending="")
        self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


@contextmanager
def stoppable(line: ProgressLine, resume: str) -> Iterator[None]:
    """Let Ctrl-C stop the work in the `with` block.

    After the first Ctrl-C, the work stops at the end of the current batch. After a second Ctrl-C, the work stops
    immediately.

    Args:
        line: the line that shows the progress of the work.
        resume: the sentence that tells the operator how to continue.

    Raises CommandError with the exit status `INTERRUPTED` if the work was stopped.
    """
    with _first_signal(partial(setattr, line, "stop_requested", True)):
        try:
            yield
        except KeyboardInterrupt:
            summary = line.summary()
            line.clear()
            text = f"Interrupted while {summary}." if summary else "Interrupted."
            raise CommandError(f"{text} {resume}", returncode=INTERRUPTED) from None
        finally:
            line.clear()


@contextmanager
def _first_signal(react: Callable[[], object]) -> Iterator[None]:
    """Call `react` for the first SIGINT, instead of raising KeyboardInterrupt in the middle of a batch."""
    previous: Any = signal.getsignal(signal.SIGINT)
    # Only the main thread can change a signal handler. If a shell has made this background process ignore SIGINT, the
    # process must keep ignoring SIGINT.
    if threading.current_thread() is not threading.main_thread() or previous is not signal.default_int_handler:
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        react()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
