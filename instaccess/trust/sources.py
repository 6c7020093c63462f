"""The sources of a gateway's or service's keys: the settings, a JWKS URL, or this deployment's database.

This module imports no models, because a gateway or a service may lack this app's tables. `apps.py` passes in the
function that reads the key table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jwcrypto.jwk import JWK

from ..conf import conf
from ..exceptions import ConfigError, KeyRefused, KeyUnavailable, SourceUnavailable
from ..logs import get_logger
from ..opaque import Opaque, OpaqueText, concealed
from ..tokens import PrivateKey
from . import material
from .remote_jwks import MustWait, RemoteKeys, read_jwks

logger = get_logger("instaccess.keys")

K = TypeVar("K", JWK, PrivateKey)


class Ring(Protocol):
    """The keys that are stored in this deployment's database. `keys.KeyRing` implements this protocol."""

    def decryption_keys(self) -> Mapping[str, PrivateKey]:
        """Return a mapping from kid to private encryption key, in the order in which the keys are tried."""

    def verification_keys(self) -> Mapping[str, JWK]:
        """Return a mapping from kid to public signing key, in the order in which the keys are tried."""


class _KeyTable:
    """The function that reads the key table. None until `use` sets the function."""

    load_ring: Callable[[float], Ring] | None = None


_key_table = _KeyTable()


def use(load_ring: Callable[[float], Ring]) -> None:
    """Set the function that loads the keys of this deployment's database. `apps.py` calls this function.

    If DECRYPTION_KEYS is not set, the database contains the decryption keys. If VERIFICATION_KEYS is not set, the
    database contains the verification keys.

    Args:
        load_ring: a function that returns the key ring. The argument is the time, in seconds, by which the age of the
            keys may exceed KEY_CACHE_SECONDS if the database is unavailable.
    """
    _key_table.load_ring = load_ring


def has_key_table() -> bool:
    """Return whether this process can read the key table."""
    return _key_table.load_ring is not None


def decryption_keys(*, max_staleness: float = 0) -> Mapping[str, PrivateKey]:
    """Return a mapping from kid to private encryption key, in the order in which the keys are tried.

    Args:
        max_staleness: the additional time, in seconds, for which cached keys are used if the database is unavailable.

    Raises:
        KeyUnavailable: there is no key. Clients then get a 503 and not a 401, because the error is on the server.
        ConfigError: DECRYPTION_KEYS is missing or contains a key that can't be used.
        DatabaseError: the database is unavailable.
    """
    configured = conf.decryption_keys
    if configured is None:
        keys = _load_ring("DECRYPTION_KEYS", max_staleness).decryption_keys()
        return _require_keys(keys, "private encryption", "DECRYPTION_KEYS")
    return _parse_decryption_keys(tuple(configured))


def verification_keys(*, max_staleness: float = 0) -> Mapping[str, JWK]:
    """Return a mapping from kid to public signing key, in the order in which the keys are tried.

    Args:
        max_staleness: the additional time, in seconds, for which cached keys are used if the database is unavailable.

    Raises:
        KeyUnavailable: there is no key.
        SourceUnavailable: the JWKS URL can't be read, and no cached JWK set is less than `interval` + MAX_STALENESS
            seconds old. The interval is the `max-age` of the JWKS response, at most `JWKS_SECONDS`.
        ConfigError: VERIFICATION_KEYS is missing or contains a key that can't be used.
        DatabaseError: the database is unavailable.
    """
    configured = conf.verification_keys
    if configured is None:
        keys = _load_ring("VERIFICATION_KEYS", max_staleness).verification_keys()
        return _require_keys(keys, "signing", "VERIFICATION_KEYS")
    if isinstance(configured, str):
        return _remote(configured).ensure_loaded()
    return _parse_verification_keys(tuple(configured))


def verification_keys_without_waiting() -> Mapping[str, JWK]:
    """Return the same keys as `verification_keys`, for callers in an event loop.

    The mapping raises MustWait instead of waiting for another server.

    Raises:
        MustWait: the keys are in the database.
        ConfigError: VERIFICATION_KEYS contains a key that can't be used.
    """
    configured = conf.verification_keys
    if configured is None:
        raise MustWait("the keys are in the database")
    if isinstance(configured, str):
        return _remote(configured).without_waiting()
    return _parse_verification_keys(tuple(configured))


def _require_keys(keys: Mapping[str, K], kind: str, setting: str) -> Mapping[str, K]:
    if not keys:
        raise KeyUnavailable(
            f"there is no {kind} key in this database: run `python manage.py instaccess_init`, or set "
            f"INSTACCESS[{setting!r}]"
        )
    return keys


def _load_ring(setting: str, max_staleness: float) -> Ring:
    if _key_table.load_ring is None:
        raise ConfigError(
            f"INSTACCESS[{setting!r}] is not set, and this process has no key table: add 'instaccess' to "
            f"INSTALLED_APPS, or set {setting}",
            setting=setting,
        )
    return _key_table.load_ring(max_staleness)


@lru_cache(maxsize=8)
def _remote(url: str) -> RemoteKeys:
    return RemoteKeys(url, max_staleness=lambda: conf.max_staleness)


@lru_cache(maxsize=8)
def _parse_decryption_keys(items: tuple[OpaqueText, ...]) -> Mapping[str, PrivateKey]:
    return _parse_all(items, "DECRYPTION_KEYS", _parse_decryption_key)


@lru_cache(maxsize=8)
def _parse_verification_keys(items: tuple[OpaqueText, ...]) -> Mapping[str, JWK]:
    return _parse_all(items, "VERIFICATION_KEYS", _parse_verification_key)


@concealed
def _parse_all(
    items: tuple[OpaqueText, ...], setting: str, parse: Callable[[str], Mapping[str, K]]
) -> Mapping[str, K]:
    keys: dict[str, K] = {}
    for index, opaque in enumerate(items):
        # Error messages contain the index of an item instead of the item. An item that looks like a path may be a
        # private key whose first line is missing.
        entry, item = f"INSTACCESS[{setting!r}][{index}]", opaque.reveal()
        try:
            text = item if item.lstrip().startswith(("{", "-----BEGIN")) else Path(item).read_text()
            members = parse(text)
        except (OSError, ValueError) as error:
            if "://" in item:
                raise ConfigError(
                    f"{entry} is a URL: write the URL as a string, not in a list", setting=setting
                ) from None
            raise ConfigError(
                f"{entry} is neither a valid key nor the path of a readable file ({type(error).__name__})",
                setting=setting,
            ) from None
        except (KeyRefused, SourceUnavailable) as error:
            raise ConfigError(f"{entry} contains a key that can't be used: {error.detail}", setting=setting) from None
        if any(kid in keys and keys[kid].thumbprint() != key.thumbprint() for kid, key in members.items()):
            raise ConfigError(
                f"{entry} contains a key with the kid of an earlier, different key: remove one of the keys, or give "
                "the keys different kids",
                setting=setting,
            )
        keys |= members
    return keys


def _parse_verification_key(text: str) -> Mapping[str, JWK]:
    """Parse a PEM, a JWK or a JWK set, and return the public signing keys by kid.

    Call this function only from a function with the decorator `concealed`. The text may be a private key, and error
    reports of any other caller would print the text.

    Raises KeyRefused or SourceUnavailable if the text contains no usable public key.
    """
    if (document := _parse_json(text)) is None:
        key = material.parse(Opaque(text.encode("utf-8", "surrogatepass")))
        return {key.thumbprint(): JWK(**material.public_members(key, use="sig"))}
    keys = read_jwks(document if "keys" in document else {"keys": [document]})
    if not keys:
        raise KeyRefused("the JWK set contains no usable signing key")
    return keys


def _parse_decryption_key(text: str) -> Mapping[str, PrivateKey]:
    """Parse a PEM or a JWK, and return the private encryption key by kid.

    Call this function only from a function with the decorator `concealed`. The text is a private key, and error
    reports of any other caller would print the text.

    Raises KeyRefused if the text contains no usable private key.
    """
    key = material.parse(Opaque(text.encode("utf-8", "surrogatepass")))
    if not isinstance(key, PrivateKey):
        raise KeyRefused("decryption needs a private key, but this is a public key")
    configured_kid = (_parse_json(text) or {}).get("kid")
    private = material.for_use(key, use="enc")
    # Let OpenSSL load the key now, because loading the key later would delay the first request.
    private.op_key("unwrapKey")
    return {configured_kid if isinstance(configured_kid, str) else key.thumbprint(): private}


def _parse_json(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a string, or None if the string doesn't start with "{". Raises ValueError."""
    document: dict[str, Any] | None = json.loads(text) if text.lstrip().startswith("{") else None
    return document
