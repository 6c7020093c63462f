"""Revocation of InstAccess tokens together with the OAuth2 tokens that clients exchange for new InstAccess tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from ..conf import KeyEncryptionKey
from ..exceptions import ConfigError
from ..models import IssuedToken
from ..users import existing_uuid, user_uuid
from . import oauth2_tokens, revocation
from .rows import current_time, fit, issued_tokens
from .scopes import Scope

IN_FLIGHT = 5
"""The time, in seconds after OAuth2 tokens were revoked, during which new tokens of the users are revoked too.

A request may have read an OAuth2 access token before its revocation, and get an InstAccess token afterwards.
"""


@dataclass(frozen=True, slots=True)
class Revoked:
    """The number of audit rows that were marked as revoked, and the number of revoked OAuth2 tokens."""

    tokens: int
    oauth2_tokens: int


def revoke_with_oauth2_tokens(
    tokens: QuerySet[IssuedToken],
    owners: Sequence[Any],
    *,
    keks: Sequence[KeyEncryptionKey],
    reason: str,
    by: Any = None,
    scopes: Sequence[Scope] = (),
) -> Revoked:
    """Revoke tokens together with the OAuth2 tokens of users, so that clients can't get new InstAccess tokens.

    One transaction revokes the OAuth2 tokens and records the revocation of the scopes. The recorded reason ends with
    the number of revoked OAuth2 tokens. If a call is interrupted, the next call completes the revocation.

    Args:
        tokens: the rows of the tokens, filtered from `revocable_tokens()`.
        owners: the users whose OAuth2 tokens are revoked. All InstAccess tokens of these users are revoked too.
        keks: the key-encryption keys, for the new HMACs of the rows.
        reason: the reason. If necessary, the reason is shortened, so that the number of OAuth2 tokens fits.
        by: the user who revokes the tokens, or a string such as "uid 0 (root), command line".
        scopes: the scopes of `tokens`. The scopes of the owners are added.

    Raises DatabaseError if a query fails.
    """
    uuids = [_ensure_uuid(owner) for owner in owners]
    scopes = list(dict.fromkeys([*scopes, *(Scope.user(uuid) for uuid in uuids if uuid)]))
    # Revoke the OAuth2 tokens before the time of the revocation is read. In the reverse order, a client could get a
    # token after this time.
    with transaction.atomic(using=issued_tokens().db):
        count = oauth2_tokens.revoke(owners, reason=reason, by=by)
        noted = _note_count(reason, count)
        moment = current_time()
        latest = max(revocation.latest_iat(tokens, moment), int(moment.timestamp()) + IN_FLIGHT)
        recorded = revocation.record(scopes, keks=keks, reason=noted, by=by, now=moment, latest_iat=latest)
    revoked = revocation.finish(tokens, recorded, keks=keks, reason=noted, by=by, moment=moment)
    return Revoked(revoked, count)


def _ensure_uuid(owner: Any) -> str:
    """Return the uuid of a user, and create a missing uuid.

    Returns "" if INSTACCESS['USER_UUID_FIELD'] is invalid, or if this field of the user contains no uuid.
    """
    with suppress(ConfigError):
        return existing_uuid(owner) or user_uuid(owner)
    return ""


def _note_count(reason: str, count: int) -> str:
    """Add the number of revoked OAuth2 tokens to a reason. Shorten the reason if the result would be too long."""
    note = f" ({count} OAuth2 token{'s' * (count != 1)} revoked too)"
    length: Any = IssuedToken._meta.get_field("revocation_reason").max_length
    return fit(reason, "revocation_reason")[: length - len(note)] + note
