"""Functions that add to the table of refusal counts, delete its old rows and find refusal spikes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, connections, router, transaction
from django.db.models import F, Min, Q, QuerySet, Sum
from django.utils import timezone

from .. import database_clock
from ..models import RefusalCount
from ..web import Kind

RETENTION = timedelta(days=35)
MAX_ROWS = 50_000
"""The maximum number of refusal counts in the table. `RETENTION` is the maximum age of a refusal count.

Each process that writes refusal counts calls `trim` once per hour. Between two calls, the table can exceed both
limits.
"""

_BATCH, _BATCHES = 500, 10


def rows() -> QuerySet[RefusalCount]:
    """Return all refusal counts, from the database for writes, because a replica may be outdated."""
    return RefusalCount.objects.using(router.db_for_write(RefusalCount))


def connection() -> Any:
    """Return the connection to the database in which the refusal counts are stored."""
    return connections[router.db_for_write(RefusalCount)]


def add(counts: Mapping[Kind, int]) -> None:
    """Add refusals to the counts in the table. One transaction updates all counts.

    Raises DatabaseError if a query fails.
    """
    db = connection()
    names = {
        kind: {**kind._asdict(), "hour": datetime.fromtimestamp(kind.hour * 3600, UTC)} for kind in sorted(counts)
    }
    with transaction.atomic(using=db.alias) if db.in_atomic_block else nullcontext():
        # The INSERT is committed before the transaction of the updates begins. On MariaDB, an INSERT that finds an
        # existing row acquires a shared lock on the row. If two workers held this lock and then updated the row, they
        # would deadlock.
        rows().bulk_create([RefusalCount(**name) for name in names.values()], ignore_conflicts=True)
        with transaction.atomic(using=db.alias):
            # All workers update the rows in the same order, to avoid deadlocks.
            for kind, name in names.items():
                if not rows().filter(**name).update(count=F("count") + counts[kind]):
                    raise DatabaseError("a refusal count was deleted before it could be increased")


def trim() -> bool:
    """Delete refusal counts older than `RETENTION`, and the oldest counts beyond `MAX_ROWS`, in small batches.

    Returns False if further counts may remain for the next call. Raises DatabaseError if a query fails.
    """
    oldest = database_clock.now(connection().alias) - RETENTION
    newest_first = rows().order_by("-hour", "-pk")
    for _ in range(_BATCHES):
        surplus = [*newest_first.filter(hour__lt=oldest).values_list("pk", flat=True)[:_BATCH]]
        surplus += newest_first.values_list("pk", flat=True)[MAX_ROWS : MAX_ROWS + _BATCH]
        if not surplus:
            return True
        rows().filter(pk__in=surplus).delete()
    return False


AT_LEAST, TIMES = 20, 5
"""The thresholds of a refusal spike.

`AT_LEAST` is the minimum number of refusals per hour. `TIMES` is the minimum ratio of this number to the usual
number.
"""
_DAYS_BEFORE = timedelta(days=7)

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RefusalSpike:
    """A number of refusals per hour that is far above the usual number, for one role and one reason.

    Attributes:
        role: the role that refused, such as `issuer`.
        reason: the reason code.
        count: the number of refusals in the current hour or in the previous hour, whichever is greater.
        usual: the mean number of refusals per hour in the seven days before these two hours.
    """

    role: str
    reason: str
    count: int
    usual: float


def refusal_spikes(*, now: datetime | None = None) -> list[RefusalSpike]:
    """Return the current refusal spikes, the largest spike first. Raises DatabaseError if the query fails."""
    current = (now or timezone.now()).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    previous = current - _HOUR
    groups = list(
        rows()
        .filter(hour__gte=previous - _DAYS_BEFORE)
        .order_by()
        .values("role", "reason")
        .annotate(
            first=Min("hour"),
            current=Sum("count", filter=Q(hour=current), default=0),
            previous=Sum("count", filter=Q(hour=previous), default=0),
            before=Sum("count", filter=Q(hour__lt=previous), default=0),
        )
    )
    # If the first refusal in the table was counted less than seven days ago, the mean covers only the hours since
    # this refusal.
    hours = max((previous - min((group["first"] for group in groups), default=previous)) / _HOUR, 1)
    counts = [
        RefusalSpike(
            group["role"], group["reason"], max(group["current"], group["previous"]), group["before"] / hours
        )
        for group in groups
    ]
    return sorted(
        (spike for spike in counts if is_spike(spike.count, spike.usual)),
        key=lambda spike: (-spike.count, spike.reason),
    )


def is_spike(count: int, usual: float) -> bool:
    """Return whether `count` refusals per hour are a spike, compared with the usual number per hour."""
    return count >= AT_LEAST and count >= TIMES * usual
