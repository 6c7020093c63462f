"""Tamper evidence of the audit: what a row says, as bytes, and the HMAC over it that each row carries.

The HMAC's key is derived from the key-encryption key, which is not in the database: whoever can write the table, and
no more, can neither change a row nor add one unseen. What an HMAC can't show, a row that is gone or moved, the signed
checkpoints do (`checkpoints.py`).
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
# `repr` of bytes, say, which SQLite takes into any column: such a row must not fit, and not fail either.
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode
# What Django and the drivers let out for a value that is none of the column's.
_UNREADABLE = (DbError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class HmacStatus(Enum):
    """What an HMAC says of what it stands beside."""

    AUTHENTIC = "authentic"
    BROKEN = "broken"
    """It does not fit: edited, or not written by us."""
    UNKNOWN = "unknown"
    """It was made under a key-encryption key that is not configured any more."""


def canonical_bytes(token: IssuedToken) -> bytes:
    """All that a row says, in one spelling.

    Not the references to user and application: they are set to NULL when those are deleted, and the uuids and the
    client id beside them say the same.
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
    """These rows, and the ids of those that can't be read: whoever can write the table may have put a value into a
    column that is none of its kind, and one such row must not hide the others. Raises what the database raises."""
    told: QuerySet[Any] = rows.annotate(unrevoked=Q(revoked_at=None))
    found: list[Any] = []
    unreadable = []
    try:
        found = list(told)
    except _UNREADABLE:
        for pk in rows.values_list("pk", flat=True):
            one = IssuedToken._base_manager.using(rows.db).filter(pk=pk)
            try:
                found += one.annotate(unrevoked=Q(revoked_at=None))
            except _UNREADABLE:
                if one.exists():  # raises where it is the database that fails
                    unreadable.append(pk)
    whole = [row for row in found if _is_whole(row)]
    return whole, unreadable + [row.pk for row in found if not _is_whole(row)]


def _is_whole(row: Any) -> bool:
    # Of a time that is none, SQLite and MariaDB make None. One that is NULL for us and not for queries would hide
    # that a token was revoked, or make it one that can't be.
    return None not in (row.jti, row.issued_at, row.expires_at) and (row.revoked_at is None) == bool(row.unrevoked)


def loaded(rows: QuerySet[IssuedToken]) -> list[IssuedToken]:
    """These rows. Raises AuditAltered, naming it, where one can't be read."""
    found, unreadable = readable(rows)
    if unreadable:
        first = min(unreadable)
        raise AuditAltered(f"row {first} was edited: it holds what no row of ours can, and can't be read", first)
    return found


def authenticate(data: bytes, keks: Sequence[bytes]) -> str:
    """`<id of the key-encryption key>.<HMAC-SHA256>` (RFC 2104) under the first of the key-encryption keys."""
    return f"{_id(keks[0])}.{_mac(data, keks[0])}"


def row_status(row: IssuedToken, keks: Sequence[bytes]) -> HmacStatus:
    """What the HMAC of a row says of it."""
    return check(canonical_bytes(row), row.mac, keks)


def check(data: bytes, mac: str, keks: Sequence[bytes]) -> HmacStatus:
    """What `mac` says of `data`."""
    named, _, sent = mac.partition(".") if isinstance(mac, str) else ("", "", "")
    if not sent:
        return HmacStatus.BROKEN
    for kek in keks:
        if _id(kek) == named:
            # Bytes: `compare_digest` takes no text beyond ASCII, and the column may hold anything by now.
            same = hmac.compare_digest(_mac(data, kek).encode(), sent.encode("utf-8", "surrogatepass"))
            return HmacStatus.AUTHENTIC if same else HmacStatus.BROKEN
    return HmacStatus.UNKNOWN


@lru_cache(maxsize=16)
def _id(kek: bytes) -> str:
    return kek_id(kek)


@lru_cache(maxsize=16)
def _key(kek: bytes) -> bytes:
    # Derived (RFC 5869), so that what is written beside every row says nothing of the key that seals private keys.
    return HKDF(SHA256(), 32, salt=None, info=b"instaccess audit authentication v1").derive(kek)


def _mac(data: bytes, kek: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(_key(kek), data, "sha256")).rstrip(b"=").decode()


def _address(text: str | None) -> str | None:
    """Its bytes: databases and versions of Python differ in how they write an address."""
    try:
        # A zone (RFC 4007) is no part of the bytes, and we write none: what stands behind `%` is not ours.
        if text and isinstance(text, str) and "%" not in text:
            return _packed(text).hex()
    except ValueError:
        pass
    return f"no address: {text}" if text else None


def _packed(text: str) -> bytes:
    # The C library's reader takes a tenth of the time, and a part of what Python's takes: never anything else.
    with suppress(OSError, ValueError):
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    return ipaddress.ip_address(text).packed


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND
