"""Revocation of issued tokens. No other code revokes tokens.

To revoke all tokens of a user, an account or a key, one revocation is recorded (`revocation_log.py`). Gateways then
refuse the tokens. The audit rows of the tokens are marked afterwards, in batches. If a process is killed before all
rows are marked, `complete` marks the remaining rows. To revoke single tokens, their audit rows are marked. Gateways
then refuse these tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import QuerySet

from ..conf import KeyEncryptionKey
from ..logs import get_logger
from ..models import IssuedToken, Revocation
from ..signals import TokensRevoked, tokens_revoked
from ..tokens import CLOCK_SKEW
from ..users import operator_name
from . import revocation_log
from .batches import slices
from .marking import mark_batch
from .revocation_log import Act
from .rows import current_time, fit, issued_tokens, revocable_tokens
from .scopes import Coverage, Scope, latest_issued_at, read_columns

logger = get_logger("instaccess.revocation")

BATCH = 500
"""The maximum number of audit rows that one UPDATE marks as revoked."""


def revoke(
    tokens: QuerySet[IssuedToken],
    *,
    keks: Sequence[KeyEncryptionKey],
    reason: str,
    by: Any = None,
    now: datetime | None = None,
    scopes: Sequence[Scope] = (),
) -> int:
    """Revoke tokens. Returns the number of audit rows that were marked as revoked.

    Gateways refuse a token within five seconds after its revocation was committed. The row of a token that is already
    revoked is not changed.

    Each batch of audit rows is marked in one transaction. If a call is interrupted, call the function again to revoke
    the remaining tokens or to mark their rows. After a batch is committed, the function writes a log line, and sends
    the signal `tokens_revoked`. If the caller has opened a transaction, the log line and the signal follow the
    caller's commit.

    Args:
        tokens: the rows of the tokens, filtered from `revocable_tokens()`.
        keks: the key-encryption keys, for the new HMACs of the rows. If empty, the rows get no new HMAC, and `verify`
            reports the rows.
        reason: the reason, which is stored in the rows, shortened to 255 characters. Characters that the database
            can't store become escape sequences.
        by: the user who revokes the tokens, or a string such as "uid 0 (root), command line".
        now: the time of the revocation. By default, the current time.
        scopes: the users or accounts of the tokens. If given, one commit revokes all tokens of these users or
            accounts. If not given, each commit revokes one batch of tokens.

    Raises DatabaseError if a query fails.
    """
    if not scopes:
        return _revoke_single(_ids(tokens), keks, reason, by, now)
    moment = now or current_time()
    latest = latest_iat(tokens, moment)
    recorded = record(scopes, keks=keks, reason=reason, by=by, now=moment, latest_iat=latest)
    return finish(tokens, recorded, keks=keks, reason=reason, by=by, moment=moment, now=now)


def finish(
    tokens: QuerySet[IssuedToken],
    recorded: Sequence[Revocation],
    *,
    keks: Sequence[KeyEncryptionKey],
    reason: str,
    by: Any,
    moment: datetime,
    now: datetime | None = None,
) -> int:
    """Mark the audit rows of revocations that were just recorded, and revoke each token outside the recorded scopes.

    `moment` is the time of the recorded revocations. `revoke` describes the other arguments and the result.
    """
    revoked = _revoke_single(_ids_outside(tokens, Coverage(recorded)), keks, reason, by, now)
    marked = complete(keks=keks, recorded=recorded, by=by, now=now)
    # The recorded revocation doesn't cover tokens of an issuer whose clock is fast by more than `CLOCK_SKEW`. Revoke
    # these tokens one by one, because a gateway with a fast clock would accept these tokens.
    ahead = tokens.filter(issued_at__gt=moment + timedelta(seconds=CLOCK_SKEW))
    revoked += _revoke_single(_ids(ahead), keks, reason, by, now)
    return revoked + sum(marked[scope] for scope in map(Scope.of, recorded))


def record(
    scopes: Sequence[Scope],
    *,
    keks: Sequence[KeyEncryptionKey],
    reason: str,
    now: datetime,
    by: Any = None,
    latest_iat: int | None = None,
) -> list[Revocation]:
    """Record that all tokens of scopes are revoked, without marking the audit rows of the tokens.

    The caller must call `complete` after the commit. `revoke` and `revocation_log.record` describe the arguments.
    Returns the recorded revocations.
    """
    return revocation_log.record(scopes, _act(reason, by, now), latest_iat=latest_iat, keks=keks)


def complete(
    *,
    keks: Sequence[KeyEncryptionKey],
    recorded: Sequence[Revocation] = (),
    by: Any = None,
    now: datetime | None = None,
) -> Counter[Scope]:
    """Mark the audit rows of incomplete revocations, with the time and the reason of each revocation.

    Args:
        recorded: the revocations that the caller has just recorded. Earlier revocations that were interrupted are
            completed too.
        by: the user who revokes the tokens, for the signal `tokens_revoked`.

    Returns the number of marked rows for each scope. Raises DatabaseError if a query fails.
    """
    now, marked = now or current_time(), Counter[Scope]()
    pending = [*recorded, *_interrupted(recorded, keks)]
    if not pending:
        return marked
    coverage = Coverage(pending)
    rows: dict[Revocation, list[int]] = {}
    for row in read_columns(revocable_tokens(now=now).filter(coverage.filter())):
        if (revocation := coverage.find(row)) is not None:
            rows.setdefault(revocation, []).append(row.pk)
    for revocation, pks in rows.items():
        author = by if revocation in recorded else revocation.revoked_by
        marked[Scope.of(revocation)] += _mark(pks, Act.of(revocation), keks, author, now)
    revocation_log.revocations().filter(pk__in=[each.pk for each in pending]).update(completed_at=now)
    return marked


def mark(
    tokens: QuerySet[IssuedToken],
    *,
    keks: Sequence[KeyEncryptionKey],
    reason: str,
    now: datetime,
    by: Any = None,
) -> int:
    """Mark the audit rows of tokens that a recorded revocation already covers.

    For example, a process with cached keys may have signed a token after the signing key was revoked. `revoke`
    describes the arguments. Returns the number of marked rows. Raises DatabaseError if a query fails.
    """
    return _mark(_ids(tokens), _act(reason, by, now), keks, by, now)


def _interrupted(recorded: Sequence[Revocation], keks: Sequence[KeyEncryptionKey]) -> Iterator[Revocation]:
    for revocation in revocation_log.revocations().filter(completed_at=None):
        if revocation in recorded:
            continue
        if revocation_log.is_authentic(revocation, keks):
            yield revocation
        else:
            # Don't mark audit rows, because an attacker may have inserted this revocation. Gateways nevertheless
            # refuse the tokens that the revocation covers.
            logger.error(
                "revocation %(revocation)s has no valid HMAC, so no audit row is marked", revocation=revocation.number
            )


def latest_iat(tokens: QuerySet[IssuedToken], now: datetime) -> int:
    """Return the latest time of issue that a revocation covers, in seconds since 1970.

    If the clock of an issuer is fast, the time of issue of a token can be later than `now`. The result is at most
    CLOCK_SKEW seconds after `now`. The caller revokes tokens with a later time of issue one by one, because a gateway
    whose clock is fast would accept these tokens.
    """
    latest, current = latest_issued_at(tokens), int(now.timestamp())
    return current if latest is None else min(max(current, int(latest.timestamp())), current + CLOCK_SKEW)


def _revoke_single(
    pks: Sequence[int], keks: Sequence[KeyEncryptionKey], reason: str, by: Any, now: datetime | None
) -> int:
    """Revoke single tokens in batches, one transaction per batch. Returns the number of revoked tokens."""
    revoked = 0
    for batch in slices(pks, BATCH):
        act = _act(reason, by, now or current_time())
        with revocation_log.reserve_numbers(1, act.revoked_at) as number:
            count, jtis = mark_batch(batch, act, keks, act.revoked_at)
            if count:
                revocation_log.record_batch(number, act, keks=keks)
                _announce_after_commit(jtis, count, act, by)
        revoked += count
    return revoked


def _mark(pks: Sequence[int], act: Act, keks: Sequence[KeyEncryptionKey], by: Any, now: datetime) -> int:
    marked = 0
    for batch in slices(pks, BATCH):
        count, jtis = mark_batch(batch, act, keks, now)
        if count:
            _announce_after_commit(jtis, count, act, by)
        marked += count
    return marked


def _announce_after_commit(jtis: list[str], count: int, act: Act, by: Any) -> None:
    """Log the revocation of a batch of tokens, and send the signal `tokens_revoked`, both after the commit."""

    def build_facts() -> TokensRevoked:
        return {
            "jtis": jtis,
            "count": count,
            "reason": act.reason,
            "by": operator_name(by),
            "by_user_id": getattr(by, "pk", None),
        }

    def announce() -> None:
        logger.warning(
            "revoked %(tokens)d tokens by=%(by)s reason=%(reason)r jti=%(jti)s",
            tokens=count,
            by=getattr(by, "pk", by),
            reason=act.reason,
            jti=jtis,
        )
        tokens_revoked.announce(IssuedToken, build_facts)

    transaction.on_commit(announce, using=issued_tokens().db, robust=True)


def _act(reason: str, by: Any, now: datetime) -> Act:
    return Act(now, fit(operator_name(by), "revoked_by"), fit(reason, "revocation_reason"))


def _ids(tokens: QuerySet[IssuedToken]) -> list[int]:
    return list(tokens.order_by("pk").values_list("pk", flat=True))


def _ids_outside(tokens: QuerySet[IssuedToken], coverage: Coverage) -> list[int]:
    """Return the ids of the audit rows that are outside the scopes of `coverage`."""
    if connections[tokens.db].vendor == "mysql":
        # MariaDB ignores case in comparisons, so `is_in_scope` compares the values again.
        return [row.pk for row in read_columns(tokens) if not coverage.is_in_scope(row)]
    return _ids(tokens.exclude(coverage.filter()))
