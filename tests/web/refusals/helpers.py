"""Functions that cause refusals and read the refusal counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db.models import Sum
from django.test import Client

import instaccess
from instaccess.models import RefusalCount
from instaccess.web import refusals

GATEWAY_URL = "/internal/gateway/verify"
PACKAGE = Path(instaccess.__file__).parent
REAL_TRANSACTIONS = pytest.mark.django_db(transaction=True)


def ask(bearer: str | None = None, **headers: str) -> int:
    """Send a request to the gateway and return the status of the response."""
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    return Client().get(GATEWAY_URL, headers=headers).status_code


def written() -> dict[tuple[str, ...], int]:
    """Return the counts in the table by role, reason, client and user."""
    names = ("role", "reason", "client_id", "user_uuid")
    return {tuple(row[:4]): row[4] for row in RefusalCount.objects.values_list(*names, "count")}


def counted() -> dict[tuple[str, ...], int]:
    """Write the pending counts, and return the counts in the table."""
    refusals.counter.flush()
    return written()


def total() -> int:
    return RefusalCount.objects.aggregate(total=Sum("count", default=0))["total"]


class Statements:
    """A database `execute_wrapper` that records the SQL statements on the table of refusal counts.

    If the attribute `failing` is true, these statements fail.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failing = False

    def __call__(self, execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if "refusalcount" in sql:
            self.seen.append(sql.partition(" ")[0])
            if self.failing:
                # Cause a real database error, after which PostgreSQL refuses further statements in the transaction.
                execute("SELECT nothing FROM nowhere", (), False, context)
        return execute(sql, params, many, context)
