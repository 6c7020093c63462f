"""Where gateways and services get keys from: this database, the settings, or a JWKS URL.

No models are imported here unless the database is asked for: a service has no tables of ours.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.views.decorators.debug import sensitive_variables
from jwcrypto.jwk import JWK

from . import keymaterial
from .conf import conf
from .exceptions import ConfigError, KeyRefused, KeyUnavailable, SourceUnavailable
from .fetch import fetch_json, shown
from .snapshot import PATIENCE, Snapshot

if TYPE_CHECKING:
    from .keyring import KeyRing

logger = logging.getLogger("instaccess.keys")

JWKS_SECONDS = 300
"""A JWKS is read again after this many seconds, or sooner where its server says so."""

JWKS_COOLDOWN = 30
"""Seconds between two readings that unknown kids bring about: strangers can invent kids."""

MAX_MEMBERS = 32


def decryption_keys(*, max_staleness: float = 0) -> Mapping[str, JWK]:
    """Private encryption keys by kid, best first. Raises KeyUnavailable where there is none: that is a fault of ours
    and no fault of a token."""
    configured = conf.decryption_keys
    if configured is None:
        return _some(
            _ring("DECRYPTION_KEYS", max_staleness).decryption_keys(), "private encryption", "DECRYPTION_KEYS"
        )
    return _parsed(tuple(configured), "DECRYPTION_KEYS", "enc")


def verification_keys(*, max_staleness: float = 0) -> Mapping[str, JWK]:
    """Public signing keys by kid, best first. Raises KeyUnavailable where there is none."""
    configured = conf.verification_keys
    if configured is None:
        return _some(_ring("VERIFICATION_KEYS", max_staleness).verification_keys(), "signing", "VERIFICATION_KEYS")
    if isinstance(configured, str):
        return _remote(configured).keys_now()
    return _parsed(tuple(configured), "VERIFICATION_KEYS", "sig")


def _some(keys: Mapping[str, JWK], kind: str, setting: str) -> Mapping[str, JWK]:
    if not keys:
        raise KeyUnavailable(
            f"there is no {kind} key in this database: run `python manage.py instaccess_init`, or set "
            f"INSTACCESS[{setting!r}]"
        )
    return keys


def _ring(setting: str, max_staleness: float) -> KeyRing:
    try:
        keyring = _keyring()
    except LookupError:
        raise ConfigError(
            f"INSTACCESS[{setting!r}] is not set, and there is no table of keys: our app is not in INSTALLED_APPS",
            setting=setting,
        ) from None
    ring: KeyRing = keyring.current(max_staleness=max_staleness)
    return ring


@cache
def _keyring() -> ModuleType:
    if not apps.is_installed("instaccess"):
        raise LookupError("instaccess")
    # Once: a gateway asks for its keys with every request, and an import that is done already takes longer.
    from . import keyring  # noqa: PLC0415  (imports the models)

    return keyring


class RemoteKeys(Mapping[str, JWK]):
    """The keys of a JWKS URL. Asked for a kid it does not hold, it reads the set again, at most once a cooldown.
    While it can't be read, the last good set serves for MAX_STALENESS."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._snapshot: Snapshot[dict[str, JWK]] = Snapshot(self._load)
        self._interval = JWKS_SECONDS
        self._refetched_at = float("-inf")
        self._refetching = threading.Lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def keys_now(self) -> RemoteKeys:
        """This mapping, read. Raises SourceUnavailable where there is nothing to go on with."""
        self._keys()
        return self

    def __getitem__(self, kid: str) -> JWK:
        keys = self._keys()
        if kid not in keys:
            self._refetch()
            keys = self._keys()
        return keys[kid]

    def _refetch(self) -> None:
        # Whoever meets a new key at the same moment waits for the one reading, and then finds it. Not for long:
        # strangers can name kids that nobody has, and a server that hangs must not hold a thread for each.
        since = time.monotonic() - self._refetched_at
        patience = PATIENCE if since >= JWKS_COOLDOWN else max(PATIENCE - since, 0)
        if not self._refetching.acquire(timeout=patience):
            return  # by the set that is held there is no such key
        try:
            if time.monotonic() - self._refetched_at >= JWKS_COOLDOWN:
                self._refetched_at = time.monotonic()
                self._snapshot.get(interval=0, max_staleness=self._interval + conf.max_staleness)
        finally:
            self._refetching.release()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def _keys(self) -> dict[str, JWK]:
        return self._snapshot.get(interval=self._interval, max_staleness=conf.max_staleness)

    def _renew_lock(self) -> None:
        self._refetching = threading.Lock()

    def _load(self, last: dict[str, JWK] | None) -> dict[str, JWK]:
        fetched = fetch_json(self._url)
        keys = read_jwks(fetched.document)
        if not keys:
            # An empty set would make every token unknown; more likely something is broken over there.
            raise SourceUnavailable(f"{shown(self._url)} holds no usable signing key")
        self._interval = JWKS_SECONDS if fetched.max_age is None else max(1, min(fetched.max_age, JWKS_SECONDS))
        # Parsed keys are kept where nothing has changed.
        return {kid: last[kid] if last and last.get(kid) == key else key for kid, key in keys.items()}


def read_jwks(document: Any) -> dict[str, JWK]:
    """The usable signing keys of a JWK set (RFC 7517 §5), member by member: a bad one is skipped and logged.

    `JWKSet.from_json` is not used: it makes up a key for a `generate` member and rejects a whole set for one bad key.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise SourceUnavailable("this is no JWK set")
    keys: dict[str, JWK] = {}
    for member in members[:MAX_MEMBERS]:
        if not isinstance(member, dict) or member.get("use", "sig") != "sig" or member.get("alg", "RS256") != "RS256":
            continue
        try:
            key = keymaterial.parse(json.dumps(member))
        except KeyRefused as error:
            logger.warning("member of a JWK set skipped: %s", error)
            continue
        # The set says under which name its tokens come; ours are thumbprints, others need not be.
        kid = member.get("kid")
        kid = kid if isinstance(kid, str) else key.thumbprint()
        if kid in keys:
            logger.warning("member of a JWK set skipped: another one before it has its kid")
            continue
        keys[kid] = JWK(**keymaterial.public_members(key, use="sig"))
    return keys


@lru_cache(maxsize=8)
def _remote(url: str) -> RemoteKeys:
    return RemoteKeys(url)


@lru_cache(maxsize=8)
@sensitive_variables()
def _parsed(texts: tuple[str, ...], setting: str, use: str) -> Mapping[str, JWK]:
    keys: dict[str, JWK] = {}
    for n, item in enumerate(texts):
        # Its place, and not the text: that may be a key whose first line is missing.
        entry = f"INSTACCESS[{setting!r}][{n}]"
        try:
            text = item if item.lstrip().startswith(("{", "-----BEGIN")) else Path(item).read_text()
            members = _members(text, use)
        except (OSError, ValueError) as error:
            if "://" in item:
                raise ConfigError(f"{entry} is a URL, which stands alone and in no list", setting=setting) from None
            raise ConfigError(
                f"{entry} names a file that can't be read ({type(error).__name__})", setting=setting
            ) from None
        except (KeyRefused, SourceUnavailable) as error:
            raise ConfigError(f"{entry} holds a key that can't be used: {error.detail}", setting=setting) from None
        if any(kid in keys and keys[kid] != key for kid, key in members.items()):
            raise ConfigError(f"{entry} holds a key with the kid of another one before it", setting=setting)
        keys |= members
    return keys


@sensitive_variables()
def _members(text: str, use: str) -> dict[str, JWK]:
    document = json.loads(text) if text.lstrip().startswith("{") else None
    if use == "sig" and document is not None:
        keys = read_jwks(document if "keys" in document else {"keys": [document]})
        if not keys:
            raise KeyRefused("there is no usable signing key in it")
        return keys
    key = keymaterial.parse(text)
    named = document.get("kid") if document else None
    kid = named if isinstance(named, str) else key.thumbprint()
    if use == "sig":
        return {kid: JWK(**keymaterial.public_members(key, use=use))}
    if not key.has_private:
        raise KeyRefused("decrypting needs the private half, and this is the public one")
    private = keymaterial.private_jwk(key, use=use)
    private.get_op_key("unwrapKey")  # loaded and checked now, not in the first request
    return {kid: private}
