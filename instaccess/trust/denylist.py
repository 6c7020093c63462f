"""The deny list of this process, loaded from the issuer's database or from the issuer's URL.

The first load reads all revocations. Later loads read only the new revocations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..conf import conf
from ..logs import get_logger
from . import revocation_table, revocation_url
from .loading import load_from_database
from .refreshed import Refreshed
from .revoked import DenyList, Page

logger = get_logger("instaccess.revocation")

RESTORED = (
    "if the database was restored from a backup, run `python manage.py instaccess_keys after-restore` at the issuer. "
    "If the database was not restored, find out who deleted the rows"
)
"""The instructions for an operator if a database has lost rows."""


def current() -> DenyList:
    """Return the deny list, at most DENY_LIST_SECONDS old.

    If the source of the deny list is unavailable, the deny list may be up to MAX_STALENESS seconds older.

    Raises:
        DatabaseError, SourceUnavailable: the source is unavailable, and the cached deny list is too old.
        ConfigError: a setting is missing or invalid.
    """
    interval, max_staleness = conf.deny_list_seconds, conf.max_staleness
    return _source().get(interval=interval, max_staleness=max_staleness)


def age() -> float | None:
    """Return the age of the cached deny list in seconds, or None if no deny list is cached. Raises ConfigError."""
    return _source().age


def sizes() -> Mapping[str, int]:
    """Return the number of cached entries by kind, or {} if no deny list is cached. Raises ConfigError."""
    deny_list = _source().cached
    return {} if deny_list is None else deny_list.sizes()


def _source() -> Refreshed[DenyList]:
    return _database if conf.deny_list == "database" else _remote


def clear_cache() -> None:
    """Drop the cached deny list. The next call of `current` then reads all revocations again."""
    _database.clear_cache()
    _remote.clear_cache()


def read_revocations(position: str = "") -> Page:
    """Return a page of the revocations in the database. If the connection is dead, a new connection is opened.

    Args:
        position: the `cursor` of the page that was read before, or "" for the first page.

    Raises ConfigError, SourceUnavailable or DatabaseError.
    """
    return load_from_database(lambda: revocation_table.read(position), revocation_table.find_alias())


def read_database() -> DenyList:
    """Load the whole deny list from the database, without using the cache.

    Raises ConfigError, SourceUnavailable or DatabaseError.
    """
    return _read(_read_table, None)


def _read_table(deny_list: DenyList) -> Page:
    return revocation_table.read(deny_list.cursor)


def _read_url(deny_list: DenyList) -> Page | None:
    return revocation_url.read(deny_list.cursor, deny_list.etag)


def _read(read_page: Callable[[DenyList], Page | None], last: DenyList | None) -> DenyList:
    """Add new revocations to the last deny list, and return the deny list.

    Args:
        read_page: a function that reads the revocations after the position of a deny list. Returns None if there are
            no new revocations.
        last: the deny list of the last load. If None, all revocations are read into a new deny list.
    """
    deny_list = DenyList() if last is None else last
    position = deny_list.cursor
    while (page := read_page(deny_list)) is not None:
        deny_list.add(page, now=time.monotonic())
        if page.position_lost:
            logger.error(
                "the issuer's database no longer contains revocations that this process has read, and this process "
                "keeps refusing the revoked tokens: %(detail)s",
                detail=RESTORED,
            )
        # Stop if the cursor doesn't change, because an issuer that repeats a page would cause an endless loop.
        if not page.more or page.cursor == position:
            break
        position = page.cursor
    return deny_list


_database: Refreshed[DenyList] = Refreshed(lambda last: _read(_read_table, last), revocation_table.find_alias)
_remote: Refreshed[DenyList] = Refreshed(lambda last: _read(_read_url, last))
