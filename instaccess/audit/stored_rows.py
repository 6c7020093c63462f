"""Audit rows as tuples instead of model instances, for work with many rows."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import Error as DbError
from django.db import connections
from django.db.models import BigIntegerField, Func, Q, QuerySet

from ..models import IssuedToken
from .rows import EPOCH, require_columns

_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = (
    (time.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
    for time in (datetime.min, datetime.max)  # noqa: DTZ901
)
# Django and the database drivers raise these exceptions for a stored value of the wrong type.
_UNREADABLE = (DbError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class StoredRow(NamedTuple):
    """The values of one audit row. The times are microseconds since 1970.

    The attributes have the names of the fields of `IssuedToken`.
    """

    pk: int
    jti: uuid.UUID
    user_id: Any
    user_uuid: str
    user_name: str
    real_user_id: Any
    real_user_uuid: str
    real_user_name: str
    application_id: Any
    client_id: str
    access_token_pk: str
    account_uuid: str
    canvas_domain: str
    signing_kid: str
    encryption_kid: str
    ip_address: str | None
    user_agent: str
    issued_at: int
    expires_at: int
    revoked_at: int | None
    revoked_by: str
    revocation_reason: str
    mac: str
    names_mac: str
    unrevoked: bool
    """Whether the database stores NULL as `revoked_at`."""


_TIMES = ("issued_at", "expires_at", "revoked_at")
_ISSUED, _EXPIRES, _REVOKED = (StoredRow._fields.index(name) for name in _TIMES)


class _Microseconds(Func):
    """A time as microseconds since 1970, computed by PostgreSQL. Infinite times become NULL.

    psycopg parses the times of Django's connections in Python, which takes a third of the time of reading a row.
    """

    template = "CASE WHEN isfinite(%(expressions)s) THEN (EXTRACT(EPOCH FROM %(expressions)s) * 1000000)::bigint END"
    output_field = BigIntegerField()

    def get_db_converters(self, connection: Any) -> list[Any]:
        """Return no converters, to save time. Django's converter would call `int` for each number."""
        return []


def microseconds(time: datetime | int | None) -> int | None:
    """Convert a time to microseconds since 1970. Returns a number or None unchanged."""
    return (time - EPOCH) // _MICROSECOND if isinstance(time, datetime) else time


def to_datetime(time: int) -> datetime:
    """Convert microseconds since 1970 to a time in UTC."""
    return EPOCH + time * _MICROSECOND


def load(rows: QuerySet[IssuedToken]) -> list[tuple[int, StoredRow | None]]:
    """Load audit rows. Returns the id of each row with the row itself, or with None if the row can't be read.

    An attacker who can write to the table can store values of the wrong type, which Django can't read. The other rows
    must still be loaded. Raises DatabaseError if the database is unavailable or not migrated.
    """
    try:
        return _load(rows)
    except _UNREADABLE as error:
        require_columns(rows, error)
        return [loaded for pk in rows.values_list("pk", flat=True) for loaded in _load_one(pk, rows.db)]


def _load_one(pk: int, using: str) -> list[tuple[int, StoredRow | None]]:
    row = IssuedToken._base_manager.using(using).filter(pk=pk)
    try:
        return _load(row)
    except _UNREADABLE:
        # Leave out a row that was deleted after the ids were read. If the database is unavailable, this query raises
        # DatabaseError.
        return [(pk, None)] if row.exists() else []


def _load(rows: QuerySet[IssuedToken]) -> list[tuple[int, StoredRow | None]]:
    rows = rows.annotate(unrevoked=Q(revoked_at=None))
    make = StoredRow._make
    if connections[rows.db].vendor == "postgresql":
        columns = [_Microseconds(name) if name in _TIMES else name for name in StoredRow._fields]
        loaded = [make(values) for values in rows.values_list(*columns)]
    else:
        loaded = [make(_convert_times(values)) for values in rows.values_list(*StoredRow._fields)]
    return [(row.pk, row if _is_valid(row) else None) for row in loaded]


def _convert_times(values: tuple[Any, ...]) -> list[Any]:
    converted = list(values)
    for place in (_ISSUED, _EXPIRES, _REVOKED):
        converted[place] = microseconds(values[place])
    return converted


def _is_valid(row: StoredRow) -> bool:
    # With SQLite and MariaDB, Django reads an invalid `revoked_at` as None. The query therefore also returns whether
    # the column is NULL. If an invalid value counted as NULL, an attacker could make a revoked token look live, or
    # prevent a revocation.
    revoked_at: Any = row.revoked_at
    return (
        row.jti is not None
        and _is_time(row.issued_at)
        and _is_time(row.expires_at)
        and (bool(row.unrevoked) if revoked_at is None else not row.unrevoked and _is_time(revoked_at))
    )


def _is_time(time: Any) -> bool:
    # Reject times outside the range of `datetime`. PostgreSQL can store later times, such as the year 20000.
    return time is not None and _FIRST <= time <= _LAST
