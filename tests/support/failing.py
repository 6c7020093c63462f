"""A simulated database failure."""

from __future__ import annotations

from typing import Any

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
    """An execute wrapper in which one statement fails, or this statement and every later one.

    Args:
        number: the number of the statement, starting with 1.
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
