"""The overview above the key change list: the problems with keys, and the timeline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _

from ... import audit, keys
from ...conf import conf
from ...exceptions import ConfigError
from ...models import Key
from ...times import format_utc_minutes
from . import after_revocation, timeline
from .findings import Problem, Severity, bad_setting, find_problems


@dataclass(frozen=True, slots=True)
class Line:
    """A row in the table of the timeline: the short id of a key, its lifecycle, and its number of live tokens."""

    short: str
    life: str
    live: int


def panel(*, now: datetime) -> dict[str, Any]:
    """Return the template context of the overview. If a setting is invalid, the overview shows only this problem."""
    try:
        times = keys.lifecycle_times()
        jwks_age = _get_jwks_age()
        since = min(timeline.begins(now, times), after_revocation.shown_since(now, jwks_age))
        health = keys.load_health(since=since, now=now)
        problems = find_problems(health, now=now, times=times, spikes=audit.refusal_spikes(now=now))
    except ConfigError as error:
        return {"problems": _label_problems([bad_setting(error)]), "timeline": None}
    # Don't count keys with modified rows, because the timeline leaves these keys out.
    total = health.total - len(health.altered)
    drawing = timeline.draw(health.keys, total=total, now=now, times=times)
    groups = [
        (group, [(row, _describe_row(row, health, now, times)) for row in group.rows])
        for group in (drawing.groups if drawing else ())
    ]
    revoked, more_revoked = after_revocation.find_revoked(health.keys, now=now, jwks_age=jwks_age)
    return {
        "revoked_keys": revoked,
        "more_revoked": more_revoked,
        "problems": _label_problems(problems),
        "timeline": drawing,
        "groups": groups,
        "left_out": sum(group.left_out for group, _rows in groups),
    }


def _get_jwks_age() -> timedelta:
    """Return the maximum age of the keys in another deployment's copy of the JWKS.

    The issuer may create the JWKS from cached keys, so the result is the sum of the two cache times.
    """
    return timedelta(seconds=conf.key_cache_seconds + conf.jwks_max_age)


def _label_problems(problems: list[Problem]) -> list[tuple[str, str, Problem]]:
    """Return one tuple per problem: the CSS class suffix and the label of its severity, then the problem."""
    return [(*label_severity(problem.severity), problem) for problem in problems]


def label_severity(severity: Severity) -> tuple[str, str]:
    """Return the CSS class suffix and the label of a severity."""
    labels = {Severity.ERROR: _("Error"), Severity.WARNING: _("Warning"), Severity.NOTE: _("Note")}
    return severity.name.lower(), labels[severity]


def _describe_row(row: timeline.Row, health: keys.KeyHealth, now: datetime, times: keys.Times) -> Line:
    text = describe_lifecycle(row.key, row.planned, now=now, times=times)
    return Line(keys.short_kid(row.key.kid), text, health.live.get(row.key.kid, 0))


def describe_lifecycle(key: Key, planned: Key, *, now: datetime, times: keys.Times) -> str:
    """Describe the lifecycle of a key. `planned` is the key with its planned changes, from `keys.forecast`."""
    match key.status:
        case Key.Status.FUTURE:
            published = _("Published since %(time)s.") % {"time": _format(key.created_at)}
            return " ".join([published, _describe_activation(planned, now)])
        case Key.Status.CURRENT:
            since = _("Current since %(time)s.") % {"time": _format(key.activated_at)}
            return " ".join([since, _describe_rotation(key, planned, now, times)])
        case Key.Status.PAST:
            return " ".join([_describe_current_period(key, key.retired_at), _describe_expiry(key, now, times)])
    past = (
        _describe_current_period(key, key.retired_at or key.revoked_at) if key.activated_at else _("Never current.")
    )
    return f"{past} {_describe_revocation(key, now, times)}"


def _describe_revocation(key: Key, now: datetime, times: keys.Times) -> str:
    # During the lead time after a revocation, services in other deployments may use a cached JWKS that contains the
    # revoked key. The description then mentions these services.
    is_cached = key.use == Key.Use.SIGNING and key.revoked_at is not None and now - key.revoked_at < times.lead
    text = (
        _(
            "Revoked at %(time)s. Gateways refuse its tokens; services in other deployments accept these tokens for "
            "up to JWKS_MAX_AGE."
        )
        if is_cached
        else _("Revoked at %(time)s. Gateways and services refuse its tokens.")
    )
    return text % {"time": _format(key.revoked_at)}


def _describe_activation(planned: Key, now: datetime) -> str:
    if planned.activated_at is not None and planned.activated_at <= now:
        return _("Becomes current at the next rotation, which is due.")
    if planned.activated_at is not None:
        return _("Becomes current at %(time)s, in %(span)s.") % _until(planned.activated_at, now)
    if planned.use == Key.Use.SIGNING and not planned.has_private:
        return _("Never becomes current, because its private key is not stored here.")
    return _("No rotation to this key is planned.")


def _describe_rotation(key: Key, planned: Key, now: datetime, times: keys.Times) -> str:
    served = keys.served_at(key, times)
    if served is not None and served <= now:
        return _("Rotation has been due since %(time)s.") % {"time": _format(served)}
    if planned.retired_at is not None:
        return _("Next rotation due at %(time)s, in %(span)s.") % _until(planned.retired_at, now)
    return _("No rotation is planned. Import the next public key from the owner of the private key.")


def _describe_current_period(key: Key, until: datetime | None) -> str:
    return _("Current from %(since)s to %(until)s.") % {"since": _format(key.activated_at), "until": _format(until)}


def _describe_expiry(key: Key, now: datetime, times: keys.Times) -> str:
    gone = keys.gone_at(key, times)
    if gone is None:
        return ""
    if keys.is_gone(key, now=now, times=times):
        return _("Its last token expired at %(time)s.") % {"time": _format(gone)}
    return _("Its tokens are accepted until %(time)s.") % {"time": _format(gone)}


def _until(time: datetime, now: datetime) -> dict[str, str]:
    return {"time": _format(time), "span": timeuntil(time, now, depth=1)}


def _format(time: datetime | None) -> str:
    # Omit the seconds, because the change list shows the exact time.
    return format_utc_minutes(time) if time else _("an unknown time")
