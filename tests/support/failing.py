"""A database that fails."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError, connection


def broken_after(count: int) -> Any:
    """The database goes away after so many queries."""
    asked = []

    def execute(run: Any, *args: Any) -> Any:
        asked.append(1)
        if len(asked) > count:
            raise OperationalError("gone")
        return run(*args)

    return connection.execute_wrapper(execute)
