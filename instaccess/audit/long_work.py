"""The callbacks with which long-running work reports its progress. Callers decide how to show the progress."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int], None]
"""A function that long-running work calls after each batch, with the number of rows in the batch.

No transaction is open during the call, so the function may raise an exception to stop the work.
"""

Progress = Callable[[str, Callable[[], int] | None], Advance]
"""A function that long-running work calls when a step begins, and that returns the step's `Advance` function.

The arguments are the name of the step, such as "verifying", and a function that counts the rows of the step. The
second argument is None if counting would take too long. Counting is needed only to show the number of rows.
"""


def ignore_progress(step: str, count: Callable[[], int] | None) -> Advance:
    """Ignore the progress. Long-running work uses this `Progress` function if the caller doesn't pass another one."""
    return _ignore_rows


def _ignore_rows(rows: int) -> None:
    pass
