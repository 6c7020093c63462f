"""Revocation: the only code that revokes issued tokens. The deny list contains the revoked tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone

from ..conf import KeyEncryptionKey
from ..models import IssuedToken
from ..signals import tokens_revoked
from ..users import user_name
from . import row_hmac
from .rows import expiry_cutoff, fit, issued_tokens

logger = logging.getLogger("instaccess.revocation")

BATCH = 200
"""Rows per UPDATE."""


def revoke(
    tokens: QuerySet[IssuedToken],
    *,
    keks: Sequence[KeyEncryptionKey],
    reason: str,
    by: Any = None,
    now: datetime | None = None,
) -> int:
    """Revoke tokens. Returns the number of revoked tokens.

    Gateways refuse the tokens within five seconds. If a token was revoked before, its row is not changed.

    Each batch of tokens is one transaction. If the function is interrupted, the next call revokes the remaining
    tokens. The log lines and the signals follow the commit; in a transaction of the caller, the caller's commit.

    Args:
        tokens: the rows of the tokens, filtered from `revocable_tokens()`.
        keks: the key-encryption keys, for the new HMACs of the rows. If empty, the rows get no new HMAC, and `verify`
            reports the rows.
        reason: stored in the rows, shortened to 255 characters. Characters that the database can't store become
            escape sequences.
        by: the user who revokes the tokens, or a string such as "uid 0 (root), command line".
        now: the time of the revocation. By default, the current time.

    Raises DatabaseError.
    """
    now, revoked = now or timezone.now(), 0
    reason = fit(reason, "revocation_reason")
    author = fit(user_name(by) if hasattr(by, "get_username") else str(by or ""), "revoked_by")
    changes = {"revoked_at": now, "revoked_by": author, "revocation_reason": reason}
    for batch in _pk_batches(tokens):
        with transaction.atomic(using=issued_tokens().db):
            count, jtis = _revoke_batch(batch, changes, keks)
            announce = partial(_announce, jtis, reason=reason, by=by)
            transaction.on_commit(announce, using=issued_tokens().db, robust=True)
        revoked += count
    return revoked


def _revoke_batch(
    batch: Sequence[int], changes: Mapping[str, Any], keks: Sequence[KeyEncryptionKey]
) -> tuple[int, list[str]]:
    """Revoke the tokens of a batch. Returns the number of revoked tokens, and the ids of the readable ones."""
    now = changes["revoked_at"]
    # The rows are filtered again. If a token has expired since the caller's query, a checkpoint may cover its row,
    # and `verify` would report a change of the row (see `evidence/checkpoints.py`).
    rows = issued_tokens().filter(pk__in=batch, revoked_at=None, expires_at__gt=expiry_cutoff(now))
    # An attacker with write access to the table can make rows unreadable. The tokens of unreadable rows are also
    # revoked, and `verify` reports these rows.
    loaded = row_hmac.load(rows)
    readable = [row for _, row in loaded if row is not None]
    if unreadable := [pk for pk, row in loaded if row is None]:
        logger.error("the tokens of unreadable rows are revoked, but the rows get no new HMAC: %s", unreadable)
    macs = [When(pk=row.pk, then=Value(mac)) for row in readable if (mac := _new_mac(row, changes, keks))]
    count = rows.update(mac=Case(*macs, default=F("mac")) if macs else F("mac"), **changes)
    updated = set(issued_tokens().filter(pk__in=batch, revoked_at=now).values_list("pk", flat=True))
    return count, [str(row.jti) for row in readable if row.pk in updated]


def _announce(jtis: list[str], *, reason: str, by: Any) -> None:
    """Log a revocation, and send the signal `tokens_revoked`."""
    logger.warning("revoked %d tokens by=%s reason=%r jti=%s", len(jtis), getattr(by, "pk", by), reason, jtis)
    for receiver, error in tokens_revoked.send_robust(IssuedToken, jtis=jtis, reason=reason, by=by):
        if isinstance(error, Exception):
            logger.error("receiver %r of tokens_revoked failed: %s", receiver, error)


def _new_mac(row: IssuedToken, changes: Mapping[str, Any], keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the HMAC of a row after its revocation.

    Returns an empty string if the current HMAC doesn't match, because a new HMAC would hide that the row was
    modified.
    """
    if not keks or row_hmac.row_status(row, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    for name, value in changes.items():
        setattr(row, name, value)
    return row_hmac.authenticate(row_hmac.canonical_bytes(row), keks)


def _pk_batches(tokens: QuerySet[IssuedToken]) -> Iterator[list[int]]:
    # The ids are read only once, because tokens that are issued during the revocation must not be revoked.
    pks = list(tokens.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(pks), BATCH):
        yield pks[start : start + BATCH]
