"""Functions that find stored keys, and check whether the rows of keys are authentic."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import router
from django.db.models import QuerySet

from .. import audit
from ..conf import KeyEncryptionKey, conf
from ..exceptions import ConfigError, KeyUnavailable
from ..logs import get_logger
from ..models import Key
from . import rotation, row_hmac

logger = get_logger("instaccess.keys")

SHORTEST_KID = 6
"""The minimum length of an abbreviated kid."""


def stored_keys() -> QuerySet[Key]:
    """Return a queryset of all keys. The queryset doesn't read from a replica, because a replica may be outdated."""
    return Key.objects.using(router.db_for_write(Key))


def examine(keys: QuerySet[Key] | None = None) -> tuple[list[Key], dict[int, KeyUnavailable]]:
    """Load keys and check the HMAC of each row.

    Returns all readable rows, and a mapping from primary key to error for the rows that must not be used.

    Raises ConfigError or DatabaseError.
    """
    return row_hmac.examine(stored_keys() if keys is None else keys, conf.key_encryption_keys)


def unreadable_rows() -> list[int]:
    """Return the primary keys of the rows that can't be read because they contain values of the wrong type."""
    return row_hmac.load(stored_keys())[1]


def authentic_keys(keys: QuerySet[Key] | None = None) -> list[Key]:
    """Load the keys whose HMAC matches. Other rows are logged and skipped.

    Decisions and routine changes use only these keys. If other rows were used, an attacker with write access to the
    table could add a key to a rotation, or get an HMAC for a modified row.

    Raises ConfigError or DatabaseError.
    """
    rows, errors = examine(keys)
    for error in errors.values():
        logger.error("a key was skipped: %(detail)s", reason=error.code, detail=str(error))
    return [row for row in rows if row.pk not in errors]


def problem(key: Key) -> ConfigError | KeyUnavailable | None:
    """Return the error that explains why the row of a key can't be trusted.

    Either the row was modified, or the row can't be checked. Returns None if the row is authentic.
    """
    try:
        row_hmac.check(key, conf.key_encryption_keys)
    except (ConfigError, KeyUnavailable) as error:
        return error
    return None


def is_authentic(key: Key, keks: Sequence[KeyEncryptionKey]) -> bool:
    """Return whether the HMAC of a row matches. If `keks` is empty, every row counts as authentic."""
    return not keks or row_hmac.status(key, keks) is audit.HmacStatus.AUTHENTIC


def current_key(keys: QuerySet[Key], use: Key.Use) -> Key | None:
    """Return the current signing or encryption key, or None. The HMAC of the row is not checked."""
    rows, _ = row_hmac.load(keys.filter(use=use, status=Key.Status.CURRENT))
    return next(iter(rows), None)


def future_keys(keys: QuerySet[Key], use: Key.Use) -> list[Key]:
    """Return the authentic future signing or encryption keys, the oldest first."""
    return authentic_keys(keys.filter(use=use, status=Key.Status.FUTURE).order_by("created_at", "id"))


def next_key(keys: QuerySet[Key], use: Key.Use, *, previous_has_private: bool) -> Key | None:
    """Return the oldest authentic future key that a rotation may make current, or None.

    Args:
        previous_has_private: whether the private key of the current key is stored on this server.
    """
    return next(
        (
            key
            for key in future_keys(keys, use)
            if rotation.can_rotate_automatically(key, previous_has_private=previous_has_private)
        ),
        None,
    )


def find_key(kid: str, keys: QuerySet[Key] | None = None) -> Key:
    """Return the key with this kid, even if its row isn't authentic.

    Args:
        kid: the whole kid, or at least its first 6 characters.

    Raises:
        KeyUnavailable: no key or more than one key matches.
    """
    # Compare the kids in Python, because SQLite and MariaDB may ignore case. The comparison is fast, because the
    # table contains few keys.
    rows = [key for key in row_hmac.load(stored_keys() if keys is None else keys)[0] if isinstance(key.kid, str)]
    # Prefer a key whose whole kid matches. Otherwise, an attacker could prevent a revocation by inserting a row whose
    # kid begins with the kid of the key.
    matches = [key for key in rows if key.kid == kid] or [
        key for key in rows if len(kid) >= SHORTEST_KID and key.kid.startswith(kid)
    ]
    if not matches and len(kid) < SHORTEST_KID:
        raise KeyUnavailable(
            f"there is no key {kid!r}: give the key id or at least its first {SHORTEST_KID} characters. "
            "`python manage.py instaccess_keys list` shows the ids"
        )
    if len(matches) != 1:
        quantity = "more than one key" if matches else "no key"
        raise KeyUnavailable(
            f"there is {quantity} {kid!r}: run `python manage.py instaccess_keys list`, which shows the ids"
        )
    return matches[0]
