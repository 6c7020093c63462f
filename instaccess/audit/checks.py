"""A system check that a committed audit row survives a crash of the database server and a failover.

No token is returned before its row is committed. If the database then loses the row, this promise is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import Error as DbError
from django.db import connections, router

from ..models import IssuedToken

_SETTINGS = "SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names')"
# Leave out base backups, because a base backup isn't a replica. Keep rows whose state is NULL. PostgreSQL hides the
# state of another user's replica if this user lacks the role `pg_read_all_stats`.
_REPLICAS = "SELECT sync_state FROM pg_stat_replication WHERE state IS NULL OR state <> 'backup'"


@register(Tags.database)
def check_durability(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that PostgreSQL confirms a commit only when the commit is on its disk, and on a replica if there is one.

    Other databases are not checked.
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
            "audit rows, revocations and changes of keys may be missing.",
            hint="Set synchronous_standby_names, for example to 'ANY 1 (*)' with at least two replicas. If you "
            "keep asynchronous replicas, run `python manage.py instaccess_keys after-restore` after each failover.",
            id="instaccess.W033",
        )
