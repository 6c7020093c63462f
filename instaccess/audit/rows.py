"""Querysets of audit rows for issued, live and revocable tokens, and filters by user, application, account or key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import Error as DbError
from django.db import router
from django.db.models import F, Q, QuerySet

from .. import charsets, database_clock, users
from ..conf import conf
from ..exceptions import ConfigError
from ..logs import get_logger
from ..models import IssuedToken
from ..tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME

logger = get_logger("instaccess.revocation")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def issued_tokens() -> QuerySet[IssuedToken]:
    """Return all audit rows, from the database for writes, because a replica may be outdated."""
    return IssuedToken.objects.using(router.db_for_write(IssuedToken))


def require_columns(rows: QuerySet[Any], error: Exception) -> None:
    """Raise DatabaseError if the table of these rows lacks a column of the model.

    During an upgrade, checks run before `migrate` has added the columns of the new release. Without this function,
    every row of such a table would look as if it had been modified.

    Args:
        error: the error with which a query of the rows has failed. If a column is missing and `error` is a
            DatabaseError, the function raises `error`. After a failed query, PostgreSQL refuses every query of the
            same transaction, and the error of a later query doesn't name the missing column.
    """
    every_row = rows.model._base_manager.using(rows.db)
    try:
        # This query reads every column, but matches no row, so that no value can make the query fail.
        list(every_row.filter(pk=F("pk") + 1))
    except DbError:
        if not isinstance(error, DbError):
            raise
    else:
        return
    raise error


def current_time() -> datetime:
    """Return the time of the database that contains the audit log. Raises DatabaseError."""
    return database_clock.now(router.db_for_write(IssuedToken))


def live_tokens(*, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """Return the audit rows of tokens that are neither revoked nor expired.

    A token has expired when the database's clock is past `expires_at` plus INSTACCESS['LEEWAY'].
    """
    now = now or current_time()
    expired = now - timedelta(seconds=_leeway())
    # The condition on `issued_at` lets the database use an index, because `expires_at` isn't indexed. All live tokens
    # meet the condition, because every token expires at most one hour after its issue.
    oldest = expired - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    return issued_tokens().filter(issued_at__gt=oldest, expires_at__gt=expired, revoked_at=None)


def _leeway() -> int:
    try:
        return conf.leeway
    except ConfigError as error:
        logger.error(
            "live tokens are determined without INSTACCESS['LEEWAY'], because a setting is invalid: %(detail)s",
            reason=error.code,
            detail=str(error),
        )
        return 0


def revocable_tokens(*, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """Return the audit rows of unrevoked tokens that a gateway with the maximum leeway may still accept."""
    cutoff = expiry_cutoff(now or current_time())
    oldest = cutoff - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    return issued_tokens().filter(issued_at__gt=oldest, expires_at__gt=cutoff, revoked_at=None)


def expiry_cutoff(now: datetime) -> datetime:
    """Return the latest `expires_at` of the tokens that every gateway refuses as expired at the time `now`."""
    return now - timedelta(seconds=AFTERLIFE)


def token_status(revoked_at: datetime | None, expires_at: datetime, *, now: datetime) -> str:
    """Return the status of a token for display: `revoked`, `live` or `expired`."""
    if revoked_at is not None:
        return "revoked"
    return "live" if expires_at > now else "expired"


def fit(text: str, column: str) -> str:
    """Convert a string to the form that a column stores (see `charsets.fit`). Raises DatabaseError."""
    return charsets.fit(text, IssuedToken._meta.get_field(column), using=issued_tokens().db)


def filter_by_user(user: str) -> Q:
    """Return a filter for audit rows whose subject or real user has the user name or uuid `user`.

    Both current user names and the names that were recorded when a token was issued match, so the filter also finds
    tokens of deleted users.
    """
    if not user:
        return Q(pk__in=[])  # An empty string would match every row without a real user.
    named = users.named(user)
    current = Q(user__in=named) | Q(real_user__in=named)
    return current | filter_by_recorded_name(user) | filter_by_uuid(user)


def filter_by_recorded_name(name: str) -> Q:
    """Return a filter for audit rows whose subject or real user had this user name when the token was issued."""
    return Q(user_name=fit(name, "user_name")) | Q(real_user_name=fit(name, "real_user_name"))


def filter_by_uuid(uuid: str) -> Q:
    """Return a filter for audit rows whose subject or real user has this uuid."""
    return Q(user_uuid=fit(uuid, "user_uuid")) | Q(real_user_uuid=fit(uuid, "real_user_uuid"))


def filter_by_application(client_id: str) -> Q:
    """Return a filter for audit rows of tokens that were issued to the application with this client id."""
    return Q(client_id=fit(client_id, "client_id"))


def filter_by_account(account_uuid: str) -> Q:
    """Return a filter for audit rows of tokens for the account with this uuid."""
    return Q(account_uuid=fit(account_uuid, "account_uuid"))


def filter_by_access(since: datetime | None, until: datetime | None) -> Q:
    """Return a filter for audit rows of tokens that were valid at some time in a period.

    A token is valid from its issue until its revocation, or until its expiry plus INSTACCESS['LEEWAY'].

    Args:
        since: the start of the period, or None for a period without a start.
        until: the end of the period, which is not part of the period, or None for a period without an end.
    """
    condition = Q() if until is None else Q(issued_at__lt=until)
    if since is None:
        return condition
    # The year 1970 precedes every token. With an earlier time, the subtraction could overflow.
    expired = max(since, EPOCH) - timedelta(seconds=_leeway())
    # The condition on `issued_at` lets the database use an index, because `expires_at` isn't indexed.
    oldest = expired - timedelta(seconds=MAX_LIFETIME + CLOCK_SKEW)
    condition &= Q(issued_at__gt=oldest, expires_at__gt=expired)
    return condition & (Q(revoked_at=None) | Q(revoked_at__gt=since))


def filter_by_keys(kids: list[str]) -> Q:
    """Return a filter for audit rows of tokens that were signed with, or encrypted for, any of the keys `kids`."""
    return Q(signing_kid__in=kids) | Q(encryption_kid__in=kids)
