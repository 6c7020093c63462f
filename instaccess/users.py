"""The uuid and display name of a user, and the rule for masquerading.

A masquerade is a token for another user, requested with `as_user_id`. The caller is then the real user.
"""

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
    """Return the uuid of a user, and create one if the user has none.

    If USER_UUID_FIELD is set, the uuid is the value of the field that the setting names. Otherwise, the uuid is
    random and is stored in `UserIdentity`. No query is needed if the user was loaded with
    `select_related("instaccess_identity")`.

    Raises ConfigError if USER_UUID_FIELD names an unknown field, or if the field is empty or longer than 255
    characters.
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
        user._meta.get_field(name)  # `type(user)` has no `_meta` if `user` is `request.user`, a lazy object.
    except FieldDoesNotExist:
        raise ConfigError(
            f"INSTACCESS['USER_UUID_FIELD'] names {name!r}, which is not a field of {user._meta.label}",
            setting="USER_UUID_FIELD",
        ) from None
    value = getattr(user, name)
    if not value or len(str(value)) > MAX_ID_CHARS:
        raise ConfigError(
            f"user {user.pk} has no uuid of 1 to {MAX_ID_CHARS} characters in {name!r}: set it, or remove "
            "INSTACCESS['USER_UUID_FIELD']",
            setting="USER_UUID_FIELD",
        )
    return str(value)


def loaded_uuid(user: Any) -> str:
    """Return the uuid of a user, or "" if the uuid was not loaded with the user. Never runs a query."""
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
    """Return the uuid of a user, or "" if the user has none.

    No query is needed if the user was loaded with `select_related(*user_relations(…))`.
    """
    field = _uuid_field()
    if field is not None:
        return str(getattr(user, field, None) or "")
    identity = getattr(user, "instaccess_identity", None)
    return "" if identity is None else str(identity.uuid)


def user_relations(*references: str) -> list[str]:
    """Return the `select_related` arguments that load the users of these foreign keys, and the uuids of these users.

    Args:
        references: names of foreign keys to users, such as `real_user`.
    """
    if _uuid_field() is not None:
        return list(references)
    return [f"{reference}__instaccess_identity" for reference in references]


def display_name(user: Any, uuid: str) -> str | None:
    """Return the name of a user in an audit row, or None if the user doesn't have the uuid in the row.

    The HMAC of a row covers the uuid but not the foreign key. If the uuids differ, the foreign key may have been
    tampered with.
    """
    return str(user) if user is not None and existing_uuid(user) == uuid else None


def _uuid_field() -> str | None:
    # If USER_UUID_FIELD is invalid, the uuids in `UserIdentity` are used. Otherwise, the audit log would become
    # unreadable.
    try:
        return conf.user_uuid_field
    except ConfigError:
        return None


def active_user(uuid_string: str) -> Any:
    """Return the active user with this uuid, or None if no user or several users have the uuid."""
    if "\0" in uuid_string:  # PostgreSQL rejects a query that contains a NUL character.
        return None
    users = get_user_model()._default_manager
    name = conf.user_uuid_field
    try:
        if name is not None:
            user = users.get(**{name: uuid_string})
        else:
            identified = users.select_related("instaccess_identity")
            user = identified.get(instaccess_identity__uuid=uuid.UUID(uuid_string))
    except (get_user_model().DoesNotExist, MultipleObjectsReturned):
        return None
    except (ValidationError, ValueError, TypeError, OverflowError, DataError):  # The string is not a valid value.
        return None
    # The uuid is compared again in Python. Otherwise, a database that ignores case would find "ABC" for "abc".
    return user if user.is_active and user_uuid(user) == uuid_string else None


def service_user(application: Any) -> Any:
    """Return the user that an application acts as with the client credentials grant, or None."""
    rows = ServiceUser.objects.select_related("user", "user__instaccess_identity").filter(application=application)
    row = rows.first()
    return row.user if row else None


def masquerade_target(caller: Any, as_user_id: str) -> Any:
    """Return the user that `as_user_id` names, if the caller may get tokens for that user.

    Args:
        caller: the authenticated user. Users may always name themselves.
        as_user_id: a primary key, or `uuid:` and a uuid.

    Raises MasqueradeRefused if the user is unknown or inactive, or if the caller lacks permission.
    """
    target = active_user(as_user_id[5:]) if as_user_id.startswith("uuid:") else _by_primary_key(as_user_id)
    if target is None:
        raise MasqueradeRefused("there is no active user with this id", code=Reason.AS_USER_ID_UNKNOWN)
    if target.pk == caller.pk:
        return caller
    is_allowed = conf.masquerade_hook or may_masquerade
    # Only True is accepted. Otherwise, an async hook would allow everything, because its coroutine is truthy.
    if is_allowed(caller, target) is not True:
        raise MasqueradeRefused(
            f"the caller may not get tokens for user {target.pk}", code=Reason.AS_USER_ID_NOT_ALLOWED
        )
    return target


def may_masquerade(caller: Any, target: Any) -> bool:
    """Return whether the caller may get tokens for the target user.

    The caller needs the permission `instaccess.masquerade` and every permission of the target. Only a superuser may
    get tokens for a superuser. MASQUERADE_HOOK replaces this rule.
    """
    return caller.has_perm("instaccess.masquerade") and has_every_permission_of(caller, target)


def has_every_permission_of(caller: Any, target: Any) -> bool:
    """Return whether the caller has every permission of the target user."""
    if getattr(caller, "is_superuser", False):
        return True
    # Django reports no permissions for an inactive user. Without this check, every caller would have all of them, and
    # a token could still be valid when the user is activated again.
    if not target.is_active or getattr(target, "is_superuser", False):
        return False
    return bool(target.get_all_permissions() <= caller.get_all_permissions())


def _by_primary_key(primary_key: str) -> Any:
    users = get_user_model()._default_manager
    try:
        user = users.filter(pk=primary_key).first()
    except (ValidationError, ValueError, TypeError, OverflowError, DataError):
        return None
    # The primary key is compared again in Python. Otherwise, the database would find user 1 for "01", " 1" and
    # digits of other scripts.
    return user if user is not None and user.is_active and str(user.pk) == primary_key else None
