"""Functions that rotate, activate and revoke keys.

RSA keys are generated before the lock for keys is acquired, because generation is slow. Another process may change
the keys in the meantime, so each function reads the keys again while it holds the lock. If another process has made
the same change, the function changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from .. import audit, trust
from ..conf import KeyEncryptionKey, conf
from ..exceptions import InstAccessError, KeyRefused, KeyUnavailable
from ..logs import get_logger
from ..models import Key
from ..models import Revocation as RevocationRow
from ..times import format_utc
from ..tokens import PrivateKey
from . import audit_keys, queries, ring, rotation, row_hmac, store, succession

logger = get_logger("instaccess.keys")

_DEFAULT_REASON = "the key of the token was revoked"


@dataclass(frozen=True, slots=True)
class Rotation:
    """The result of `rotate` for the signing keys or the encryption keys.

    Attributes:
        retired, activated: the previous and the new current key; None if the current key did not change.
        generated: the new future key, or None if no future key was needed.
        erased: past keys whose private key was erased.
        next_due: the time when the next rotation is due, or None if no key can replace the current key automatically.
        lost_race: whether another process had already rotated. This call then changed nothing.
    """

    use: Key.Use
    retired: Key | None = None
    activated: Key | None = None
    generated: Key | None = None
    erased: tuple[Key, ...] = ()
    next_due: datetime | None = None
    lost_race: bool = False


@dataclass(frozen=True, slots=True)
class Revocation:
    """The result of `revoke`.

    Attributes:
        key: the revoked key.
        successor: the key that became current. None if the revoked key was not current, or if no key could replace
            the revoked key.
        generated: the new future key, or None if no future key was generated.
        tokens: the number of live tokens that were marked as revoked.
        failure: the reason why a required new key could not be generated or stored, or "" if there was no failure.
            The key was revoked nevertheless.
    """

    key: Key
    successor: Key | None
    generated: Key | None
    tokens: int
    failure: str = ""


def rotate(
    use: Key.Use, *, force: bool = False, expected_current: str | None = None, now: datetime | None = None
) -> Rotation:
    """Apply the changes that are due: change the current key, generate the next key, and erase old private keys.

    Args:
        use: whether to rotate the signing keys or the encryption keys.
        force: change the current key now, even before its interval or the future key's lead time has passed.
        expected_current: the kid of the key that was current when the operator opened the form. If another key is
            current, nothing is changed, because the form was submitted twice or another process has rotated.

    Raises:
        KeyUnavailable: there is no current key, or `force` is given and no key can replace the current key.
        KeyAltered: the row of the current key was modified. Other modified rows are skipped.
        KeyRefused: the current key is a signing key without a private key.
        UnsealError: the future key can't be unsealed, so the key must not become current. Or the key-encryption key
            of the current key is not configured. New keys would hide the loss of this key-encryption key.
    """
    given, now = now, now or ring.current_time()
    mark_tokens_of_revoked_keys(now=now)
    current = queries.current_key(queries.stored_keys(), use)
    if current is None:
        raise KeyUnavailable(ring.NO_KEY[use])
    if expected_current not in (None, current.kid):
        return _lost_race(queries.stored_keys(), use, now)
    succession.check_key_encryption_key(current)
    decision = _decide(queries.stored_keys(), use, now, force=force)
    needs_successor = force and decision.activate is None
    if needs_successor and not current.has_private:
        raise KeyUnavailable(
            f"there is no future {use.label} key, and the private key of the current key is not on this server: "
            f"import the next public key with `python manage.py instaccess_keys import --use {use} --file …`"
        )
    if decision.nothing_to_do and not needs_successor:
        return Rotation(use, next_due=decision.next_due)
    count = 2 if needs_successor else int(decision.make_future)
    pregenerated = [trust.generate_key(use) for _ in range(count)]
    with store.locked() as keys:
        # Read the clock again, because generating keys and waiting for the lock took time. If the earlier time were
        # used, the lead time of a new key would begin before other processes can read the key.
        return _rotate_locked(keys, current, pregenerated, now=given or ring.current_time(), force=force)


def _rotate_locked(
    keys: QuerySet[Key], expected: Key, pregenerated: list[PrivateKey], *, now: datetime, force: bool
) -> Rotation:
    """Decide again while the lock is held, and apply the decision.

    If `expected` is no longer the current key, change nothing, because another process has rotated.
    """
    use = Key.Use(expected.use)
    if queries.current_key(keys, use) != expected:
        return _lost_race(keys, use, now)
    if force and pregenerated and queries.next_key(keys, use, previous_has_private=True) is None:
        store.store(pregenerated.pop(), use=use, status=Key.Status.FUTURE, now=now)
    decision = _decide(keys, use, now, force=force)
    if decision.activate:
        succession.check_usable(decision.activate)
        store.succeed(decision.retire, decision.activate, now)
    generated = None
    if decision.make_future and pregenerated:
        generated = store.store(pregenerated.pop(), use=use, status=Key.Status.FUTURE, now=now)
    for key in decision.erase:
        store.erase(key)
    return Rotation(use, decision.retire, decision.activate, generated, decision.erase, decision.next_due)


def _lost_race(keys: QuerySet[Key], use: Key.Use, now: datetime) -> Rotation:
    return Rotation(use, next_due=_decide(keys, use, now, force=False).next_due, lost_race=True)


def activate(kid: str, *, force: bool = False, now: datetime | None = None) -> Key:
    """Make a future key the current signing or encryption key, and return the key.

    The previous current key becomes a past key.

    Args:
        kid: the kid of the future key, or at least its first 6 characters.
        force: activate the key even if its lead time has not passed. Services that have not fetched the key yet may
            then refuse tokens.

    Raises:
        KeyUnavailable: there is no such key.
        KeyAltered: the row of this key or of the current key was modified.
        KeyRefused: the key is not a future key, or is a signing key without a private key. Or there is a current key,
            the lead time of the future key has not passed, and `force` is False.
        UnsealError: the stored private key can't be unsealed, or a row can't be checked.
    """
    now = now or ring.current_time()
    with store.locked() as keys:
        key = queries.find_key(kid, keys)
        if key.status != Key.Status.FUTURE:
            raise KeyRefused(f"key {key.kid} is {key.status}; only a future key can be activated")
        current, times = queries.current_key(keys, Key.Use(key.use)), ring.lifecycle_times()
        if current is not None and not force and not rotation.is_ready(key, now=now, times=times):
            raise KeyRefused(
                f"key {key.kid} can't be activated before {format_utc(rotation.ready_at(key, times))}, because some "
                "services might not have fetched the key yet. To activate the key now, add --force"
            )
        succession.check_usable(key)
        store.succeed(current, key, now)
        return key


def revoke(kid: str, *, reason: str = "", by: Any = None, now: datetime | None = None) -> Revocation:
    """Revoke a compromised key: refuse its tokens, erase its private key, and mark its live tokens as revoked.

    One transaction changes the keys and adds an entry to the revocation log. After the commit, gateways refuse all
    tokens of the key. The tokens are marked as revoked in the audit log after the commit. If marking is interrupted,
    a second call or `rotate` marks the remaining tokens. If a database router stores the audit log in another
    database, the entry is committed before the changes to the keys. If the call is interrupted between these two
    commits, a second call revokes the key.

    If the key is current, the next usable future key becomes current. If this server stored the private key of the
    revoked key, this function generates the keys that are then missing: a current key, and a future key. If the key
    was revoked before, only live tokens that are not marked yet are marked.

    A key whose row was modified or inserted without this package can be revoked too. Its row gets a new HMAC, so that
    checks no longer report the row.

    Args:
        kid: the kid of the key, or at least its first 6 characters.
        reason: the reason, for the audit log.
        by: the user who revokes the key, or a name as a string.

    Raises:
        KeyUnavailable: there is no such key.
        KeyAltered: an attacker stored an unknown `use` in the row, so the row must be deleted instead.
        DatabaseError: nothing was changed, or not all tokens were marked.
    """
    keks = audit_keys.keks_for_revocation()
    key = queries.find_key(kid)
    use = _use_of(key, keks)
    pregenerated, failure = succession.pregenerate_keys(key)
    successor = generated = None
    newly_revoked = False
    with store.locked() as keys:
        # Read the clock after the keys were generated. If the clock were read earlier, the lead time would begin
        # before the keys are stored.
        now = now or ring.current_time()
        key = queries.find_key(kid, keys)
        recorded = _record([key.kid], keks, reason=reason, by=by, now=now)
        if key.status != Key.Status.REVOKED or not queries.is_authentic(key, keks):
            was_current, had_private = key.status == Key.Status.CURRENT, key.has_private
            store.mark_revoked(key, now, keks, reason=reason, by=by)
            newly_revoked = True
            try:
                if was_current:
                    successor = succession.activate_successor(
                        keys, use, pregenerated if had_private else [], now=now, previous_has_private=had_private
                    )
                current = successor if was_current else queries.current_key(keys, use)
                # If the private key of the current key is not stored on this server, generate no key. The private
                # key may belong to a gateway, and a rotation never replaces a gateway's key with a key pair that this
                # server has generated.
                if had_private and current is not None and current.has_private:
                    generated = succession.ensure_next_key(keys, use, pregenerated, now=now)
            except InstAccessError as error:
                # The new key could not be sealed and was not stored. Only report the error, so that the compromised
                # key is revoked nevertheless.
                failure = error.detail
    if newly_revoked:
        logger.warning(
            "key %(kid)s revoked by %(by)s: %(reason)r", kid=key.kid, by=getattr(by, "pk", by), reason=reason
        )
    if failure:
        logger.error(
            "no new %(use)s key was generated after a revocation: %(detail)s", use=str(use.label), detail=failure
        )
    tokens = _mark_tokens([key.kid], recorded, keks, reason=reason, by=by, now=now)
    return Revocation(key, successor, generated, tokens, failure)


def mark_tokens_of_revoked_keys(*, now: datetime) -> int:
    """Mark the live tokens of revoked keys as revoked in the audit log. Returns the number of marked tokens.

    Every rotation calls this function, because a worker with cached keys may have issued tokens after a revocation.
    """
    # Skip rows that aren't authentic. Otherwise, an attacker could revoke all tokens of a key by marking the key as
    # revoked in the table.
    kids = [key.kid for key in queries.authentic_keys(queries.stored_keys().filter(status=Key.Status.REVOKED))]
    keks = conf.key_encryption_keys
    recorded = _record(kids, keks, reason="", by=None, now=now)
    return _mark_tokens(kids, recorded, keks, reason="", by=None, now=now)


def _record(
    kids: Iterable[str], keks: Sequence[KeyEncryptionKey], *, reason: str, by: Any, now: datetime
) -> list[RevocationRow]:
    """Add keys to the revocation log, except keys that the log already contains. Returns the added entries."""
    scopes = [audit.Scope.key(kid) for kid in sorted(set(kids) - audit.recorded_keys())]
    return audit.record_revocation(scopes, keks=keks, reason=reason or _DEFAULT_REASON, by=by, now=now)


def _mark_tokens(
    kids: list[str],
    recorded: list[RevocationRow],
    keks: Sequence[KeyEncryptionKey],
    *,
    reason: str,
    by: Any,
    now: datetime,
) -> int:
    """Complete interrupted revocations, then mark the remaining live tokens of revoked keys as revoked.

    Args:
        kids: the kids of the revoked keys.
        recorded: the entries that this call has added to the revocation log.

    Returns the number of marked tokens that belong to these keys.
    """
    completed = audit.complete_revocations(keks=keks, recorded=recorded, by=by, now=now)
    tokens = audit.revocable_tokens(now=now).filter(audit.filter_by_keys(kids))
    marked = audit.mark_revoked(tokens, keks=keks, reason=reason or _DEFAULT_REASON, by=by, now=now)
    return marked + sum(completed[audit.Scope.key(kid)] for kid in kids)


def _use_of(key: Key, keks: Sequence[KeyEncryptionKey]) -> Key.Use:
    """Return the `use` of a key. Raises KeyAltered if an attacker stored an unknown value."""
    if key.use not in Key.Use.values:
        row_hmac.check(key, keks)
    return Key.Use(key.use)


def _decide(keys: QuerySet[Key], use: Key.Use, now: datetime, *, force: bool) -> rotation.Decision:
    authentic = queries.authentic_keys(keys.filter(use=use))
    return rotation.decide(authentic, use=use, now=now, times=ring.lifecycle_times(), force=force)
