"""What happened hour by hour or day by day: how many tokens were issued and revoked, how many requests refused.

No more than `CHARTED` rows are counted for each, the latest ones. How far back that reaches is part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import F, QuerySet, Value
from django.db.models.functions import TruncDay, TruncHour

from ...models import IssuedToken, RefusalCount
from .periods import HOUR, Period

CHARTED = 50_000
"""Rows that are counted for a picture: what an index yields in a few hundredths of a second."""


@dataclass(frozen=True)
class Counts:
    """How many there were in each hour or day of a period, the earliest first.

    `known` is the number of the first one that was counted in full: what is before it is no statement. Those from
    `about` on up to it are estimates.
    """

    numbers: Sequence[int]
    known: int = 0
    about: int | None = None

    @property
    def first(self) -> int:
        """The first one there is a number for, be it an estimate."""
        return self.known if self.about is None else self.about

    @property
    def total(self) -> int:
        return sum(self.numbers[self.first :])


def issued(tokens: QuerySet[IssuedToken], period: Period, *, estimate: bool) -> Counts:
    """Of `tokens`, those issued in the period.

    With `estimate`, which is for tokens that nothing but time was chosen of, those that are too many to be counted
    are estimated from the row numbers they begin and end with.
    """
    counts, earliest = _counted(tokens, "issued_at", period)
    if earliest is not None and estimate:
        return _with_estimates(counts, earliest, tokens, period)
    return counts


def revoked(tokens: QuerySet[IssuedToken], period: Period) -> Counts:
    """Of `tokens`, those revoked in the period."""
    return _counted(tokens, "revoked_at", period)[0]


def refused(refusals: QuerySet[RefusalCount], period: Period, *, kept_since: datetime) -> Counts:
    """Refusals in the period. What is before `kept_since` has been deleted."""
    counts, _ = _counted(refusals, "hour", period, weight=F("count"))
    kept = sum(start < kept_since for start in period.starts)
    return Counts(counts.numbers, known=max(counts.known, kept))


def _counted(
    rows: QuerySet[Any],
    column: str,
    period: Period,
    *,
    weight: Any = Value(1),  # noqa: B008
) -> tuple[Counts, datetime | None]:
    """What was counted, and where there was more than that, the time of the earliest row that was."""
    starts = period.starts
    truncate: Callable[..., Any] = TruncHour if period.step == HOUR else TruncDay
    within = rows.filter(**{f"{column}__gte": period.since, f"{column}__lt": period.until})
    latest = within.order_by(f"-{column}").annotate(
        bucket=truncate(column, tzinfo=UTC), weight=weight, moment=F(column)
    )
    groups = _grouped(latest.values("bucket", "weight", "moment")[:CHARTED])
    sums = {group.bucket: group.total for group in groups}
    numbers = [sums.get(start, 0) for start in starts]
    if sum(group.rows for group in groups) < CHARTED:
        return Counts(numbers), None
    # The earliest hour or day that was met may go on before the last row that was counted.
    return Counts(numbers, known=starts.index(min(sums)) + 1), min(group.earliest for group in groups)


class _Group(NamedTuple):
    bucket: datetime
    total: int
    rows: int
    earliest: datetime


def _grouped(rows: Any) -> list[_Group]:
    """By `bucket`, the sum of `weight`. The ORM does not write this: GROUP BY after LIMIT."""
    connection = connections[rows.db]
    try:
        inner, params = rows.query.get_compiler(rows.db).as_sql()
    except EmptyResultSet:
        return []
    columns = "bucket, SUM(weight), COUNT(*), MIN(moment)"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM ({inner}) counted GROUP BY bucket", params)  # noqa: S608
        return [
            _Group(_moment(bucket, UTC), int(total), found, _moment(earliest, connection.timezone or UTC))
            for bucket, total, found, earliest in cursor.fetchall()
        ]


def _moment(value: Any, zone: tzinfo) -> datetime:
    """A time as the databases give it: text, or without a time zone, which is this one then."""
    if value is None:  # MySQL and MariaDB say so of a zone they do not know
        raise ValueError("no time: are time zone definitions for this database installed (mysql_tzinfo_to_sql)?")
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def _with_estimates(counts: Counts, earliest: datetime, tokens: QuerySet[IssuedToken], period: Period) -> Counts:
    """Row numbers rise with time, so the difference of two tells how many rows lie between: a step into the index
    for each hour or day, however many rows it has.

    Numbers may have gaps (clusters of databases count in threes, say), so what they tell is scaled by what they tell
    of the rows that were counted. Where they do not rise, rows have been brought in: no estimates then.
    """
    *firsts, first_counted, last = _row_numbers(
        tokens, [*period.starts[: counts.known + 1], earliest], before=period.until
    )
    if counts.known == len(period.starts):
        firsts.append(last + 1)
    told = [after - before for before, after in pairwise(firsts)]
    counted_told = last + 1 - first_counted
    if min(told) < 0 or counted_told <= 0:
        return counts
    estimates = [round(number * CHARTED / counted_told) for number in told]
    return Counts([*estimates, *counts.numbers[counts.known :]], known=counts.known, about=0)


def _row_numbers(tokens: QuerySet[IssuedToken], moments: Sequence[datetime], *, before: datetime) -> list[int]:
    """Of the first row at or after each moment, and of the last one before another. There must be such rows."""
    connection = connections[tokens.db]
    name = connection.ops.quote_name
    table, number, issued_at = (name(text) for text in (IssuedToken._meta.db_table, "id", "issued_at"))
    # MariaDB takes a text for a text, and no index then.
    moment = "CAST(%s AS datetime(6))" if connection.vendor == "mysql" else "%s"
    listed = " UNION ALL ".join(f"SELECT {place} AS place, {moment} AS moment" for place in range(len(moments)))
    statement = f"""
        SELECT (SELECT {number} FROM {table} WHERE {issued_at} >= moment ORDER BY {issued_at} LIMIT 1)
        FROM ({listed}) listed ORDER BY place
    """  # noqa: S608  (names of our own table and columns, and numbers)
    with connection.cursor() as cursor:
        cursor.execute(statement, [connection.ops.adapt_datetimefield_value(moment) for moment in moments])
        firsts = [first for (first,) in cursor.fetchall()]
    last = tokens.filter(issued_at__lt=before).order_by("-issued_at").values_list("pk", flat=True)[:1]
    return [*firsts, *last]
