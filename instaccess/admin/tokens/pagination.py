"""A list of millions of rows: what the admin counts of it, and how it finds its years, months and days."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.functions import Least
from django.utils import timezone
from django.utils.functional import cached_property

from ...models import IssuedToken
from . import periods

_MOST_DAYS = 20_000

COUNTED = 5_000
"""Rows that a list counts and pages through. Counting all of millions takes seconds; nobody pages that far."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages of the first `COUNTED` rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        counted: int = rows.order_by()[:COUNTED].count()
        return counted

    def page(self, number: Any) -> Any:
        if self.count < COUNTED:
            self.object_list = _found_first(self.object_list)
        return super().page(number)


def _found_first(rows: Any) -> Any:
    """Few rows, asked for in such a way that they are looked up and then sorted.

    Asked for the latest of them, a database may well go through all rows from the latest on, for it expects to meet
    some soon; those of somebody who left a year ago come last. Nobody's tokens expire before they are issued, so the
    order is the same, and no index has it.
    """
    time = Least("issued_at", "expires_at")
    by = {"issued_at": time.asc(), "-issued_at": time.desc()}
    return rows.order_by(*(by.get(order, order) for order in rows.query.order_by))


class Dates(QuerySet[IssuedToken]):
    """What Django's date hierarchy asks for."""

    def datetimes(self, field_name: str, kind: str, *args: Any, **kwargs: Any) -> Any:
        """Years, months or days from the first row to the last. Django's own looks at every row for them."""
        first, last = (
            self.order_by(order).values_list(field_name, flat=True).first()
            for order in (field_name, f"-{field_name}")
        )
        found: dict[datetime, None] = {}
        if first and last:
            # No further back than half a century: somebody may have written the year 1 into a row.
            days = min((last.date() - first.date()).days, _MOST_DAYS)
            for number in range(days, -1, -1):
                day = last.date() - timedelta(days=number)
                start = {"year": day.replace(month=1, day=1), "month": day.replace(day=1), "day": day}[kind]
                found[datetime.combine(start, time.min, UTC)] = None
        return list(found)


def dates_of(changelist: ChangeList) -> ChangeList:
    """The list as Django's date hierarchy is to see it: by dates alone.

    To find the first and the last row that filters and search leave, a database may well go through all the others
    in the order of time.
    """
    seen = copy(changelist)
    picked = periods.picked(changelist.params, timezone.now())
    seen.queryset = Dates(IssuedToken).order_by()
    if picked is not None:
        seen.queryset = seen.queryset.filter(issued_at__gte=picked.since, issued_at__lt=picked.until)
    return seen
