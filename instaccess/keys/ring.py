"""The keys this process works with now: read from the database at most every few seconds, parsed once.

Reading only; nothing here writes, and nothing is made up where a key is missing.
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
    Key.Use.ENCRYPTION: "there is no current encryption key: run `python manage.py instaccess_init`; where there was "
    "one, import or generate the next with `python manage.py instaccess_keys`, and activate it",
}


def public_key(row: Key) -> JWK:
    """The public half of a row. Raises KeyUnavailable where it is not the one the row's kid names."""
    try:
        key = JWK(**row.public_jwk)
        if key.get("use") == row.use and key.thumbprint() == row.kid:
            return key
    except (JWException, LookupError, TypeError, ValueError):
        pass
    raise KeyUnavailable(f"the public half of key {row.kid} was altered: restore the row from a backup")


class HeldKey:
    """A key of the database in the form jwcrypto works with. The private half is opened on first need and kept."""

    def __init__(self, row: Key) -> None:
        self.kid = row.kid
        self.use = row.use
        self.status = row.status
        self.public = public_key(row)
        self._sealed = row.sealed_private_jwk
        self._private: JWK | None = None
        self._complained = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.use} {self.kid} {self.status}>"

    @property
    def has_private(self) -> bool:
        """Whether the private half is held here, sealed or open."""
        return bool(self._sealed)

    def at(self, status: str) -> HeldKey:
        """The same key at another point of its life. Rings handed out before keep what they said."""
        other = copy(self)
        other.status = status
        return other

    def same_material_as(self, row: Key) -> bool:
        """Whether the row still holds what this was made from, so that it need not be parsed again."""
        return (self.use, self._sealed) == (row.use, row.sealed_private_jwk) and self.public == row.public_jwk

    @sensitive_variables()
    def private(self) -> JWK:
        """The private half, loaded and ready. Raises UnsealError where it does not open."""
        if self._private is None:
            if not self._sealed:
                raise KeyUnavailable(f"only the public half of key {self.kid} is held here")
            key = sealing.unseal(self._sealed, kid=self.kid, use=self.use, keks=conf.key_encryption_keys)
            # OpenSSL checks and prepares the key now, not in the middle of the first request.
            key.get_op_key("sign" if self.use == Key.Use.SIGNING else "unwrapKey")
            self._private = key
        return self._private

    def private_or_none(self) -> JWK | None:
        """The private half, or None and a line in the log where it does not open."""
        try:
            return self.private()
        except UnsealError as error:
            if not self._complained:
                logger.error("private key does not open: %s", error)
            self._complained = True
            return None


class _PrivateKeys(Mapping[str, JWK]):
    """Private halves by kid. One that stays shut is a fault of ours: asked for by name it raises UnsealError, and a
    refusal must not come of it. Going through all, it is logged and passed over, unless none opens."""

    def __init__(self, held: Mapping[str, HeldKey]) -> None:
        self._held = held

    def __getitem__(self, kid: str) -> JWK:
        return self._held[kid].private()

    def __contains__(self, kid: object) -> bool:
        return kid in self._held

    def __iter__(self) -> Iterator[str]:
        opened = [kid for kid, key in self._held.items() if key.private_or_none() is not None]
        if not opened and self._held:
            raise UnsealError("no private encryption key opens; see INSTACCESS['KEY_ENCRYPTION_KEYS']")
        return iter(opened)

    def __len__(self) -> int:
        return len(self._held)


@dataclass(frozen=True)
class KeyRing:
    """The keys as they stood at one moment, best first: current, then past (latest first), then future."""

    keys: tuple[HeldKey, ...] = field(default_factory=tuple)

    def signing_key(self) -> HeldKey:
        """The key that signs now. Raises KeyUnavailable, naming the command that mends it."""
        return self._current(Key.Use.SIGNING)

    def encryption_key(self) -> HeldKey:
        """The key that encrypts now; its private half may well not be here."""
        return self._current(Key.Use.ENCRYPTION)

    def verification_keys(self) -> Mapping[str, JWK]:
        """Public signing keys by kid, for `jose.verify`."""
        return self._verification

    @cached_property
    def _verification(self) -> Mapping[str, JWK]:
        return {key.kid: key.public for key in self.keys if key.use == Key.Use.SIGNING}

    def published(self) -> list[dict[str, str]]:
        """What the JWKS shows. Members are named one by one: nothing private can slip in with a row."""
        return [
            {"kty": "RSA", "n": key.public["n"], "e": key.public["e"], "use": "sig", "alg": "RS256", "kid": key.kid}
            for key in self.keys
            if key.use == Key.Use.SIGNING
        ]

    def decryption_keys(self) -> Mapping[str, JWK]:
        """Private encryption keys by kid, for `jose.decrypt`: opened when asked for."""
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
    """The lifecycle's times as the settings have them."""
    return rotation.Times(
        interval=timedelta(days=conf.key_rotation_days),
        lead=timedelta(seconds=conf.key_lead_seconds),
        retention=timedelta(seconds=conf.key_retention_seconds),
    )


# What may be used at all, best first. A revoked key is not here, nor is a status that nobody knows.
_RANK = {Key.Status.CURRENT: 0, Key.Status.PAST: 1, Key.Status.FUTURE: 2}


def load(previous: Iterable[HeldKey] = ()) -> KeyRing:
    """Read the keys from the database they are written to (a replica may lag behind a revocation).

    Key objects of `previous` are kept where their row has not changed. A row that can't be used is logged and left
    out, so that one broken key does not take the others along.
    """
    held = {key.kid: key for key in previous}
    rows = Key.objects.using(router.db_for_write(Key)).filter(status__in=_RANK)
    now, lifecycle = timezone.now(), lifecycle_times()
    alive = [row for row in rows if not rotation.is_gone(row, now=now, times=lifecycle)]
    keys = []
    for row in sorted(alive, key=lambda row: (_RANK[Key.Status(row.status)], -row.created_at.timestamp())):
        key = held.get(row.kid)
        if key is None or not key.same_material_as(row):
            try:
                key = HeldKey(row)
            except KeyUnavailable as error:
                logger.error("key %s can't be used: %s", row.kid, error)
                continue
        keys.append(key if key.status == row.status else key.at(row.status))
    return KeyRing(tuple(keys))


_ring: Refreshed[KeyRing] = Refreshed(lambda last: load(last.keys if last else ()))


def current_ring(*, max_staleness: float = 0) -> KeyRing:
    """The KeyRing as of at most `KEY_CACHE_SECONDS` ago, or older by `max_staleness` seconds while the database is
    away. Raises DatabaseError after that."""
    return _ring.get(interval=conf.key_cache_seconds, max_staleness=max_staleness)


def clear_cache() -> None:
    """Drop what this process remembers; called after every change of keys."""
    _ring.clear_cache()


def sign_once() -> None:
    """Sign and verify a text with the current signing key, so that OpenSSL has loaded and prepared it."""
    ring = current_ring()
    key = ring.signing_key()
    tokens.verify(tokens.sign(b"{}", key.private(), kid=key.kid), ring.verification_keys())
