"""Whom a uuid of the audit stands for. Nothing is written, and no reference is believed by itself."""

from __future__ import annotations

from typing import Any

from .conf import conf
from .exceptions import ConfigError


def uuid_of(user: Any) -> str:
    """The uuid a user goes by; empty where there is none yet. No query where the user was loaded with `related`."""
    field = _field()
    if field is not None:
        return str(getattr(user, field, None) or "")
    known = getattr(user, "instaccess_identity", None)
    return "" if known is None else str(known.uuid)


def related(*references: str) -> list[str]:
    """What to load along with these references to users, for `select_related`."""
    if _field() is not None:
        return list(references)
    return [f"{reference}__instaccess_identity" for reference in references]


def name(user: Any, uuid: str) -> str | None:
    """What people call whom `uuid` stands for: the user's name where the reference is to whoever goes by that uuid.

    The HMAC of a row covers the uuid and not the reference, so one that disagrees may have been edited: None then.
    """
    return str(user) if user is not None and uuid_of(user) == uuid else None


def _field() -> str | None:
    """The audit can be looked at whatever is wrong with a setting; then only uuids that we gave out have names."""
    try:
        return conf.user_uuid_field
    except ConfigError:
        return None
