"""Periods of time as people choose them on the list of issued tokens, and the hours or days they are made of. UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.translation import gettext_lazy as _

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

CHOICES: dict[str, tuple[Any, timedelta]] = {
    "1h": (_("Last hour"), HOUR),
    "24h": (_("Last 24 hours"), DAY),
    "7d": (_("Last 7 days"), timedelta(days=7)),
    "30d": (_("Last 30 days"), timedelta(days=30)),
    "90d": (_("Last 90 days"), timedelta(days=90)),
    "365d": (_("Last 365 days"), timedelta(days=365)),
}
"""As they stand in an address: what people read, and how far back."""

DEFAULT = "7d"
"""What a picture shows where nothing was chosen."""

BY_HOUR = timedelta(days=3)
"""Longer periods are told day by day."""


@dataclass(frozen=True)
class Period:
    """From a moment up to, not including, another one; both on the hour, on the day where `step` is one."""

    since: datetime
    until: datetime

    @property
    def step(self) -> timedelta:
        """What it is told in: hours or days."""
        return HOUR if self.until - self.since <= BY_HOUR else DAY

    @property
    def starts(self) -> list[datetime]:
        """When each of its hours or days begins."""
        step = self.step
        count = max(-((self.since - self.until) // step), 0)
        return [self.since + number * step for number in range(count)]

    def __and__(self, other: Period) -> Period:
        """What both have; empty where they have nothing in common."""
        since = max(self.since, other.since)
        return Period(since, max(min(self.until, other.until), since))


def chosen(choice: str | None, now: datetime) -> Period | None:
    """The period of one of `CHOICES`, None for anything else.

    It begins with a whole hour or day, so that the first one told is complete, and includes the one that runs.
    """
    if choice not in CHOICES:
        return None
    back = CHOICES[choice][1]
    step = HOUR if back < BY_HOUR else DAY
    return Period(_floor(now - back, step), _floor(now, step) + step)


def picked(params: Mapping[str, Any], now: datetime) -> Period | None:
    """The year, month or day picked in the admin's date hierarchy, as far as it has come; None for anything else."""
    year, month, day = (params.get(f"issued_at__{part}") for part in ("year", "month", "day"))
    if year is None:
        return None
    try:
        since = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        if month and day:
            until = since + DAY
        elif month:
            until = (since + timedelta(days=32)).replace(day=1)
        else:
            until = since.replace(year=since.year + 1, month=1, day=1)
    except (ValueError, OverflowError):
        return None
    return Period(since, max(min(until, _floor(now, DAY) + DAY), since))


def _floor(moment: datetime, step: timedelta) -> datetime:
    start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return start if step == HOUR else start.replace(hour=0)
