"""The clock of a database server. All processes of a deployment share this clock.

Decisions about keys and rows use this clock, because the clock of a single host may be wrong by hours. For example, a
cron host with a fast clock would otherwise erase a private key before the tokens of the key have expired.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connections

_STATEMENTS = {
    "postgresql": "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))",
    # SQLite reads the clock of this process's host, in milliseconds.
    "sqlite": "SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + substr(strftime('%f', 'now'), 4) * 1000",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """The time by which the clock of this host is ahead of the clock of a database; negative if this host is behind.

    Attributes:
        seconds: the measured difference.
        error: the maximum error of the measurement, in seconds: half the time that the query took.
    """

    seconds: float
    error: float


def now(using: str) -> datetime:
    """Return the current time of a database, in UTC.

    In a transaction, the result is the time of the call and not of the start of the transaction. For PostgreSQL,
    MariaDB, MySQL and SQLite, this package has a statement that reads the time. For any other database, the result is
    the time of this host.

    Args:
        using: the alias of the database.

    Raises DatabaseError.
    """
    microseconds = _read(using)
    if microseconds is None:
        return datetime.now(UTC)
    return datetime.fromtimestamp(microseconds // 10**6, UTC).replace(microsecond=microseconds % 10**6)


def compare(using: str) -> Difference | None:
    """Compare the clock of this host with the clock of a database.

    Returns None for SQLite, which uses the clock of this host, and for a type of database for which this module has
    no statement.

    Raises DatabaseError if the query fails.
    """
    if connections[using].vendor == "sqlite":
        return None
    _read(using)  # Open the connection before the measurement, because opening takes longer than a query.
    before = time.time()
    microseconds = _read(using)
    after = time.time()
    if microseconds is None:
        return None
    return Difference((before + after) / 2 - microseconds / 10**6, abs(after - before) / 2)


def _read(using: str) -> int | None:
    """Return the time of a database in microseconds since 1970, or None if there is no statement for the database."""
    connection = connections[using]
    if (statement := _STATEMENTS.get(connection.vendor)) is None:
        return None
    with connection.cursor() as cursor:
        # Don't pass parameters, because a database driver would then interpret the `%` in the statement.
        cursor.execute(statement)
        value: Any = cursor.fetchone()[0]
    return int(value)
