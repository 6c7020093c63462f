"""The users of a service without local users: the user of a token, and the user of a request without a token."""

from __future__ import annotations

from typing import Any

from ..tokens import Claims


class _UserWithoutPermissions:
    """The base class of users without permissions."""

    is_staff = False
    is_superuser = False

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    def has_perms(self, perms: Any, obj: Any = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False


class TokenUser(_UserWithoutPermissions):
    """An authenticated user without a database row. The attributes come from the claims of a token."""

    is_active = True
    is_anonymous = False
    is_authenticated = True

    def __init__(self, claims: Claims) -> None:
        self.uuid = self.pk = self.id = claims.user_uuid
        self.username = claims.user_uuid

    def __str__(self) -> str:
        return self.uuid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenUser) and self.uuid == other.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def get_username(self) -> str:
        return self.uuid


class NoUser(_UserWithoutPermissions):
    """The user of a request without an InstAccess token, if no other middleware sets the user.

    Django's AnonymousUser can't be used, because importing this class raises an error if `django.contrib.auth` is not
    installed.
    """

    id = pk = None
    username = ""
    is_active = False
    is_anonymous = True
    is_authenticated = False

    def __str__(self) -> str:
        return "NoUser"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoUser)

    def __hash__(self) -> int:
        return hash(NoUser)

    def get_username(self) -> str:
        return self.username
