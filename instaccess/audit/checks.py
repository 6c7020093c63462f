"""System checks of the database of the audit log: inserting rows, durability of committed rows, and timeouts.

No token is returned before its row is committed. If the database later loses the row, the audit log lacks the token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DbError
from django.db import connections, router

from .. import database_errors
from ..models import IssuedToken
from . import writability

_SETTINGS = "SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names')"
# Leave out base backups, because a base backup isn't a replica. Keep rows whose state is NULL. PostgreSQL hides the
# state of another user's replica if this user lacks the role `pg_read_all_stats`.
_REPLICAS = "SELECT sync_state FROM pg_stat_replication WHERE state IS NULL OR state <> 'backup'"


@register(Tags.database)
def check_durability(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that PostgreSQL confirms a commit only when the commit is on its disk, and on a replica if there is one.

    Databases of other vendors are not checked.
    """
    alias = router.db_for_write(IssuedToken)
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(_SETTINGS)
            commit, names = cursor.fetchone()
            cursor.execute(_REPLICAS)
            replicas = [row[0] for row in cursor.fetchall()]
    except DbError:
        return []  # `check_keys` reports that the database is unavailable.
    return list(_find_problems(commit, names, replicas))


def _find_problems(commit: str, names: str, replicas: Sequence[str | None]) -> Iterator[CheckMessage]:
    """Yield a warning for each PostgreSQL setting with which a crash or a failover can lose audit rows.

    Args:
        commit, names: the values of `synchronous_commit` and `synchronous_standby_names`.
        replicas: the `sync_state` of each attached replica; None if this database user isn't allowed to see
            the state.
    """
    if commit == "off" or (commit == "local" and replicas):
        place = "on its disk" if commit == "off" else "on a replica"
        yield Warning(
            f"PostgreSQL confirms commits before they are {place}, because synchronous_commit is {commit}. After a "
            "crash or a failover, the audit rows of some tokens may be missing.",
            hint="Set synchronous_commit to on, for the server, the database and the user.",
            id="instaccess.W032",
        )
    # If this database user isn't allowed to see the states of replicas, check only whether synchronous_standby_names
    # is set.
    visible = [state for state in replicas if state is not None]
    if replicas and (not names.strip() or (visible and not {"sync", "quorum"}.intersection(visible))):
        yield Warning(
            f"All replicas of PostgreSQL are asynchronous ({len(replicas)}). After a failover to a replica, the last "
            "audit rows, revocations and key changes may be missing.",
            hint="Set synchronous_standby_names, for example to 'ANY 1 (*)' with at least two replicas, and fail "
            "over only to the replica with the last commits. If you keep asynchronous replicas, run `python "
            "manage.py instaccess_keys after-restore` after each failover.",
            id="instaccess.W033",
        )


@register(Tags.database)
def check_insert(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that rows can be inserted into the audit log. The rows are rolled back."""
    alias = router.db_for_write(IssuedToken)
    if alias not in (databases or ()):
        return []
    try:
        writability.check_database()
    except DbError:
        return []  # `check_keys` reports that the database is unavailable.
    try:
        writability.try_insert()
    except DbError as error:
        if database_errors.needs_migration(error):
            return []  # `migrate` runs this check before it creates the table.
        return [
            Error(
                f"No row can be inserted into the audit log in the database {alias!r}, so no token can be issued "
                f"({type(error).__name__}): {database_errors.describe(error)}.",
                hint="If the disk of the database server is full, add or free space. If the database is read-only, "
                f"enter the address of the primary in DATABASES[{alias!r}]. If the database user lacks the "
                f"permission, grant INSERT on {IssuedToken._meta.db_table}. If this deployment issues no tokens, "
                "add this id to SILENCED_SYSTEM_CHECKS.",
                id="instaccess.E062",
            )
        ]
    return []


@register(deploy=True)
def check_timeouts(**kwargs: Any) -> list[CheckMessage]:
    """Warn if a request could wait forever for the database of the audit log.

    The check reads only DATABASES and the environment, and doesn't connect to the database.
    """
    alias = router.db_for_write(IssuedToken)
    connection = connections[alias]
    return _report_timeouts(alias, _find_missing_timeouts(connection.vendor, connection.settings_dict["OPTIONS"]))


# Django 6.1 passes every alias to a check without the tag `Tags.database`, even if the command has no `--database`.
# Without this tag, `check --deploy` would therefore connect to a database that may be unreachable.
@register(Tags.database, deploy=True)
def check_statement_timeout(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if PostgreSQL has no `statement_timeout`, so that a statement can wait forever for a lock.

    Databases of other vendors are not checked.
    """
    alias = router.db_for_write(IssuedToken)
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'")
            [(milliseconds,)] = cursor.fetchall()
    except DbError:
        return []  # `check_keys` reports that the database is unavailable.
    return _report_timeouts(alias, [] if milliseconds else ["statement_timeout"])


def _report_timeouts(alias: str, missing: Sequence[str]) -> list[CheckMessage]:
    """Return a warning with the names of the missing timeouts. Returns [] if no timeout is missing."""
    if not missing:
        return []
    return [
        Warning(
            f"The database {alias!r} has no {' and no '.join(missing)}. If the database accepts connections but "
            "never answers, each request for a token waits forever, and soon no worker can answer.",
            hint=f"Set timeouts in DATABASES[{alias!r}]['OPTIONS'], as in docs/outages.md.",
            id="instaccess.W036",
        )
    ]


def _find_missing_timeouts(vendor: str, options: Mapping[str, Any]) -> list[str]:
    """Return the names of the timeouts that the connection options of a database lack."""
    if vendor == "mysql":
        return [name for name in ("connect_timeout", "read_timeout") if not options.get(name)]
    # Don't warn if the environment or the service file of libpq may contain connect_timeout.
    elsewhere = "service" in options or {"PGCONNECT_TIMEOUT", "PGSERVICE"} & os.environ.keys()
    return ["connect_timeout"] if vendor == "postgresql" and not (options.get("connect_timeout") or elsewhere) else []
