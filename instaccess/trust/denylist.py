"""The deny list: the `jti` of every revoked token that has not expired yet, as a gateway process holds it in memory.

It comes from the audit table, or from the issuer's endpoint. No models are imported: a gateway need not have the app
installed to read one column of a database it shares.
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
from .fetch import fetch_json, shown
from .refreshed import Refreshed

TABLE = "instaccess_issuedtoken"

MAX_BYTES = 16 * 1024 * 1024
"""Of a deny list by URL: some 400,000 tokens, revoked at one stroke and not expired yet. As many as an issuer gathers
in the second that a gateway waits."""

NO_DATABASE = "INSTACCESS['DENY_LIST'] is not set, and DATABASES has no default to read it from"
NOTHING_TO_SEND = "INSTACCESS['DENY_LIST'] is a URL, and INSTACCESS['SERVICE_SECRETS'] has no secret to send there"

# What is to be denied was revoked while it lived, and nothing lives longer than an hour: this range is small and
# indexed, however many rows the audit holds.
_QUERY = f"SELECT jti FROM {TABLE} WHERE revoked_at > %s AND expires_at > %s"  # noqa: S608  (a constant)


@dataclass(frozen=True, slots=True)
class _Remote:
    denied: frozenset[str]
    etag: str


class _Audit:
    """Where the audit log is; set by `use`."""

    find_alias: Callable[[], str] | None = None


_audit = _Audit()


def use(find_alias: Callable[[], str]) -> None:
    """Read the deny list from the database with this alias, which holds the audit log of this deployment.

    Called by `apps.py`. Until then the alias is `default`, as for a gateway that shares the issuer's database.
    """
    _audit.find_alias = find_alias


def current() -> AbstractSet[str]:
    """The deny list as of at most `DENY_LIST_SECONDS` ago, or older by `MAX_STALENESS` while its source is away.

    Raises DatabaseError or SourceUnavailable after that.
    """
    interval, stale = conf.deny_list_seconds, conf.max_staleness
    if conf.deny_list == "database":
        return _database.get(interval=interval, max_staleness=stale)
    return _remote.get(interval=interval, max_staleness=stale).denied


def clear_cache() -> None:
    """Read it anew at the next call."""
    _database.forget()
    _remote.forget()


def read_database() -> frozenset[str]:
    """One indexed query over the database that the audit is written to; a replica may lag behind a revocation."""
    connection = connections[_alias()]
    if not has_database():
        raise ConfigError(NO_DATABASE, setting="DENY_LIST")
    # The gateway's leeway counts, and this may be the issuer answering it: the largest there can be is taken.
    dead = datetime.now(UTC) - timedelta(seconds=AFTERLIFE)
    earliest = dead - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    adapt = connection.ops.adapt_datetimefield_value
    try:
        with connection.cursor() as cursor:
            cursor.execute(_QUERY, [adapt(earliest), adapt(dead)])
            return frozenset(str(uuid.UUID(str(row[0]))) for row in cursor.fetchall())
    except ProgrammingError as error:
        raise _no_table(error) from None
    except OperationalError as error:
        if "no such table" in str(error):  # SQLite has no class of errors for that
            raise _no_table(error) from None
        raise


def _no_table(error: Exception) -> SourceUnavailable:
    remedy = (
        "run `python manage.py migrate`"
        if _audit.find_alias is not None
        else "let it be the issuer's, or set INSTACCESS['DENY_LIST'] to the issuer's URL"
    )
    return SourceUnavailable(f"the database {_alias()!r} holds no deny list ({error}): {remedy}")


def has_database() -> bool:
    """Whether the settings name one."""
    return bool(connections[_alias()].settings_dict["ENGINE"] != "django.db.backends.dummy")


def _alias() -> str:
    return DEFAULT_DB_ALIAS if _audit.find_alias is None else _audit.find_alias()


def _read_remote(last: _Remote | None) -> _Remote:
    secrets = conf.service_secrets
    if not secrets:
        raise ConfigError(NOTHING_TO_SEND, setting="SERVICE_SECRETS")
    fetched = fetch_json(conf.deny_list, etag=last.etag if last else "", secret=secrets[0], max_bytes=MAX_BYTES)
    if fetched.not_modified and last is not None:
        return last
    denied = fetched.document.get("revoked") if isinstance(fetched.document, dict) else None
    if not isinstance(denied, list) or not all(isinstance(jti, str) for jti in denied):
        raise SourceUnavailable(f"{shown(conf.deny_list)} sent no deny list")
    return _Remote(frozenset(denied), fetched.etag)


_database: Refreshed[frozenset[str]] = Refreshed(lambda last: read_database())
_remote: Refreshed[_Remote] = Refreshed(_read_remote)
