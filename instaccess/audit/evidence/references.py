"""Do the audit's references to users point to whom its rows name? No HMAC covers them, see `evidence.facts`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...conf import conf
from ...models import IssuedToken, UserIdentity
from ..rows import issued_tokens


class Reference(NamedTuple):
    """A row, the primary key of a user it points to, and the uuid it says they go by."""

    row: IssuedToken
    user: Any
    said: str


def find_mismatched(rows: Sequence[IssuedToken]) -> tuple[Reference | None, bool]:
    """The first reference to somebody else than the row names; and whether there are references to users who go by
    another uuid, while nobody goes by the one that the row names.

    The first is told only by uuids that we gave out, which never change. A field of the user model may; and where
    uuids came from one until INSTACCESS['USER_UUID_FIELD'] was changed, nobody goes by those now.
    """
    if conf.user_uuid_field is not None:
        return None, False
    identities = UserIdentity.objects.using(issued_tokens().db)
    found = [reference for row in rows for reference in _references(row)]
    wanted: dict[Any, str] = {}
    for users in _thousands({reference.user for reference in found}):
        wanted |= {user: str(value) for user, value in identities.filter(user__in=users).values_list("user", "uuid")}
    others = [reference for reference in found if wanted.get(reference.user, reference.said) != reference.said]
    given: set[str] = {""}  # where no uuid is, no reference can be
    for values in _thousands({reference.said for reference in others if _is_uuid(reference.said)}):
        given |= {str(value) for value in identities.filter(uuid__in=values).values_list("uuid", flat=True)}
    return next((reference for reference in others if reference.said in given), None), bool(others)


def _references(row: IssuedToken) -> Iterator[Reference]:
    for user, said in ((row.user_id, row.user_uuid), (row.real_user_id, row.real_user_uuid)):
        if user is not None:
            yield Reference(row, user, said)


def _thousands(values: set[Any]) -> Iterator[list[Any]]:
    sought = list(values)
    for start in range(0, len(sought), 1000):
        yield sought[start : start + 1000]


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
