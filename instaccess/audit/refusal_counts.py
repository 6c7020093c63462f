"""The table of refusals: counts are added to it, and it is kept small. See `refusals.py`, which nothing goes past."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, connections, router, transaction
from django.db.models import F, Min, Q, QuerySet, Sum
from django.utils import timezone

from ..models import RefusalCount
from ..web import Kind

RETENTION = timedelta(days=35)
MAX_ROWS = 50_000
"""What the table keeps. Each process that writes looks after it once an hour: in between it may hold as many more as
they write in that time."""

_BATCH, _BATCHES = 500, 10


def rows() -> QuerySet[RefusalCount]:
    """What has been written, in the database it is written to: a replica may lag behind."""
    return RefusalCount.objects.using(router.db_for_write(RefusalCount))


def connection() -> Any:
    """The connection of the database that the counts are written to."""
    return connections[router.db_for_write(RefusalCount)]


def add(counts: Mapping[Kind, int]) -> None:
    """Add to the table: all of the counts, or none. Raises DatabaseError."""
    db = connection()
    names = {
        kind: {**kind._asdict(), "hour": datetime.fromtimestamp(kind.hour * 3600, UTC)} for kind in sorted(counts)
    }
    with transaction.atomic(using=db.alias) if db.in_atomic_block else nullcontext():
        # A statement of its own, committed before the transaction: on MariaDB whoever finds a row taken shares a lock
        # on it, and two workers that both went on to update it would wait for each other.
        rows().bulk_create([RefusalCount(**name) for name in names.values()], ignore_conflicts=True)
        with transaction.atomic(using=db.alias):
            # In one order for all workers, so that none waits for one that waits for it.
            for kind, name in names.items():
                if not rows().filter(**name).update(count=F("count") + counts[kind]):
                    raise DatabaseError("a row was deleted before it could be counted up")


def trim() -> bool:
    """Delete what is too old and what is too much, in short statements. False where that has to go on next time."""
    oldest = timezone.now() - RETENTION
    newest_first = rows().order_by("-hour", "-pk")
    for _ in range(_BATCHES):
        surplus = [*newest_first.filter(hour__lt=oldest).values_list("pk", flat=True)[:_BATCH]]
        surplus += newest_first.values_list("pk", flat=True)[MAX_ROWS : MAX_ROWS + _BATCH]
        if not surplus:
            return True
        rows().filter(pk__in=surplus).delete()
    return False


AT_LEAST, TIMES = 20, 5
"""Unusual are so many refusals in an hour, and so many times the mean of the days before."""
_DAYS_BEFORE = timedelta(days=7)

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RefusalSpike:
    """Far more refusals than usual.

    Attributes:
        role, reason: of what.
        count: how many in an hour: the one that runs, or the one before.
        usual: the mean of an hour in the seven days before; 0 where there were none.
    """

    role: str
    reason: str
    count: int
    usual: float


def refusal_spikes(*, now: datetime | None = None) -> list[RefusalSpike]:
    """What is refused far more often than it was in the seven days before, the most first. One grouped query."""
    running = (now or timezone.now()).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    full = running - _HOUR
    groups = list(
        rows()
        .filter(hour__gte=full - _DAYS_BEFORE, hour__lte=running)
        .order_by()
        .values("role", "reason")
        .annotate(
            first=Min("hour"),
            running=Sum("count", filter=Q(hour=running), default=0),
            full=Sum("count", filter=Q(hour=full), default=0),
            before=Sum("count", filter=Q(hour__lt=full), default=0),
        )
    )
    # Where counting began less than seven days ago, the mean is of the hours since.
    hours = max((full - min((group["first"] for group in groups), default=full)) / _HOUR, 1)
    found = [
        RefusalSpike(group["role"], group["reason"], max(group["running"], group["full"]), group["before"] / hours)
        for group in groups
    ]
    return sorted((one for one in found if is_spike(one.count, one.usual)), key=lambda one: (-one.count, one.reason))


def is_spike(count: int, usual: float) -> bool:
    """Whether so many refusals in an hour are worth somebody's look, where there usually are so many."""
    return count >= AT_LEAST and count >= TIMES * usual
