"""System checks of the stored keys and the database's clock, and a check that the database has not lost rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DbError
from django.db import router

from .. import audit, database_clock, database_errors, trust
from ..exceptions import ConfigError, KeyAltered, KeyUnavailable
from ..models import Key
from ..tokens import CLOCK_SKEW
from . import audit_keys, provision, queries

_MAX_REPORTED = 20

CLOCK_DIFFERENCE = 5
"""The smallest difference, in seconds, that is reported between the clock of this host and the clock of the database.

With NTP, clocks differ only by milliseconds.
"""


@register(Tags.database)
def check_keys(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that keys exist, that their rows are authentic, and that their private keys can be unsealed.

    Django runs this check only with `check --database` and `migrate`.
    """
    if not databases or router.db_for_write(Key) not in databases:
        return []
    try:
        missing = provision.missing_keys()
        rows, errors = queries.examine()
        used = [row for row in rows if row.pk not in errors and row.status != Key.Status.REVOKED]
        problems = [*errors.values(), *provision.undecryptable(used).values()]
    except DbError as error:
        return _check_database(router.db_for_write(Key), error)
    except ConfigError:
        return []  # `check_settings` reports the invalid setting.
    if problems:
        return _report(problems)
    if not missing:
        return []
    return [
        Warning(
            "There is no " + ", no ".join(f"{status} {use.label} key" for use, status in missing) + ".",
            hint="Run `python manage.py instaccess_init`.",
            id="instaccess.W008",
        )
    ]


@register(Tags.database)
def check_progress(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if the database lacks rows that existed when this check ran earlier.

    The result is a warning, because `migrate` runs this check too. An error would stop `migrate`, which is often
    needed after a restore.
    """
    if not databases or router.db_for_write(Key) not in databases:
        return []
    try:
        lost = audit.check_progress(audit_keys.evidence_keys())
    except (ConfigError, DbError, KeyUnavailable):
        return []  # `check_settings` and `check_keys` report the problem.
    if not lost:
        return []
    return [
        Warning(
            f"The database has lost rows: {lost}.",
            hint=f"{trust.RESTORED[:1].upper()}{trust.RESTORED[1:]}.",
            id="instaccess.W030",
        )
    ]


@register(Tags.database)
def check_clock(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Compare the clock of this host with the clock of the database that contains the keys."""
    alias = router.db_for_write(Key)
    if not databases or alias not in databases:
        return []
    try:
        difference = database_clock.compare(alias)
    except DbError:
        return []  # `check_keys` reports the unavailable database.
    if difference is None or abs(difference.seconds) - difference.error < CLOCK_DIFFERENCE:
        return []
    direction = "ahead of" if difference.seconds > 0 else "behind"
    return [
        Warning(
            f"The clock of this host is {abs(difference.seconds):.1f} seconds {direction} the clock of the database "
            f"{alias!r}.",
            hint=f"Synchronize the clocks of all hosts with NTP. If the clocks differ by {CLOCK_SKEW} seconds or "
            "more, gateways and services can refuse new tokens.",
            id="instaccess.W034",
        )
    ]


def _report(problems: Sequence[KeyUnavailable]) -> list[CheckMessage]:
    """Report at most `_MAX_REPORTED` modified rows, and the first key that can't be used for another reason.

    Another reason, such as a missing key-encryption key, usually applies to several keys, so one message is enough.
    """
    altered = [problem for problem in problems if isinstance(problem, KeyAltered)]
    others = [problem for problem in problems if not isinstance(problem, KeyAltered)]
    texts = [problem.detail for problem in altered[:_MAX_REPORTED]]
    if len(altered) > _MAX_REPORTED:
        texts.append(f"{len(altered) - _MAX_REPORTED} more rows of keys were modified or inserted without this app")
    messages: list[CheckMessage] = [
        Error(
            f"{text[:1].upper()}{text[1:]}.",
            hint="Find out who modified the database, and change the passwords of the database.",
            id="instaccess.E055",
        )
        for text in texts
    ]
    return messages + [
        Error(f"A stored key can't be used: {problem.detail}.", id="instaccess.E008") for problem in others[:1]
    ]


def _check_database(alias: str, error: DbError) -> list[CheckMessage]:
    """Report that keys can't be read. Missing tables aren't reported, because `migrate` creates them."""
    if database_errors.needs_migration(error):
        return []
    return [
        Error(
            f"Keys can't be read from the database {alias!r} ({type(error).__name__}): "
            f"{database_errors.describe(error)}.",
            hint=f"Check that the database server is running, and check DATABASES[{alias!r}].",
            id="instaccess.E009",
        )
    ]
