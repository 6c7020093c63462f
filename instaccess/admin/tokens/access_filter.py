"""The filter for issued tokens that were valid at some time in a period, such as last night."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ... import audit
from ...models import IssuedToken
from ...times import format_utc
from .periods import DAY

_EVENING, _MORNING = 18, 8
"""The hours at which "last night" begins and ends."""


class AccessFilter(admin.SimpleListFilter):
    """A filter for tokens that were valid at some time in a period, in the time zone of the admin.

    The URL contains the start and the end of the period. A time without an offset is in the current time zone.

    Attributes:
        since: the start of the period, or None.
        until: the end of the period, or None.
        error: the reason why the times in the URL are not a period. If not empty, the filter shows no tokens.
    """

    title = _("access in a period")
    parameter_name = "since"
    parameter_names = ("since", "until")
    template = "admin/instaccess/issuedtoken/access_filter.html"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        until = params.pop("until", [""])[-1]
        super().__init__(request, params, model, model_admin)
        if until:
            self.used_parameters["until"] = until
        self.since, self.until, self.error = self._parse()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("night", _("Last night, 18:00 to 08:00")), ("yesterday", _("Yesterday")), ("today", _("Today"))]

    def expected_parameters(self) -> list[str | None]:
        return [*self.parameter_names]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Yield the links for the predefined periods, and keep the other parameters of the URL for the form."""
        dropped = {*self.parameter_names, PAGE_VAR, ERROR_FLAG}
        self.hidden = [(name, value) for name, value in changelist.params.items() if name not in dropped]
        current = {name: self.used_parameters.get(name, "") for name in self.parameter_names}
        yield {
            "selected": not any(current.values()),
            "query_string": changelist.get_query_string(remove=[*self.parameter_names]),
            "display": gettext("All"),
        }
        for key, label in self.lookup_choices:
            times = preset_parameters(key)
            query = changelist.get_query_string(times, remove=[PAGE_VAR])
            yield {"selected": times == current, "query_string": query, "display": label}

    @property
    def fields(self) -> list[dict[str, str]]:
        """The name, label and value of each field of the form."""
        times = {"since": (gettext("From"), self.since), "until": (gettext("Until"), self.until)}
        return [
            {"name": name, "label": label, "value": _format_input(time) if time else ""}
            for name, (label, time) in times.items()
        ]

    @property
    def zone(self) -> str:
        """The name of the time zone of the fields, with its current offset, such as "Europe/Berlin (UTC+01:00)"."""
        offset = timezone.localtime().isoformat()[-6:]
        return f"{timezone.get_current_timezone_name()} (UTC{offset})"

    @property
    def period(self) -> str:
        """The chosen period in UTC, or an empty string if no period was chosen."""
        if self.error or not (self.since or self.until):
            return ""
        start, end = (format_utc(time) if time else "…" for time in (self.since, self.until))
        return gettext("%(since)s to %(until)s") % {"since": start, "until": end}

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        if self.error:
            return queryset.none()
        return queryset.filter(audit.filter_by_access(self.since, self.until))

    def _parse(self) -> tuple[datetime | None, datetime | None, str]:
        try:
            # When clocks go back, an hour occurs twice. The period begins in the first hour, or ends in the second
            # hour, so that the period includes both hours.
            since = _parse_time(self.used_parameters.get("since"), fold=0)
            until = _parse_time(self.used_parameters.get("until"), fold=1)
        except (ValueError, OverflowError):
            return None, None, gettext("Enter each time as date and time, such as 2026-11-26T18:00.")
        if since and until and since >= until:
            return since, until, gettext("The end of the period must be after its start.")
        return since, until, ""


def _parse_time(text: Any, *, fold: int) -> datetime | None:
    if not text:
        return None
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone.get_current_timezone(), fold=fold)
    return time.astimezone(UTC)


def _format_input(time: datetime) -> str:
    """Format a time for an input field, in the current time zone and without an offset."""
    local = timezone.localtime(time).replace(tzinfo=None)
    return local.isoformat(timespec="seconds" if local.second else "minutes")


def preset_parameters(key: str) -> dict[str, str]:
    """Return the URL parameters for a predefined period. `key` is a key in `AccessFilter.lookups`."""
    return dict(zip(AccessFilter.parameter_names, map(_format_input, _preset(key)), strict=True))


def _preset(key: str) -> tuple[datetime, datetime]:
    """Return the start and the end of a predefined period. `key` is a key in `AccessFilter.lookups`."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    match key:
        case "night":
            return (midnight - DAY).replace(hour=_EVENING), midnight.replace(hour=_MORNING)
        case "yesterday":
            return midnight - DAY, midnight
    return midnight, midnight + timedelta(days=1)
