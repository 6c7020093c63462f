"""The user names in audit rows: the HMAC of the names, and the erasure of a name.

The user names have a separate HMAC. The HMAC and the checkpoint of the row don't cover the names. If a person has a
right to erasure, an operator can therefore replace the name without a change to the tamper evidence of the row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.db.models import Case, F, Q, QuerySet, Value, When

from .. import users
from ..conf import KeyEncryptionKey, kek_id
from ..logs import get_logger
from ..models import IssuedToken
from . import row_hmac
from .batches import slices
from .revocation import BATCH
from .row_hmac import HmacStatus
from .rows import fit, issued_tokens
from .stored_rows import StoredRow

logger = get_logger("instaccess.audit")

ERASED = "[erased]"
"""The string that replaces an erased user name in an audit row."""

_FORMAT = "instaccess audit names 1"
_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode

# For each column with a user uuid, this mapping contains the column with the name of the same user.
_COLUMNS = {"user_uuid": "user_name", "real_user_uuid": "real_user_name"}


def canonical_bytes(row: IssuedToken | StoredRow) -> bytes:
    """Return the canonical encoding of the user names in an audit row: a JSON array in ASCII.

    The array contains the token id. Without this id, an attacker could copy the names and the HMAC of another row.
    """
    return _encode([_FORMAT, row.jti.hex, row.user_name, row.real_user_name]).encode("ascii")


def names_status(row: IssuedToken | StoredRow, keks: Sequence[KeyEncryptionKey]) -> HmacStatus:
    """Return the status of the HMAC of the user names in an audit row."""
    return row_hmac.check(canonical_bytes(row), row.names_mac, keks)


def find_uuids(user: str) -> set[str]:
    """Find the uuids of the users, existing or deleted, whose uuid, user name or primary key is `user`.

    Returns only uuids that occur in the audit log. Raises DatabaseError if a query fails.
    """
    if not user:
        return set()  # An empty string would match every row with an empty name.
    existing = [each for each in users.named(user) if users.user_name(each) == user]
    existing += filter(None, [users.with_primary_key(user)])
    found: set[str] = set()
    for uuid_column, name_column in _COLUMNS.items():
        uuids = {fit(uuid, uuid_column) for uuid in (user, *map(users.existing_uuid, existing)) if uuid}
        name = fit(user, name_column)
        rows = issued_tokens().filter(Q(**{f"{uuid_column}__in": uuids}) | Q(**{name_column: name}))
        # The values are compared again in Python, because some databases ignore case and accents.
        pairs = rows.order_by().values_list(uuid_column, name_column).distinct()
        found |= {uuid for uuid, recorded in pairs if uuid in uuids or recorded == name}
    return found


def count(uuid: str) -> int:
    """Count the names of a user in all audit rows, except erased names. Raises DatabaseError if a query fails."""
    return sum(len(_named_rows(uuid, uuid_column)) for uuid_column in _COLUMNS)


def erase(uuid: str, *, keks: Sequence[KeyEncryptionKey], by: str) -> int:
    """Replace every name of a user in the audit log with `ERASED`, and recompute the HMACs of the names.

    Each batch of rows is changed with one statement. If a call is interrupted, the next call erases the remaining
    names. If the HMAC of the names in a row doesn't match or can't be checked, the name is erased, but the HMAC is
    not replaced. A new HMAC would hide that a name was modified.

    Args:
        uuid: the uuid of the user.
        by: the name of the operator, for the log.

    Returns the number of changed rows. Raises DatabaseError if a query fails.
    """
    erased = 0
    try:
        for uuid_column, name_column in _COLUMNS.items():
            # A batch skips a row that another process changes at the same time. Repeat until the user has no row with
            # a name.
            while pks := _named_rows(uuid, uuid_column):
                for batch in slices(pks, BATCH):
                    erased += _erase_batch(batch, name_column, keks)
    finally:
        logger.warning(
            "user name erased: user_uuid=%(user_uuid)r rows=%(rows)d by=%(by)r", user_uuid=uuid, rows=erased, by=by
        )
    return erased


def _named_rows(uuid: str, uuid_column: str) -> list[int]:
    """Return the ids of the audit rows that contain a name of the user with this uuid. Erased names are ignored."""
    rows = issued_tokens().filter(**{uuid_column: uuid}).exclude(**{f"{_COLUMNS[uuid_column]}__in": ("", ERASED)})
    # The uuid is compared again in Python, because some databases ignore case and accents.
    return [pk for pk, value in rows.order_by("pk").values_list("pk", uuid_column) if value == uuid]


def _erase_batch(pks: Sequence[int], name_column: str, keks: Sequence[KeyEncryptionKey]) -> int:
    rows = issued_tokens().filter(pk__in=pks)
    macs, whens, unchecked = set(), [], []
    for pk, row in row_hmac.load(rows):
        if row is not None and names_status(row, keks) is HmacStatus.AUTHENTIC:
            macs.add(row.names_mac)
            change: dict[str, Any] = {name_column: ERASED}
            erased = row._replace(**change)
            whens.append(When(pk=pk, then=Value(row_hmac.authenticate(canonical_bytes(erased), keks))))
        else:
            unchecked.append(pk)
    if unchecked:
        logger.error(
            "the HMACs of erased names don't match or can't be checked, and are not replaced: %(rows)s",
            rows=unchecked,
        )
    changes: dict[str, Any] = {name_column: ERASED, "names_mac": Case(*whens, default=F("names_mac"))}
    # The condition on `names_mac` leaves out rows whose names another process has changed after the rows were loaded.
    return rows.filter(Q(names_mac__in=macs) | Q(pk__in=unchecked)).update(**changes)


def outdated(keks: Sequence[KeyEncryptionKey]) -> QuerySet[IssuedToken]:
    """Return the audit rows whose HMAC of the user names was not computed with the first key-encryption key."""
    return issued_tokens().exclude(names_mac__startswith=f"{kek_id(keks[0])}.")
