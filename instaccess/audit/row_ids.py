"""The ids of audit rows.

An id is the time of issue in seconds since 1970, followed by the last nine decimal digits of the token id, which are
random. The ids are therefore ordered by time of issue, with a resolution of one second.

The database doesn't assign the ids. An id is computed before the INSERT, so that the HMAC of the row covers the id.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

_PER_SECOND = 10**9
PER_DAY = 86_400 * _PER_SECOND
"""The difference between the ids of tokens that are issued a day apart."""


def row_id(issued_at: datetime, jti: uuid.UUID) -> int:
    """Compute the id of an audit row. The id fits into a signed 64-bit integer until the year 2262."""
    return first_id(issued_at) + jti.int % _PER_SECOND


def first_id(time: datetime) -> int:
    """Return the lowest possible id of an audit row whose token is issued in the same second as `time`."""
    return int(time.timestamp()) * _PER_SECOND


def id_time(id_: int) -> datetime:
    """Return the time of issue that an id contains.

    If an attacker has changed the id, the result can be any time from 1677 to 2262.
    """
    return datetime.fromtimestamp(id_ // _PER_SECOND, UTC)
