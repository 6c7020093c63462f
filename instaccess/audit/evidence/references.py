"""Comparison of the foreign keys to users with the user uuids in the audit rows.

The HMAC of a row covers the uuids, but not the foreign keys (see `row_hmac.canonical_bytes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...conf import conf
from ...models import IssuedToken, UserIdentity
from ...tokens import is_canonical_uuid
from ..rows import issued_tokens


class Reference(NamedTuple):
    """A foreign key of a row.

    Attributes:
        user: primary key of the user.
        uuid: the uuid that the row contains for this user.
    """

    row: IssuedToken
    user: Any
    uuid: str


def find_mismatched(rows: Sequence[IssuedToken]) -> tuple[Reference | None, bool]:
    """Find foreign keys to users whose uuid differs from the uuid in the row.

    Returns the first foreign key that must have been modified (or None), and whether any uuids differ. A foreign key
    must have been modified if the uuid in the row belongs to another user, or if the row has no uuid. If the uuid
    belongs to no user, the row may have been written before INSTACCESS['USER_UUID_FIELD'] was changed.

    Only uuids that this package generated are compared, because generated uuids never change. Returns (None, False)
    if the uuids come from a field of the user model.
    """
    if conf.user_uuid_field is not None:
        return None, False
    identities = UserIdentity.objects.using(issued_tokens().db)
    references = [reference for row in rows for reference in _references(row)]
    uuids: dict[Any, str] = {}
    for users in _chunks({reference.user for reference in references}):
        uuids |= {user: str(value) for user, value in identities.filter(user__in=users).values_list("user", "uuid")}
    different = [reference for reference in references if uuids.get(reference.user, reference.uuid) != reference.uuid]
    generated: set[str] = {""}  # A row without a uuid must not have a foreign key.
    for values in _chunks({reference.uuid for reference in different if is_canonical_uuid(reference.uuid)}):
        generated |= {str(value) for value in identities.filter(uuid__in=values).values_list("uuid", flat=True)}
    return next((reference for reference in different if reference.uuid in generated), None), bool(different)


def _references(row: IssuedToken) -> Iterator[Reference]:
    for user, user_uuid in ((row.user_id, row.user_uuid), (row.real_user_id, row.real_user_uuid)):
        if user is not None:
            yield Reference(row, user, user_uuid)


def _chunks(values: set[Any]) -> Iterator[list[Any]]:
    """Yield lists of at most 1000 values, because databases limit the number of query parameters."""
    remaining = list(values)
    for start in range(0, len(remaining), 1000):
        yield remaining[start : start + 1000]
