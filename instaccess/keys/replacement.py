"""Replacement of all keys after the database was restored from a backup.

The restored database lacks all revocations that were made after the backup, so the database doesn't show which keys
and tokens these revocations concerned. Therefore, all issued tokens are revoked, and all keys except the keys that
the operator asks to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet

from .. import audit, trust
from ..conf import KeyEncryptionKey, conf
from ..exceptions import KeyRefused, Reason
from ..logs import get_logger
from ..models import Key, Revocation
from ..tokens import CLOCK_SKEW, PrivateKey
from . import queries, ring, row_hmac, store

logger = get_logger("instaccess.keys")

REASON = "the database was restored from a backup"


@dataclass(frozen=True, slots=True)
class Plan:
    """The keys that `replace_all` revokes, keeps and generates.

    Attributes:
        revoked: the keys to revoke.
        kept: the keys that the operator asked to keep.
        generated: the use and the status of each key to generate.
        missing: whether no encryption key is current after the replacement, because only a gateway has the private
            key of the revoked encryption key. This server can't generate a new key for the gateway.
    """

    revoked: tuple[Key, ...]
    kept: tuple[Key, ...]
    generated: tuple[tuple[Key.Use, Key.Status], ...]
    missing: bool


@dataclass(frozen=True, slots=True)
class Replacement:
    """The result of `replace_all`.

    Attributes:
        plan: the plan that was carried out.
        generated: the new keys.
        refused_until: all tokens with a time of issue up to `refused_until` are refused.
        tokens: the number of live tokens that were marked as revoked in the audit log.
    """

    plan: Plan
    generated: tuple[Key, ...]
    refused_until: datetime
    tokens: int


def plan_replacement(keep: Collection[str] = (), *, keys: QuerySet[Key] | None = None) -> Plan:
    """Decide what `replace_all` would do, without changing anything.

    Args:
        keep: as in `replace_all`.
        keys: a queryset of all keys, if the caller holds the lock. None reads the keys without the lock.

    Raises ConfigError, UnsealError, KeyUnavailable, KeyRefused or DatabaseError, as `replace_all` does.
    """
    rows, errors = queries.examine(keys)
    for error in errors.values():
        # Stop if a key-encryption key is missing. Without this key-encryption key, the rows of old keys can't be
        # authenticated, so `mark_revoked` would erase their public keys. Checkpoints that were signed with these keys
        # could then not be verified.
        if error.code == Reason.KEK_MISSING:
            raise error
    revocable = [row for row in rows if row.status != Key.Status.REVOKED and row_hmac.is_revocable(row)]
    kept = _find_kept(keep, revocable, altered=errors.keys())
    revoked = [row for row in revocable if row not in kept]
    generated = [(Key.Use.SIGNING, Key.Status.CURRENT), (Key.Use.SIGNING, Key.Status.FUTURE)]
    missing = False
    if not _has_current_encryption_key(kept):
        missing = _belongs_to_gateway(row for row in revocable if row.pk not in errors)
        if not missing:
            generated.append((Key.Use.ENCRYPTION, Key.Status.CURRENT))
    return Plan(tuple(revoked), tuple(kept), tuple(generated), missing)


def replace_all(*, keep: Collection[str] = (), reason: str = REASON, by: Any = None) -> Replacement:
    """Revoke all tokens, revoke all keys except the keys in `keep`, and generate new keys.

    The changes to keys and the entries of the revocation log are written in one transaction. After the commit of this
    transaction, gateways refuse all tokens that were issued before the commit. The live tokens are marked as revoked
    after the commit. If the function is interrupted, the next call replaces all keys again, and marks the remaining
    tokens.
    If a database router stores the audit log in another database, the entries are committed before the changes to
    keys.

    Tokens that are issued in the next `CLOCK_SKEW` seconds are refused too. Before the restore, a server with a fast
    clock may have issued tokens with these times of issue, and the backup doesn't contain the audit rows of these
    tokens.

    Args:
        keep: the kids of the encryption keys and signing keys to keep. This server must not have their private keys.
            Before the operator keeps a key, the owner of its private key must confirm that the key is not revoked.
        by: the operator, as a user or a name.

    Raises:
        ConfigError: KEY_ENCRYPTION_KEYS is invalid. Nothing was changed.
        UnsealError: the key-encryption key of a row is not configured. Nothing was changed.
        KeyUnavailable, KeyRefused: a key of `keep` does not exist, or can't be kept. Nothing was changed.
        DatabaseError: nothing was changed, or not all tokens were marked.
    """
    keks = conf.key_encryption_keys
    pregenerated = [(use, status, trust.generate_key(use)) for use, status in plan_replacement(keep).generated]
    with store.locked() as keys:
        # Read the clock and the keys again, because generating keys and waiting for the lock took time.
        now = ring.current_time()
        plan = plan_replacement(keep, keys=keys)
        refused_until = int(now.timestamp()) + CLOCK_SKEW
        recorded = _record(keys, plan, keks, latest_iat=refused_until, reason=reason, by=by, now=now)
        for key in plan.revoked:
            store.mark_revoked(key, now, keks, reason=reason, by=by)
        generated = _store(pregenerated, plan, now)
    until = datetime.fromtimestamp(refused_until, UTC)
    logger.warning(
        "all keys were replaced (kept: %(kept)s), and all tokens issued until %(until)s were revoked, by %(by)s: "
        "%(reason)r",
        kept=[key.kid for key in plan.kept],
        until=until,
        by=getattr(by, "pk", by),
        reason=reason,
    )
    marked = audit.complete_revocations(keks=keks, recorded=recorded, by=by, now=now)
    return Replacement(plan, generated, until, sum(marked.values()))


def _find_kept(keep: Collection[str], revocable: Sequence[Key], *, altered: Collection[int]) -> list[Key]:
    kept = []
    for kid in keep:
        key = queries.find_key(kid)
        if key.has_private:
            raise KeyRefused(f"key {key.kid} can't be kept: its private key is in the backup")
        if key not in revocable or key.pk in altered:
            raise KeyRefused(f"key {key.kid} can't be kept: it is revoked, or its row was modified")
        kept.append(key)
    return kept


def _has_current_encryption_key(keys: Iterable[Key]) -> bool:
    return any((key.use, key.status) == (Key.Use.ENCRYPTION, Key.Status.CURRENT) for key in keys)


def _belongs_to_gateway(keys: Iterable[Key]) -> bool:
    """Return whether the current encryption key is the public key of a gateway.

    If no encryption key is current, the other encryption keys are checked instead, except past keys.
    """
    rows = [key for key in keys if key.use == Key.Use.ENCRYPTION]
    current = [key for key in rows if key.status == Key.Status.CURRENT]
    return any(not key.has_private for key in current or rows if not _is_erased(key))


def _is_erased(key: Key) -> bool:
    """Return whether a key is a past key. The private key of a past key may have been erased after its retention."""
    return key.status == Key.Status.PAST


def _record(
    keys: QuerySet[Key],
    plan: Plan,
    keks: Sequence[KeyEncryptionKey],
    *,
    latest_iat: int,
    reason: str,
    by: Any,
    now: datetime,
) -> list[Revocation]:
    # Add keys that were revoked before the backup too, unless the revocation log already contains these keys.
    stored = {key.kid for key in row_hmac.load(keys)[0] if row_hmac.is_revocable(key)}
    kids = stored - {key.kid for key in plan.kept} - audit.recorded_keys()
    scopes = [audit.Scope.everything(), *map(audit.Scope.key, sorted(kids))]
    return audit.record_revocation(scopes, keks=keks, reason=reason, by=by, now=now, latest_iat=latest_iat)


def _store(
    pregenerated: Sequence[tuple[Key.Use, Key.Status, PrivateKey]], plan: Plan, now: datetime
) -> tuple[Key, ...]:
    return tuple(
        store.store(private, use=use, status=status, now=now)
        for use, status, private in pregenerated
        if (use, status) in plan.generated
    )
