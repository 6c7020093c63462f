"""The life of the keys as a picture: rows and moments in, places out. Nothing here reads a clock or the database.

Lengths across are per cent of the width, so that the picture fits a telephone and a wall; lengths down are pixels.
When a key changes is asked of `rotation`, for what was and for what is planned alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ...keys import Times, decide, forecast, gone_at
from ...models import Key

MAX_ROWS = 12
"""So many keys of one use are drawn."""

TOP, HEADING, ROW, AXIS = 22, 26, 38, 22
_PHASES = (Key.Status.FUTURE, Key.Status.CURRENT, Key.Status.PAST)
_BEFORE_NOW, _AFTER_LAST = 0.1, 0.12
_MAX_TICKS, _LAST_LABEL = 5, 82
_DAY = timedelta(days=1)
_STEPS = [timedelta(hours=6), *(_DAY * n for n in (1, 2, 3, 5, 7, 14, 30, 60, 90, 180, 365, 730, 1825, 3650))]


@dataclass(frozen=True, slots=True)
class Bar:
    """A phase of a key's life, or the part of it that is drawn. `planned` lies after now."""

    phase: str
    planned: bool
    start: datetime
    end: datetime
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """One key. `planned` is its row as it will stand if all goes as planned; `revoked_x` where it was revoked."""

    key: Key
    planned: Key
    y: int
    bars: tuple[Bar, ...]
    revoked_x: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """The keys of one use, in the order in which they are current; `left_out` are older ones beyond `MAX_ROWS`."""

    use: Key.Use
    y: int
    rows: tuple[Row, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis. A label stands to the right of its mark; empty where there is no room."""

    moment: datetime
    label: str
    x: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture, from `start` to `end`. `gone` keys were over before it begins."""

    start: datetime
    end: datetime
    now_x: float
    groups: tuple[Group, ...]
    ticks: tuple[Tick, ...]
    gone: int
    height: int


def begins(now: datetime, times: Times) -> datetime:
    """How far back the picture may reach: half an interval."""
    return now - times.interval / 2


def draw(keys: Sequence[Key], *, total: int, now: datetime, times: Times) -> Timeline | None:
    """Place the keys. `total` is how many there are, with those that were not handed in; None where none is left."""
    shown = [key for key in keys if (ended := _ended(key, times)) is None or ended >= begins(now, times)]
    if not shown:
        return None
    start, end = _window(shown, now, times)
    planned = forecast(shown, now=now, times=times, until=end)
    groups, y = [], TOP
    for use in Key.Use:
        pairs = [(key, then) for key, then in zip(shown, planned, strict=True) if key.use == use]
        if not pairs:
            continue
        # The most useful come first in `keys`: what is cut off is what has been over for longest.
        drawn = sorted(pairs[:MAX_ROWS], key=lambda pair: _order(pair[1]))
        rows = [
            _row(key, then, y + HEADING + n * ROW, start=start, end=end, now=now, times=times)
            for n, (key, then) in enumerate(drawn)
        ]
        groups.append(Group(use, y, tuple(rows), len(pairs) - len(drawn)))
        y += HEADING + len(rows) * ROW
    place = _Scale(start, end)
    return Timeline(
        start=start,
        end=end,
        now_x=place.x(now),
        groups=tuple(groups),
        ticks=tuple(_ticks(place)),
        gone=total - len(shown),
        height=y + AXIS,
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    end: datetime

    def x(self, moment: datetime) -> float:
        return round(100 * ((moment - self.start) / (self.end - self.start)), 3)


def _window(keys: Sequence[Key], now: datetime, times: Times) -> tuple[datetime, datetime]:
    """From half an interval back, or the first key, to a little after the last thing that is planned."""
    moments = [now + times.interval / 6, now + times.lead, now + times.retention]
    for use in Key.Use:
        decision = decide(keys, use=use, now=now, times=times)
        if decision.next_due is not None:
            moments.append(decision.next_due)
    moments += [gone for key in keys if (gone := gone_at(key, times)) is not None]
    ahead = max(moments) - now
    first = max(begins(now, times), min(key.created_at for key in keys))
    return min(first, now - ahead * _BEFORE_NOW), now + ahead * (1 + _AFTER_LAST)


def _row(key: Key, planned: Key, y: int, *, start: datetime, end: datetime, now: datetime, times: Times) -> Row:
    place, bars = _Scale(start, end), []
    for phase, since, until in _spans(planned, times):
        for is_planned, earliest, latest in ((False, start, now), (True, now, end)):
            left, right = max(since, earliest), min(until or end, latest)
            if left < right:
                x = place.x(left)
                bars.append(Bar(phase, is_planned, left, right, x, round(place.x(right) - x, 3)))
    revoked = key.revoked_at if key.status == Key.Status.REVOKED else None
    visible = revoked is not None and start <= revoked <= end
    return Row(key, planned, y, tuple(bars), place.x(revoked) if revoked is not None and visible else None)


def _spans(key: Key, times: Times) -> Iterable[tuple[str, datetime, datetime | None]]:
    """The phases of a life, each from when until when; None is not known."""
    # A revoked key without a time was altered: it must not look as if it went on.
    over = (key.revoked_at or key.created_at) if key.status == Key.Status.REVOKED else None
    begins = (key.created_at, key.activated_at, key.retired_at)
    ends = (key.activated_at or key.retired_at or over, key.retired_at or over, _ended(key, times))
    for phase, since, until in zip(_PHASES, begins, ends, strict=True):
        if since is not None:
            yield str(phase), since, until


def _ended(key: Key, times: Times) -> datetime | None:
    """When the last token under a key is dead, or nobody takes one any more; None while that is open."""
    past = copy(key)
    past.status = Key.Status.PAST
    moments = [gone_at(past, times), key.revoked_at if key.status == Key.Status.REVOKED else None]
    return min((moment for moment in moments if moment is not None), default=None)


def _order(key: Key) -> tuple[bool, datetime]:
    """First those that are or will be current, in that order; then those of which nobody knows."""
    never = key.activated_at is None and key.status != Key.Status.REVOKED
    return never, key.activated_at or key.created_at


def _ticks(place: _Scale) -> Iterable[Tick]:
    """A few round moments, evenly spaced."""
    length = place.end - place.start
    step = next((step for step in _STEPS if length / step <= _MAX_TICKS), length)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moment = epoch + -((epoch - place.start) // step) * step
    while moment <= place.end:
        x, label = place.x(moment), f"{moment:%Y-%m-%d}" if step >= _DAY else f"{moment:%m-%d %H:%M}"
        yield Tick(moment, label if x <= _LAST_LABEL else "", x)
        moment += step
