"""The chart of issued tokens, revoked tokens and refused requests over time, above the list of issued tokens.

The chart uses the same period, filters and search as the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from ... import audit
from ...audit import REFUSAL_RETENTION
from . import chart_counts, periods, search
from .access_filter import AccessFilter
from .chart_counts import Counts
from .chart_geometry import Drawing, Series, draw
from .pagination import COUNTED
from .periods import HOUR, Period

_HIGH, _LOW = 84, 34
"""The height of the highest bar in the panel of issued tokens, and in each other panel, in pixels."""


@dataclass(frozen=True)
class Kind:
    """A panel of the chart. `name` is the CSS class suffix; `height` is the height of the highest bar, in pixels."""

    name: str
    heading: str
    counts: Counts
    height: int

    def cell(self, index: int) -> str:
        """Return the text of the table cell for the hour or day with this index."""
        return _("not known") if index < self.counts.known else _format(self.counts.numbers[index])

    def title(self, step: timedelta) -> str:
        """Return the title of the panel, with the total and the count of the highest bar."""
        counts = self.counts
        numbers = {
            "heading": self.heading,
            "count": _format(counts.total),
            "most": _format(max(counts.numbers[counts.known :], default=0)),
        }
        if counts.known == len(counts.numbers):
            return _("%(heading)s: not known") % numbers
        if not counts.total:
            return _("%(heading)s: %(count)s") % numbers
        if step == HOUR:
            return _("%(heading)s: %(count)s, peak %(most)s per hour") % numbers
        return _("%(heading)s: %(count)s, peak %(most)s per day") % numbers

    def series(self, step: timedelta) -> Series:
        return Series(self.name, self.title(step), self.counts.numbers, self.height, first=self.counts.known)


@dataclass(frozen=True)
class Row:
    """A row of the table, for one hour or day."""

    start: str
    cells: Sequence[str]


@dataclass(frozen=True)
class TokenChart:
    """The content of the chart and of its table, for the template.

    Attributes:
        heading: the period, and whether a bar is an hour or a day.
        unit: the heading of the first column of the table.
        description: the text alternative of the chart, with the first and the last time and the totals.
        drawing: the geometry of the chart.
        headings: the headings of the other columns of the table.
        rows: the rows of the table.
        notes: the sentences that explain what the chart counts and omits.
        empty: whether every number is zero or unknown.
    """

    heading: str
    unit: str
    description: str
    drawing: Drawing
    headings: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    empty: bool


def build_chart(changelist: ChangeList, *, now: datetime | None = None) -> TokenChart:
    """Build the chart of all rows that match the filters of a change list.

    The counts need at most three queries, each with a row limit.
    """
    now = now or timezone.now()
    label, period = _get_period(changelist, now)
    kinds, notes = _count_kinds(changelist, period, now)
    times = [_format_start(start, period) for start in period.starts]
    rows = [Row(time, [kind.cell(index) for kind in kinds]) for index, time in enumerate(times)]
    tooltips = [
        "\n".join(
            [
                row.start,
                *(
                    _("%(heading)s: %(count)s") % {"heading": k.heading, "count": c}
                    for k, c in zip(kinds, row.cells, strict=True)
                ),
            ]
        )
        for row in rows
    ]
    axis = [time[5:] if period.step == HOUR else time for time in times]
    sentences = [
        _("From %(first)s to %(last)s (UTC).") % {"first": times[0], "last": times[-1]},
        *(kind.title(period.step) for kind in kinds),
    ]
    unit = _("by hour") if period.step == HOUR else _("by day")
    return TokenChart(
        heading=f"{label}, {unit}",
        unit=_("Hour (UTC)") if period.step == HOUR else _("Day (UTC)"),
        description=" ".join(f"{sentence.rstrip('.')}." for sentence in sentences),
        drawing=draw([kind.series(period.step) for kind in kinds], axis, tooltips),
        headings=[kind.heading for kind in kinds],
        rows=rows,
        notes=notes,
        empty=not any(kind.counts.total for kind in kinds),
    )


def _get_period(changelist: ChangeList, now: datetime) -> tuple[Any, Period]:
    """Return the label and the times of the period that the user chose or typed, or of the default period."""
    for spec in changelist.filter_specs:
        if isinstance(spec, AccessFilter) and spec.period:
            period = periods.between(spec.since, spec.until, now)
            times = {"since": _format_start(period.since, period), "until": _format_start(period.until, period)}
            return _("%(since)s to %(until)s") % times, period
    choice = changelist.params.get("period", "")
    choice = choice if choice in periods.CHOICES else periods.DEFAULT
    chosen = periods.chosen(choice, now)
    assert chosen is not None  # noqa: S101  (`choice` is a key of `periods.CHOICES`.)
    return periods.CHOICES[choice][0], chosen


def _count_kinds(changelist: ChangeList, period: Period, now: datetime) -> tuple[list[Kind], list[str]]:
    """Return the panels with their counts, and the notes below the chart."""
    tokens, few = changelist.queryset, changelist.paginator.count < COUNTED
    filters = set(changelist.get_filters_params()) - {"period", *AccessFilter.parameter_names}
    kinds = [
        Kind("issued", pgettext("tokens or requests", "Issued"), chart_counts.issued(tokens, period, few=few), _HIGH)
    ]
    notes = []
    # If the list contains only live or only expired tokens, omit the panel of revoked tokens, because the
    # panel would be empty.
    if changelist.params.get("status") not in {"live", "expired"}:
        counts = chart_counts.revoked(tokens, period)
        kinds.append(Kind("revoked", pgettext("tokens or requests", "Revoked"), counts, _LOW))
        notes.append(_("Revoked: tokens in this list, by the time of their revocation."))
    if any(kind.counts.truncated for kind in kinds):
        notes.insert(0, _explain_truncation(max(kind.counts.known for kind in kinds), period))
    condition, note = _select_refusals(changelist, filters)
    if condition is None:
        return kinds, [*notes, note]
    counts = chart_counts.refused(audit.refusal_rows().filter(condition), period, kept_since=now - REFUSAL_RETENTION)
    kinds.append(Kind("refused", pgettext("tokens or requests", "Refused"), counts, _LOW))
    notes.append(note)
    if counts.known:
        notes.append(_("Refusals are kept for %(days)d days.") % {"days": REFUSAL_RETENTION.days})
    return kinds, notes


def _explain_truncation(known: int, period: Period) -> str:
    """Explain that the chart is incomplete, because the period has too many tokens to count.

    `known` is the index of the first complete hour or day.
    """
    text = _("The period contains more than %(count)s tokens. Choose a shorter period.") % {
        "count": _format(chart_counts.CHARTED)
    }
    if known == len(period.starts):
        return text
    complete = _("The chart is complete from %(time)s on.") % {"time": _format_start(period.starts[known], period)}
    return f"{text} {complete}"


def _select_refusals(changelist: ChangeList, filters: set[str]) -> tuple[Q | None, str]:
    """Return the condition for refusals that match the filters of the list, and a note about the refusals.

    The condition is None if the list is filtered by a value that refusal counts don't contain, such as the account.
    """
    if filters - {"client_id"}:
        return None, _(
            "Refusals are not shown for this filter, because counts of refusals contain only the application and the "
            "user."
        )
    condition, is_narrowed = Q(), False
    if "client_id" in filters:
        client_id = changelist.params["client_id"]
        # Refusal counts contain only printable ASCII. Some databases raise an error for a comparison with a NUL
        # character or a non-ASCII character.
        storable = client_id.isascii() and "\x00" not in client_id
        condition, is_narrowed = (Q(client_id=client_id) if storable else Q(pk__in=[])), True
    for term in search.find_terms(changelist.query):
        matching = search.refusals_matching(term)
        if matching is None:
            return None, _("Refusals are not shown, because refusals are not counted by IP address.")
        condition, is_narrowed = condition & matching, True
    if is_narrowed:
        return condition, _("Refused: requests that are known to belong to the selected application or user.")
    return condition, _(
        "Refused: requests that the issuer or the gateway refused. Refusals are not in the list below."
    )


def _format_start(start: datetime, period: Period) -> str:
    """Format the start of an hour or day in UTC. For a day, the time is omitted."""
    return f"{start.astimezone(UTC):%Y-%m-%d %H:%M}" if period.step == HOUR else f"{start.astimezone(UTC):%Y-%m-%d}"


def _format(number: int) -> str:
    return str(number_format(number, force_grouping=True))
