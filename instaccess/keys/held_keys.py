"""Stored keys parsed for jwcrypto, and mappings from kid to key for the functions of the `tokens` package.

This module never reads or writes the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import NoReturn

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from ..conf import conf
from ..exceptions import KeyUnavailable, UnsealError
from ..logs import get_logger
from ..models import Key
from ..tokens import PrivateKey
from . import sealing

logger = get_logger("instaccess.keys")


def public_key(row: Key) -> JWK:
    """Parse the public key of a row.

    Raises KeyUnavailable if the public key is invalid or doesn't match the row's `kid` and `use`.
    """
    try:
        key = JWK(**row.public_jwk)
        if key.get("use") == row.use and key.thumbprint() == row.kid:
            return key
    except (JWException, LookupError, TypeError, ValueError):
        pass
    raise KeyUnavailable(f"the public key of key {row.kid} was modified: restore the row from a backup")


class HeldKey:
    """A stored key parsed for jwcrypto. The private key is unsealed on first use and kept in memory."""

    def __init__(self, row: Key) -> None:
        self.kid = row.kid
        self.use = row.use
        self.status = row.status
        self.public = public_key(row)
        self._sealed = row.sealed_private_jwk
        self._private: PrivateKey | None = None
        self._error_logged = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.use} {self.kid} {self.status}>"

    @property
    def has_private(self) -> bool:
        """Whether the private key is stored on this server."""
        return bool(self._sealed)

    def at(self, status: str) -> HeldKey:
        """Return a copy of the key with the given status. The original key stays unchanged."""
        other = copy(self)
        other.status = status
        return other

    def same_material_as(self, row: Key) -> bool:
        """Return whether a row contains the key material of this key. If so, the row need not be parsed again."""
        return (self.use, self._sealed) == (row.use, row.sealed_private_jwk) and self.public == row.public_jwk

    def private(self) -> PrivateKey:
        """Return the private key. The first call unseals the key and lets OpenSSL prepare the key.

        Raises:
            KeyUnavailable: the private key is not stored on this server.
            UnsealError: the private key can't be unsealed.
        """
        if self._private is None:
            if not self._sealed:
                raise KeyUnavailable(f"only the public key of key {self.kid} is stored on this server")
            key = sealing.unseal(self._sealed, kid=self.kid, use=self.use, keks=conf.key_encryption_keys)
            # Let OpenSSL check and prepare the key now, so that the first operation with the key isn't slow.
            key.op_key("sign" if self.use == Key.Use.SIGNING else "unwrapKey")
            self._private = key
        return self._private

    def private_or_none(self) -> PrivateKey | None:
        """Return the private key, or None if unsealing fails. The first failure is logged."""
        try:
            return self.private()
        except UnsealError as error:
            if not self._error_logged:
                logger.error(
                    "a private key can't be unsealed: %(detail)s", kid=self.kid, reason=error.code, detail=str(error)
                )
            self._error_logged = True
            return None


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """A stored key that is not used, because its row isn't authentic or can't be checked."""

    kid: str
    use: str
    status: str
    error: KeyUnavailable

    def raise_error(self) -> NoReturn:
        """Raise a copy of the error. Raising the same object again would extend its traceback each time."""
        raise type(self.error)(self.error.detail, code=self.error.code)


class PublicKeys(Mapping[str, JWK]):
    """A mapping from kid to public signing key.

    Looking up a key whose row can't be checked raises UnsealError. If the mapping left out the key, the server-side
    error would look like an invalid token.
    """

    def __init__(self, keys: Mapping[str, JWK], unchecked: Mapping[str, RefusedKey]) -> None:
        self._keys = keys
        self._unchecked = unchecked

    def __getitem__(self, kid: str) -> JWK:
        if kid in self._unchecked:
            self._unchecked[kid].raise_error()
        return self._keys[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class PrivateKeys(Mapping[str, PrivateKey]):
    """A mapping from kid to private encryption key. A private key is unsealed when it is first looked up.

    Looking up a key that can't be unsealed raises UnsealError. If the mapping left out the key, the server-side error
    would look like an invalid token. Iteration logs and skips keys that can't be unsealed, and raises UnsealError if
    no key remains.
    """

    def __init__(self, keys: Mapping[str, HeldKey], unchecked: Mapping[str, RefusedKey]) -> None:
        self._keys = keys
        self._unchecked = unchecked

    def __getitem__(self, kid: str) -> PrivateKey:
        if kid in self._unchecked:
            self._unchecked[kid].raise_error()
        return self._keys[kid].private()

    def __contains__(self, kid: object) -> bool:
        return kid in self._keys

    def __iter__(self) -> Iterator[str]:
        unsealed = [kid for kid, key in self._keys.items() if key.private_or_none() is not None]
        if not unsealed and self._keys:
            raise UnsealError("no private encryption key can be unsealed: check INSTACCESS['KEY_ENCRYPTION_KEYS']")
        return iter(unsealed)

    def __len__(self) -> int:
        return len(self._keys)
