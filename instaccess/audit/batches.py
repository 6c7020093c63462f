"""A function that reads many rows in batches, without a cursor that stays open between two queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def in_batches(rows: QuerySet[M], size: int) -> Iterator[M]:
    """Yield rows in the order of the queryset, and read `size` rows per query. Raises DatabaseError.

    Only the primary keys of all rows are in memory. `QuerySet.iterator()` isn't used, because on PostgreSQL it opens
    a cursor in one transaction and reads from the cursor in later transactions. PgBouncer may run these transactions
    on another connection, where the cursor doesn't exist.
    """
    pks = list(rows.values_list("pk", flat=True))
    for start in range(0, len(pks), size):
        yield from rows.filter(pk__in=pks[start : start + size])
