"""Which refusals are unusual: far more of them in an hour than in the days before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Min, Q, Sum
from django.utils import timezone

from .web import rows

AT_LEAST, TIMES = 20, 5
"""Unusual are so many refusals in an hour, and so many times the mean of the days before."""
_DAYS_BEFORE = timedelta(days=7)

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Unusual:
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


def refusals(*, now: datetime | None = None) -> list[Unusual]:
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
        Unusual(group["role"], group["reason"], max(group["running"], group["full"]), group["before"] / hours)
        for group in groups
    ]
    return sorted(
        (one for one in found if is_unusual(one.count, one.usual)), key=lambda one: (-one.count, one.reason)
    )


def is_unusual(count: int, usual: float) -> bool:
    """Whether so many refusals in an hour are worth somebody's look, where there usually are so many."""
    return count >= AT_LEAST and count >= TIMES * usual
