"""The OAuth2 tokens that clients exchange for InstAccess tokens: a summary for operators, and their revocation.

A client exchanges an OAuth2 access token for an InstAccess token. A client can also exchange a refresh token, an
authorization code or a device code for a new access token. If only the InstAccess tokens of a user are revoked, an
attacker with an OAuth2 token or a code of the user can get a new InstAccess token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db import router, transaction
from django.db.models import Count, Max, Q, QuerySet
from django.db.models.functions import Least
from django.utils import timezone
from oauth2_provider.models import (
    get_access_token_model,
    get_application_model,
    get_device_grant_model,
    get_grant_model,
    get_id_token_model,
    get_refresh_token_model,
)

from .. import users
from ..logs import get_logger
from .batches import slices
from .rows import issued_tokens

logger = get_logger("instaccess.revocation")

KINDS = ("access_tokens", "refresh_tokens", "authorization_codes", "device_codes", "id_tokens")

_BATCH = 500
"""The maximum number of OAuth2 tokens that one query loads to revoke the tokens."""

_LAST_USES = 5_000
"""The maximum number of audit rows that `summarize` reads to find the last use of each application."""


@dataclass(frozen=True, slots=True)
class OAuth2Tokens:
    """The usable OAuth2 tokens of one user for one application.

    Attributes:
        user: the user who owns the tokens.
        application: the name of the application.
        client_id: the client id of the application.
        counts: the number of tokens of each kind in `KINDS`. Kinds without tokens are absent.
        last_used: the time when the user last got an InstAccess token with this application. If no such token is
            found in the audit log, the time when one of the OAuth2 tokens was last changed in the database, or None.
    """

    user: Any
    application: str
    client_id: str
    counts: Counter[str]
    last_used: datetime | None

    @property
    def total(self) -> int:
        """The number of tokens of all kinds."""
        return self.counts.total()


def summarize(owners: Sequence[Any]) -> list[OAuth2Tokens]:
    """Return the usable OAuth2 tokens of users, with one item per user and application, ordered by both names.

    Runs a fixed number of queries. Raises DatabaseError if a query fails.
    """
    by_pk = {owner.pk: owner for owner in owners}
    counts: dict[tuple[Any, str], Counter[str]] = {}
    changed: dict[tuple[Any, str], datetime] = {}
    for kind, rows, owner, client in _sources(owners, timezone.now()):
        changed_at = Max("last_checked" if kind == "device_codes" else "updated")
        groups = rows.order_by().values_list(owner, client).annotate(Count("pk"), changed_at)
        for owner_pk, client_id, count, latest in groups:
            group = owner_pk, client_id or ""
            counts.setdefault(group, Counter())[kind] += count
            changed[group] = max(changed.get(group, latest), latest)
    names = _application_names({client_id for _, client_id in counts})
    uses = _last_uses([by_pk[pk] for pk, _ in counts])
    summary = [
        OAuth2Tokens(
            user=by_pk[pk],
            application=names.get(client_id, client_id),
            client_id=client_id,
            counts=each,
            last_used=uses.get((users.existing_uuid(by_pk[pk]), client_id), changed[pk, client_id]),
        )
        for (pk, client_id), each in counts.items()
    ]
    return sorted(summary, key=lambda item: (str(item.user), item.application, item.client_id))


def service_applications(owners: Sequence[Any]) -> list[str]:
    """Return the names of the applications that act as one of these users with the client credentials grant.

    Such an application gets a new OAuth2 access token with its client secret.
    """
    applications = _writable(get_application_model()).filter(instaccess_service_user__user__in=owners)
    return sorted(str(application) for application in applications)


def revoke(owners: Sequence[Any], *, reason: str, by: Any) -> int:
    """Revoke the usable OAuth2 tokens of users, in one transaction per database.

    A client that refreshes its token at the same time may create new tokens. The new tokens are revoked too.

    Args:
        reason: the reason, for the log.
        by: the user who revokes the tokens, or the name of an operator, for the log.

    Returns the number of revoked OAuth2 tokens. Raises DatabaseError if a query fails.
    """
    seen: set[tuple[Any, Any]] = set()
    with ExitStack() as transactions:
        for alias in {tokens.db for _, tokens, *_ in _sources(owners, timezone.now())}:
            transactions.enter_context(transaction.atomic(using=alias))
        while found := [
            (tokens.model, pk)
            for _, tokens, *_ in _sources(owners, timezone.now())
            for pk in tokens.order_by("pk").values_list("pk", flat=True)
            if (tokens.model, pk) not in seen
        ]:
            seen.update(found)
            for model, group in groupby(found, key=itemgetter(0)):
                _revoke(model, [pk for _, pk in group])
        alias = router.db_for_write(get_access_token_model())
        # Don't replace the lambda with a `functools.partial`. If the function fails, Django logs the name of the
        # function, and a `functools.partial` has no name.
        transaction.on_commit(lambda: _announce(owners, len(seen), reason=reason, by=by), using=alias, robust=True)
    return len(seen)


def _revoke(model: Any, pks: Sequence[Any]) -> None:
    for batch in slices(pks, _BATCH):
        # Load each batch just before its revocation, because revoking a refresh token deletes its access token.
        for token in _writable(model).filter(pk__in=batch).order_by("pk"):
            # Delete codes, because the toolkit has no method to revoke a code.
            getattr(token, "revoke", token.delete)()


def _announce(owners: Sequence[Any], count: int, *, reason: str, by: Any) -> None:
    logger.warning(
        "revoked %(tokens)d OAuth2 tokens of the users %(users)s by=%(by)s reason=%(reason)r",
        tokens=count,
        users=[str(owner.pk) for owner in owners],
        by=getattr(by, "pk", by),
        reason=reason,
    )


def _sources(owners: Sequence[Any], now: datetime) -> Iterator[tuple[str, QuerySet[Any], str, str]]:
    """Yield each kind of token with the usable tokens of users, and the names of the columns for owner and client id.

    The tokens must be revoked in this order: codes and refresh tokens come before the tokens that they create.
    """
    service_user = "application__instaccess_service_user__user"
    pks = [owner.pk for owner in owners]
    unexpired, of_owners = Q(expires__gt=now), Q(user__in=pks)
    client = "application__client_id"
    devices = _writable(get_device_grant_model())
    yield "authorization_codes", _writable(get_grant_model()).filter(of_owners, unexpired), "user", client
    yield "device_codes", devices.filter(of_owners, unexpired), "user", "client_id"
    yield "refresh_tokens", _writable(get_refresh_token_model()).filter(of_owners, revoked=None), "user", client
    access_tokens = _writable(get_access_token_model()).filter(unexpired)
    yield "access_tokens", access_tokens.filter(of_owners), "user", client
    # An access token without a user acts as the service user of its application.
    of_service = access_tokens.filter(Q(user=None) & Q(**{f"{service_user}__in": pks}))
    yield "access_tokens", of_service, service_user, client
    yield "id_tokens", _writable(get_id_token_model()).filter(of_owners, unexpired), "user", client


def _writable(model: Any) -> QuerySet[Any]:
    """Return all rows of a model, from the database for writes, because a replica may be outdated."""
    rows: QuerySet[Any] = model._default_manager.using(router.db_for_write(model))
    return rows


def _application_names(client_ids: set[str]) -> dict[str, str]:
    applications = _writable(get_application_model()).filter(client_id__in=client_ids)
    return {application.client_id: str(application) for application in applications}


def _last_uses(owners: Sequence[Any]) -> dict[tuple[str, str], datetime]:
    """Return the time of the last InstAccess token that each user got with each application, by uuid and client id.

    For a masquerade, the user is the real user, because the real user has the OAuth2 token.
    """
    uuids = {users.existing_uuid(owner) for owner in owners} - {""}
    rows = issued_tokens().filter(Q(real_user_uuid__in=uuids) | Q(user_uuid__in=uuids, real_user_uuid=""))
    # Don't order by `issued_at` alone, because a database could then scan the complete index on `issued_at` to find
    # the few rows of these users.
    rows = rows.order_by(Least("issued_at", "expires_at").desc())
    uses: dict[tuple[str, str], datetime] = {}
    columns = rows.values_list("real_user_uuid", "user_uuid", "client_id", "issued_at")
    for real_user_uuid, user_uuid, client_id, issued_at in columns[:_LAST_USES]:
        uses.setdefault((real_user_uuid or user_uuid, client_id), issued_at)
    return uses
