"""Functions that read the revocations in the issuer's database page by page, with SQL.

This module imports no models, so a gateway that shares the issuer's database can read the tables without installing
the app. `audit/revocation.py` writes the tables.

A position is the `cursor` of a page. A position is either the number of the last revocation that was read, or a place
in the list of all revoked tokens. Revocations are committed in the order of their numbers. A reader that reads the
numbers after its position therefore gets all new revocations.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.models import DateTimeField, Value

from .. import database_clock, database_errors
from ..exceptions import ConfigError, SourceUnavailable
from ..tokens import AFTERLIFE
from .revoked import NO_TOKENS, RETENTION, Page

TOKENS_TABLE = "instaccess_issuedtoken"
REVOCATIONS_TABLE = "instaccess_revocation"

PAGE = 10_000
"""The maximum number of tokens in a page of the list of all revoked tokens."""

BATCHES = 20
"""The maximum number of batches of tokens in a page of new revocations. A batch has at most a few hundred tokens."""

ROWS = 1000
"""The maximum number of revocations in a page of new revocations."""

NO_DATABASE = "INSTACCESS['DENY_LIST'] is not set, and DATABASES has no default database to read the deny list from"

# The numbers in a position have limited lengths, because longer numbers could not be converted to an id or a time.
_POSITION = re.compile(r"(?P<number>[0-9]{1,18})(?:-(?P<microseconds>[0-9]{1,16})-(?P<id>[0-9]{1,19}))?")
_MAX_ID = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_LAST = f"SELECT MAX(number) FROM {REVOCATIONS_TABLE}"  # noqa: S608  (All SQL in this module is constant.)
_LATER = (
    f"SELECT number, kind, value, latest_iat FROM {REVOCATIONS_TABLE}"  # noqa: S608
    f" WHERE number >= %s ORDER BY number LIMIT {ROWS}"
)
_BATCH_TOKENS = (
    f"SELECT t.jti FROM {REVOCATIONS_TABLE} r JOIN {TOKENS_TABLE} t ON t.revoked_at = r.revoked_at"  # noqa: S608
    " WHERE r.kind = 'tokens' AND r.number > %s AND r.number <= %s"
)
# Because of the first condition on `revoked_at`, the database reads only a small range of an index, even if the audit
# table contains many rows. The range is large enough, because a token is valid for at most one hour.
_TOKENS = (
    f"SELECT id, jti FROM {TOKENS_TABLE}"  # noqa: S608
    " WHERE revoked_at >= %s AND (revoked_at > %s OR id > %s) AND expires_at > %s"
    f" ORDER BY revoked_at, id LIMIT {PAGE}"
)
_TIME = f"SELECT revoked_at FROM {TOKENS_TABLE} WHERE id = %s"  # noqa: S608
_RECENT = (
    f"SELECT number, kind, value, latest_iat FROM {REVOCATIONS_TABLE}"  # noqa: S608
    " WHERE kind = 'key' OR kind IN ('user', 'account', 'all') AND number > %s"
)


class _Audit:
    """The function that returns the alias of the audit log's database. None until `use` sets the function."""

    find_alias: Callable[[], str] | None = None


_audit = _Audit()


def use(find_alias: Callable[[], str]) -> None:
    """Set the database that contains the audit log of this deployment. `apps.py` calls this function.

    A process that doesn't call this function, such as a gateway that shares the issuer's database, reads the
    revocations from the database `default`.

    Args:
        find_alias: a function that returns the alias of the database.
    """
    _audit.find_alias = find_alias


def find_alias() -> str:
    """Return the alias of the database that contains the revocations."""
    return DEFAULT_DB_ALIAS if _audit.find_alias is None else _audit.find_alias()


def has_database() -> bool:
    """Return whether DATABASES configures the database of the revocations."""
    return bool(connections[find_alias()].settings_dict["ENGINE"] != "django.db.backends.dummy")


def read(position: str = "") -> Page:
    """Return a page of the revocations after a position.

    The revocations are read from the database that revocations are written to, because a replica may be outdated.

    Args:
        position: the `cursor` of the page that was read before. If empty or unknown, the first page of all
            revocations is returned. A position is unknown if its row was pruned, or if the database lost the row, for
            example because the database was restored from a backup. If the row was lost, `position_lost` of the page
            is True.

    Raises:
        ConfigError: DATABASES doesn't configure the database of the revocations.
        SourceUnavailable: the database does not contain the tables, or an audit row was deleted during the call.
        DatabaseError: a query failed.
    """
    connection = connections[find_alias()]
    if not has_database():
        raise ConfigError(NO_DATABASE, setting="DENY_LIST")
    match = _POSITION.fullmatch(position)
    if match is not None and int(match["id"] or 0) > _MAX_ID:
        match = None
    try:
        with connection.cursor() as cursor:
            if match is None:
                cursor.execute(_LAST)
                (last,) = cursor.fetchone()
                return _read_all(connection, cursor, last or 0, _EPOCH, 0)
            number = int(match["number"])
            if match["id"] is not None:
                after = _EPOCH + int(match["microseconds"]) * _MICROSECOND
                return _read_all(connection, cursor, number, after, int(match["id"]))
            page = _read_later(cursor, number)
    except DatabaseError as error:
        if database_errors.needs_migration(error):
            raise _describe_missing_table(error) from None
        raise
    if page is None:
        page = read()
        page = replace(page, position_lost=_was_lost(number, page))
    return page


def _was_lost(number: int, page: Page) -> bool:
    """Return whether the database has lost the row of an unknown position. Returns False if the row was pruned.

    Pruning deletes only old rows, and never the last row.
    """
    last = int(page.cursor.partition("-")[0])
    age = (datetime.now(UTC) - _EPOCH) // _MICROSECOND - number
    return number > last or age < RETENTION * 10**6


def _read_later(cursor: Any, number: int) -> Page | None:
    """Return a page of the revocations after a number.

    Returns None if `number` isn't 0 and no revocation has the number `number`.
    """
    cursor.execute(_LATER, [number])
    rows = cursor.fetchall()
    if number and (not rows or rows[0][0] != number):
        return None
    more = len(rows) == ROWS
    rows = [row for row in rows if row[0] > number]
    batches = [index for index, row in enumerate(rows) if row[1] == "tokens"]
    if len(batches) > BATCHES:
        rows, more = rows[: batches[BATCHES]], True
    last = rows[-1][0] if rows else number
    tokens: list[str] = []
    if batches:
        cursor.execute(_BATCH_TOKENS, [number, last])
        tokens = [_jti(jti) for (jti,) in cursor.fetchall()]
    return _page(tokens, rows, cursor=str(last), more=more)


def _read_all(connection: Any, cursor: Any, number: int, after: datetime, id_: int) -> Page:
    """Return a page of the list of all revoked tokens. The last page also contains the users, accounts and keys.

    Args:
        number: the number of the last revocation when the first page was read. Later revocations are read after the
            last page.
        after, id_: the columns `revoked_at` and `id` of the last audit row on the previous page.
    """
    # Use the earlier of two times: the time of this process, and the time of the database. An issuer with a fast
    # clock would leave out revocations that gateways in other deployments need. A gateway with a slow clock accepts
    # tokens for longer, and therefore needs older revocations.
    now = min(datetime.now(UTC), database_clock.now(connection.alias))
    adapt = connection.ops.adapt_datetimefield_value
    earliest = now - timedelta(seconds=RETENTION)
    # Include tokens that have expired within the largest possible leeway, because the gateway's LEEWAY may be larger
    # than the LEEWAY of this process. If the revocation of such a token were left out, the gateway would accept the
    # token.
    cutoff = now - timedelta(seconds=AFTERLIFE)
    start = adapt(max(after, earliest))
    cursor.execute(_TOKENS, [start, start, id_, adapt(cutoff)])
    rows = cursor.fetchall()
    tokens = [_jti(jti) for _, jti in rows]
    if len(rows) == PAGE:
        last, _ = rows[-1]
        # Read the time of the revocation only for the last row, because some drivers parse times slowly.
        cursor.execute(_TIME, [last])
        if (row := cursor.fetchone()) is None:
            raise SourceUnavailable("the deny list can't be read, because an audit row was deleted at the same time")
        microseconds = (_to_datetime(connection, *row) - _EPOCH) // _MICROSECOND
        return Page(tokens, cursor=f"{number}-{microseconds}-{last}", more=True)
    cursor.execute(_RECENT, [(earliest - _EPOCH) // _MICROSECOND])
    return _page(tokens, cursor.fetchall(), cursor=str(number), more=False)


def _page(tokens: list[str], rows: Sequence[Any], *, cursor: str, more: bool) -> Page:
    scopes: dict[str, dict[str, int]] = {"user": {}, "account": {}}
    for _, kind, value, latest_iat in rows:
        # SQLite stores values of any type. If an attacker has stored a value of the wrong type, skip the row, so that
        # the other revocations stay readable.
        if kind in scopes and isinstance(latest_iat, int):
            scopes[kind][str(value)] = max(latest_iat, scopes[kind].get(str(value), latest_iat))
    keys = [str(value) for _, kind, value, _ in rows if kind == "key"]
    all_until = max((iat for _, kind, _, iat in rows if kind == "all" and isinstance(iat, int)), default=NO_TOKENS)
    return Page(tokens, scopes["user"], scopes["account"], keys, all_until, cursor, more)


def _jti(value: Any) -> str:
    # PostgreSQL's driver returns UUID objects. Other drivers return strings, with or without hyphens.
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(str(value)))


def _to_datetime(connection: Any, value: Any) -> datetime:
    """Convert a time from the type that the database driver returns to an aware datetime."""
    expression = Value(None, output_field=DateTimeField())
    for convert in connection.ops.get_db_converters(expression):
        value = convert(value, expression, connection)
    result: datetime = value
    return result


def _describe_missing_table(error: Exception) -> SourceUnavailable:
    hint = (
        "run `python manage.py migrate`"
        if _audit.find_alias is not None
        else f"set DATABASES[{find_alias()!r}] to the issuer's database, or set INSTACCESS['DENY_LIST'] to the URL "
        "of the issuer's revocation list"
    )
    return SourceUnavailable(
        f"the database {find_alias()!r} contains no deny list ({database_errors.describe(error)}): {hint}"
    )
