"""The results of health checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.db import Error as DbError

from ..exceptions import InstAccessError


class Status(StrEnum):
    """The status that a health check reports. A process with a warning can still answer requests."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one health check.

    Attributes:
        detail: the problem and its fix, without secrets. Empty if the status is `ok`.
        values: measurements, such as an age in seconds.
    """

    status: Status = Status.OK
    detail: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as an object for the JSON response of the health endpoint."""
        return {"status": self.status, **({"detail": self.detail} if self.detail else {}), **self.values}


def describe(error: Exception) -> str:
    """Return a description of an error without any secret.

    The messages of database drivers and caches aren't included, because they can contain host names, user names and
    SQL. The errors of this package contain no secret.
    """
    if isinstance(error, InstAccessError):
        return str(error)
    names = dict.fromkeys(type(each).__name__ for each in (error, error.__cause__) if each is not None)
    text = ": ".join(names)
    if isinstance(error, DbError):
        return (
            f"the database can't be used ({text}): check the server and DATABASES, and run `python manage.py "
            "migrate` if a table or a column is missing"
        )
    return f"an unexpected error occurred ({text})"
