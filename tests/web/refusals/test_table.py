"""Tests that old rows and excess rows are deleted from the table of refusal counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from instaccess.audit import refusal_counts as refusal_table
from instaccess.models import RefusalCount
from instaccess.web import refusals
from tests.web.refusals.helpers import total

pytestmark = pytest.mark.django_db


class TestTheTableOfRefusalCounts:
    @pytest.fixture
    def old(self) -> Callable[..., None]:
        """Return a function that creates one row for each given age, in days."""

        def make(*ages: float) -> None:
            RefusalCount.objects.bulk_create(
                RefusalCount(
                    hour=timezone.now() - timedelta(days=age),
                    role="gateway",
                    reason="expired",
                    user_uuid=str(n),
                    count=1,
                )
                for n, age in enumerate(ages)
            )

        return make

    def ages(self) -> list[int]:
        hours = RefusalCount.objects.order_by("hour").values_list("hour", flat=True)
        return [round((timezone.now() - hour) / timedelta(days=1)) for hour in hours]

    def write(self) -> None:
        refusals.counter.count("issuer", "method")
        refusals.counter.flush()

    def test_refusal_count_table_keeps_rows_for_35_days(self, old):
        old(400, 36, 34, 1)
        self.write()

        assert self.ages() == [34, 1, 0]

    def test_refusal_count_table_keeps_only_the_newest_rows_if_there_are_too_many_rows(self, old, monkeypatch):
        monkeypatch.setattr(refusal_table, "MAX_ROWS", 4)
        old(*range(1, 11))
        self.write()

        assert self.ages() == [3, 2, 1, 0]

    def test_trimming_deletes_refusal_counts_in_small_batches_and_continues_at_the_next_write(
        self, old, monkeypatch, clock
    ):
        monkeypatch.setattr(refusal_table, "_BATCH", 3)
        monkeypatch.setattr(refusal_table, "_BATCHES", 2)
        old(*range(41, 51))
        self.write()
        assert RefusalCount.objects.count() == 5
        self.write()

        assert self.ages() == [0]

    def test_refusal_count_table_is_trimmed_once_per_hour(self, old, clock, statements):
        self.write()
        old(400)
        clock.advance(3599)
        self.write()
        assert 400 in self.ages()
        clock.advance(1)
        self.write()

        assert self.ages() == [0]

    def test_refusals_are_counted_even_if_trimming_the_table_fails(self, old, monkeypatch, caplog):
        def fail() -> bool:
            raise OperationalError("deadlock detected")

        monkeypatch.setattr(refusal_table, "trim", fail)
        self.write()
        self.write()

        assert total() == 2
        assert "deadlock detected" in caplog.text
