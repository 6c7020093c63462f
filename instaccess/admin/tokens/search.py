"""The search of the list of issued tokens: complete terms, compared by equality with indexed columns."""

from __future__ import annotations

import ipaddress
import uuid
from contextlib import suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from ...users import existing_uuid


def terms(text: str) -> list[str]:
    """Split a search into terms. Every term must match."""
    return text.replace("\x00", "").split()


def tokens_matching(term: str) -> Q:
    """Return the condition for tokens whose id, user, real user, client id or client address is the term."""
    # Load the users' primary keys first, so that the query on the audit log needs no join.
    user_pks = list(_find_users(term).values_list("pk", flat=True))
    condition = Q(client_id=term) | Q(user_uuid=term) | Q(real_user_uuid=term)
    if user_pks:
        condition |= Q(user__in=user_pks) | Q(real_user__in=user_pks)
    with suppress(ValueError):
        value = uuid.UUID(term)
        condition |= Q(jti=value) | Q(user_uuid=str(value)) | Q(real_user_uuid=str(value))
    with suppress(ValueError):
        condition |= Q(ip_address=str(ipaddress.ip_address(term)))
    return condition


def refusals_matching(term: str) -> Q | None:
    """Return the condition for refusals whose user or client id is the term.

    Returns None if the term is an IP address, because refusals are not counted by address.
    """
    with suppress(ValueError):
        ipaddress.ip_address(term)
        return None
    uuids = {term, *(existing_uuid(user) for user in _find_users(term))} - {""}
    with suppress(ValueError):
        uuids.add(str(uuid.UUID(term)))
    return Q(client_id=term) | Q(user_uuid__in=uuids)


def _find_users(name: str) -> Any:
    model = get_user_model()
    return model._default_manager.filter(**{model.USERNAME_FIELD: name})
