"""The parts of an inspected token, for display: layers, headers, keys and claims.

Authenticated values are separate from values that an attacker may have written. No function in this module decides
whether a token is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import Error as DbError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ... import tokens, trust
from ...conf import conf
from ...exceptions import InstAccessError
from ...models import Key
from ...times import format_utc
from ...tokens import ATTRIBUTES
from . import pasted
from .records import KeyStatus, key_status

_MAX_MEMBERS = 50
_KNOWN_MEMBERS = frozenset({"alg", "enc", "kid", "typ", "cty"})


@dataclass(frozen=True, slots=True)
class Item:
    """A header member or a claim to show on the page, with a description."""

    name: str
    value: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a token: the encryption, or the signature inside the encryption.

    Attributes:
        use: ENCRYPTION or SIGNING.
        header: the members of the header.
        authentic: whether a key decrypted or verified the layer. If not, an attacker may have written the header.
        key: the status of the key that decrypted or verified the layer. If there is no such key, the status of the
            key whose id the header contains, or None.
    """

    use: Key.Use
    header: tuple[Item, ...]
    authentic: bool
    key: KeyStatus | None

    @property
    def is_encryption(self) -> bool:
        return self.use == Key.Use.ENCRYPTION


@dataclass(frozen=True, slots=True)
class Reading:
    """The parts of a token that the inspector could parse.

    Attributes:
        layers: the layers of the token, the outer layer first.
        payload: the claims set of the token. Trust the claims set only if `authentic` is true.
        authentic: whether a known key verified the signature.
    """

    layers: tuple[Layer, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)
    authentic: bool = False


@sensitive_variables("token", "signed")
def read_encrypted(token: str) -> Reading:
    """Parse an encrypted token. Returns an empty `Reading` if the token is too long.

    Raises ConfigError if a needed setting is invalid.
    """
    if len(token) > tokens.MAX_TOKEN_CHARS:
        return Reading()
    signed, kid, stale = "", "", conf.max_staleness
    with suppress(DbError, InstAccessError):
        keys = trust.decryption_keys(max_staleness=stale)
        signed, kid = tokens.decrypt(token, keys, key_algorithms=conf.key_algorithms)
    inner = read_signed(signed) if signed else Reading()
    return Reading((_build_layer(Key.Use.ENCRYPTION, token, kid), *inner.layers), inner.payload, inner.authentic)


@sensitive_variables("signed")
def read_signed(signed: str) -> Reading:
    """Parse a signed token. Returns an empty `Reading` if the token is too long.

    Raises ConfigError if a needed setting is invalid.
    """
    if len(signed) > tokens.MAX_TOKEN_CHARS:
        return Reading()
    payload, kid, stale = pasted.members(signed, 1), "", conf.max_staleness
    with suppress(DbError, InstAccessError):
        payload, kid = tokens.verify(signed, trust.verification_keys(max_staleness=stale))
    return Reading((_build_layer(Key.Use.SIGNING, signed, kid),), payload, authentic=bool(kid))


@sensitive_variables("token", "header")
def _build_layer(use: Key.Use, token: str, matching_kid: str) -> Layer:
    """Parse the header of a token and build the layer.

    Args:
        matching_kid: the id of the key that decrypted or verified the layer, or an empty string if there is no such
            key.
    """
    header = pasted.members(token, 0)
    named = header.get("kid")
    kid = matching_kid or (named if isinstance(named, str) else "")
    items = tuple(_describe_member(name, value) for name, value in list(header.items())[:_MAX_MEMBERS])
    return Layer(use, items, bool(matching_kid), key_status(kid, use) if kid else None)


@sensitive_variables("value")
def _describe_member(name: str, value: Any) -> Item:
    if name in _KNOWN_MEMBERS:
        return Item(name, pasted.format_value(value))
    # Don't show the values of unknown members, because `jwk` could contain a private key.
    return Item(pasted.format_value(name), _("not shown"), _("InstAccess tokens don't contain this member."))


_TITLES = {
    "issuer": gettext_lazy("issuer"),
    "jti": gettext_lazy("token id"),
    "issued_at": gettext_lazy("issued"),
    "expires_at": gettext_lazy("expires"),
    "user_uuid": gettext_lazy("user"),
    "account_uuid": gettext_lazy("account"),
    "canvas_domain": gettext_lazy("domain"),
    "masquerading_user_uuid": gettext_lazy("actor, who masquerades as the user"),
    "masquerading_user_shard_id": gettext_lazy("shard of the actor"),
    "user_global_id": gettext_lazy("primary key of the user"),
    "real_user_global_id": gettext_lazy("primary key of the actor"),
    "region": gettext_lazy("region"),
    "shard_id": gettext_lazy("shard"),
    "client_id": gettext_lazy("application"),
    "instructure_service": gettext_lazy("issued for a service user"),
}


def describe_claims(payload: Mapping[str, Any], now: datetime) -> tuple[Item, ...]:
    """Describe the first 50 claims of a payload. The description of a time is relative to `now`."""
    return tuple(_describe_claim(name, value, now) for name, value in list(payload.items())[:_MAX_MEMBERS])


def _describe_claim(name: str, value: Any, now: datetime) -> Item:
    attribute = ATTRIBUTES.get(name, "")
    words = str(_TITLES.get(attribute, ""))
    time = pasted.parse_time(value) if attribute in {"issued_at", "expires_at"} or name == "nbf" else None
    if time is not None:
        times = {"time": format_utc(time), "when": pasted.format_relative(time, now)}
        if attribute == "issued_at":
            words = _("issued %(time)s, %(when)s") % times
        elif attribute == "expires_at" and time <= now:
            words = _("expired %(time)s, %(when)s") % times
        elif attribute == "expires_at":
            words = _("expires %(time)s, %(when)s") % times
        else:
            words = _("not before %(time)s, %(when)s") % times
    return Item(pasted.format_value(name), pasted.format_value(value), words)
