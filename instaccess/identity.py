"""Who a token is about: the uuid of a user, the root account of a host."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, MultipleObjectsReturned, ValidationError
from django.db import router

from .conf import conf
from .exceptions import ConfigError
from .models import UserIdentity

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


def account_uuid(host: str) -> str:
    """The root account that a host (`name` or `name:port`) serves.

    ACCOUNT_UUID where one deployment is one account, ACCOUNT_HOOK where the host decides; else derived from the
    host's name (RFC 9562 §5.5, DNS namespace), so that it is stable and needs no table.
    """
    if (fixed := conf.account_uuid) is not None:
        return fixed
    if (hook := conf.account_hook) is not None:
        value = hook(host)
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_CHARS:
            raise ConfigError(
                f"INSTACCESS['ACCOUNT_HOOK'] must return a text of 1 to {MAX_ID_CHARS} characters",
                setting="ACCOUNT_HOOK",
            )
        return value
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def active_user(text: str) -> Any:
    """The active local user who goes by this uuid; None where there is none, or where two share a field as theirs."""
    users = get_user_model()._default_manager
    name = conf.user_uuid_field
    try:
        if name is not None:
            user = users.get(**{name: text})
        else:
            user = users.select_related("instaccess_identity").get(instaccess_identity__uuid=uuid.UUID(text))
    except (get_user_model().DoesNotExist, MultipleObjectsReturned, ValidationError, ValueError):
        return None
    # Databases that compare without case would find "ABC" for "abc".
    return user if user.is_active and user_uuid(user) == text else None
