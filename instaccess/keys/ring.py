"""The key ring: the keys that this process uses. The keys are reloaded every few seconds, and parsed only once.

This module never writes to the database and never generates a missing key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from django.db import router
from jwcrypto.jwk import JWK

from .. import database_clock, tokens
from ..conf import conf
from ..exceptions import KeyUnavailable, Reason
from ..logs import get_logger
from ..models import Key
from ..tokens import PrivateKey
from ..trust import Refreshed
from . import rotation, row_hmac
from .held_keys import HeldKey, PrivateKeys, PublicKeys, RefusedKey

logger = get_logger("instaccess.keys")

NO_KEY = {
    Key.Use.SIGNING: "there is no current signing key: run `python manage.py instaccess_init`",
    Key.Use.ENCRYPTION: "there is no current encryption key: run `python manage.py instaccess_init`. If there was an "
    "encryption key before, import or generate a key with `python manage.py instaccess_keys`, then activate the key",
}


@dataclass(frozen=True)
class KeyRing:
    """The keys that were accepted when the key ring was loaded.

    Attributes:
        keys: the accepted keys, ordered by status (current, past, future). Keys with the same status are ordered by
            age, the newest first.
        refused: the keys whose rows aren't authentic or can't be checked. The error of such a key is raised if the
            key is current and no other key is, or if no key with the same use is accepted. If the row can't be
            checked, a look-up of its kid also raises the error. The error says how to fix the problem.
    """

    keys: tuple[HeldKey, ...] = field(default_factory=tuple)
    refused: tuple[RefusedKey, ...] = ()

    def signing_key(self) -> HeldKey:
        """Return the current signing key. Raises KeyUnavailable if there is no usable current signing key."""
        return self._current(Key.Use.SIGNING)

    def encryption_key(self) -> HeldKey:
        """Return the current encryption key. The private key may be stored only on another server, such as a gateway.

        Raises:
            KeyUnavailable: there is no usable current encryption key.
        """
        return self._current(Key.Use.ENCRYPTION)

    def verification_keys(self) -> Mapping[str, JWK]:
        """Return the public signing keys as a mapping from kid to key, for `tokens.verify`.

        Raises KeyUnavailable if there are signing keys but all signing keys are refused.
        """
        return self._verification

    @cached_property
    def _verification(self) -> Mapping[str, JWK]:
        keys = {key.kid: key.public for key in self._accepted(Key.Use.SIGNING)}
        unchecked = self._unchecked(Key.Use.SIGNING)
        return PublicKeys(keys, unchecked) if unchecked else keys

    def published(self) -> list[dict[str, str]]:
        """Return the public JWKs of the signing keys. Only public members are copied, so that no secret can leak.

        Raises KeyUnavailable if there are signing keys but all signing keys are refused.
        """
        return [
            {"kty": "RSA", "n": key.public["n"], "e": key.public["e"], "use": "sig", "alg": "RS256", "kid": key.kid}
            for key in self._accepted(Key.Use.SIGNING)
        ]

    def decryption_keys(self) -> Mapping[str, PrivateKey]:
        """Return a mapping from kid to private encryption key, for `tokens.decrypt`. Keys are unsealed on access.

        Raises KeyUnavailable if there are encryption keys but all encryption keys are refused.
        """
        return self._decryption

    @cached_property
    def _decryption(self) -> Mapping[str, PrivateKey]:
        keys = {key.kid: key for key in self._accepted(Key.Use.ENCRYPTION) if key.has_private}
        return PrivateKeys(keys, self._unchecked(Key.Use.ENCRYPTION))

    def _accepted(self, use: Key.Use) -> list[HeldKey]:
        accepted = [key for key in self.keys if key.use == use]
        refused = [key for key in self.refused if key.use == use]
        if refused and not accepted:
            refused[0].raise_error()
        return accepted

    def _unchecked(self, use: Key.Use) -> dict[str, RefusedKey]:
        """Return a mapping from kid to refused key, for rows whose key-encryption key is not configured."""
        return {key.kid: key for key in self.refused if key.use == use and key.error.code == Reason.KEK_MISSING}

    def _current(self, use: Key.Use) -> HeldKey:
        for key in self.keys:
            if key.use == use and key.status == Key.Status.CURRENT:
                return key
        for refused in self.refused:
            if refused.use == use and refused.status == Key.Status.CURRENT:
                refused.raise_error()
        raise KeyUnavailable(NO_KEY[use])


def current_time() -> datetime:
    """Return the time of the database that contains the keys. All decisions about keys use this time.

    Raises DatabaseError.
    """
    return database_clock.now(router.db_for_write(Key))


def lifecycle_times() -> rotation.Times:
    """Return the durations of the key lifecycle, which are read from the settings."""
    return rotation.Times(
        interval=timedelta(days=conf.key_rotation_days),
        lead=timedelta(seconds=conf.key_lead_seconds),
        retention=timedelta(seconds=conf.key_retention_seconds),
    )


def load(previous: Iterable[HeldKey] = ()) -> KeyRing:
    """Load the keys that may be used now, and return a new key ring.

    The keys are read from the database that keys are written to, because a replica might not contain a recent
    revocation. A row that isn't authentic or can't be checked is logged and refused. The other keys stay usable.

    Args:
        previous: the keys of the previous key ring. A key is reused, and not parsed again, if its row contains the
            same key material.

    Raises ConfigError or DatabaseError.
    """
    known = {key.kid: key for key in previous}
    stored = Key.objects.using(router.db_for_write(Key)).filter(status__in=rotation.ACCEPTED)
    rows, errors = row_hmac.examine(stored, conf.key_encryption_keys)
    for error in errors.values():
        logger.error("a key can't be used: %(detail)s", reason=error.code, detail=str(error))
    refused = [RefusedKey(row.kid, row.use, row.status, errors[row.pk]) for row in rows if row.pk in errors]
    now, times = current_time(), lifecycle_times()
    accepted = [row for row in rows if row.pk not in errors and rotation.is_accepted(row, now=now, times=times)]
    keys = []
    for row in sorted(accepted, key=_order):
        key = known.get(row.kid)
        if key is None or not key.same_material_as(row):
            key = HeldKey(row)
        keys.append(key if key.status == row.status else key.at(row.status))
    return KeyRing(tuple(keys), tuple(refused))


def _order(row: Key) -> tuple[int, float, int]:
    # The primary key is compared too, because two keys that are stored in the same millisecond have the same time.
    return rotation.ACCEPTED.index(Key.Status(row.status)), -row.created_at.timestamp(), -row.pk


_ring: Refreshed[KeyRing] = Refreshed(lambda last: load(last.keys if last else ()), lambda: router.db_for_write(Key))


def current_ring(*, max_staleness: float = 0) -> KeyRing:
    """Return the key ring of this process, at most KEY_CACHE_SECONDS old.

    Args:
        max_staleness: the time, in seconds, by which the age may exceed KEY_CACHE_SECONDS while the database is
            unavailable.

    Raises:
        ConfigError: a setting is invalid.
        DatabaseError: the database is unavailable, and the cached key ring is too old.
    """
    return _ring.get(interval=conf.key_cache_seconds, max_staleness=max_staleness)


def clear_cache() -> None:
    """Drop the cached key ring of this process. Call this function after every change to keys."""
    _ring.clear_cache()


def check_issuing_keys() -> None:
    """Check that the current signing and encryption keys are available, and unseal the private signing key.

    Raises:
        KeyUnavailable: there is no usable current signing or encryption key.
        ConfigError: a setting is invalid.
        DatabaseError: the database is unavailable.
    """
    ring = current_ring()
    ring.signing_key().private()
    ring.encryption_key()


def sign_once() -> None:
    """Sign and verify a string with the current signing key, so that OpenSSL prepares the key for later requests."""
    ring = current_ring()
    key = ring.signing_key()
    tokens.verify(tokens.sign(b"{}", key.private(), kid=key.kid), ring.verification_keys())
