"""Revocation: the only code that revokes issued tokens. The deny list contains the revoked tokens."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone

from ..conf import KeyEncryptionKey
from ..models import IssuedToken
from ..signals import tokens_revoked
from . import row_hmac
from .rows import expiry_cutoff, issued_tokens

logger = logging.getLogger("instaccess.revocation")

BATCH = 200
"""Rows per UPDATE."""

# These characters are replaced, because some databases can't store them. Otherwise, a reason with such a character
# would prevent a revocation.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


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

    Args:
        tokens: the rows of the tokens, filtered from `revocable_tokens()`.
        keks: the key-encryption keys, for the new HMACs of the rows. If empty, the rows get no new HMAC, and `verify`
            reports the rows.
        reason: stored in the rows, shortened to 255 characters.
        by: the user who revokes the tokens, or a string such as "uid 0 (root), command line".
        now: the time of the revocation. By default, the current time.

    Raises DatabaseError.
    """
    now, revoked = now or timezone.now(), 0
    reason = _storable(reason)
    for batch in _pk_batches(tokens):
        # The rows are filtered again. If a token has expired since the caller's query, a checkpoint may cover its
        # row, and `verify` would report a change of the row (see `evidence/checkpoints.py`).
        rows = issued_tokens().filter(pk__in=batch, revoked_at=None, expires_at__gt=expiry_cutoff(now))
        changes = {"revoked_at": now, "revoked_by": _user_name(by), "revocation_reason": reason[:255]}
        # An attacker with write access to the table can make rows unreadable. The tokens of unreadable rows are also
        # revoked, and `verify` reports these rows.
        loaded = row_hmac.load(rows)
        readable = [row for _, row in loaded if row is not None]
        if unreadable := [pk for pk, row in loaded if row is None]:
            logger.error("the tokens of unreadable rows are revoked, but the rows get no new HMAC: %s", unreadable)
        macs = [When(pk=row.pk, then=Value(mac)) for row in readable if (mac := _new_mac(row, changes, keks))]
        revoked += rows.update(mac=Case(*macs, default=F("mac")) if macs else F("mac"), **changes)
        updated = set(issued_tokens().filter(pk__in=batch, revoked_at=now).values_list("pk", flat=True))
        jtis = [str(row.jti) for row in readable if row.pk in updated]
        logger.warning("revoked %d tokens by=%s reason=%r jti=%s", len(jtis), getattr(by, "pk", by), reason, jtis)
        for receiver, error in tokens_revoked.send_robust(IssuedToken, jtis=jtis, reason=reason, by=by):
            if isinstance(error, Exception):
                logger.error("receiver %r of tokens_revoked failed: %s", receiver, error)
    return revoked


def _new_mac(row: IssuedToken, changes: dict[str, Any], keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the HMAC of a row after its revocation.

    Returns an empty string if the current HMAC doesn't match, because a new HMAC would hide that the row was
    modified.
    """
    if not keks or row_hmac.row_status(row, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    for name, value in changes.items():
        setattr(row, name, value)
    return row_hmac.authenticate(row_hmac.canonical_bytes(row), keks)


def _user_name(by: Any) -> str:
    return _storable(str(by.get_username() if hasattr(by, "get_username") else by or ""))[:255]


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _pk_batches(tokens: QuerySet[IssuedToken]) -> Iterator[list[int]]:
    # The ids are read only once, because tokens that are issued during the revocation must not be revoked.
    pks = list(tokens.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(pks), BATCH):
        yield pks[start : start + BATCH]
