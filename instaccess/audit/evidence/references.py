"""Comparison of the foreign keys of audit rows with the user uuids and client ids in the same rows.

The HMAC of a row covers the uuids and the client id, but not the foreign keys (see `row_hmac.canonical_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError

from ...conf import conf
from ...models import IssuedToken, UserIdentity
from ...tokens import is_canonical_uuid
from ..rows import issued_tokens
from ..stored_rows import StoredRow

Pair = tuple[Any, Any]
"""A foreign key, and the user uuid or the client id that the same audit row contains."""

_KNOWN_PAIRS = 50_000
"""The maximum number of matching pairs that are kept in memory. If this number is exceeded, all pairs are dropped."""


class Reference(NamedTuple):
    """A foreign key of an audit row, to a user or an application.

    Attributes:
        row: the id of the audit row.
        name: the name of the foreign key: `user`, `real_user` or `application`.
        target: the value of the foreign key: the primary key of a user or an application.
        recorded: the user uuid or the client id that the audit row contains.
    """

    row: int
    name: str
    target: Any
    recorded: str


class Comparison(NamedTuple):
    """The result of `compare`.

    Attributes:
        modified: the foreign keys that were certainly modified. The uuid or client id in the row belongs to another
            user or application, or is empty, or the foreign key doesn't have the type of a primary key.
        users_differ: True if a foreign key that is not in `modified` refers to a user whose uuid differs from the
            uuid in the row. The row may have been written before INSTACCESS['USER_UUID_FIELD'] was changed.
        applications_differ: True if a foreign key that is not in `modified` refers to an application whose client id
            differs from the client id in the row. The client id may have been changed after the row was written.
    """

    modified: list[Reference]
    users_differ: bool
    applications_differ: bool


def compare(rows: Sequence[StoredRow], matching: dict[str, set[Pair]]) -> Comparison:
    """Compare the foreign keys of audit rows with the user uuids and client ids in the same rows.

    `matching` contains the pairs that earlier calls have found to match, and is empty at first.

    Only uuids that this package generated are compared, because generated uuids never change. If the uuids come from
    a field of the user model, users are not compared, because the host project may change the field.
    """
    users: list[Reference] = []
    users_differ = False
    if conf.user_uuid_field is None:
        pairs = {(row.user_id, row.user_uuid) for row in rows}
        pairs |= {(row.real_user_id, row.real_user_uuid) for row in rows}
        different = _find_different("user", pairs, _uuids_of_users, matching)
        users, users_differ = _find_modified(_users(rows, different), _generated_uuids)
    pairs = {(row.application_id, row.client_id) for row in rows}
    different = _find_different("application", pairs, _ids_of_applications, matching)
    applications, applications_differ = _find_modified(_applications(rows, different), _client_ids)
    return Comparison(users + applications, users_differ, applications_differ)


def _find_different(
    field: str,
    pairs: set[Pair],
    identify: Callable[[set[Any]], Mapping[Any, str]],
    matching: dict[str, set[Pair]],
) -> set[Pair]:
    """Return the pairs that don't match. Many rows contain the same pair, so each pair is compared only once.

    Args:
        field: the name of a foreign key to the users or the applications.
        identify: a function that maps primary keys of users or applications to their current uuids or client ids.
        matching: the pairs that are known to match, by field. New matching pairs are added.
    """
    known = matching.setdefault(field, set())
    new = {pair for pair in pairs - known if pair[0] is not None}
    current = identify({target for target, _ in new if _is_valid(field, target)}) if new else {}
    different = {(target, recorded) for target, recorded in new if current.get(target) != str(recorded)}
    if len(known) > _KNOWN_PAIRS:
        known.clear()
    known |= new - different
    return different


def _find_modified(
    different: Sequence[Reference], find_existing: Callable[[set[str]], set[str]]
) -> tuple[list[Reference], bool]:
    """Return the foreign keys that were certainly modified, and whether `different` contains any other foreign keys.

    The others can differ for a harmless reason, such as a changed client id.

    Args:
        different: the foreign keys that don't match the uuids or client ids in the same rows.
        find_existing: a function that takes uuids or client ids, and returns the values that exist in the database.
    """
    if not different:
        return [], False
    # Treat "" as an existing value. A row with an empty uuid or client id must not have a foreign key, so a
    # foreign key in such a row was modified.
    existing = find_existing({each.recorded for each in different}) | {""}
    modified = [each for each in different if each.recorded in existing or not _is_valid(each.name, each.target)]
    return modified, len(modified) < len(different)


def _is_valid(name: str, target: Any) -> bool:
    """Return whether a foreign key has the type of a primary key. SQLite can store any value in a column."""
    field: Any = IssuedToken._meta.get_field(name)
    try:
        return bool(field.target_field.to_python(target) == target)
    except ValidationError:
        return False


def _users(rows: Iterable[StoredRow], pairs: Collection[Pair]) -> list[Reference]:
    """Return the foreign keys to users whose pair of primary key and uuid is in `pairs`."""
    references = []
    for row in rows if pairs else ():
        if (row.user_id, row.user_uuid) in pairs:
            references.append(Reference(row.pk, "user", row.user_id, str(row.user_uuid)))
        if (row.real_user_id, row.real_user_uuid) in pairs:
            references.append(Reference(row.pk, "real_user", row.real_user_id, str(row.real_user_uuid)))
    return references


def _applications(rows: Iterable[StoredRow], pairs: Collection[Pair]) -> list[Reference]:
    """Return the foreign keys to applications whose pair of primary key and client id is in `pairs`."""
    return [
        Reference(row.pk, "application", row.application_id, str(row.client_id))
        for row in (rows if pairs else ())
        if (row.application_id, row.client_id) in pairs
    ]


def _uuids_of_users(users: set[Any]) -> dict[Any, str]:
    identities = UserIdentity.objects.using(issued_tokens().db)
    return {
        user: str(value)
        for chunk in _chunks(users)
        for user, value in identities.filter(user__in=chunk).values_list("user", "uuid")
    }


def _generated_uuids(uuids: set[str]) -> set[str]:
    identities = UserIdentity.objects.using(issued_tokens().db)
    canonical = {value for value in uuids if is_canonical_uuid(value)}
    return {
        str(value)
        for chunk in _chunks(canonical)
        for value in identities.filter(uuid__in=chunk).values_list("uuid", flat=True)
    }


def _ids_of_applications(applications: set[Any]) -> dict[Any, str]:
    return {
        pk: client_id
        for chunk in _chunks(applications)
        for pk, client_id in _application_table().filter(pk__in=chunk).values_list("pk", "client_id")
    }


def _client_ids(client_ids: set[str]) -> set[str]:
    return {
        client_id
        for chunk in _chunks(client_ids)
        for client_id in _application_table().filter(client_id__in=chunk).values_list("client_id", flat=True)
    }


def _application_table() -> Any:
    model: Any = IssuedToken._meta.get_field("application").related_model
    return model._base_manager.using(issued_tokens().db)


def _chunks(values: set[Any]) -> Iterator[list[Any]]:
    """Split a set into lists of at most 1000 values, because databases limit the number of query parameters."""
    remaining = list(values)
    for start in range(0, len(remaining), 1000):
        yield remaining[start : start + 1000]
