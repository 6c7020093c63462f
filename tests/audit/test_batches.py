"""Tests of work in batches: slices of a list, and rows that are read in several queries."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from instaccess.audit.batches import in_batches, slices
from instaccess.models import PruneMarker


class TestSlices:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [(1, [[1], [2], [3], [4]]), (3, [[1, 2, 3], [4]]), (4, [[1, 2, 3, 4]]), (5, [[1, 2, 3, 4]])],
    )
    def test_slices_contain_every_item_of_the_list_once_and_in_order(self, size, expected):
        assert list(slices([1, 2, 3, 4], size)) == expected

    def test_empty_list_has_no_slices(self):
        assert list(slices([], 3)) == []


@pytest.mark.django_db
class TestInBatches:
    @pytest.fixture(autouse=True)
    def markers(self) -> None:
        PruneMarker.objects.bulk_create([PruneMarker(number=number) for number in (30, 10, 50, 20, 40)])

    @pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
    def test_in_batches_yields_every_row_once_in_ascending_or_descending_order(self, size):
        rows = PruneMarker.objects.all()

        assert [row.number for row in in_batches(rows, size)] == [10, 20, 30, 40, 50]
        assert [row.number for row in in_batches(rows, size, latest_first=True)] == [50, 40, 30, 20, 10]

    def test_in_batches_reads_a_batch_only_when_the_caller_needs_its_rows(self):
        rows = in_batches(PruneMarker.objects.all(), 2)

        with CaptureQueriesContext(connection) as queries:
            assert [next(rows).number, next(rows).number] == [10, 20]
        assert len(queries) == 1
