"""Tests of the ids of audit rows.

The tests compare the ids with literals. A changed computation would not match the ids of rows in existing databases.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from instaccess.audit.row_ids import first_id, id_time, row_id

TIME = datetime(2026, 3, 2, 12, 0, 0, 999_999, tzinfo=UTC)


def test_id_of_a_row_is_the_second_of_issue_followed_by_nine_digits_of_the_jti() -> None:
    assert row_id(TIME, uuid.UUID(int=5_123_456_789)) == 1_772_452_800_123_456_789
    assert row_id(TIME, uuid.UUID(int=5_000_000_000)) == first_id(TIME) == 1_772_452_800_000_000_000


def test_id_time_returns_the_second_of_issue() -> None:
    assert id_time(1_772_452_800_123_456_789) == datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    assert id_time(1_772_452_799_999_999_999) == datetime(2026, 3, 2, 11, 59, 59, tzinfo=UTC)
