"""Where gateways and services get keys from: this database, the settings, or a JWKS URL.

No models are imported here: a gateway or a service has no tables of ours. `apps.py` passes in the table of keys.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from django.views.decorators.debug import sensitive_variables
from jwcrypto.jwk import JWK

from ..conf import conf
from ..exceptions import ConfigError, KeyRefused, KeyUnavailable, SourceUnavailable
from . import material
from .remote_jwks import RemoteKeys, read_jwks

logger = logging.getLogger("instaccess.keys")


class Ring(Protocol):
    """The keys of a database, as `keys.KeyRing` has them."""

    def decryption_keys(self) -> Mapping[str, JWK]:
        """Private encryption keys by kid, best first."""

    def verification_keys(self) -> Mapping[str, JWK]:
        """Public signing keys by kid, best first."""


class _KeyTable:
    """The table of keys; set by `use`."""

    load_ring: Callable[[float], Ring] | None = None


_key_table = _KeyTable()


def use(load_ring: Callable[[float], Ring]) -> None:
    """Take keys from this deployment's database unless a setting names others. Called by `apps.py`.

    `load_ring` takes how many seconds old the keys may be while the database is unavailable.
    """
    _key_table.load_ring = load_ring


def has_key_table() -> bool:
    """Whether this process has the table of keys."""
    return _key_table.load_ring is not None


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


def _ring(setting: str, max_staleness: float) -> Ring:
    if _key_table.load_ring is None:
        raise ConfigError(
            f"INSTACCESS[{setting!r}] is not set, and there is no table of keys: our app is not in INSTALLED_APPS",
            setting=setting,
        )
    return _key_table.load_ring(max_staleness)


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
    key = material.parse(text)
    named = document.get("kid") if document else None
    kid = named if isinstance(named, str) else key.thumbprint()
    if use == "sig":
        return {kid: JWK(**material.public_members(key, use=use))}
    if not key.has_private:
        raise KeyRefused("decrypting needs the private half, and this is the public one")
    private = material.private_jwk(key, use=use)
    private.get_op_key("unwrapKey")  # loaded and checked now, not in the first request
    return {kid: private}
