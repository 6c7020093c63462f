"""The look-up of local users. `apps.py` sets the look-up if the issuer's app is installed too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LocalUsers:
    """The look-up of a local user by uuid.

    Attributes:
        find: takes a uuid and returns the active user with that uuid, or None. The attribute itself is None if the
            issuer's app is not installed. `request.user` is then a TokenUser.
    """

    find: Callable[[str], Any] | None = None


local_users = LocalUsers()


def use(find: Callable[[str], Any]) -> None:
    """Set the function that looks up users in this deployment's database. `apps.py` calls this function.

    Args:
        find: takes a uuid and returns the active user with that uuid, or None.
    """
    local_users.find = find
