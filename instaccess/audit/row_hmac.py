"""The HMAC of each audit row, and the canonical bytes that the HMAC covers.

The HMAC key is derived from the key-encryption key, which the database doesn't contain. If an attacker who can only
write to the table adds a row, or changes the id or another covered value of a row, the HMAC doesn't match. To detect
deleted rows, signed checkpoints are needed (`evidence/checkpoints.py`).
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache

from ..conf import KeyEncryptionKey, PreparedHmac, kek_id
from ..models import IssuedToken
from .stored_rows import StoredRow, load, microseconds

__all__ = [
    "HmacChecker",
    "HmacStatus",
    "authenticate",
    "canonical_bytes",
    "check",
    "load",
    "row_status",
]

_FORMAT = "instaccess audit row 1"
_PURPOSE = b"instaccess audit authentication v1"
# An attacker can store bytes in a text column of SQLite. Encode bytes with `repr`, so that the row is reported as
# modified because the HMAC doesn't match. Without `default=repr`, `json` would raise TypeError and the check would
# abort.
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode


class HmacStatus(Enum):
    """The result of the check of an HMAC."""

    AUTHENTIC = "authentic"
    BROKEN = "broken"
    """The HMAC doesn't match: the data was modified, or was not written by this package."""
    UNKNOWN = "unknown"
    """The HMAC can't be checked, because its key-encryption key is not configured."""


def canonical_bytes(token: IssuedToken | StoredRow) -> bytes:
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
            microseconds(token.issued_at),
            microseconds(token.expires_at),
            microseconds(token.revoked_at),
            token.revoked_by,
            token.revocation_reason,
        ]
    ).encode("ascii")


def authenticate(data: bytes, keks: Sequence[KeyEncryptionKey], *, purpose: bytes = _PURPOSE) -> str:
    """Compute the HMAC-SHA256 (RFC 2104) of `data` with the first key-encryption key.

    Args:
        purpose: a label for the kind of data. Each purpose has its own HMAC key.

    Returns the id of the key-encryption key and the HMAC in base64url, separated by a dot.
    """
    return f"{_id(keks[0])}.{_mac(data, keks[0], purpose)}"


def row_status(row: IssuedToken | StoredRow, keks: Sequence[KeyEncryptionKey]) -> HmacStatus:
    """Return the status of the HMAC of an audit row."""
    return check(canonical_bytes(row), row.mac, keks)


def check(data: bytes, mac: str, keks: Sequence[KeyEncryptionKey], *, purpose: bytes = _PURPOSE) -> HmacStatus:
    """Return the status of the HMAC `mac` of `data`. `mac` contains the id of the key-encryption key to use."""
    return _checker(tuple(keks), purpose).check(data, mac)


@lru_cache(maxsize=16)
def _checker(keks: tuple[KeyEncryptionKey, ...], purpose: bytes) -> HmacChecker:
    return HmacChecker(keks, purpose=purpose)


class HmacChecker:
    """A checker of many HMACs, which derives each HMAC key only once.

    Args:
        keks: the key-encryption keys. An HMAC may have been computed with any of these keys.
        purpose: the label that was passed to `authenticate`.
    """

    def __init__(self, keks: Sequence[KeyEncryptionKey], *, purpose: bytes = _PURPOSE) -> None:
        self._keks, self._purpose = {_id(kek): kek for kek in reversed(keks)}, purpose
        self._prepared: dict[str, PreparedHmac] = {}

    def check(self, data: bytes, mac: str) -> HmacStatus:
        """Return the status of the HMAC `mac` of `data`. `mac` contains the id of the key-encryption key to use."""
        id_, _, stored = mac.partition(".") if isinstance(mac, str) else ("", "", "")
        if not stored:
            return HmacStatus.BROKEN
        prepared = self._prepared.get(id_)
        if prepared is None:
            if id_ not in self._keks:
                return HmacStatus.UNKNOWN
            prepared = self._prepared[id_] = self._keks[id_].prepare_hmac(info=self._purpose)
        # Bytes are compared, because `compare_digest` raises TypeError for non-ASCII strings, and an attacker can
        # store any string.
        same = hmac.compare_digest(_encode_mac(prepared.digest(data)), stored.encode("utf-8", "surrogatepass"))
        return HmacStatus.AUTHENTIC if same else HmacStatus.BROKEN


@lru_cache(maxsize=16)
def _id(kek: KeyEncryptionKey) -> str:
    return kek_id(kek)


def _mac(data: bytes, kek: KeyEncryptionKey, purpose: bytes) -> str:
    return _encode_mac(kek.hmac(data, info=purpose)).decode()


def _encode_mac(mac: bytes) -> bytes:
    return base64.urlsafe_b64encode(mac).rstrip(b"=")


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
    # Try the C library's parser first, because the C library is ten times as fast. Python's parser accepts more forms
    # of addresses.
    with suppress(OSError, ValueError):
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    return ipaddress.ip_address(text).packed
