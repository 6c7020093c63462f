"""The deny list of a gateway process: the `jti` of every revoked token that has not expired.

The deny list is read from the audit table or from the issuer's endpoint. This module imports no models, so a gateway
that shares the issuer's database can read the table without installing the app.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import DEFAULT_DB_ALIAS, OperationalError, ProgrammingError, connections

from ..conf import conf
from ..exceptions import ConfigError, SourceUnavailable
from ..tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME
from .fetch import fetch_json, without_query
from .refreshed import Refreshed

TABLE = "instaccess_issuedtoken"

MAX_BYTES = 16 * 1024 * 1024
"""Size limit, in bytes, of a deny list that is read from a URL.

The limit is enough for 400,000 tokens, for example after a key was revoked. A larger limit would have no effect: a
gateway waits one second for a response, and an issuer can produce about 400,000 entries in a second.
"""

NO_DATABASE = "INSTACCESS['DENY_LIST'] is not set, and DATABASES has no default database to read the deny list from"
NO_SERVICE_CREDENTIALS = (
    "INSTACCESS['DENY_LIST'] is a URL, but INSTACCESS['SERVICE_SECRETS'] contains no secret to send to it"
)

# The condition on `revoked_at` lets the database read only a small range of an index, even if the audit table
# contains many rows. The range is enough, because no token is valid for longer than an hour.
_QUERY = f"SELECT jti FROM {TABLE} WHERE revoked_at > %s AND expires_at > %s"  # noqa: S608  (a constant)


@dataclass(frozen=True, slots=True)
class _Remote:
    denied: frozenset[str]
    etag: str


class _Audit:
    """The database of the audit log, set by `use`."""

    find_alias: Callable[[], str] | None = None


_audit = _Audit()


def use(find_alias: Callable[[], str]) -> None:
    """Set the database that contains the audit log of this deployment. `apps.py` calls this function.

    If a process doesn't call this function, the process reads the deny list from the database `default`. An example
    is a gateway that shares the issuer's database.

    Args:
        find_alias: returns the alias of the database.
    """
    _audit.find_alias = find_alias


def current() -> AbstractSet[str]:
    """Return the deny list, at most `DENY_LIST_SECONDS` old.

    If the source of the deny list is unavailable, the deny list may be `MAX_STALENESS` seconds older.

    Raises:
        DatabaseError, SourceUnavailable: the source is unavailable, and the cached deny list is too old.
        ConfigError: a setting is missing or invalid.
    """
    interval, max_staleness = conf.deny_list_seconds, conf.max_staleness
    if conf.deny_list == "database":
        return _database.get(interval=interval, max_staleness=max_staleness)
    return _remote.get(interval=interval, max_staleness=max_staleness).denied


def clear_cache() -> None:
    """Drop the cached deny list, so that the next call of `current` reads the deny list again."""
    _database.clear_cache()
    _remote.clear_cache()


def read_database() -> frozenset[str]:
    """Return the deny list from the audit table, with one query that uses an index.

    The query goes to the database that the audit log is written to, because a replica may lack recent revocations.

    Raises:
        ConfigError: the settings name no database.
        SourceUnavailable: the database does not contain the audit table.
        DatabaseError: the query failed.
    """
    connection = connections[_find_alias()]
    if not has_database():
        raise ConfigError(NO_DATABASE, setting="DENY_LIST")
    # The largest leeway is assumed, because the LEEWAY of this process may be smaller than the gateway's LEEWAY.
    # Otherwise, the gateway could accept a revoked token.
    expiry_cutoff = datetime.now(UTC) - timedelta(seconds=AFTERLIFE)
    earliest_revocation = expiry_cutoff - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    adapt = connection.ops.adapt_datetimefield_value
    try:
        with connection.cursor() as cursor:
            cursor.execute(_QUERY, [adapt(earliest_revocation), adapt(expiry_cutoff)])
            return frozenset(str(uuid.UUID(str(row[0]))) for row in cursor.fetchall())
    except ProgrammingError as error:
        raise _describe_missing_table(error) from None
    except OperationalError as error:
        if "no such table" in str(error):  # SQLite raises no ProgrammingError for a missing table.
            raise _describe_missing_table(error) from None
        raise


def _describe_missing_table(error: Exception) -> SourceUnavailable:
    hint = (
        "run `python manage.py migrate`"
        if _audit.find_alias is not None
        else "use the issuer's database, or set INSTACCESS['DENY_LIST'] to the URL of the issuer's revocation list"
    )
    return SourceUnavailable(f"the database {_find_alias()!r} contains no deny list ({error}): {hint}")


def has_database() -> bool:
    """Return whether DATABASES configures the database of the deny list."""
    return bool(connections[_find_alias()].settings_dict["ENGINE"] != "django.db.backends.dummy")


def _find_alias() -> str:
    return DEFAULT_DB_ALIAS if _audit.find_alias is None else _audit.find_alias()


def _read_remote(last: _Remote | None) -> _Remote:
    secrets = conf.service_secrets
    if not secrets:
        raise ConfigError(NO_SERVICE_CREDENTIALS, setting="SERVICE_SECRETS")
    fetched = fetch_json(conf.deny_list, etag=last.etag if last else "", secret=secrets[0], max_bytes=MAX_BYTES)
    if fetched.not_modified and last is not None:
        return last
    denied = fetched.document.get("revoked") if isinstance(fetched.document, dict) else None
    if not isinstance(denied, list) or not all(isinstance(jti, str) for jti in denied):
        raise SourceUnavailable(f"{without_query(conf.deny_list)} sent a document that is not a deny list")
    return _Remote(frozenset(denied), fetched.etag)


_database: Refreshed[frozenset[str]] = Refreshed(lambda last: read_database())
_remote: Refreshed[_Remote] = Refreshed(_read_remote)
