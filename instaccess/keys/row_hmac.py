"""The HMAC of a row of the key table, and the canonical encoding of the row that the HMAC covers.

The HMAC key is derived from a key-encryption key, which is not in the database. If an attacker who can only write to
the table inserts or modifies a row, the HMAC doesn't match, and the key is not used. An HMAC does not detect that a
row was deleted, or that a row and its HMAC were restored to an earlier state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django.db import Error as DbError
from django.db.models import QuerySet

from .. import audit
from ..conf import KeyEncryptionKey, kek_id
from ..exceptions import KeyAltered, KeyUnavailable, Reason, UnsealError
from ..models import Key

_FORMAT = "instaccess key row 1"
_PURPOSE = b"instaccess key row authentication v1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Sort the members of the public key, because PostgreSQL doesn't keep their order. An attacker can store bytes in a
# text column of SQLite. Encode bytes with `repr`, so that the row is reported as modified because the HMAC doesn't
# match. Without `default=repr`, `json` would raise TypeError, and the other keys could not be loaded either.
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True, default=repr).encode
_USUAL_KID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# Django and the database drivers raise these exceptions for a stored value of the wrong type.
_UNREADABLE = (DbError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def canonical_bytes(row: Key) -> bytes:
    """Return the canonical encoding of a row: a JSON array in ASCII.

    The encoding contains all columns except `id`, `mac`, `current_use` and the sealed private key. `current_use` is
    left out, because the database computes this column. Instead of the sealed private key, the encoding contains
    whether the row has a private key.

    The sealed private key has a separate authentication tag, which also covers its `kid` and `use` (`sealing.py`). If
    only the sealed private key is damaged, the public key stays usable, and tokens of the key stay valid.
    """
    return _encode(
        [
            _FORMAT,
            row.kid,
            row.use,
            row.alg,
            row.status,
            row.public_jwk,
            row.has_private,
            _microseconds(row.created_at),
            _microseconds(row.activated_at),
            _microseconds(row.retired_at),
            _microseconds(row.revoked_at),
        ]
    ).encode("ascii")


def authenticate(row: Key, keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the new HMAC of a row, with the key-encryption key that its present HMAC was computed with.

    If this key-encryption key is not configured, the first key-encryption key is used. A changed row keeps its
    key-encryption key until an operator runs `instaccess_keys reseal`. If a rotation used a new key-encryption key
    before every process has the new setting, processes with the old setting could not use the row.

    Returns the HMAC as a string that starts with the id of the key-encryption key.
    """
    named = [kek for kek in keks if kek_id(kek) == row.mac.partition(".")[0]]
    return audit.authenticate(canonical_bytes(row), named or keks, purpose=_PURPOSE)


def status(row: Key, keks: Sequence[KeyEncryptionKey]) -> audit.HmacStatus:
    """Check the HMAC of a row, and return the result.

    Returns BROKEN, even if the HMAC matches, for values that this package never writes.
    """
    if not _is_plausible(row):
        return audit.HmacStatus.BROKEN
    try:
        return audit.check_hmac(canonical_bytes(row), row.mac, keks, purpose=_PURPOSE)
    except RecursionError:  # The public key contains JSON that is nested too deeply.
        return audit.HmacStatus.BROKEN


def check(row: Key, keks: Sequence[KeyEncryptionKey]) -> None:
    """Check that this package wrote a row, and that the row was not modified afterwards.

    Raises:
        KeyAltered: the row was modified, or was not written by this package.
        UnsealError: the HMAC was computed with a key-encryption key that is not among `keks` (code `kek_missing`).
    """
    match status(row, keks):
        case audit.HmacStatus.BROKEN:
            raise KeyAltered(
                f"the row of {_name(row)} was modified or inserted without this app, so the key is not used: restore "
                f"the row from a backup, or {_removal(row)}"
            )
        case audit.HmacStatus.UNKNOWN:
            raise UnsealError(
                f"{_name(row)} is not used, because the HMAC of its row was computed with a key-encryption key that "
                "is not configured: add that key-encryption key to INSTACCESS['KEY_ENCRYPTION_KEYS'] again. If the "
                'key-encryption key was derived from SECRET_KEY, the list must contain "SECRET_KEY". If SECRET_KEY '
                "was changed, also add the old SECRET_KEY to SECRET_KEY_FALLBACKS",
                code=Reason.KEK_MISSING,
            )


def is_revocable(row: Key) -> bool:
    """Return whether an operator can revoke the key of a row by its `kid`. If not, the row must be deleted with SQL.

    An attacker who can insert a row chooses its `kid` and `use`. If the `kid` contained shell syntax, an operator who
    copies the command with this `kid` into a shell would run code of the attacker.
    """
    if not isinstance(row.kid, str) or _USUAL_KID.fullmatch(row.kid) is None:
        return False
    return row.use in Key.Use.values and row.created_at is not None


def examine(rows: QuerySet[Key], keks: Sequence[KeyEncryptionKey]) -> tuple[list[Key], dict[int, KeyUnavailable]]:
    """Load rows and check their HMACs.

    Returns the readable rows, and a mapping from primary key to error for the rows that must not be used. The mapping
    also contains unreadable rows.

    Raises DatabaseError if the database is unavailable.
    """
    loaded, unreadable = load(rows)
    errors: dict[int, KeyUnavailable] = {pk: _unreadable(pk) for pk in unreadable}
    for row in loaded:
        try:
            check(row, keks)
        except KeyUnavailable as error:
            errors[row.pk] = error
    return loaded, errors


def load(rows: QuerySet[Key]) -> tuple[list[Key], list[int]]:
    """Load rows without checking their HMACs. Returns the readable rows, and the primary keys of unreadable rows.

    An attacker who can write to the table can store values of the wrong type, which Django can't read. An unreadable
    row must not prevent other rows from being read. Raises DatabaseError if the database is unavailable or not
    migrated.
    """
    try:
        return list(rows), []
    except _UNREADABLE as error:
        audit.require_columns(rows, error)
        loaded: list[Key] = []
        unreadable = []
        for pk in rows.values_list("pk", flat=True):
            try:
                loaded += rows.filter(pk=pk)
            except _UNREADABLE:
                if rows.filter(pk=pk).exists():  # This query fails if the database is unavailable.
                    unreadable.append(pk)
        return loaded, unreadable


def _unreadable(pk: int) -> KeyAltered:
    return KeyAltered(
        f"row {pk} of the table of keys was modified: it contains an invalid value and can't be read. Restore the "
        f"row from a backup, or {_deletion(pk)}"
    )


def _name(row: Key) -> str:
    return (
        f"key {row.kid}"
        if is_revocable(row)
        else f"a key with an invalid key id, use or creation time (row id {row.pk})"
    )


def _removal(row: Key) -> str:
    if not is_revocable(row):
        return _deletion(row.pk)
    return f"run `python manage.py instaccess_keys revoke --kid {row.kid}`"


def _deletion(pk: int) -> str:
    return f"delete the row with id {pk} from the table {Key._meta.db_table} with SQL"


def _is_plausible(row: Key) -> bool:
    return is_revocable(row) and row.status in Key.Status.values


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND
