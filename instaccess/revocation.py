"""Issued tokens are revoked here, and only here: marked in the audit, from where every gateway learns of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.dispatch import Signal
from django.utils import timezone

from . import evidence
from .conf import conf
from .exceptions import ConfigError
from .models import IssuedToken
from .tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME

logger = logging.getLogger("instaccess.revocation")

tokens_revoked = Signal()
"""Sent after tokens were revoked, by IssuedToken: `jtis` (list of texts), `reason`, `by` (a user, a text such as
`root (command line)`, or None)."""

BATCH = 200
# What some database refuses: a token that must go is not kept for the sake of a word.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def audit() -> QuerySet[IssuedToken]:
    """All issued tokens, from the database they are written to."""
    return IssuedToken.objects.using(router.db_for_write(IssuedToken))


def live(*, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """Tokens that are valid by our own leeway and clock: not revoked, not expired."""
    now = now or timezone.now()
    expired = now - timedelta(seconds=_leeway())
    # `issued_at` is indexed, `expires_at` is not; nothing lives longer than an hour.
    oldest = expired - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    return audit().filter(issued_at__gt=oldest, expires_at__gt=expired, revoked_at=None)


def _leeway() -> int:
    try:
        return conf.leeway
    except ConfigError as error:
        logger.error("live tokens are told without a leeway: %s", error)
        return 0


def revocable(*, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """Tokens that some gateway might still let through, whatever its leeway and its clock: not only the live ones."""
    dead = _dead(now or timezone.now())
    oldest = dead - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    return audit().filter(issued_at__gt=oldest, expires_at__gt=dead, revoked_at=None)


def _dead(now: datetime) -> datetime:
    return now - timedelta(seconds=AFTERLIFE)


def status(revoked_at: datetime | None, expires_at: datetime, *, now: datetime) -> str:
    """`revoked`, `live` or `expired`: how people are told where a token stands."""
    if revoked_at is not None:
        return "revoked"
    return "live" if expires_at > now else "expired"


def of_user(user: str) -> Q:
    """Tokens about a user, or got by them for somebody else; `user` is a user name or a user's uuid."""
    if not user:
        return Q(pk__in=[])  # most rows have no real user: an empty text would find them all
    model = get_user_model()
    users = model._default_manager.filter(**{model.USERNAME_FIELD: user})
    return Q(user__in=users) | Q(real_user__in=users) | Q(user_uuid=user) | Q(real_user_uuid=user)


def under_keys(kids: list[str]) -> Q:
    """Tokens signed or encrypted with one of these keys."""
    return Q(signing_kid__in=kids) | Q(encryption_kid__in=kids)


def revoke(tokens: QuerySet[IssuedToken], *, reason: str, by: Any = None, now: datetime | None = None) -> int:
    """Revoke these tokens; returns how many. Take them from `revocable()`, narrowed down.

    What was revoked before keeps its time, reason and author. Gateways refuse them within five seconds. `by` is a
    user, or a text where it was not one.
    """
    now, revoked = now or timezone.now(), 0
    reason = _storable(reason)
    keks = _key_encryption_keys()
    for batch in _batches(tokens):
        # Once more: what has died since it was chosen may be sealed by now, and is not to change (`checkpoints.py`).
        rows = audit().filter(pk__in=batch, revoked_at=None, expires_at__gt=_dead(now))
        said = {"revoked_at": now, "revoked_by": _name(by), "revocation_reason": reason[:255]}
        # What can't be read, for somebody has written to the table, is revoked all the same, and `verify` names it.
        found, unreadable = evidence.readable(rows)
        if unreadable:
            logger.error("rows that can't be read are revoked, and get no new HMAC: %s", unreadable)
        macs = [When(pk=row.pk, then=Value(mac)) for row in found if (mac := _mac_after(row, said, keks))]
        revoked += rows.update(mac=Case(*macs, default=F("mac")) if macs else F("mac"), **said)
        done = set(audit().filter(pk__in=batch, revoked_at=now).values_list("pk", flat=True))
        jtis = [str(row.jti) for row in found if row.pk in done]
        logger.warning("revoked %d tokens by=%s reason=%r jti=%s", len(jtis), getattr(by, "pk", by), reason, jtis)
        for receiver, error in tokens_revoked.send_robust(IssuedToken, jtis=jtis, reason=reason, by=by):
            if isinstance(error, Exception):
                logger.error("receiver %r of tokens_revoked failed: %s", receiver, error)
    return revoked


def _mac_after(row: IssuedToken, said: dict[str, Any], keks: list[bytes]) -> str:
    """The HMAC of a row once it is revoked; none where the one it has does not fit the row, for a new one would
    cover up that somebody had edited it."""
    if not keks or evidence.verdict(row, keks) is not evidence.Verdict.AUTHENTIC:
        return ""
    for name, value in said.items():
        setattr(row, name, value)
    return evidence.authenticate(evidence.facts(row), keks)


def _key_encryption_keys() -> list[bytes]:
    """Empty where they can't be read: a token that must go is revoked all the same, and `verify` names its row."""
    try:
        return conf.key_encryption_keys
    except ConfigError as error:
        logger.error("the audit rows of revoked tokens get no new HMAC: %s", error)
        return []


def _name(by: Any) -> str:
    return _storable(str(by.get_username() if hasattr(by, "get_username") else by or ""))[:255]


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _batches(tokens: QuerySet[IssuedToken]) -> Iterator[list[int]]:
    # Read once: what is issued while this runs is newer than the wish to revoke.
    pks = list(tokens.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(pks), BATCH):
        yield pks[start : start + BATCH]
