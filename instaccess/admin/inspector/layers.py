"""A token taken apart, to be shown: its layers, their headers and keys, and its claims in words.

What of it is authentic is kept apart from what somebody merely wrote. Nothing here decides whether a token is good.
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

_MOST_MEMBERS = 50
_OUR_MEMBERS = frozenset({"alg", "enc", "kid", "typ", "cty"})


@dataclass(frozen=True, slots=True)
class Item:
    """A header member or a claim, as it may be shown, and what it says in words."""

    name: str
    value: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """The encryption, or the signature inside it.

    Attributes:
        authentic: whether a key opened it, or verified it. Else the header may say anything.
        key: the key that fitted, or the one it names; None where it names none and none fitted.
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
    """As much of a token as could be read.

    Attributes:
        layers: from the outside in.
        payload: the claims set; to be believed only where `authentic`.
        authentic: whether the signature is that of a key that is held here.
    """

    layers: tuple[Layer, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)
    authentic: bool = False


@sensitive_variables("token", "signed")
def read_encrypted(token: str) -> Reading:
    """An encrypted token and, where a key of ours opens it, the signed one inside. Raises ConfigError."""
    if len(token) > tokens.MAX_TOKEN_CHARS:
        return Reading()
    signed, kid, stale = "", "", conf.max_staleness
    legacy = tokens.LEGACY_KEY_ALGORITHMS if conf.encryption_alg in tokens.LEGACY_KEY_ALGORITHMS else ()
    with suppress(DbError, InstAccessError):
        keys = trust.decryption_keys(max_staleness=stale)
        signed, kid = tokens.decrypt(token, keys, key_algorithms=tokens.KEY_ALGORITHMS + legacy)
    inner = read_signed(signed) if signed else Reading()
    return Reading((_layer(Key.Use.ENCRYPTION, token, kid), *inner.layers), inner.payload, inner.authentic)


@sensitive_variables("signed")
def read_signed(signed: str) -> Reading:
    """A signed token. Raises ConfigError."""
    if len(signed) > tokens.MAX_TOKEN_CHARS:
        return Reading()
    payload, kid, stale = pasted.members(signed, 1), "", conf.max_staleness
    with suppress(DbError, InstAccessError):
        payload, kid = tokens.verify(signed, trust.verification_keys(max_staleness=stale))
    return Reading((_layer(Key.Use.SIGNING, signed, kid),), payload, authentic=bool(kid))


@sensitive_variables("token", "header")
def _layer(use: Key.Use, token: str, fitting: str) -> Layer:
    """One layer; `fitting` is the key that opened or verified it, empty where none did."""
    header = pasted.members(token, 0)
    named = header.get("kid")
    kid = fitting or (named if isinstance(named, str) else "")
    items = tuple(_member(name, value) for name, value in list(header.items())[:_MOST_MEMBERS])
    return Layer(use, items, bool(fitting), key_status(kid, use) if kid else None)


@sensitive_variables("value")
def _member(name: str, value: Any) -> Item:
    if name in _OUR_MEMBERS:
        return Item(name, pasted.format_value(value))
    # It may be anything: `jwk` may hold a private key.
    return Item(pasted.format_value(name), _("not shown"), _("No token of ours has this."))


_TITLES = {
    "issuer": gettext_lazy("issuer"),
    "jti": gettext_lazy("token id"),
    "issued_at": gettext_lazy("issued"),
    "expires_at": gettext_lazy("expires"),
    "user_uuid": gettext_lazy("user"),
    "account_uuid": gettext_lazy("account"),
    "canvas_domain": gettext_lazy("domain"),
    "masquerading_user_uuid": gettext_lazy("real user, who masquerades"),
    "masquerading_user_shard_id": gettext_lazy("shard of the real user"),
    "user_global_id": gettext_lazy("primary key of the user"),
    "real_user_global_id": gettext_lazy("primary key of the real user"),
    "region": gettext_lazy("region"),
    "shard_id": gettext_lazy("shard"),
    "client_id": gettext_lazy("application"),
    "instructure_service": gettext_lazy("for a service user"),
}


def in_words(payload: Mapping[str, Any], now: datetime) -> tuple[Item, ...]:
    """The claims one by one; times also as they are spoken of at `now`."""
    return tuple(_claim(name, value, now) for name, value in list(payload.items())[:_MOST_MEMBERS])


def _claim(name: str, value: Any, now: datetime) -> Item:
    attribute = ATTRIBUTES.get(name, "")
    words = str(_TITLES.get(attribute, ""))
    then = pasted.moment(value) if attribute in {"issued_at", "expires_at"} or name == "nbf" else None
    if then is not None:
        said = {"time": format_utc(then), "when": pasted.when(then, now)}
        if attribute == "issued_at":
            words = _("issued %(time)s, %(when)s") % said
        elif attribute == "expires_at" and then <= now:
            words = _("expired %(time)s, %(when)s") % said
        elif attribute == "expires_at":
            words = _("expires %(time)s, %(when)s") % said
        else:
            words = _("not before %(time)s, %(when)s") % said
    return Item(pasted.format_value(name), pasted.format_value(value), words)
