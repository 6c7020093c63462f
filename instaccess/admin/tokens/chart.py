"""The picture above the list of issued tokens: what was issued, revoked and refused over time, by the list's own
choice of period, filters and search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.contrib.admin.views.main import ChangeList
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from ... import audit
from ...audit import REFUSAL_RETENTION
from . import chart_counts, periods, search
from .chart_counts import Counts
from .chart_geometry import Drawing, Series, draw
from .periods import HOUR, Period

_DATES = frozenset({"period", "issued_at__year", "issued_at__month", "issued_at__day"})
_HIGH, _LOW = 84, 34
"""Pixels of the highest bar: of what was issued, and of what is beside it."""


@dataclass(frozen=True)
class Kind:
    """One of the things that are charted: the name of its class, its heading, and how many there were."""

    name: str
    heading: str
    counts: Counts
    height: int

    def cell(self, number: int) -> str:
        """What the table says of one hour or day."""
        if number < self.counts.first:
            return _("not known")
        return _number(self.counts.numbers[number], about=number < self.counts.known)

    def title(self, step: timedelta) -> str:
        """How many there were in all, and what the highest bar stands for."""
        counts, about = self.counts, self.counts.about is not None
        numbers = {
            "heading": self.heading,
            "count": _number(counts.total, about=about),
            "most": _number(max(counts.numbers[counts.first :], default=0), about=about),
        }
        if counts.first == len(counts.numbers):
            return _("%(heading)s: not known") % numbers
        if not counts.total:
            return f"{self.heading}: 0"
        if step == HOUR:
            return _("%(heading)s: %(count)s, at most %(most)s an hour") % numbers
        return _("%(heading)s: %(count)s, at most %(most)s a day") % numbers

    def series(self, step: timedelta) -> Series:
        counts = self.counts
        return Series(
            self.name, self.title(step), counts.numbers, self.height, first=counts.first, exact=counts.known
        )


@dataclass(frozen=True)
class Row:
    """One hour or day, for the table."""

    start: str
    cells: Sequence[str]


@dataclass(frozen=True)
class TokenChart:
    """What the template draws and says.

    Attributes:
        heading: of which period, and in what it is told.
        description: for whoever does not see the picture: from when to when, and the sums.
        drawing: None where the period is empty.
        headings: of the table's columns, after that of the time.
        notes: what is counted, what is not, and why.
        empty: there was nothing at all.
    """

    heading: str
    unit: str
    description: str
    drawing: Drawing | None
    headings: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    empty: bool


def chart_of(changelist: ChangeList, *, now: datetime | None = None) -> TokenChart:
    """The picture for a list as it is narrowed down. Four statements at the most, each bounded."""
    now = now or timezone.now()
    period = _period(changelist, now)
    kinds, notes = _kinds(changelist, period, now) if period.starts else ([], [])
    texts = [_moment(start, period) for start in period.starts]
    rows = [Row(text, [kind.cell(number) for kind in kinds]) for number, text in enumerate(texts)]
    columns = [
        "\n".join([row.start, *(f"{kind.heading}: {cell}" for kind, cell in zip(kinds, row.cells, strict=True))])
        for row in rows
    ]
    axis = [text[5:] if period.step == HOUR else text for text in texts]
    said = [kind.title(period.step) for kind in kinds]
    if texts:
        said.insert(0, _("From %(first)s to %(last)s (UTC).") % {"first": texts[0], "last": texts[-1]})
    return TokenChart(
        heading=_heading(changelist, period, now),
        unit=_("Hour (UTC)") if period.step == HOUR else _("Day (UTC)"),
        description=" ".join(f"{text.rstrip('.')}." for text in said),
        drawing=draw([kind.series(period.step) for kind in kinds], axis, columns) if texts else None,
        headings=[kind.heading for kind in kinds],
        rows=rows,
        notes=notes,
        empty=not any(kind.counts.total for kind in kinds),
    )


def _period(changelist: ChangeList, now: datetime) -> Period:
    chosen = periods.chosen(changelist.params.get("period"), now)
    picked = periods.picked(changelist.params, now)
    if chosen and picked:
        return chosen & picked
    default = periods.chosen(periods.DEFAULT, now)
    assert default is not None  # noqa: S101  (it is one of the choices)
    return chosen or picked or default


def _heading(changelist: ChangeList, period: Period, now: datetime) -> str:
    choice = str(changelist.params.get("period"))
    unit = _("by hour") if period.step == HOUR else _("by day")
    if periods.picked(changelist.params, now) is not None:
        parts = (changelist.params.get(f"issued_at__{part}") for part in ("year", "month", "day"))
        label = "-".join(f"{int(part):02}" for part in parts if part)
    else:
        label = str(periods.CHOICES.get(choice, periods.CHOICES[periods.DEFAULT])[0])
    return f"{label}, {unit}"


def _kinds(changelist: ChangeList, period: Period, now: datetime) -> tuple[list[Kind], list[str]]:
    """What is charted, and the notes on it."""
    tokens = changelist.queryset
    narrowed = set(changelist.get_filters_params()) - _DATES
    bare = not narrowed and not changelist.query.strip()
    notes = []
    issued = Kind("issued", _("Issued"), chart_counts.issued(tokens, period, estimate=bare), _HIGH)
    kinds = [issued]
    if issued.counts.about is not None:
        notes.append(
            _(
                "There are too many tokens to count: up to %(moment)s, where bars are paler, their numbers are "
                "estimates from row numbers."
            )
            % {"moment": _moment(period.starts[issued.counts.known - 1], period)}
        )
    elif issued.counts.known:
        notes.append(_incomplete(issued.counts, period))
    if changelist.params.get("status") not in {"live", "expired"}:
        kinds.append(Kind("revoked", _("Revoked"), chart_counts.revoked(tokens, period), _LOW))
        notes.append(_("Revoked: tokens of this list, at the time they were revoked."))
    condition, reason = _refusals(changelist, narrowed)
    if condition is None:
        return kinds, [*notes, reason]
    counts = chart_counts.refused(audit.refusal_rows().filter(condition), period, kept_since=now - REFUSAL_RETENTION)
    kinds.append(Kind("refused", _("Refused"), counts, _LOW))
    notes.append(reason)
    if counts.known:
        notes.append(_("Refusals are kept for %(days)d days.") % {"days": REFUSAL_RETENTION.days})
    return kinds, notes


def _incomplete(counts: Counts, period: Period) -> str:
    said = _("Only the latest %(count)s tokens of this choice are counted.") % {
        "count": _number(chart_counts.CHARTED)
    }
    if counts.known == len(period.starts):
        return said
    complete = _("The picture is complete from %(moment)s on; a shorter period shows more.")
    return f"{said} {complete}" % {"moment": _moment(period.starts[counts.known], period)}


def _refusals(changelist: ChangeList, narrowed: set[str]) -> tuple[Q | None, str]:
    """Which refusals belong to what is listed, and what to say of them; None where that can't be told."""
    if narrowed - {"client_id"}:
        return None, _("Refusals are left out: they are counted by application and user only.")
    condition, known = Q(), False
    if "client_id" in narrowed:
        client_id = changelist.params["client_id"]
        condition, known = (Q(client_id=client_id) if "\x00" not in client_id else Q(pk__in=[])), True
    for term in search.terms(changelist.query):
        matching = search.refusals_matching(term)
        if matching is None:
            return None, _("Refusals are left out: they are not counted by what was searched for.")
        condition, known = condition & matching, True
    if known:
        return condition, _("Refused: requests of which it was known that they belong to this choice.")
    return condition, _("Refused: requests that the issuer or the gateway refused. They are not in the list.")


def _moment(start: datetime, period: Period) -> str:
    return f"{start.astimezone(UTC):%Y-%m-%d %H:%M}" if period.step == HOUR else f"{start.astimezone(UTC):%Y-%m-%d}"


def _number(number: int, *, about: bool = False) -> str:
    if not about:
        return str(number_format(number, force_grouping=True))
    # An estimate of 912,345 says more than it knows.
    rounded = round(number, min(3 - len(str(number)), 0))
    return _("about %(number)s") % {"number": number_format(rounded, force_grouping=True)}
