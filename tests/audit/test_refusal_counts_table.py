"""Tests of the table of refusal counts: additions to the counts, and the deletion of old rows and excess rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, OperationalError, connection

from instaccess.audit import refusal_counts
from instaccess.models import RefusalCount
from instaccess.web import Kind

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
EPOCH_HOUR = 498_924  # NOON as the number of hours since 1970.


def kind(hour: int = EPOCH_HOUR, reason: str = "expired", user_uuid: str = "u") -> Kind:
    return Kind(hour, "gateway", reason, "c", user_uuid)


def table() -> list[tuple[Any, ...]]:
    columns = ("hour", "role", "reason", "client_id", "user_uuid", "count")
    return list(RefusalCount.objects.order_by(*columns).values_list(*columns))


class TestAddingRefusals:
    def test_add_stores_the_hour_the_role_the_reason_the_client_the_user_and_the_count(self):
        refusal_counts.add({kind(): 3, kind(EPOCH_HOUR + 1): 1})

        later = NOON + timedelta(hours=1)
        assert table() == [(NOON, "gateway", "expired", "c", "u", 3), (later, "gateway", "expired", "c", "u", 1)]

    def test_add_increases_only_the_counts_of_the_same_kind(self):
        refusal_counts.add({kind(): 3, kind(reason="revoked"): 5, kind(user_uuid="v"): 7})
        refusal_counts.add({kind(): 4, kind(EPOCH_HOUR - 1): 9})

        counts = {(hour, reason, user_uuid): count for hour, _, reason, _, user_uuid, count in table()}
        assert counts == {
            (NOON, "expired", "u"): 7,
            (NOON, "revoked", "u"): 5,
            (NOON, "expired", "v"): 7,
            (NOON - timedelta(hours=1), "expired", "u"): 9,
        }

    def test_failed_add_stores_no_refusal_count_even_in_a_transaction_of_the_caller(self):
        def fail_on_update(execute: Any, sql: str, *args: Any) -> Any:
            if sql.startswith("UPDATE"):
                raise OperationalError("deadlock detected")
            return execute(sql, *args)

        with connection.execute_wrapper(fail_on_update), pytest.raises(OperationalError):
            refusal_counts.add({kind(): 3})

        assert table() == []

    def test_add_raises_database_error_if_another_process_deletes_a_row_at_the_same_time(self):
        def delete_before_update(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE"):
                execute("DELETE FROM instaccess_refusalcount", (), False, context)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(delete_before_update), pytest.raises(DatabaseError, match="was deleted"):
            refusal_counts.add({kind(): 3})


class TestTrimmingTheTable:
    def create(self, ages: Iterable[timedelta]) -> None:
        """Create one refusal count for each age. An age is the time from the hour of the count to noon."""
        RefusalCount.objects.bulk_create(
            [
                RefusalCount(hour=NOON - age, role="gateway", reason="expired", user_uuid=str(number), count=1)
                for number, age in enumerate(ages)
            ],
            batch_size=1000,
        )

    def trim(self) -> bool:
        with time_machine.travel(NOON, tick=False):
            return refusal_counts.trim()

    def test_trim_deletes_refusal_counts_older_than_35_days(self):
        kept, hour = timedelta(days=35), timedelta(hours=1)
        self.create([timedelta(), kept - hour, kept, kept + hour, timedelta(days=400)])

        assert self.trim() is True
        assert [NOON - hour for hour, *_ in table()] == [kept, kept - hour, timedelta()]

    def test_trim_deletes_the_oldest_refusal_counts_beyond_fifty_thousand_rows(self):
        self.create([timedelta(hours=5), timedelta(hours=4), timedelta(hours=3), *[timedelta()] * 49_999])

        assert self.trim() is True
        hours = RefusalCount.objects.order_by("hour").values_list("hour", flat=True)
        assert (len(hours), hours[0]) == (50_000, NOON - timedelta(hours=3))

    def test_trim_deletes_at_most_five_thousand_rows_and_reports_that_more_rows_must_be_deleted(self):
        old = timedelta(days=36)
        self.create([old] * 5001)

        assert self.trim() is False
        assert RefusalCount.objects.count() == 1
        assert self.trim() is True
        assert not RefusalCount.objects.exists()
