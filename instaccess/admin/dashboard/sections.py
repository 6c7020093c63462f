"""The content of the dashboard's sections: the last 24 hours, the keys, and the runs of maintenance commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import Error as DbError
from django.db import connections, router, transaction
from django.db.models import QuerySet, Sum
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from ... import audit, database_errors, keys, web
from ...exceptions import Reason
from ...logs import get_logger
from ...models import IssuedToken, Key, MaintenanceRun, RefusalCount
from ...times import format_utc_minutes
from ..keys.overview import describe_lifecycle

logger = get_logger("instaccess.audit")

COUNTED = 50_000
"""The maximum number of tokens that a query counts."""

_REASONS = 5
"""The maximum number of reasons in the list of refusals."""

_REASON_CODES = frozenset(reason.value for reason in Reason)
_DAY = timedelta(days=1)
_Loaded = TypeVar("_Loaded")


def load(model: Any, query: Callable[[], _Loaded]) -> _Loaded | None:
    """Return the result of a function that queries the table of `model`. Returns None if the database fails.

    A missing table must not prevent the other sections of the page, so the error is logged and not raised.
    """
    alias = router.db_for_write(model)
    try:
        # If the request has an open transaction, use a savepoint, because a failed statement would break the
        # transaction.
        with transaction.atomic(using=alias) if connections[alias].in_atomic_block else nullcontext():
            return query()
    except DbError as error:
        logger.warning(
            "the dashboard can't read %(table)s (%(error)s): %(detail)s",
            table=model._meta.db_table,
            error=type(error).__name__,
            detail=database_errors.describe(error),
        )
        return None


@dataclass(frozen=True, slots=True)
class Refused:
    """The number of refusals with one reason. `meaning` is empty if the reason is unknown."""

    role: str
    reason: str
    meaning: str
    count: str


@dataclass(frozen=True, slots=True)
class Activity:
    """The numbers of issued tokens, revoked tokens and refused requests in the last 24 hours.

    `reasons` contains the most frequent reasons for refusals.
    """

    issued: str
    revoked: str
    refused: str
    reasons: Sequence[Refused]


def count_activity() -> Activity:
    """Count the issued tokens, revoked tokens and refused requests of the last 24 hours.

    Raises DatabaseError if a query fails.
    """
    since = audit.current_time() - _DAY
    # Refusals are counted per hour, so the count begins with a whole hour.
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    groups = list(
        audit.refusal_rows()
        .filter(hour__gte=hour)
        .order_by()
        .values("role", "reason")
        .annotate(total=Sum("count"))
        .order_by("-total", "role", "reason")
    )
    tokens = audit.issued_tokens()
    return Activity(
        issued=_count(tokens.filter(issued_at__gte=since).order_by("-issued_at")),
        revoked=_count(tokens.filter(revoked_at__gte=since).order_by("-revoked_at")),
        refused=_format(sum(group["total"] for group in groups)),
        reasons=[_describe_refusals(group) for group in groups[:_REASONS]],
    )


def _count(rows: QuerySet[IssuedToken]) -> str:
    # The rows are ordered by an indexed time, so that the database reads the index and stops at the limit.
    number = rows.values("pk")[: COUNTED + 1].count()
    if number > COUNTED:
        return _("more than %(count)s") % {"count": _format(COUNTED)}
    return _format(number)


def _describe_refusals(group: Mapping[str, Any]) -> Refused:
    reason, role = group["reason"], group["role"]
    return Refused(
        role=str(RefusalCount.Role(role).label) if role in RefusalCount.Role else role,
        reason=reason,
        meaning=str(web.explain(Reason(reason)).meaning) if reason in _REASON_CODES else "",
        count=_format(group["total"]),
    )


def _format(number: int) -> str:
    return str(number_format(number, force_grouping=True))


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A row of the table of keys.

    `life` describes the lifecycle of the key, such as the next rotation.
    """

    kid: str
    short: str
    pk: int
    use: str
    status: str
    life: str


def list_keys(health: keys.KeyHealth, *, now: datetime, times: keys.Times) -> list[KeyLine]:
    """Return one row for the current key and the next key of each use, and for up to three past keys of each use.

    Past keys whose tokens have all expired are left out.
    """
    stored = health.keys
    planned = keys.forecast(stored, now=now, times=times, until=now + times.interval * 2 + times.lead)
    lines = []
    for use in Key.Use:
        for status in Key.Status.CURRENT, Key.Status.FUTURE, Key.Status.PAST:
            pairs = [
                (key, after)
                for key, after in zip(stored, planned, strict=True)
                if (key.use, key.status) == (use, status) and _is_used(key, now=now, times=times)
            ]
            # Show only the next future key. Show up to three past keys, because gateways may accept tokens of several
            # past keys after early rotations.
            shown = pairs[: 1 if status == Key.Status.FUTURE else 3]
            lines += [
                KeyLine(
                    kid=key.kid,
                    short=keys.short_kid(key.kid),
                    pk=key.pk,
                    use=str(use.label),
                    status=key.get_status_display(),
                    life=describe_lifecycle(key, after, now=now, times=times),
                )
                for key, after in shown
            ]
    return lines


def _is_used(key: Key, *, now: datetime, times: keys.Times) -> bool:
    return key.status != Key.Status.PAST or not keys.is_gone(key, now=now, times=times)


@dataclass(frozen=True, slots=True)
class RunLine:
    """A row of the table of maintenance commands. `run` is None if no run was recorded."""

    command: str
    label: str
    full_command: str
    run: MaintenanceRun | None

    @property
    def started(self) -> str:
        """The time when the last run started, or an empty string if no run was recorded."""
        return format_utc_minutes(self.run.started_at) if self.run else ""

    @property
    def succeeded(self) -> str:
        """The time when the last successful run ended, or an empty string if no run has succeeded."""
        return format_utc_minutes(self.run.succeeded_at) if self.run and self.run.succeeded_at else ""


def list_runs(runs: Sequence[MaintenanceRun]) -> list[RunLine]:
    """Return one row for each of the commands `seal` and `verify`, with the last run of the command."""
    recorded = {run.command: run for run in runs}
    return [
        RunLine(command, label, f"python manage.py instaccess_tokens {command}", recorded.get(command))
        for command, label in (("seal", _("Last seal")), ("verify", _("Last verification")))
    ]
