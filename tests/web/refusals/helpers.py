"""Refusals, and the counts that the tests read."""

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
    """The status of the gateway's answer."""
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    return Client().get(GATEWAY_URL, headers=headers).status_code


def written() -> dict[tuple[str, ...], int]:
    """The table: counts by role, reason, client and user."""
    names = ("role", "reason", "client_id", "user_uuid")
    return {tuple(row[:4]): row[4] for row in RefusalCount.objects.values_list(*names, "count")}


def counted() -> dict[tuple[str, ...], int]:
    """What has been counted so far: written, and read."""
    refusals.counter.flush()
    return written()


def total() -> int:
    return RefusalCount.objects.aggregate(total=Sum("count", default=0))["total"]


class Statements:
    """Execute wrapper: what is said to the database about counts; it can be told to refuse it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failing = False

    def __call__(self, execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if "refusalcount" in sql:
            self.seen.append(sql.partition(" ")[0])
            if self.failing:
                # A real error: PostgreSQL then refuses all that follows in a transaction.
                execute("SELECT nothing FROM nowhere", (), False, context)
        return execute(sql, params, many, context)
