"""The key ring: the keys of this process, which are reloaded every few seconds and parsed only once.

This module never writes to the database and never generates a missing key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from django.db import router
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from .. import tokens
from ..conf import conf
from ..exceptions import KeyUnavailable, UnsealError
from ..models import Key
from ..trust import Refreshed
from . import rotation, sealing

logger = logging.getLogger("instaccess.keys")

NO_KEY = {
    Key.Use.SIGNING: "there is no current signing key: run `python manage.py instaccess_init`",
    Key.Use.ENCRYPTION: "there is no current encryption key: run `python manage.py instaccess_init`. If there was "
    "one before, import or generate a key with `python manage.py instaccess_keys` and activate it",
}


def public_key(row: Key) -> JWK:
    """Parse the public key of a row. Raises KeyUnavailable if the key doesn't match the row's `kid` and `use`."""
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
        self._private: JWK | None = None
        self._error_logged = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.use} {self.kid} {self.status}>"

    @property
    def has_private(self) -> bool:
        """Whether the private key is stored on this server."""
        return bool(self._sealed)

    def at(self, status: str) -> HeldKey:
        """Return a copy of the key with another status. Key rings that contain the original keep the old status."""
        other = copy(self)
        other.status = status
        return other

    def same_material_as(self, row: Key) -> bool:
        """Return whether a row still contains the same keys, so that the row doesn't have to be parsed again."""
        return (self.use, self._sealed) == (row.use, row.sealed_private_jwk) and self.public == row.public_jwk

    @sensitive_variables()
    def private(self) -> JWK:
        """Return the private key, unsealed and prepared by OpenSSL.

        Raises:
            KeyUnavailable: the private key is not stored on this server.
            UnsealError: the private key can't be unsealed.
        """
        if self._private is None:
            if not self._sealed:
                raise KeyUnavailable(f"only the public key of key {self.kid} is stored on this server")
            key = sealing.unseal(self._sealed, kid=self.kid, use=self.use, keks=conf.key_encryption_keys)
            # Make OpenSSL check and prepare the key now. Otherwise, the first operation with the key would be slow.
            key.get_op_key("sign" if self.use == Key.Use.SIGNING else "unwrapKey")
            self._private = key
        return self._private

    def private_or_none(self) -> JWK | None:
        """Return the private key, or None if the private key can't be unsealed. The error is logged once."""
        try:
            return self.private()
        except UnsealError as error:
            if not self._error_logged:
                logger.error("a private key can't be unsealed: %s", error)
            self._error_logged = True
            return None


class _PrivateKeys(Mapping[str, JWK]):
    """A mapping from kid to private key. Private keys are unsealed on access.

    If a private key can't be unsealed, access by kid raises UnsealError, because the server-side error must not look
    like an invalid token. Iteration logs and skips private keys that can't be unsealed, and raises UnsealError if no
    key remains.
    """

    def __init__(self, keys: Mapping[str, HeldKey]) -> None:
        self._keys = keys

    def __getitem__(self, kid: str) -> JWK:
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


@dataclass(frozen=True)
class KeyRing:
    """The keys that were accepted when the ring was loaded: current, then past (latest first), then future."""

    keys: tuple[HeldKey, ...] = field(default_factory=tuple)

    def signing_key(self) -> HeldKey:
        """Return the current signing key. Raises KeyUnavailable if there is none."""
        return self._current(Key.Use.SIGNING)

    def encryption_key(self) -> HeldKey:
        """Return the current encryption key. Its private key may be stored elsewhere.

        Raises:
            KeyUnavailable: there is no current encryption key.
        """
        return self._current(Key.Use.ENCRYPTION)

    def verification_keys(self) -> Mapping[str, JWK]:
        """Return the public signing keys as a mapping from kid to key, for `tokens.verify`."""
        return self._verification

    @cached_property
    def _verification(self) -> Mapping[str, JWK]:
        return {key.kid: key.public for key in self.keys if key.use == Key.Use.SIGNING}

    def published(self) -> list[dict[str, str]]:
        """Return the public JWKs of the signing keys. Only public members are copied, so no secret can leak."""
        return [
            {"kty": "RSA", "n": key.public["n"], "e": key.public["e"], "use": "sig", "alg": "RS256", "kid": key.kid}
            for key in self.keys
            if key.use == Key.Use.SIGNING
        ]

    def decryption_keys(self) -> Mapping[str, JWK]:
        """Return a mapping from kid to private encryption key, for `tokens.decrypt`. Keys are unsealed on access."""
        return self._decryption

    @cached_property
    def _decryption(self) -> Mapping[str, JWK]:
        return _PrivateKeys({key.kid: key for key in self.keys if key.use == Key.Use.ENCRYPTION and key.has_private})

    def _current(self, use: Key.Use) -> HeldKey:
        for key in self.keys:
            if key.use == use and key.status == Key.Status.CURRENT:
                return key
        raise KeyUnavailable(NO_KEY[use])


def lifecycle_times() -> rotation.Times:
    """Return the durations of the key lifecycle from the settings."""
    return rotation.Times(
        interval=timedelta(days=conf.key_rotation_days),
        lead=timedelta(seconds=conf.key_lead_seconds),
        retention=timedelta(seconds=conf.key_retention_seconds),
    )


def load(previous: Iterable[HeldKey] = ()) -> KeyRing:
    """Load the accepted keys.

    The keys are read from the database that keys are written to, because a replica may not contain a recent
    revocation. A row that can't be used is logged and skipped, so that the other keys stay usable.

    Args:
        previous: keys that were parsed before. Each of these keys is reused unless its row has changed.
    """
    known = {key.kid: key for key in previous}
    rows = Key.objects.using(router.db_for_write(Key)).filter(status__in=rotation.ACCEPTED)
    now, times = timezone.now(), lifecycle_times()
    accepted = [row for row in rows if rotation.is_accepted(row, now=now, times=times)]
    keys = []
    for row in sorted(accepted, key=_order):
        key = known.get(row.kid)
        if key is None or not key.same_material_as(row):
            try:
                key = HeldKey(row)
            except KeyUnavailable as error:
                logger.error("key %s can't be used: %s", row.kid, error)
                continue
        keys.append(key if key.status == row.status else key.at(row.status))
    return KeyRing(tuple(keys))


def _order(row: Key) -> tuple[int, float]:
    return rotation.ACCEPTED.index(Key.Status(row.status)), -row.created_at.timestamp()


_ring: Refreshed[KeyRing] = Refreshed(lambda last: load(last.keys if last else ()), lambda: router.db_for_write(Key))


def current_ring(*, max_staleness: float = 0) -> KeyRing:
    """Return the key ring of this process, at most `KEY_CACHE_SECONDS` old.

    Args:
        max_staleness: seconds by which the key ring may be older while the database is unavailable.

    Raises:
        DatabaseError: the database is unavailable, and the cached key ring is too old.
    """
    return _ring.get(interval=conf.key_cache_seconds, max_staleness=max_staleness)


def clear_cache() -> None:
    """Clear this process's key cache. Called after every change of keys."""
    _ring.clear_cache()


def sign_once() -> None:
    """Sign and verify a string with the current signing key, so that OpenSSL loads and prepares the key."""
    ring = current_ring()
    key = ring.signing_key()
    tokens.verify(tokens.sign(b"{}", key.private(), kid=key.kid), ring.verification_keys())
