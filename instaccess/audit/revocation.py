"""Issued tokens are revoked here, and only here: marked in the audit, from where every gateway learns of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone

from ..models import IssuedToken
from ..signals import tokens_revoked
from . import row_hmac
from .rows import expiry_cutoff, issued_tokens

logger = logging.getLogger("instaccess.revocation")


BATCH = 200
# What some database refuses: a token that must go is not kept for the sake of a word.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def revoke(
    tokens: QuerySet[IssuedToken],
    *,
    keks: Sequence[bytes],
    reason: str,
    by: Any = None,
    now: datetime | None = None,
) -> int:
    """Revoke these tokens; returns how many. Take them from `revocable()`, narrowed down.

    What was revoked before keeps its time, reason and author. Gateways refuse them within five seconds. `by` is a
    user, or a text where it was not one.
    """
    now, revoked = now or timezone.now(), 0
    reason = _storable(reason)
    for batch in _batches(tokens):
        # Once more: what has died since it was chosen may be sealed by now, and is not to change (`checkpoints.py`).
        rows = issued_tokens().filter(pk__in=batch, revoked_at=None, expires_at__gt=expiry_cutoff(now))
        said = {"revoked_at": now, "revoked_by": _name(by), "revocation_reason": reason[:255]}
        # What can't be read, for somebody has written to the table, is revoked all the same, and `verify` names it.
        found, unreadable = row_hmac.readable(rows)
        if unreadable:
            logger.error("rows that can't be read are revoked, and get no new HMAC: %s", unreadable)
        macs = [When(pk=row.pk, then=Value(mac)) for row in found if (mac := _mac_after(row, said, keks))]
        revoked += rows.update(mac=Case(*macs, default=F("mac")) if macs else F("mac"), **said)
        done = set(issued_tokens().filter(pk__in=batch, revoked_at=now).values_list("pk", flat=True))
        jtis = [str(row.jti) for row in found if row.pk in done]
        logger.warning("revoked %d tokens by=%s reason=%r jti=%s", len(jtis), getattr(by, "pk", by), reason, jtis)
        for receiver, error in tokens_revoked.send_robust(IssuedToken, jtis=jtis, reason=reason, by=by):
            if isinstance(error, Exception):
                logger.error("receiver %r of tokens_revoked failed: %s", receiver, error)
    return revoked


def _mac_after(row: IssuedToken, said: dict[str, Any], keks: Sequence[bytes]) -> str:
    """The HMAC of a row once it is revoked; none where the one it has does not fit the row, for a new one would
    cover up that somebody had edited it."""
    if not keks or row_hmac.row_status(row, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    for name, value in said.items():
        setattr(row, name, value)
    return row_hmac.authenticate(row_hmac.canonical_bytes(row), keks)


def _name(by: Any) -> str:
    return _storable(str(by.get_username() if hasattr(by, "get_username") else by or ""))[:255]


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _batches(tokens: QuerySet[IssuedToken]) -> Iterator[list[int]]:
    # Read once: what is issued while this runs is newer than the wish to revoke.
    pks = list(tokens.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(pks), BATCH):
        yield pks[start : start + BATCH]
