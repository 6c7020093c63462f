"""What stands above the list of keys: what needs attention, the picture, and the same in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _

from ... import audit, keys
from ...exceptions import ConfigError
from ...models import Key
from ...times import format_utc_minutes
from . import timeline
from .findings import Finding, Severity, bad_setting, findings


@dataclass(frozen=True, slots=True)
class Line:
    """One key in words. `live` counts the tokens under it that are live now."""

    short: str
    life: str
    live: int


def panel(*, now: datetime) -> dict[str, Any]:
    """What the template shows. A setting that can't be worked with is a finding, and then the only one."""
    try:
        times = keys.lifecycle_times()
        standing = keys.load_health(since=timeline.begins(now, times), now=now)
        found = findings(standing, now=now, times=times, unusual=audit.refusal_spikes(now=now))
    except ConfigError as error:
        return {"findings": _shown([bad_setting(error)]), "timeline": None}
    picture = timeline.draw(standing.keys, total=standing.total, now=now, times=times)
    groups = [
        (group, [(row, _line(row, standing, now, times)) for row in group.rows])
        for group in (picture.groups if picture else ())
    ]
    return {
        "findings": _shown(found),
        "timeline": picture,
        "groups": groups,
        "left_out": sum(group.left_out for group, _rows in groups),
    }


def _shown(found: list[Finding]) -> list[tuple[str, str, Finding]]:
    words = {Severity.ERROR: _("Error"), Severity.WARNING: _("Warning"), Severity.NOTE: _("Note")}
    return [(finding.severity.name.lower(), words[finding.severity], finding) for finding in found]


def _line(row: timeline.Row, standing: keys.KeyHealth, now: datetime, times: keys.Times) -> Line:
    said = life(row.key, row.planned, now=now, times=times)
    return Line(keys.short_kid(row.key.kid), said, standing.live.get(row.key.kid, 0))


def life(key: Key, planned: Key, *, now: datetime, times: keys.Times) -> str:
    """When a key was, is or will be current, and what comes next. `planned` is its row as `forecast` has it."""
    match key.status:
        case Key.Status.FUTURE:
            return " ".join([_("Published since %(time)s.") % {"time": _moment(key.created_at)}, _next(planned, now)])
        case Key.Status.CURRENT:
            since = _("Current since %(time)s.") % {"time": _moment(key.activated_at)}
            return " ".join([since, _rotation(key, planned, now, times)])
        case Key.Status.PAST:
            return " ".join([_was_current(key, key.retired_at), _end(key, now, times)])
    was = _was_current(key, key.retired_at or key.revoked_at) if key.activated_at else _("Never current.")
    return " ".join([was, _("Revoked at %(time)s: refused everywhere.") % {"time": _moment(key.revoked_at)}])


def _next(planned: Key, now: datetime) -> str:
    if planned.activated_at is not None and planned.activated_at <= now:
        return _("Due to become current: it does so at the next rotation.")
    if planned.activated_at is not None:
        return _("Becomes current at %(time)s, in %(span)s.") % _ahead(planned.activated_at, now)
    if planned.use == Key.Use.SIGNING and not planned.has_private:
        return _("Only its public half is held: it can't sign, and never becomes current.")
    return _("When it becomes current is open.")


def _rotation(key: Key, planned: Key, now: datetime, times: keys.Times) -> str:
    served = keys.served_at(key, times)
    if served is not None and served <= now:
        return _("Rotation has been due since %(time)s.") % {"time": _moment(served)}
    if planned.retired_at is not None:
        return _("Next rotation due at %(time)s, in %(span)s.") % _ahead(planned.retired_at, now)
    return _("No rotation is planned: the next key comes from its owner.")


def _was_current(key: Key, until: datetime | None) -> str:
    return _("Current from %(since)s to %(until)s.") % {"since": _moment(key.activated_at), "until": _moment(until)}


def _end(key: Key, now: datetime, times: keys.Times) -> str:
    gone = keys.gone_at(key, times)
    if gone is None:
        return ""
    if keys.is_gone(key, now=now, times=times):
        return _("Gone since %(time)s: no token under it is accepted.") % {"time": _moment(gone)}
    return _("Its tokens are accepted until %(time)s.") % {"time": _moment(gone)}


def _ahead(moment: datetime, now: datetime) -> dict[str, str]:
    return {"time": _moment(moment), "span": timeuntil(moment, now, depth=1)}


def _moment(moment: datetime | None) -> str:
    return format_utc_minutes(moment) if moment else _("an unknown time")
