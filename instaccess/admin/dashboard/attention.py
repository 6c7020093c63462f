"""The problems on the dashboard that maintenance commands, health checks and system checks report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from django.core.checks import ERROR, CheckMessage
from django.core.checks.registry import registry
from django.db import connections
from django.utils.translation import gettext as _

from ... import audit, keys
from ...exceptions import InstAccessError
from ...models import MaintenanceRun
from ...times import format_utc_minutes
from ..keys.findings import Problem, Severity

OVERDUE = timedelta(days=2)
"""A maintenance command is overdue if the command has not succeeded for this time.

The time is longer than a day, so that a daily command isn't overdue after one failure."""

SEAL, VERIFY, ROTATE = (
    "python manage.py instaccess_tokens seal",
    "python manage.py instaccess_tokens verify",
    "python manage.py instaccess_keys rotate",
)

# The dashboard leaves out these messages, because the problems with keys contain the same information.
_REPORTED_WITH_KEYS = {"instaccess.W008", "instaccess.E055", "instaccess.E008", "instaccess.E009"}


def check_runs(runs: Iterable[MaintenanceRun], commands: dict[str, str], *, now: datetime) -> Iterator[Problem]:
    """Yield the problems with maintenance commands. `commands` maps the name of each command to its command line."""
    recorded = {run.command: run for run in runs}
    for name, command in commands.items():
        run = recorded.get(name)
        if run is not None and run.result == MaintenanceRun.Result.FAILED:
            severity = Severity.ERROR if name == "verify" else Severity.WARNING
            text = _("The last run of “%(name)s” failed or found a problem.") % {"name": name}
            yield Problem(f"{name}_failed", severity, text, _("This command prints the reason:"), command)
        elif run is None or run.succeeded_at is None:
            text = _("No successful run of “%(name)s” is recorded.") % {"name": name}
            fix = _("Run the command daily with cron:")
            yield Problem(f"{name}_never_run", Severity.NOTE, text, fix, command)
        elif now - run.succeeded_at > OVERDUE:
            text = _("The last successful run of “%(name)s” ended at %(time)s.") % {
                "name": name,
                "time": format_utc_minutes(run.succeeded_at),
            }
            fix = _("Check why cron has not run the command or why the run did not end, and run the command:")
            yield Problem(f"{name}_overdue", Severity.WARNING, text, fix, command)


def check_issuing() -> Iterator[Problem]:
    """Yield a problem if the health check of the keys fails. No tokens can then be issued.

    Raises DatabaseError if a query fails.
    """
    try:
        keys.check_issuing_keys()
    except InstAccessError as error:
        text = _("No tokens can be issued: %(reason)s.") % {"reason": str(error).rstrip(".")}
        fix = _("This command checks the keys:")
        yield Problem("issuing_keys", Severity.ERROR, text, fix, "python manage.py check --database default")


def is_writable() -> bool:
    """Return True if the health check of the audit log succeeds. Raises DatabaseError if the check fails."""
    audit.check_writable()
    return True


def not_writable() -> Problem:
    """Return the problem to show if rows can't be inserted into the audit log. No tokens can then be issued."""
    text = _("No tokens can be issued, because rows can't be inserted into the audit log.")
    fix = _("Check the database server and the permissions of the database user. This command adds missing tables:")
    return Problem("audit_not_writable", Severity.ERROR, text, fix, "python manage.py migrate")


def run_system_checks() -> list[tuple[Severity, CheckMessage]]:
    """Run the system checks of this app, without the checks for `check --deploy`, and return the messages.

    The checks of other apps don't run, because these checks can be slow. The check that inserts rows and rolls the
    rows back doesn't run either, because every reload of the page would write to the database. Raises DatabaseError.
    """
    own = [
        check
        for check in registry.get_checks()
        if check.__module__.startswith("instaccess.") and getattr(check, "__name__", "") != "check_insert"
    ]
    messages: Sequence[CheckMessage] = [
        message for check in own for message in check(app_configs=None, databases=list(connections))
    ]
    return sorted(
        (
            (Severity.ERROR if message.level >= ERROR else Severity.WARNING, message)
            for message in messages
            if message.id not in _REPORTED_WITH_KEYS and not message.is_silenced()
        ),
        key=lambda each: each[0],
    )
