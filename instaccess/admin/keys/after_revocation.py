"""The work that remains in other deployments after the revocation of a key.

The confirmation page describes this work before the revocation. The key change list describes the work again after
the revocation, with deadlines and commands. This module reads neither the clock nor the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.translation import gettext as _

from ...keys import RELOAD_JWKS, REMOVE_PUBLIC_KEY, REPLACE_PRIVATE_KEY, is_next, is_revocable, short_kid
from ...models import Key
from ...times import format_utc

SHOWN = timedelta(days=1)
"""The minimum time for which the key change list shows the remaining work."""

MAX_KEYS = 5
"""The maximum number of revoked keys whose remaining work is shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """Work that remains after a revocation.

    Attributes:
        text: the instruction.
        deadline: a sentence that describes what can happen until the work is done, with the time limit.
        label: a sentence that introduces the commands, or an empty string if there are no commands.
        commands: the commands that the operator should run on this server.
    """

    text: Any
    deadline: str
    label: str = ""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A recently revoked key, and the steps that remain. The page shows the steps until `shown_until`."""

    title: str
    steps: tuple[Step, ...]
    shown_until: str


def shown_since(now: datetime, jwks_age: timedelta) -> datetime:
    """Return the time of the earliest revocation whose remaining work is shown at `now`.

    Args:
        jwks_age: the maximum age of the copy of the JWKS that another deployment uses.
    """
    return now - max(SHOWN, jwks_age)


def find_revoked(keys: Iterable[Key], *, now: datetime, jwks_age: timedelta) -> tuple[list[RevokedKey], int]:
    """Describe the work that remains after recent revocations, the latest revocation first.

    Args:
        keys: all stored keys that are current, future, or recently revoked.
        jwks_age: the maximum age of the copy of the JWKS that another deployment uses.

    Returns:
        At most `MAX_KEYS` revoked keys, and the number of other recently revoked keys.
    """
    keys, since = list(keys), shown_since(now, jwks_age)
    recent = sorted(
        ((key.revoked_at, key) for key in keys if _is_revoked(key) and key.revoked_at and key.revoked_at > since),
        key=lambda pair: pair[0],
        reverse=True,
    )
    described = [_describe(key, revoked_at, keys, now, jwks_age) for revoked_at, key in recent[:MAX_KEYS]]
    return described, len(recent) - len(described)


def _is_revoked(key: Key) -> bool:
    return key.status == Key.Status.REVOKED and key.use in Key.Use.values


def _describe(key: Key, revoked_at: datetime, keys: Sequence[Key], now: datetime, jwks_age: timedelta) -> RevokedKey:
    title = _("The %(use)s key %(kid)s was revoked at %(time)s.") % {
        "use": key.get_use_display(),
        "kid": short_kid(key.kid),
        "time": format_utc(revoked_at),
    }
    if key.use == Key.Use.SIGNING:
        steps = [_reload_jwks(revoked_at + jwks_age, now), _remove_public_key(keys)]
    else:
        steps = [_replace_private_key(keys)]
    return RevokedKey(title, tuple(steps), format_utc(revoked_at + max(SHOWN, jwks_age)))


def _reload_jwks(until: datetime, now: datetime) -> Step:
    deadline = (
        _("A service that is not restarted may accept tokens of this key until %(time)s.")
        if now < until
        else _(
            "This period ended at %(time)s. Services that have not been able to load the JWKS since the revocation "
            "may still accept tokens of this key. Restart these services."
        )
    )
    return Step(RELOAD_JWKS, deadline % {"time": format_utc(until)})


def _remove_public_key(keys: Iterable[Key]) -> Step:
    usable = _find_usable(keys, Key.Use.SIGNING)
    return Step(
        REMOVE_PUBLIC_KEY,
        _(
            "Until you do this step, a service that lists the key accepts every token that an attacker signs with "
            "this key. This doesn't end by itself."
        ),
        _("To print the public keys for the list, run:") if usable else "",
        tuple(f"python manage.py instaccess_keys export --kid {key.kid}" for key in usable),
    )


def _replace_private_key(keys: Iterable[Key]) -> Step:
    # If the gateway generated its own key pair, only the gateway has the private key.
    usable = [key for key in _find_usable(keys, Key.Use.ENCRYPTION) if key.has_private]
    return Step(
        REPLACE_PRIVATE_KEY,
        _(
            "Until you do this step, a gateway without the private key of the current key refuses all new tokens. "
            "This doesn't end by itself."
        ),
        _("To write the private keys to new files, run:") if usable else "",
        tuple(f"python manage.py instaccess_keys export --private --kid {key.kid} --file PATH" for key in usable),
    )


def _find_usable(keys: Iterable[Key], use: Key.Use) -> list[Key]:
    """Return the current key and the next key with this use. Returns [] if there is no current key."""
    # If a key-encryption key is missing, rows can't be checked. An attacker may have inserted a `kid` with shell
    # syntax, and operators copy the commands into a shell. `is_revocable` rejects such a `kid`.
    found = [key for key in keys if key.use == use and is_revocable(key)]
    current = [key for key in found if key.status == Key.Status.CURRENT]
    following = [key for key in found if key.status == Key.Status.FUTURE and is_next(key, found)]
    return [*current, *following[:1]] if current else []
