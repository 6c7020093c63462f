"""Which rows of the audit log: issued, live, revocable, and narrowed down by user or key."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..conf import conf
from ..exceptions import ConfigError
from ..models import IssuedToken
from ..tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME

logger = logging.getLogger("instaccess.revocation")


def issued_tokens() -> QuerySet[IssuedToken]:
    """All issued tokens, from the database they are written to."""
    return IssuedToken.objects.using(router.db_for_write(IssuedToken))


def live_tokens(*, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """Tokens that are valid by our own leeway and clock: not revoked, not expired."""
    now = now or timezone.now()
    expired = now - timedelta(seconds=_leeway())
    # `issued_at` is indexed, `expires_at` is not; nothing lives longer than an hour.
    oldest = expired - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    return issued_tokens().filter(issued_at__gt=oldest, expires_at__gt=expired, revoked_at=None)


def _leeway() -> int:
    try:
        return conf.leeway
    except ConfigError as error:
        logger.error("live tokens are told without a leeway: %s", error)
        return 0


def revocable_tokens(*, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """Tokens that some gateway might still let through, whatever its leeway and its clock: not only the live ones."""
    dead = expiry_cutoff(now or timezone.now())
    oldest = dead - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    return issued_tokens().filter(issued_at__gt=oldest, expires_at__gt=dead, revoked_at=None)


def expiry_cutoff(now: datetime) -> datetime:
    return now - timedelta(seconds=AFTERLIFE)


def token_status(revoked_at: datetime | None, expires_at: datetime, *, now: datetime) -> str:
    """`revoked`, `live` or `expired`: how people are told where a token stands."""
    if revoked_at is not None:
        return "revoked"
    return "live" if expires_at > now else "expired"


def filter_by_user(user: str) -> Q:
    """Tokens about a user, or got by them for somebody else; `user` is a user name or a user's uuid."""
    if not user:
        return Q(pk__in=[])  # most rows have no real user: an empty text would find them all
    model = get_user_model()
    users = model._default_manager.filter(**{model.USERNAME_FIELD: user})
    return Q(user__in=users) | Q(real_user__in=users) | Q(user_uuid=user) | Q(real_user_uuid=user)


def filter_by_keys(kids: list[str]) -> Q:
    """Tokens signed or encrypted with one of these keys."""
    return Q(signing_kid__in=kids) | Q(encryption_kid__in=kids)
