"""The periods that users can choose in the list of issued tokens, and their hours or days in UTC."""

from __future__ import annotations

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
"""The label and the length of each period, by the value of the `period` parameter in the URL."""

DEFAULT = "7d"
"""The period of the chart if the user has not chosen a period."""

BY_HOUR = timedelta(days=3)
"""The maximum length of a period that is divided into hours. Longer periods are divided into days."""


LONGEST = timedelta(days=366)
"""The maximum length of the period of the chart, so that the chart has a limited number of bars."""

_EPOCH = datetime(1970, 1, 2, tzinfo=UTC) + LONGEST


@dataclass(frozen=True)
class Period:
    """The period from `since` up to, but not including, `until`. Each time is the start of an hour or day."""

    since: datetime
    until: datetime

    @property
    def step(self) -> timedelta:
        """The time that one bar of the chart covers: an hour or a day."""
        return HOUR if self.until - self.since <= BY_HOUR else DAY

    @property
    def starts(self) -> list[datetime]:
        """The start of each hour or day of the period."""
        step = self.step
        count = max(-((self.since - self.until) // step), 0)
        return [self.since + number * step for number in range(count)]


def chosen(choice: str | None, now: datetime) -> Period | None:
    """Return the period for the key `choice` of `CHOICES`. Returns None for any other value.

    The period begins with a whole hour or day, so that the first bar of the chart is complete. The period includes
    the current hour or day.
    """
    if choice not in CHOICES:
        return None
    length = CHOICES[choice][1]
    step = HOUR if length < BY_HOUR else DAY
    return Period(_floor(now - length, step), _floor(now, step) + step)


def between(since: datetime | None, until: datetime | None, now: datetime) -> Period:
    """Return the period of the chart for a period that the user typed.

    The chart ends with the current hour or day at the latest. If `since` is None, the chart covers the length of the
    default period. If the typed period is longer than `LONGEST`, the chart covers only the end of the typed period.
    """
    end = max(min(until or now, now), _EPOCH)
    start = since or end - CHOICES[DEFAULT][1]
    start = min(max(start, end - LONGEST), end - HOUR)
    by_hour = Period(_floor(start, HOUR), _ceil(end, HOUR))
    return by_hour if by_hour.until - by_hour.since <= BY_HOUR else Period(_floor(start, DAY), _ceil(end, DAY))


def _ceil(time: datetime, step: timedelta) -> datetime:
    start = _floor(time, step)
    return start if start == time else start + step


def _floor(time: datetime, step: timedelta) -> datetime:
    start = time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return start if step == HOUR else start.replace(hour=0)
