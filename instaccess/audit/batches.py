"""Functions that split work into batches, so that each query is small and the work needs constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from django.db.models import QuerySet, Value

from ..models import Checkpoint, IncidentReview, PruneMarker

T = TypeVar("T")
M = TypeVar("M", Checkpoint, PruneMarker, IncidentReview)


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in their order, in slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_batches(rows: QuerySet[M], size: int, *, latest_first: bool = False) -> Iterator[M]:
    """Yield checkpoints, prune markers or reviews, ordered by number, and read `size` rows per query.

    If `latest_first` is true, the highest number comes first.

    Each query continues after the last number of the previous batch. `QuerySet.iterator()` isn't used, because on
    PostgreSQL it opens a cursor in one transaction and reads from the cursor in later transactions. PgBouncer may run
    these transactions on another connection, where the cursor doesn't exist.

    Raises DatabaseError if a query fails.
    """
    rows = rows.order_by("-number" if latest_first else "number")
    remaining = rows
    while True:
        batch = list(remaining[:size])
        yield from batch
        if len(batch) < size:
            return
        # In SQLite, an attacker can store a value of any type as the number. `Value` passes the stored value to the
        # database unchanged. Without `Value`, Django would convert the number, and could raise an error.
        last = Value(batch[-1].number)
        remaining = rows.filter(number__lt=last) if latest_first else rows.filter(number__gt=last)
