"""Audit rows of tests, with the ids that the package computes."""

from __future__ import annotations

import itertools
import uuid

from instaccess.audit.row_ids import row_id
from instaccess.models import IssuedToken

_DIGITS = 10**9
_counter = itertools.count(1)


def next_jti() -> uuid.UUID:
    """Return a random jti. If two rows have the same second, the row with the later jti has the greater id."""
    return uuid.UUID(int=uuid.uuid4().int // _DIGITS * _DIGITS + next(_counter))


def with_id(row: IssuedToken) -> IssuedToken:
    """Set the id of an unsaved row."""
    row.pk = row_id(row.issued_at, row.jti)
    return row
