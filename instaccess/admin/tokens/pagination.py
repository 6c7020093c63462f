"""Pagination for a list with millions of rows: a limited count, and fast queries if only a few rows match."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db.models.functions import Least
from django.utils.functional import cached_property

COUNTED = 5_000
"""The maximum number of rows that the list counts and shows. Counting millions of rows would take seconds."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts and shows only the first `COUNTED` rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        counted: int = rows.order_by()[:COUNTED].count()
        return counted

    def page(self, number: Any) -> Any:
        if self.count < COUNTED:
            rows: Any = _sort_after_lookup(self.object_list)
            self.object_list = rows
            page: Any = super().page(number)
            # Select the ids of this page first. With only one query, a database may join the other tables to every
            # matching row before it selects the rows of the page.
            pks = list(page.object_list.values_list("pk", flat=True))
            page.object_list = rows.filter(pk__in=pks)
            return page
        return super().page(number)


def _sort_after_lookup(rows: Any) -> Any:
    """Change the ordering of a queryset with few rows, so that the database finds the rows before it sorts the rows.

    If rows are ordered by the indexed `issued_at`, a database may scan this index from the latest row on. If all
    matching rows are a year old, the scan reads most of the table. An ordering by `LEAST(issued_at, expires_at)`
    prevents the scan, because no index contains this expression. The order of the rows stays the same, because no
    token expires before its issue.
    """
    time = Least("issued_at", "expires_at")
    by = {"issued_at": time.asc(), "-issued_at": time.desc()}
    return rows.order_by(*(by.get(order, order) for order in rows.query.order_by))
