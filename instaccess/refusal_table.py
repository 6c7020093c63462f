"""The table of refusals: counts are added to it, and it is kept small. See `refusals.py`, which nothing goes past."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError, connections, router, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from .models import RefusalCount
from .web import Kind

RETENTION = timedelta(days=35)
MAX_ROWS = 50_000
"""What the table keeps. Each process that writes looks after it once an hour: in between it may hold as many more as
they write in that time."""

_BATCH, _BATCHES = 500, 10


def rows() -> QuerySet[RefusalCount]:
    """What has been written, in the database it is written to: a replica may lag behind."""
    return RefusalCount.objects.using(router.db_for_write(RefusalCount))


def add(counts: Mapping[Kind, int]) -> None:
    """Add to the table: all of the counts, or none. Raises DatabaseError."""
    connection = connections[rows().db]
    names = {
        kind: {**kind._asdict(), "hour": datetime.fromtimestamp(kind.hour * 3600, UTC)} for kind in sorted(counts)
    }
    with transaction.atomic(using=connection.alias) if connection.in_atomic_block else nullcontext():
        # A statement of its own, committed before the transaction: on MariaDB whoever finds a row taken shares a lock
        # on it, and two workers that both went on to update it would wait for each other.
        rows().bulk_create([RefusalCount(**name) for name in names.values()], ignore_conflicts=True)
        with transaction.atomic(using=connection.alias):
            # In one order for all workers, so that none waits for one that waits for it.
            for kind, name in names.items():
                if not rows().filter(**name).update(count=F("count") + counts[kind]):
                    raise DatabaseError("a row was deleted before it could be counted up")


def trim() -> bool:
    """Delete what is too old and what is too much, in short statements. False where that has to go on next time."""
    oldest = timezone.now() - RETENTION
    newest_first = rows().order_by("-hour", "-pk")
    for _ in range(_BATCHES):
        surplus = [*newest_first.filter(hour__lt=oldest).values_list("pk", flat=True)[:_BATCH]]
        surplus += newest_first.values_list("pk", flat=True)[MAX_ROWS : MAX_ROWS + _BATCH]
        if not surplus:
            return True
        rows().filter(pk__in=surplus).delete()
    return False
