"""The functions that look up users and applications in this deployment's database.

`instaccess/apps.py` sets the functions if the issuer's app is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from django.http import HttpRequest


class IsUsableClient(Protocol):
    def __call__(self, client_id: str, request: HttpRequest | None) -> bool:
        """Return whether the application with this client id exists and is usable for this request."""


class LocalTables:
    """The functions that look up rows in this deployment's database.

    Each function is None if the issuer's app is not installed.

    Attributes:
        find_user: a function that takes a uuid and returns the active user with this uuid, or None. If there is
            neither this function nor a USER_HOOK, `request.user` is a TokenUser.
        is_usable_client: a function that takes a client id and a request, and returns whether the application exists
            and is usable.
    """

    find_user: Callable[[str], Any] | None = None
    is_usable_client: IsUsableClient | None = None


local_tables = LocalTables()


def use(*, find_user: Callable[[str], Any], is_usable_client: IsUsableClient) -> None:
    """Set the functions that look up users and applications in this deployment's database.

    `instaccess/apps.py` calls this function. The attributes of `LocalTables` describe the arguments.
    """
    local_tables.find_user = find_user
    local_tables.is_usable_client = is_usable_client
