"""What people type into the search box: whole terms, each looked up in indexed columns by equality."""

from __future__ import annotations

import ipaddress
import uuid
from contextlib import suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from ...users import existing_uuid


def terms(text: str) -> list[str]:
    """The terms of a search; every one of them must match."""
    return text.replace("\x00", "").split()


def tokens_matching(term: str) -> Q:
    """Issued tokens that a term names: by token id, by user or real user, by client id, by address."""
    users = list(_users(term).values_list("pk", flat=True))
    # Asked first, so that what is asked of the big table is plain equality.
    condition = Q(client_id=term) | Q(user_uuid=term) | Q(real_user_uuid=term)
    if users:
        condition |= Q(user__in=users) | Q(real_user__in=users)
    with suppress(ValueError):
        value = uuid.UUID(term)
        condition |= Q(jti=value) | Q(user_uuid=str(value)) | Q(real_user_uuid=str(value))
    with suppress(ValueError):
        condition |= Q(ip_address=str(ipaddress.ip_address(term)))
    return condition


def refusals_matching(term: str) -> Q | None:
    """Refusals that a term names: by user, by client id; None for what refusals are not counted by."""
    with suppress(ValueError):
        ipaddress.ip_address(term)
        return None
    uuids = {term, *(existing_uuid(user) for user in _users(term))} - {""}
    with suppress(ValueError):
        uuids.add(str(uuid.UUID(term)))
    return Q(client_id=term) | Q(user_uuid__in=uuids)


def _users(name: str) -> Any:
    model = get_user_model()
    return model._default_manager.filter(**{model.USERNAME_FIELD: name})
