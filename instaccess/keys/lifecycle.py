"""One key follows another: rotation, activation, revocation.

RSA keys are generated outside the lock; what is to be done is decided again inside it, and who loses a race changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from jwcrypto.jwk import JWK

from .. import audit, trust
from ..conf import conf
from ..exceptions import ConfigError, InstAccessError, KeyRefused, KeyUnavailable, Reason, UnsealError
from ..models import Key
from . import audit_keys, ring, rotation, sealing, store

logger = logging.getLogger("instaccess.keys")


@dataclass(frozen=True, slots=True)
class Rotation:
    """What `rotate` did with the keys of one use.

    Attributes:
        retired, activated: the change of current key, None where there was none.
        made: the new future key, if one was wanted.
        erased: past keys whose private half was erased.
        next_due: when the next change is due; None when there is nothing to change to.
        lost_race: somebody else rotated at the same moment, so nothing was done here.
    """

    use: Key.Use
    retired: Key | None = None
    activated: Key | None = None
    made: Key | None = None
    erased: tuple[Key, ...] = ()
    next_due: datetime | None = None
    lost_race: bool = False


@dataclass(frozen=True, slots=True)
class Revocation:
    """What `revoke` did: the key, who took over, the new future key, and how many live tokens fell with it.

    `failure` says why no new key could be made where one was wanted; the revocation itself stands.
    """

    key: Key
    successor: Key | None
    made: Key | None
    tokens: int
    failure: str = ""


def rotate(
    use: Key.Use, *, force: bool = False, expected_current: str | None = None, now: datetime | None = None
) -> Rotation:
    """Do what is due for one use: let the future key take over, make the next one, erase what is gone.

    Args:
        force: change the current key now, although its interval or the future key's lead time is not over.
        expected_current: kid that the caller saw as current; when it no longer is, nothing is done (a double click).

    Raises KeyUnavailable when there is no current key, when `force` finds nothing to change to, and (as UnsealError)
    when the future key does not open: a broken key never becomes current; also when the current key's
    key-encryption key is not configured: new keys beside lost ones would hide the loss.
    """
    given, now = now, now or timezone.now()
    mark_tokens_of_revoked_keys(now=now)
    current = store.current_key(store.stored_keys(), use)
    if current is None:
        raise KeyUnavailable(f"nothing to rotate: {ring.NO_KEY[use]}")
    if expected_current not in (None, current.kid):
        return Rotation(use, next_due=_decide(store.stored_keys(), use, now).next_due, lost_race=True)
    _check_key_encryption_key(current)
    decision = _decide(store.stored_keys(), use, now, force=force)
    spare = [trust.generate_jwk(use)] if decision.make_future else []
    if force and decision.activate is None:
        if not current.has_private:
            raise KeyUnavailable(
                f"there is no future {use.label} key, and this one's private half is elsewhere: import the next "
                f"public key with `python manage.py instaccess_keys import --use {use} --file …`"
            )
        spare = [trust.generate_jwk(use), trust.generate_jwk(use)]
    elif decision.nothing_to_do:
        return Rotation(use, next_due=decision.next_due)
    with store.locked() as keys:
        # Making keys and waiting for the lock took time, and a key's lead time counts from when others can see it.
        now = given or timezone.now()
        if store.current_key(keys, use) != current:
            return Rotation(use, next_due=_decide(keys, use, now).next_due, lost_race=True)
        if force and spare and store.next_key(keys, use, after_ours=True) is None:
            store.store(spare.pop(), use=use, status=Key.Status.FUTURE, now=now)
        decision = _decide(keys, use, now, force=force)
        if decision.activate:
            _check_usable(decision.activate)
            store.succeed(decision.retire, decision.activate, now)
        made = None
        if decision.make_future and spare:
            made = store.store(spare.pop(), use=use, status=Key.Status.FUTURE, now=now)
        for key in decision.erase:
            store.erase(key)
    return Rotation(use, decision.retire, decision.activate, made, decision.erase, decision.next_due)


def activate(kid: str, *, force: bool = False, now: datetime | None = None) -> Key:
    """Make a future key the current one of its use; the one before becomes past.

    Raises KeyRefused when it is no future key, cannot sign, or, without `force`, before its lead time is over:
    services would meet tokens under a key they have not seen.
    """
    now = now or timezone.now()
    with store.locked() as keys:
        key = store.find_key(kid, keys)
        if key.status != Key.Status.FUTURE:
            raise KeyRefused(f"key {key.kid} is {key.status}; only a future key can be activated")
        current = store.current_key(keys, Key.Use(key.use))
        ready = rotation.ready_at(key, ring.lifecycle_times())
        if current is not None and now < ready and not force:
            since = f"{ready.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            raise KeyRefused(
                f"key {key.kid} may be used from {since} on, when every copy of the JWKS holds it; "
                "--force uses it now"
            )
        _check_usable(key)
        store.succeed(current, key, now)
        return key


def revoke(kid: str, *, reason: str = "", by: Any = None, now: datetime | None = None) -> Revocation:
    """Take a compromised key out of use at once: out of the JWKS, refused everywhere, its private half erased, and
    every live token under it marked revoked. A current key is succeeded by the future one, or by a new one where we
    hold private halves of that use.

    Running it again for the same key marks tokens that were issued in the last seconds before.
    """
    spare, failure = _spare_keys(store.find_key(kid))
    successor = made = None
    with store.locked() as keys:
        now = now or timezone.now()  # not before the keys were made: a key's lead time counts from when others see it
        key = store.find_key(kid, keys)
        use = Key.Use(key.use)
        if key.status != Key.Status.REVOKED:
            was_current, had_private = key.status == Key.Status.CURRENT, key.has_private
            key.status, key.revoked_at, key.sealed_private_jwk = Key.Status.REVOKED, now, ""
            store.save(key, "status", "revoked_at", "sealed_private_jwk")
            logger.warning("key %s revoked by %s: %r", key.kid, getattr(by, "pk", by), reason)
            try:
                if was_current:
                    successor = _usable_future(keys, use, after_ours=had_private)
                    if successor is None and had_private and spare:
                        successor = store.store(spare.pop(), use=use, status=Key.Status.FUTURE, now=now)
                    if successor is not None:
                        store.succeed(None, successor, now)
                current = successor if was_current else store.current_key(keys, use)
                # After a gateway's public key no pair of ours could follow.
                is_ours = current is not None and current.has_private
                if had_private and spare and is_ours and store.next_key(keys, use, after_ours=True) is None:
                    made = store.store(spare.pop(), use=use, status=Key.Status.FUTURE, now=now)
            except InstAccessError as error:
                # Sealing failed, before anything was written. The compromised key goes all the same.
                failure = error.detail
    if failure:
        logger.error("no new %s key after a revocation: %s", use.label, failure)
    tokens = _mark_tokens([key.kid], reason=reason, by=by, now=now)
    return Revocation(key, successor, made, tokens, failure)


def _spare_keys(key: Key) -> tuple[list[JWK], str]:
    """The new keys that revoking this one may call for, and why there are none: it must not fail for want of them."""
    if not key.has_private or key.status not in {Key.Status.CURRENT, Key.Status.FUTURE}:
        return [], ""
    try:
        return [trust.generate_jwk(key.use), trust.generate_jwk(key.use)], ""
    except InstAccessError as error:
        return [], error.detail


def mark_tokens_of_revoked_keys(*, now: datetime | None = None) -> int:
    """Mark the live tokens under revoked keys as revoked in the audit; returns how many.

    Part of every `rotate`: a worker that had not heard of a revocation yet may have issued one more.
    """
    kids = list(store.stored_keys().filter(status=Key.Status.REVOKED).values_list("kid", flat=True))
    return _mark_tokens(kids, reason="its key was revoked", by=None, now=now) if kids else 0


def _mark_tokens(kids: list[str], *, reason: str, by: Any, now: datetime | None) -> int:
    tokens = audit.revocable_tokens(now=now).filter(audit.filter_by_keys(kids))
    return audit.revoke(
        tokens,
        keks=audit_keys.keks_for_revocation(),
        reason=reason or "its key was revoked",
        by=by,
        now=now,
    )


def _check_usable(key: Key) -> None:
    """Raise unless the key can do its work here: a signing key needs its private half, and what is held must open."""
    if key.has_private:
        sealing.unseal(key.sealed_private_jwk, kid=key.kid, use=key.use, keks=conf.key_encryption_keys)
    elif key.use == Key.Use.SIGNING:
        raise KeyRefused(f"only the public half of key {key.kid} is held here: it cannot sign")


def _check_key_encryption_key(key: Key) -> None:
    """Raise UnsealError when what sealed the key is not configured. One that was altered may be rotated away."""
    try:
        _check_usable(key)
    except UnsealError as error:
        if error.code == Reason.KEK_MISSING:
            raise


def _usable_future(keys: QuerySet[Key], use: Key.Use, *, after_ours: bool) -> Key | None:
    for key in store.future_keys(keys, use):
        if not rotation.can_rotate_automatically(key, after_ours=after_ours):
            logger.warning("future key %s passed over: it can't follow by itself", key.kid)
            continue
        try:
            _check_usable(key)
        except (ConfigError, KeyRefused, UnsealError) as error:
            logger.error("future key passed over: %s", error)
        else:
            return key
    return None


def _decide(keys: Iterable[Key], use: Key.Use, now: datetime, *, force: bool = False) -> rotation.Decision:
    return rotation.decide(keys, use=use, now=now, times=ring.lifecycle_times(), force=force)
