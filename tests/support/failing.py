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
