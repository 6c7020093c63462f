"""The ids of audit rows, which this package computes instead of the database.

An id is the time of issue in seconds since 1970, followed by the last nine decimal digits of the jti, which are
random. The id is therefore known before the INSERT, so that the HMAC of the row can cover the id. Ordered by id, the
rows are in the order of issue, to the second.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

_PER_SECOND = 10**9


def row_id(issued_at: datetime, jti: uuid.UUID) -> int:
    """Compute the id of a row. The id fits into a signed 64-bit integer until the year 2262."""
    return first_id(issued_at) + jti.int % _PER_SECOND


def first_id(time: datetime) -> int:
    """Return the lowest id that a token issued in the second of this time can have."""
    return int(time.timestamp()) * _PER_SECOND


def id_time(id_: int) -> datetime:
    """Return the second that an id contains: any second from 1677 to 2262 if an attacker has changed the id."""
    return datetime.fromtimestamp(id_ // _PER_SECOND, UTC)
