"""Counts for the chart: issued tokens, revoked tokens and refused requests, for each hour or day of a period.

Each query counts at most the latest `CHARTED` rows. `Counts.known` is the index of the first complete count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Least, TruncDay, TruncHour

from ...models import IssuedToken, RefusalCount
from .periods import HOUR, Period

CHARTED = 50_000
"""The maximum number of rows that one panel counts. Counting this many rows takes a few hundredths of a second."""


@dataclass(frozen=True)
class Counts:
    """The counts of one panel for each hour or day of a period, earliest first.

    Attributes:
        numbers: one count per hour or day.
        known: the index of the first complete count. Counts before this index are incomplete.
        truncated: whether the period contains more than `CHARTED` rows.
    """

    numbers: Sequence[int]
    known: int = 0
    truncated: bool = False

    @property
    def total(self) -> int:
        """The sum of the complete counts, which begin at the index `known`."""
        return sum(self.numbers[self.known :])


def issued(tokens: QuerySet[IssuedToken], period: Period, *, few: bool = False) -> Counts:
    """Count the tokens that were issued in each hour or day of the period.

    `few` is true if few tokens match in all periods together. The query then doesn't use the index on the time of
    issue. With this index, a database may read every row of the period, instead of the indexes of the searched
    columns.
    """
    # `LEAST(issued_at, expires_at)` equals the time of issue, but no index contains this expression.
    return _count(tokens, Least("issued_at", "expires_at") if few else F("issued_at"), period)


def revoked(tokens: QuerySet[IssuedToken], period: Period) -> Counts:
    """Count the tokens that were revoked in each hour or day of the period."""
    return _count(tokens, F("revoked_at"), period)


def refused(refusals: QuerySet[RefusalCount], period: Period, *, kept_since: datetime) -> Counts:
    """Count the refusals in each hour or day of the period. Refusals before `kept_since` have been deleted."""
    counts = _count(refusals, F("hour"), period, weight=F("count"))
    deleted = sum(start < kept_since for start in period.starts)
    return Counts(counts.numbers, known=max(counts.known, deleted), truncated=counts.truncated)


def _count(
    rows: QuerySet[Any],
    time: F | Least,
    period: Period,
    *,
    weight: Any = Value(1),  # noqa: B008
) -> Counts:
    """Sum `weight` per hour or day of `time`, over at most the latest `CHARTED` rows of the period."""
    starts = period.starts
    truncate: Callable[..., Any] = TruncHour if period.step == HOUR else TruncDay
    within = rows.annotate(time=time).filter(time__gte=period.since, time__lt=period.until)
    latest = within.order_by("-time").annotate(bucket=truncate("time", tzinfo=UTC), weight=weight)
    # Query one row more than the maximum, to detect whether the period contains more rows.
    groups = _group(latest.values("bucket", "weight")[: CHARTED + 1])
    sums = {group.bucket: group.total for group in groups}
    numbers = [sums.get(start, 0) for start in starts]
    if sum(group.rows for group in groups) <= CHARTED:
        return Counts(numbers)
    # Treat the earliest counted hour or day as incomplete, because the query may have left out rows of this
    # hour or day.
    return Counts(numbers, known=starts.index(min(sums)) + 1, truncated=True)


class _Group(NamedTuple):
    bucket: datetime
    total: int
    rows: int


def _group(rows: Any) -> list[_Group]:
    """Sum `weight` and count the rows for each `bucket`. The ORM can't express GROUP BY after LIMIT."""
    connection = connections[rows.db]
    try:
        inner, params = rows.query.get_compiler(rows.db).as_sql()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT bucket, SUM(weight), COUNT(*) FROM ({inner}) counted GROUP BY bucket",  # noqa: S608
            params,
        )
        return [_Group(_parse_time(bucket), int(total), count) for bucket, total, count in cursor.fetchall()]


def _parse_time(value: Any) -> datetime:
    """Convert a UTC time from a raw query to an aware datetime. Databases return strings, naive or aware times.

    Raises ValueError if the database has no time zone definitions.
    """
    if value is None:  # Without time zone definitions, MySQL and MariaDB convert every time to NULL.
        raise ValueError(
            "the database has no time zone definitions: load the definitions of time zones with mysql_tzinfo_to_sql"
        )
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
