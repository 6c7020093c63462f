"""Functions that create the ids of audit rows for tests, in the same way as the package."""

from __future__ import annotations

import itertools
import uuid

from instaccess.audit.row_ids import row_id
from instaccess.models import IssuedToken

_DIGITS = 10**9
_counter = itertools.count(1)


def next_jti() -> uuid.UUID:
    """Return a random token id that ends with a counter, so that rows of the same second have ascending ids."""
    return uuid.UUID(int=uuid.uuid4().int // _DIGITS * _DIGITS + next(_counter))


def with_id(row: IssuedToken) -> IssuedToken:
    """Set the id of an unsaved audit row. Returns the row."""
    row.pk = row_id(row.issued_at, row.jti)
    return row
