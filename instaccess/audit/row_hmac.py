"""The HMAC of each audit row, and the canonical bytes that the HMAC covers.

The HMAC key is derived from the key-encryption key, which the database doesn't contain. If an attacker who can only
write to the table changes, moves or adds a row, the HMAC doesn't match. To detect deleted rows, signed checkpoints
are needed (`evidence/checkpoints.py`).
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any

from django.db import Error as DbError
from django.db.models import Q, QuerySet

from ..conf import KeyEncryptionKey, kek_id
from ..models import IssuedToken
from .rows import require_columns

_FORMAT = "instaccess audit row 1"
_PURPOSE = b"instaccess audit authentication v1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# SQLite can store bytes in a text column. Encode bytes with `repr`, so that the HMAC doesn't match. Without
# `default=repr`, `json` would raise TypeError.
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode
# Django and the database drivers raise these exceptions for a stored value of the wrong type.
_UNREADABLE = (DbError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class HmacStatus(Enum):
    """The result of the check of an HMAC."""

    AUTHENTIC = "authentic"
    BROKEN = "broken"
    """The HMAC doesn't match: the data was modified, or was not written by this package."""
    UNKNOWN = "unknown"
    """The HMAC was computed with a key-encryption key that is no longer configured."""


def canonical_bytes(token: IssuedToken) -> bytes:
    """Return the canonical encoding of an audit row: a JSON array in ASCII.

    The encoding contains all columns except the HMACs, the user names and the foreign keys. The user names have a
    separate HMAC. Foreign keys are left out because they become NULL when a user or an application is deleted. The
    uuids and the client id identify the users and the application.
    """
    return _encode(
        [
            _FORMAT,
            token.pk,
            token.jti.hex,
            token.user_uuid,
            token.real_user_uuid,
            token.client_id,
            token.access_token_pk,
            token.account_uuid,
            token.canvas_domain,
            token.signing_kid,
            token.encryption_kid,
            _address(token.ip_address),
            token.user_agent,
            _microseconds(token.issued_at),
            _microseconds(token.expires_at),
            _microseconds(token.revoked_at),
            token.revoked_by,
            token.revocation_reason,
        ]
    ).encode("ascii")


def load(rows: QuerySet[IssuedToken]) -> list[tuple[int, IssuedToken | None]]:
    """Load audit rows. Returns the id of each row with the row itself, or with None if the row can't be read.

    An attacker who can write to the table can store values of the wrong type, which Django can't read. The other rows
    must still be loaded. Raises DatabaseError if the database is unavailable or not migrated.
    """
    try:
        return [_checked(row) for row in _with_check(rows)]
    except _UNREADABLE as error:
        require_columns(rows, error)
        return [loaded for pk in rows.values_list("pk", flat=True) for loaded in _load_one(pk, rows.db)]


def _load_one(pk: int, using: str) -> list[tuple[int, IssuedToken | None]]:
    row = IssuedToken._base_manager.using(using).filter(pk=pk)
    try:
        return [_checked(loaded) for loaded in _with_check(row)]
    except _UNREADABLE:
        # Leave out a row that was deleted after the ids were read. If the database is unavailable, this query raises
        # DatabaseError.
        return [(pk, None)] if row.exists() else []


def _with_check(rows: QuerySet[IssuedToken]) -> QuerySet[Any]:
    return rows.annotate(unrevoked=Q(revoked_at=None))


def _checked(row: Any) -> tuple[int, IssuedToken | None]:
    # With SQLite and MariaDB, Django reads an invalid `revoked_at` as None, so the database is asked whether the
    # column is NULL. With None instead of an invalid value, an attacker could make a revoked token look live, or
    # prevent a revocation.
    valid = None not in (row.jti, row.issued_at, row.expires_at) and (row.revoked_at is None) == bool(row.unrevoked)
    return row.pk, row if valid else None


def authenticate(data: bytes, keks: Sequence[KeyEncryptionKey], *, purpose: bytes = _PURPOSE) -> str:
    """Compute the HMAC-SHA256 (RFC 2104) of `data` with the first key-encryption key.

    Args:
        purpose: a label for the kind of data. Each purpose has its own HMAC key.

    Returns the id of the key-encryption key and the HMAC in base64url, separated by a dot.
    """
    return f"{_id(keks[0])}.{_mac(data, keks[0], purpose)}"


def row_status(row: IssuedToken, keks: Sequence[KeyEncryptionKey]) -> HmacStatus:
    """Return the status of the HMAC of an audit row."""
    return check(canonical_bytes(row), row.mac, keks)


def check(data: bytes, mac: str, keks: Sequence[KeyEncryptionKey], *, purpose: bytes = _PURPOSE) -> HmacStatus:
    """Return the status of the HMAC `mac` of `data`. `mac` contains the id of the key-encryption key to use."""
    id_, _, stored = mac.partition(".") if isinstance(mac, str) else ("", "", "")
    if not stored:
        return HmacStatus.BROKEN
    for kek in keks:
        if _id(kek) == id_:
            # Bytes are compared, because `compare_digest` raises TypeError for non-ASCII strings, and an attacker can
            # store any string.
            same = hmac.compare_digest(_mac(data, kek, purpose).encode(), stored.encode("utf-8", "surrogatepass"))
            return HmacStatus.AUTHENTIC if same else HmacStatus.BROKEN
    return HmacStatus.UNKNOWN


@lru_cache(maxsize=16)
def _id(kek: KeyEncryptionKey) -> str:
    return kek_id(kek)


def _mac(data: bytes, kek: KeyEncryptionKey, purpose: bytes) -> str:
    return base64.urlsafe_b64encode(kek.hmac(data, info=purpose)).rstrip(b"=").decode()


def _address(text: str | None) -> str | None:
    """Encode an IP address as hexadecimal bytes.

    The string itself is not used, because databases and Python versions format addresses differently.
    """
    try:
        # An address with an IPv6 zone (after `%`, RFC 4007) is encoded as a string, because the bytes of an address
        # don't contain the zone. If the zone were left out, an attacker could add a zone without changing the HMAC.
        if text and isinstance(text, str) and "%" not in text:
            return _packed(text).hex()
    except ValueError:
        pass
    return f"no address: {text}" if text else None


def _packed(text: str) -> bytes:
    # Try the C library's parser first, because it is ten times as fast. Python's parser accepts more forms of
    # addresses.
    with suppress(OSError, ValueError):
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    return ipaddress.ip_address(text).packed


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND
