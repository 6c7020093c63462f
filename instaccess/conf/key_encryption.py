"""Key-encryption keys, with which private keys are encrypted at rest.

The keys for HMACs of rows are derived from key-encryption keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.utils.encoding import force_bytes

from ..opaque import Opaque, concealed

KEK_BYTES = 32


class KeyEncryptionKey(Opaque[bytes]):
    """A key-encryption key of 32 bytes.

    Two objects are equal if their keys are equal. The comparison takes the same time for every key.
    """

    __slots__ = ()

    DESCRIPTION = "key-encryption key"

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEK_BYTES:
            raise ValueError(f"a key-encryption key must have {KEK_BYTES} bytes")
        super().__init__(bytes(secret))

    @concealed
    def hmac(self, data: bytes, *, info: bytes) -> bytes:
        """Compute the HMAC-SHA256 (RFC 2104) of data.

        The HMAC key is derived from the key-encryption key with HKDF (RFC 5869), so that HMACs reveal nothing about
        the key-encryption key.

        Args:
            data: the bytes that the HMAC covers.
            info: the purpose of the HMAC. Each purpose has a separate HMAC key.

        Returns 32 bytes.
        """
        return hmac.digest(_hmac_key(self, info).reveal(), data, "sha256")

    @concealed
    def prepare_hmac(self, *, info: bytes) -> PreparedHmac:
        """Prepare the computation of many HMACs with the same purpose.

        `PreparedHmac.digest` returns the same bytes as `hmac`, in a third of the time.
        """
        return PreparedHmac(hmac.new(_hmac_key(self, info).reveal(), digestmod="sha256"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyEncryptionKey):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    def __hash__(self) -> int:
        return hash(self.reveal())


class PreparedHmac(Opaque[hmac.HMAC]):
    """The state of HMAC-SHA256 after OpenSSL has processed the HMAC key. The key can't be read from the state."""

    __slots__ = ()

    DESCRIPTION = "prepared HMAC"

    def digest(self, data: bytes) -> bytes:
        """Compute the HMAC of data. Returns 32 bytes."""
        state = self.reveal().copy()
        state.update(data)
        return state.digest()


class _HmacKey(Opaque[bytes]):
    __slots__ = ()

    DESCRIPTION = "HMAC key"


@concealed
def kek_id(kek: KeyEncryptionKey) -> str:
    """Compute an identifier of 12 characters for a key-encryption key.

    The identifier doesn't reveal the key, so the identifier may be stored next to data that the key encrypted or
    authenticated.
    """
    digest = hashlib.sha256(b"instaccess kek id\0" + kek.reveal()).digest()
    return base64.urlsafe_b64encode(digest[:9]).decode("ascii")


@lru_cache(maxsize=8)
@concealed
def derive_kek(secret: str | bytes) -> KeyEncryptionKey:
    """Derive a key-encryption key from SECRET_KEY or a SECRET_KEY_FALLBACKS entry with HKDF-SHA256 (RFC 5869)."""
    return KeyEncryptionKey(_hkdf(b"instaccess key-encryption key v1").derive(force_bytes(secret)))


@lru_cache(maxsize=32)
@concealed
def _hmac_key(kek: KeyEncryptionKey, info: bytes) -> _HmacKey:
    return _HmacKey(_hkdf(info).derive(kek.reveal()))


def _hkdf(info: bytes) -> HKDF:
    return HKDF(SHA256(), KEK_BYTES, salt=None, info=info)
