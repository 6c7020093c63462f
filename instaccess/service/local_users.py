"""The users of this deployment, where the issuer's app is installed too. `apps.py` passes in the look-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LocalUsers:
    """How a service finds a local user.

    Attributes:
        find: takes a uuid and returns the active user with that uuid, or None. None where there is no user table of
            this app: `request.user` is a TokenUser then.
    """

    find: Callable[[str], Any] | None = None


local_users = LocalUsers()


def use(find: Callable[[str], Any]) -> None:
    """Take users from this deployment's database. Called by `apps.py`."""
    local_users.find = find
