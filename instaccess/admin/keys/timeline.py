"""The geometry of the key timeline. This module reads neither the clock nor the database.

Horizontal lengths are percentages of the width, so that the timeline fits every screen. Vertical lengths are in
pixels. The package `keys` provides the past and planned times at which the status of a key changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ...keys import Times, decide, forecast, gone_at
from ...models import Key

MAX_ROWS = 12
"""The maximum number of signing keys in the timeline, and the maximum number of encryption keys."""

MIN_WIDTH = 2.0
"""The minimum width of a drawn bar, as a percentage of the timeline's width. On a phone, 2% is about 7 pixels."""

TOP, HEADING, ROW, AXIS = 22, 26, 38, 22
_PHASES = (Key.Status.FUTURE, Key.Status.CURRENT, Key.Status.PAST)
_BEFORE_NOW, _AFTER_LAST = 0.1, 0.12
_MAX_TICKS, _LAST_LABEL = 5, 82
_DAY = timedelta(days=1)
_STEPS = [timedelta(hours=6), *(_DAY * n for n in (1, 2, 3, 5, 7, 14, 30, 60, 90, 180, 365, 730, 1825, 3650))]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar for one phase of a key lifecycle, within the period of the timeline. Planned bars are in the future.

    Attributes:
        x, width: the exact position and width, which may be less than a pixel.
        drawn_x, drawn_width: the position and width on the page. The width is at least `MIN_WIDTH`.
    """

    phase: str
    planned: bool
    start: datetime
    end: datetime
    x: float
    width: float
    drawn_x: float
    drawn_width: float


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the timeline, for one key. `planned` is a copy of the key after its planned changes."""

    key: Key
    planned: Key
    y: int
    bars: tuple[Bar, ...]
    revoked_x: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of keys with one use, ordered by activation time. `left_out` is the number of keys without a row."""

    use: Key.Use
    y: int
    rows: tuple[Row, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the time axis, with a label to the right of the mark. If there is no space, the label is empty."""

    time: datetime
    label: str
    x: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The timeline from `start` to `end`. `gone` is the number of old keys that the timeline leaves out."""

    start: datetime
    end: datetime
    now_x: float
    groups: tuple[Group, ...]
    ticks: tuple[Tick, ...]
    gone: int
    height: int


def begins(now: datetime, times: Times) -> datetime:
    """Return the time from which the timeline shows keys: half a rotation interval before `now`.

    Keys whose lifecycle ended earlier are left out.
    """
    return now - times.interval / 2


def draw(keys: Sequence[Key], *, total: int, now: datetime, times: Times) -> Timeline | None:
    """Compute the timeline of keys. Returns None if there is no key to draw.

    Args:
        keys: the keys to draw, the most relevant key first (see `keys.load_health`).
        total: the number of all stored keys, including keys that `keys` doesn't contain.
    """
    drawable = [key for key in keys if (ended := _ended(key, times)) is None or ended >= begins(now, times)]
    if not drawable:
        return None
    start, end = _get_window(drawable, now, times)
    planned = forecast(drawable, now=now, times=times, until=end)
    groups, y = [], TOP
    for use in Key.Use:
        pairs = [(key, planned_key) for key, planned_key in zip(drawable, planned, strict=True) if key.use == use]
        if not pairs:
            continue
        # Omit the least relevant keys, which are last in `keys`, because a timeline of all keys could be very long.
        drawn = sorted(pairs[:MAX_ROWS], key=lambda pair: _order(pair[1]))
        rows = [
            _draw_row(key, planned_key, y + HEADING + n * ROW, start=start, end=end, now=now, times=times)
            for n, (key, planned_key) in enumerate(drawn)
        ]
        groups.append(Group(use, y, tuple(rows), len(pairs) - len(drawn)))
        y += HEADING + len(rows) * ROW
    scale = _Scale(start, end)
    return Timeline(
        start=start,
        end=end,
        now_x=scale.x(now),
        groups=tuple(groups),
        ticks=tuple(_draw_ticks(scale)),
        gone=total - len(drawable),
        height=y + AXIS,
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    end: datetime

    def x(self, time: datetime) -> float:
        return round(100 * ((time - self.start) / (self.end - self.start)), 3)


def _get_window(keys: Sequence[Key], now: datetime, times: Times) -> tuple[datetime, datetime]:
    """Return the start and end of the timeline.

    The start is half a rotation interval ago or the creation of the first key, whichever is later. The start is
    moved back if there is too little space before the current time. The end is shortly after the last planned change.
    """
    changes = [now + times.interval / 6, now + times.lead, now + times.retention]
    for use in Key.Use:
        decision = decide(keys, use=use, now=now, times=times)
        if decision.next_due is not None:
            changes.append(decision.next_due)
    changes += [gone for key in keys if (gone := gone_at(key, times)) is not None]
    ahead = max(changes) - now
    first = max(begins(now, times), min(key.created_at for key in keys))
    return min(first, now - ahead * _BEFORE_NOW), now + ahead * (1 + _AFTER_LAST)


def _draw_row(key: Key, planned: Key, y: int, *, start: datetime, end: datetime, now: datetime, times: Times) -> Row:
    scale, spans, bars = _Scale(start, end), list(_spans(planned, times)), []
    for is_planned, earliest, latest in ((False, start, now), (True, now, end)):
        clipped = [(phase, max(since, earliest), min(until or end, latest)) for phase, since, until in spans]
        visible = [(phase, left, right) for phase, left, right in clipped if left < right]
        exact = [(scale.x(left), scale.x(right)) for _, left, right in visible]
        drawn = _widen(exact, scale.x(earliest), scale.x(latest))
        for (phase, left, right), (x, x_end), (drawn_x, drawn_end) in zip(visible, exact, drawn, strict=True):
            widths = round(x_end - x, 3), round(drawn_end - drawn_x, 3)
            bars.append(Bar(phase, is_planned, left, right, x, widths[0], round(drawn_x, 3), widths[1]))
    revoked = key.revoked_at if key.status == Key.Status.REVOKED else None
    if revoked is None or not start <= revoked <= end:
        return Row(key, planned, y, tuple(bars), None)
    # Mark the end of the last bar, which may have been widened past the revocation.
    bar_ends = [bar.drawn_x + bar.drawn_width for bar in bars]
    return Row(key, planned, y, tuple(bars), max([scale.x(revoked), *bar_ends]))


def _widen(bars: Iterable[tuple[float, float]], lowest: float, highest: float) -> list[tuple[float, float]]:
    """Widen the bars of one row to `MIN_WIDTH`, without overlaps and within two limits.

    A narrow bar grows to the right. If there is not enough space on the right, the bars move to the left.

    Args:
        bars: the start and the end of each bar, from left to right. At most three bars, because a key has three
            phases.
        lowest, highest: the limits, as percentages. The distance between the limits is at least 8, so there is enough
            space for three bars.
    """
    widened = []
    for start, end in bars:
        left = max(start, lowest)
        lowest = max(end, left + MIN_WIDTH)
        widened.append((left, lowest))
    fitted = []
    for start, end in reversed(widened):
        right = min(end, highest)
        highest = min(start, right - MIN_WIDTH)
        fitted.append((highest, right))
    return fitted[::-1]


def _spans(key: Key, times: Times) -> Iterable[tuple[str, datetime, datetime | None]]:
    """Yield each phase of a key lifecycle with its start and its end. An unknown end is None."""
    # If a revoked key has no revocation time, its row was modified. Use its creation time, so that the timeline
    # doesn't show the key as usable.
    revoked = (key.revoked_at or key.created_at) if key.status == Key.Status.REVOKED else None
    begins = (key.created_at, key.activated_at, key.retired_at)
    ends = (key.activated_at or key.retired_at or revoked, key.retired_at or revoked, _ended(key, times))
    for phase, since, until in zip(_PHASES, begins, ends, strict=True):
        if since is not None:
            yield str(phase), since, until


def _ended(key: Key, times: Times) -> datetime | None:
    """Return the time when the last token of a key expires or when the key is revoked, whichever is earlier.

    Returns None if neither time is known.
    """
    past = copy(key)
    past.status = Key.Status.PAST
    ends = [gone_at(past, times), key.revoked_at if key.status == Key.Status.REVOKED else None]
    return min((end for end in ends if end is not None), default=None)


def _order(key: Key) -> tuple[bool, datetime]:
    """Return a sort key that orders keys by activation time.

    Revoked keys without an activation time are ordered by creation time. Other keys without an actual or planned
    activation time are last.
    """
    never = key.activated_at is None and key.status != Key.Status.REVOKED
    return never, key.activated_at or key.created_at


def _draw_ticks(scale: _Scale) -> Iterable[Tick]:
    """Yield ticks for a few round times with equal distances."""
    length = scale.end - scale.start
    step = next((step for step in _STEPS if length / step <= _MAX_TICKS), length)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    time = epoch + -((epoch - scale.start) // step) * step
    while time <= scale.end:
        x, label = scale.x(time), f"{time:%Y-%m-%d}" if step >= _DAY else f"{time:%m-%d %H:%M}"
        yield Tick(time, label if x <= _LAST_LABEL else "", x)
        time += step
