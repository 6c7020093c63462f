"""The user of a service without local users."""

from __future__ import annotations

from typing import Any

from ..tokens import Claims


class TokenUser:
    """An authenticated user without a database row. The attributes come from the claims of a token."""

    is_active = True
    is_anonymous = False
    is_authenticated = True
    is_staff = False
    is_superuser = False

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

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    def has_perms(self, perms: Any, obj: Any = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False
