"""The uuid and display name of a user, and the rule for masquerading.

A masquerade is a token for another user, requested with `as_user_id`. The caller is then the real user.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, MultipleObjectsReturned, ValidationError
from django.db import DataError, router
from django.db.models import Model, QuerySet
from django.utils.module_loading import import_string

from . import charsets
from .conf import conf
from .exceptions import ConfigError, MasqueradeRefused, Reason
from .models import ServiceUser, UserIdentity

MAX_ID_CHARS = 255
MAX_NAME_CHARS = 255
_PERMISSION = "instaccess.masquerade"
_LISTS = {"get_all_permissions", "get_user_permissions", "get_group_permissions"}

# A field or a database raises these errors for a value that no row can contain.
_IMPOSSIBLE_VALUE = (ValidationError, ValueError, TypeError, OverflowError, DataError)


def user_uuid(user: Any) -> str:
    """Return the uuid of a user. If the user has no uuid yet, create a uuid.

    If USER_UUID_FIELD is set, the uuid is the value of this field of the user. If USER_UUID_FIELD is not set, the
    uuid is random and is stored in `UserIdentity`. No query is needed if the user was loaded with
    `select_related("instaccess_identity")`.

    Raises ConfigError if the user model has no field USER_UUID_FIELD, or if the value of the field is empty or longer
    than 255 characters.
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
        # Read `user._meta`, because the type of `request.user`, a lazy object, has no `_meta`.
        user._meta.get_field(name)
    except FieldDoesNotExist:
        raise ConfigError(
            f"INSTACCESS['USER_UUID_FIELD'] is {name!r}, which is not a field of {user._meta.label}: set the setting "
            "to the name of a field, or remove the setting",
            setting="USER_UUID_FIELD",
        ) from None
    value = getattr(user, name)
    if not value or len(str(value)) > MAX_ID_CHARS:
        raise ConfigError(
            f"the field {name!r} of user {user.pk} does not contain a uuid of 1 to {MAX_ID_CHARS} characters: set "
            "the field, or remove INSTACCESS['USER_UUID_FIELD']",
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
    """Return the uuid of a user, or "" if the user has no uuid.

    No query is needed if the user was loaded with `select_related(*user_relations(…))`.
    """
    field = _uuid_field()
    if field is not None:
        return str(getattr(user, field, None) or "")
    identity = getattr(user, "instaccess_identity", None)
    return "" if identity is None else str(identity.uuid)


def user_relations(*references: str) -> list[str]:
    """Return the `select_related` arguments that load users, with their uuids, through foreign keys.

    Args:
        references: names of foreign keys to users, such as `real_user`.
    """
    if _uuid_field() is not None:
        return list(references)
    return [f"{reference}__instaccess_identity" for reference in references]


def user_name(user: Any) -> str:
    """Return the user name that the audit log records for a user: at most 255 characters.

    Returns "" if the user has no name.
    """
    name = user.get_username() if hasattr(user, "get_username") else getattr(user, user.USERNAME_FIELD)
    return "" if name is None else str(name)[:MAX_NAME_CHARS]


def operator_name(by: Any) -> str:
    """Return the name of the operator who revokes tokens or a key.

    `by` is a user, a string such as `uid 0 (root), command line`, or None. Returns "" for None.
    """
    return user_name(by) if hasattr(by, "get_username") else str(by or "")


def display_name(user: Any, uuid: str, recorded_name: str = "") -> str | None:
    """Return the current name of the user of an audit row, or the recorded name if the user was deleted.

    Returns None if the user was deleted and the row contains no name, or if the user doesn't have the uuid in the
    row. The HMAC of a row covers the uuid but not the foreign key to the user. If the uuids differ, the foreign key
    may have been modified.

    Args:
        user: the user that the row refers to, or None if the user was deleted.
        uuid: the uuid in the row.
        recorded_name: the name in the row.
    """
    if user is None:
        return recorded_name or None
    return str(user) if existing_uuid(user) == uuid else None


def named(name: str) -> QuerySet[Any]:
    """Return a queryset of the users with this user name."""
    model = get_user_model()
    users = model._default_manager.all()
    storable = charsets.can_store(name, model._meta.get_field(model.USERNAME_FIELD), using=users.db)
    return users.filter(**{model.USERNAME_FIELD: name}) if storable else users.none()


def _uuid_field() -> str | None:
    # If USER_UUID_FIELD is invalid, use the uuids in `UserIdentity`, because an invalid setting must not make the
    # audit log unreadable.
    try:
        return conf.user_uuid_field
    except ConfigError:
        return None


def active_user(uuid_string: str) -> Any:
    """Return the active user with this uuid, or None if there is no such user or if several users have the uuid."""
    users = _users()
    name = conf.user_uuid_field
    try:
        if name is None:
            identified = users.select_related("instaccess_identity")
            user = identified.get(instaccess_identity__uuid=uuid.UUID(uuid_string))
        elif charsets.can_store(uuid_string, users.model._meta.get_field(name), using=users.db):
            user = users.get(**{name: uuid_string})
        else:
            return None
    except (get_user_model().DoesNotExist, MultipleObjectsReturned):
        return None
    except _IMPOSSIBLE_VALUE:
        return None
    # Compare the uuid again in Python, because a database that ignores case finds the user "ABC" for the uuid "abc".
    return user if user.is_active and user_uuid(user) == uuid_string else None


def with_uuids(uuids: Iterable[str]) -> list[Any]:
    """Return the users with these uuids, even if the users are inactive. Unknown uuids are skipped."""
    wanted, field = set(uuids), _uuid_field()
    path = field or "instaccess_identity__uuid"
    try:
        column: Any = (get_user_model() if field else UserIdentity)._meta.get_field(field or "uuid")
    except FieldDoesNotExist:
        return []
    found = _users() if field else _users().select_related("instaccess_identity")
    values = set()
    for each in wanted:
        # Skip invalid values, because no row contains them.
        with suppress(*_IMPOSSIBLE_VALUE):
            if charsets.can_store(each, column, using=found.db):
                values.add(column.to_python(each))
    # Compare the uuids again in Python, because some databases ignore case.
    return [user for user in found.filter(**{f"{path}__in": values}) if existing_uuid(user) in wanted]


def service_user(application: Any) -> Any:
    """Return the user for whom an application gets tokens with the client credentials grant, or None."""
    rows = ServiceUser.objects.using(router.db_for_write(ServiceUser))
    row = rows.select_related("user", "user__instaccess_identity").filter(application=application).first()
    return row.user if row else None


def is_own_id(caller: Any, as_user_id: str) -> bool:
    """Return whether `as_user_id` is the primary key or uuid of the caller. No other user is looked up."""
    if not as_user_id.startswith("uuid:"):
        return as_user_id == str(caller.pk)
    own = existing_uuid(caller)
    return bool(own) and as_user_id[5:] == own


def check_may_masquerade(caller: Any) -> None:
    """Check that the caller has the permission to masquerade. Call this function before you look up the target user.

    The refusal and its timing then don't depend on which users exist. If MASQUERADE_HOOK is set, this function
    accepts every caller, because only the hook decides, and the hook needs the target user.

    Raises MasqueradeRefused.
    """
    if conf.masquerade_hook is None and not _holds_permission(caller):
        raise MasqueradeRefused(f"the caller lacks the permission {_PERMISSION}", code=Reason.AS_USER_ID_NOT_ALLOWED)


def masquerade_target(caller: Any, as_user_id: str) -> Any:
    """Return the user with the id `as_user_id`, if the caller may get tokens for this user.

    Args:
        caller: the authenticated user, whom `check_may_masquerade` has accepted.
        as_user_id: the primary key of a user other than the caller, or `uuid:` followed by the uuid of the user.

    Raises MasqueradeRefused if the user is unknown or inactive, or if the caller lacks permission.
    """
    target = active_user(as_user_id[5:]) if as_user_id.startswith("uuid:") else with_primary_key(as_user_id)
    if target is None or not target.is_active:
        raise MasqueradeRefused("there is no active user with this id", code=Reason.AS_USER_ID_UNKNOWN)
    # Compare the primary keys too, so that a token for the caller never counts as a masquerade. If the caller's uuid
    # was created after the caller was loaded, `is_own_id` returned False for this uuid.
    if target.pk == caller.pk:
        return caller
    is_allowed = conf.masquerade_hook or may_masquerade
    # Accept only True. An async hook returns a coroutine. If every truthy value were accepted, the coroutine would
    # allow every masquerade.
    if is_allowed(caller, target) is not True:
        raise MasqueradeRefused(
            f"the caller is not allowed to get tokens for user {target.pk}", code=Reason.AS_USER_ID_NOT_ALLOWED
        )
    return target


def may_masquerade(caller: Any, target: Any) -> bool:
    """Return whether the caller may get tokens for the target user.

    The caller needs the permission `instaccess.masquerade` and every permission of the target. Only staff may get
    tokens for staff, and only superusers may get tokens for superusers. MASQUERADE_HOOK replaces this rule.
    """
    if getattr(target, "is_staff", False) and not getattr(caller, "is_staff", False):
        return False
    return _holds_permission(caller) and has_every_permission_of(caller, target)


def has_every_permission_of(caller: Any, target: Any) -> bool:
    """Return whether the caller has every permission of the target user.

    Returns False if the permissions can't be compared.
    """
    if getattr(caller, "is_superuser", False):
        return True
    # Django reports no permissions for an inactive user. If `is_active` were not checked, every caller would seem to
    # have all permissions of an inactive user. The caller could then get tokens with the permissions that the user
    # has again after an activation.
    if not target.is_active or getattr(target, "is_superuser", False) or sources_of_unlisted_permissions():
        return False
    return bool(target.get_all_permissions() <= caller.get_all_permissions())


def sources_of_unlisted_permissions() -> list[str]:
    """Return the authentication backends, and the user model, that grant permissions without listing them.

    Such a class defines `has_perm`, but has no `get_all_permissions` that lists the permissions that `has_perm`
    grants. The permissions of two users then can't be compared.

    Returns these entries of AUTHENTICATION_BACKENDS, and AUTH_USER_MODEL if the user model is such a class.
    """
    sources = {path: import_string(path) for path in settings.AUTHENTICATION_BACKENDS}
    sources[settings.AUTH_USER_MODEL] = get_user_model()
    return [name for name, source in sources.items() if not _lists_its_permissions(source)]


def _lists_its_permissions(source: type) -> bool:
    for cls in source.__mro__:
        if _LISTS & vars(cls).keys():
            return True
        if "has_perm" in vars(cls):
            return False
    return True  # A class without `has_perm` grants no permissions, so its list of permissions is complete.


def _holds_permission(caller: Any) -> bool:
    if not hasattr(caller, "has_perm"):  # Some custom user models don't implement permissions.
        return False
    # If AUTHENTICATION_BACKENDS is empty, only superusers have permissions, and `has_perm` raises
    # ImproperlyConfigured for all other users.
    if not settings.AUTHENTICATION_BACKENDS and not getattr(caller, "is_superuser", False):
        return False
    return bool(caller.has_perm(_PERMISSION))


def with_primary_key(primary_key: str) -> Any:
    """Return the user with this primary key, even if the user is inactive. Returns None if there is no such user."""
    users = _users()
    # Some databases reject a query that compares a column with a string that the column can't store.
    if not charsets.can_store(primary_key, users.model._meta.pk, using=users.db):
        return None
    try:
        user = users.filter(pk=primary_key).first()
    except _IMPOSSIBLE_VALUE:
        return None
    # Compare the primary key again in Python, because the database finds user 1 for "01", " 1" and digits of other
    # scripts.
    return user if user is not None and str(user.pk) == primary_key else None


def _users() -> QuerySet[Any]:
    # Do not read from a replica, because a replica might not contain a recent deactivation yet.
    model = get_user_model()
    return model._default_manager.using(router.db_for_write(model))
