"""The HMAC of each audit row, and the canonical bytes of the row that the HMAC covers.

The HMAC key is derived from the key-encryption key, which is not in the database. An attacker who can only write to
the table can't change or add a row without being detected. Deleted and moved rows are detected by the signed
checkpoints (`evidence/checkpoints.py`).
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

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.db import Error as DbError
from django.db.models import Q, QuerySet

from ..conf import kek_id
from ..exceptions import AuditAltered
from ..models import IssuedToken

_FORMAT = "instaccess audit row 1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# SQLite can store bytes, for example, in any column. With `repr`, this causes a mismatch, not an exception.
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode
# Exceptions that Django and the database drivers raise for a value of the wrong type.
_UNREADABLE = (DbError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class HmacStatus(Enum):
    """The result of checking an HMAC."""

    AUTHENTIC = "authentic"
    BROKEN = "broken"
    """The HMAC doesn't match: the data was modified, or was not written by this package."""
    UNKNOWN = "unknown"
    """The HMAC was computed with a key-encryption key that is no longer configured."""


def canonical_bytes(token: IssuedToken) -> bytes:
    """Return the canonical encoding of a row: a JSON array in ASCII.

    Contains all columns except `id`, `mac` and the foreign keys to users and the application. Foreign keys are set to
    NULL when a user or application is deleted. The uuids and the client id identify the same users and application.
    """
    return _encode(
        [
            _FORMAT,
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


def readable(rows: QuerySet[IssuedToken]) -> tuple[list[IssuedToken], list[int]]:
    """Load rows. Returns the readable rows and the ids of the unreadable ones.

    An attacker who can write to the table can store values of the wrong type, which Django can't read. Such a row
    must not prevent other rows from being read. Raises DatabaseError if the database is unavailable.
    """
    annotated: QuerySet[Any] = rows.annotate(unrevoked=Q(revoked_at=None))
    loaded_rows: list[Any] = []
    unreadable = []
    try:
        loaded_rows = list(annotated)
    except _UNREADABLE:
        for pk in rows.values_list("pk", flat=True):
            single = IssuedToken._base_manager.using(rows.db).filter(pk=pk)
            try:
                loaded_rows += single.annotate(unrevoked=Q(revoked_at=None))
            except _UNREADABLE:
                if single.exists():  # Raises if the database itself fails.
                    unreadable.append(pk)
    valid = [row for row in loaded_rows if _has_valid_times(row)]
    return valid, unreadable + [row.pk for row in loaded_rows if not _has_valid_times(row)]


def _has_valid_times(row: Any) -> bool:
    # With SQLite and MariaDB, Django reads an invalid time as None. If `revoked_at` is None in Python but not NULL in
    # queries, a revoked token looks live, or a live token can't be revoked.
    return None not in (row.jti, row.issued_at, row.expires_at) and (row.revoked_at is None) == bool(row.unrevoked)


def loaded(rows: QuerySet[IssuedToken]) -> list[IssuedToken]:
    """Load rows. Raises AuditAltered with the first row that can't be read."""
    valid, unreadable = readable(rows)
    if unreadable:
        first = min(unreadable)
        raise AuditAltered(f"row {first} was modified: it contains an invalid value and can't be read", first)
    return valid


def authenticate(data: bytes, keks: Sequence[bytes]) -> str:
    """Compute the HMAC-SHA256 (RFC 2104) of data with the first key-encryption key.

    Returns `<id of the key-encryption key>.<HMAC in base64url>`.
    """
    return f"{_id(keks[0])}.{_mac(data, keks[0])}"


def row_status(row: IssuedToken, keks: Sequence[bytes]) -> HmacStatus:
    """Check the HMAC of a row."""
    return check(canonical_bytes(row), row.mac, keks)


def check(data: bytes, mac: str, keks: Sequence[bytes]) -> HmacStatus:
    """Check the HMAC `mac` of `data`, with the key-encryption key that `mac` names."""
    id_, _, stored = mac.partition(".") if isinstance(mac, str) else ("", "", "")
    if not stored:
        return HmacStatus.BROKEN
    for kek in keks:
        if _id(kek) == id_:
            # Compares bytes: `compare_digest` refuses non-ASCII strings, and an attacker can store any string.
            same = hmac.compare_digest(_mac(data, kek).encode(), stored.encode("utf-8", "surrogatepass"))
            return HmacStatus.AUTHENTIC if same else HmacStatus.BROKEN
    return HmacStatus.UNKNOWN


@lru_cache(maxsize=16)
def _id(kek: bytes) -> str:
    return kek_id(kek)


@lru_cache(maxsize=16)
def _key(kek: bytes) -> bytes:
    # Derived with HKDF (RFC 5869): the HMACs must reveal nothing about the key that encrypts private keys at rest.
    return HKDF(SHA256(), 32, salt=None, info=b"instaccess audit authentication v1").derive(kek)


def _mac(data: bytes, kek: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(_key(kek), data, "sha256")).rstrip(b"=").decode()


def _address(text: str | None) -> str | None:
    """Encode an IP address as hexadecimal bytes: databases and Python versions format addresses differently."""
    try:
        # The bytes don't include an IPv6 zone (RFC 4007, after `%`). The issuer never stores an address with a zone.
        if text and isinstance(text, str) and "%" not in text:
            return _packed(text).hex()
    except ValueError:
        pass
    return f"no address: {text}" if text else None


def _packed(text: str) -> bytes:
    # The C library's parser is ten times faster. It accepts a subset of the addresses that Python's parser accepts.
    with suppress(OSError, ValueError):
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    return ipaddress.ip_address(text).packed


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND
