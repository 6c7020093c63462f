"""Context managers and wrappers that simulate database failures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import CommandError
from django.db import Error as DbError
from django.db import OperationalError, connection


def failing_after(count: int) -> Any:
    """Return a context manager in which the first `count` queries succeed and every later query fails."""
    queries = []

    def execute(run: Any, *args: Any) -> Any:
        queries.append(1)
        if len(queries) > count:
            raise OperationalError("gone")
        return run(*args)

    return connection.execute_wrapper(execute)


class FailAt:
    """A wrapper for database statements in which one statement fails, and optionally every later statement too.

    Args:
        number: the number of the statement to fail. The first statement has number 1.
        once: whether later statements succeed.
    """

    def __init__(self, number: int, *, once: bool = True) -> None:
        self.number, self.once, self.count = number, once, 0

    @property
    def failed(self) -> bool:
        return self.count >= self.number

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.count += 1
        if self.count == self.number or (self.failed and not self.once):
            raise OperationalError(f"statement {self.number} failed")
        return execute(sql, params, many, context)


@contextmanager
def stopping_after(count: int) -> Iterator[None]:
    """Let every database statement after the first `count` statements fail. COMMIT counts as a statement."""
    left = [count]

    def take() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OperationalError("gone")

    def execute(run: Any, *args: Any) -> Any:
        take()
        return run(*args)

    commit = connection._commit

    def commit_or_fail() -> None:
        take()
        commit()

    connection._commit = commit_or_fail  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(execute):
            yield
    finally:
        connection._commit = commit  # type: ignore[method-assign]


def stops(act: Callable[[], Any], *, prepare: Callable[[], Any]) -> Iterator[int]:
    """Run `act` repeatedly. In each run, the database fails one statement later than in the previous run.

    Before each run, `prepare` restores the initial rows. After each run that failed, this function yields the number
    of statements that succeeded. The iteration ends when `act` completes.
    """
    for count in itertools.count():
        prepare()
        try:
            with stopping_after(count):
                act()
        except (DbError, CommandError):
            yield count
        else:
            return
