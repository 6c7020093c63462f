"""A user's uuid, display name, and who may act for whom."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, MultipleObjectsReturned, ValidationError
from django.db import DataError, router
from django.db.models import Model

from .conf import conf
from .exceptions import ConfigError, MasqueradeRefused, Reason
from .models import ServiceUser, UserIdentity

MAX_ID_CHARS = 255


def user_uuid(user: Any) -> str:
    """The uuid a user goes by. Raises ConfigError where USER_UUID_FIELD names no field or an empty one.

    Without that setting a random uuid is made, and written, the first time a user needs one. It comes with no query
    when the user was loaded with `select_related("instaccess_identity")`.
    """
    name = conf.user_uuid_field
    if name is None:
        try:
            return str(user.instaccess_identity.uuid)
        except UserIdentity.DoesNotExist:
            alias = router.db_for_write(UserIdentity, instance=user)
            identity, _ = UserIdentity.objects.using(alias).get_or_create(user=user)
            return str(identity.uuid)
    try:
        user._meta.get_field(name)  # not type(user): `request.user` is wrapped in a lazy object
    except FieldDoesNotExist:
        raise ConfigError(
            f"INSTACCESS['USER_UUID_FIELD'] names {name!r}, which is no field of {user._meta.label}",
            setting="USER_UUID_FIELD",
        ) from None
    value = getattr(user, name)
    if not value or len(str(value)) > MAX_ID_CHARS:
        raise ConfigError(
            f"user {user.pk} has no usable value in {name!r}: fill it, or unset INSTACCESS['USER_UUID_FIELD']",
            setting="USER_UUID_FIELD",
        )
    return str(value)


def loaded_uuid(user: Any) -> str:
    """The uuid a user goes by where it was loaded with them, else empty: without a query, and nothing is written."""
    if not isinstance(user, Model):
        return ""
    try:
        name = conf.user_uuid_field
    except ConfigError:
        return ""
    if name is None:
        identity = user._state.fields_cache.get("instaccess_identity")
        return str(identity.uuid) if identity is not None else ""
    return str(vars(user).get(name) or "")


def existing_uuid(user: Any) -> str:
    """The uuid a user goes by; empty where there is none yet. No query where the user was loaded with `related`."""
    field = _uuid_field()
    if field is not None:
        return str(getattr(user, field, None) or "")
    known = getattr(user, "instaccess_identity", None)
    return "" if known is None else str(known.uuid)


def user_relations(*references: str) -> list[str]:
    """What to load along with these references to users, for `select_related`."""
    if _uuid_field() is not None:
        return list(references)
    return [f"{reference}__instaccess_identity" for reference in references]


def display_name(user: Any, uuid: str) -> str | None:
    """What people call whom `uuid` stands for: the user's name where the reference is to whoever goes by that uuid.

    The HMAC of a row covers the uuid and not the reference, so one that disagrees may have been edited: None then.
    """
    return str(user) if user is not None and existing_uuid(user) == uuid else None


def _uuid_field() -> str | None:
    """The audit can be looked at whatever is wrong with a setting; then only uuids that we gave out have names."""
    try:
        return conf.user_uuid_field
    except ConfigError:
        return None


def active_user(text: str) -> Any:
    """The active local user who goes by this uuid; None where there is none, or where two share a field as theirs."""
    if "\0" in text:  # PostgreSQL refuses the whole query
        return None
    users = get_user_model()._default_manager
    name = conf.user_uuid_field
    try:
        if name is not None:
            user = users.get(**{name: text})
        else:
            identified = users.select_related("instaccess_identity")
            user = identified.get(instaccess_identity__uuid=uuid.UUID(text))
    except (get_user_model().DoesNotExist, MultipleObjectsReturned):
        return None
    except (ValidationError, ValueError, TypeError, OverflowError, DataError):  # such as NUL, on PostgreSQL
        return None
    # Databases that compare without case would find "ABC" for "abc".
    return user if user.is_active and user_uuid(user) == text else None


def service_user(application: Any) -> Any:
    """The user that an application is bound to act as when it comes for itself, or None."""
    bound = ServiceUser.objects.select_related("user", "user__instaccess_identity").filter(application=application)
    row = bound.first()
    return row.user if row else None


def masquerade_target(caller: Any, text: str) -> Any:
    """The user that `caller` may get a token for, named by primary key or `uuid:<uuid>`; the caller when it is them.

    Raises MasqueradeRefused, with the precise reason, for one that is unknown, inactive or not allowed.
    """
    target = active_user(text[5:]) if text.startswith("uuid:") else _by_primary_key(text)
    if target is None:
        raise MasqueradeRefused("there is no such active user", code=Reason.AS_USER_ID_UNKNOWN)
    if target.pk == caller.pk:
        return caller
    may = conf.masquerade_hook or may_masquerade
    # True and nothing else: an async hook, say, returns a coroutine, and that is truthy.
    if may(caller, target) is not True:
        raise MasqueradeRefused(f"not allowed as user {target.pk}", code=Reason.AS_USER_ID_NOT_ALLOWED)
    return target


def may_masquerade(caller: Any, target: Any) -> bool:
    """Whoever has the permission `instaccess.masquerade` may be anybody who holds no permission that they lack; a
    superuser only if they are one. MASQUERADE_HOOK replaces this rule."""
    return caller.has_perm("instaccess.masquerade") and holds_no_more_than(target, caller)


def holds_no_more_than(target: Any, caller: Any) -> bool:
    """Whether `target` may do nothing that `caller` may not."""
    if getattr(caller, "is_superuser", False):
        return True
    # Django says of an inactive user that they hold no permission; once active again they would.
    if not target.is_active or getattr(target, "is_superuser", False):
        return False
    return bool(target.get_all_permissions() <= caller.get_all_permissions())


def _by_primary_key(text: str) -> Any:
    users = get_user_model()._default_manager
    try:
        user = users.filter(pk=text).first()
    except (ValidationError, ValueError, TypeError, OverflowError, DataError):
        return None
    # "1", and neither "01", " 1" nor another script's digits for it.
    return user if user is not None and user.is_active and str(user.pk) == text else None
