"""Old rows of the audit go here, and only here: whole checkpoints of them, in short batches, with a signed marker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError
from django.db.models import QuerySet
from django.utils import timezone

from ...exceptions import AuditAltered
from ...models import IssuedToken
from ..revocation import BATCH
from ..row_hmac import HmacStatus, readable
from ..row_hmac import row_status as verdict_of
from ..rows import issued_tokens
from . import checkpoints, statements, verification
from .checkpoints import SETTLED, latest_marker, rows_after
from .statements import EvidenceKeys, Marker, Statement


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` did: how many rows and checkpoints are gone, and the id of the last of the rows."""

    rows: int
    checkpoints: int
    last: int


def prune(
    before: datetime, keys: EvidenceKeys, *, batch: int = 1000, force: bool = False, now: datetime | None = None
) -> Pruned:
    """Delete the rows of tokens issued before a moment, oldest first, `batch` rows a transaction.

    What goes is sealed first and compared with its checkpoints. Only whole checkpoints go: of a day that was sealed
    in one piece all rows stay until the last is old enough. Nothing goes that a gateway could still meet, live or
    denied, whatever is asked. A signed marker is written before the first row is deleted: killed in the middle, the
    next run goes on.

    Raises AuditAltered where rows are not as they were written, unless `force`; the marker then says so for good.
    """
    now = now or timezone.now()
    checkpoints.seal(keys, now=now, cut=before)
    deleted = _delete_pruned(latest_marker(keys), batch)
    old = list(_old(before, keys))
    if old:
        altered = verification.verify(keys, until=old[-1].number).broken
        if altered and not force:
            raise AuditAltered(
                f"nothing was pruned: {altered}. Find out what happened first; `--force` prunes all the same, and "
                "says so in the marker"
            )
        # Where somebody else prunes at the same moment, they have said the same.
        with suppress(IntegrityError):
            checkpoints.mark_pruned(
                old[-1],
                keys,
                rows=sum(one.rows for one in old),
                newest=max(one.newest for one in old),
                altered=altered,
                now=now,
            )
    marker = latest_marker(keys)
    deleted += _delete_pruned(marker, batch)
    if force and marker.altered:
        deleted += _delete_altered(marker, now, keys)
    gone = checkpoints.checkpoints().filter(number__lte=marker.number).delete()[0]
    return Pruned(deleted, gone, marker.last)


def _delete_pruned(marker: Marker, batch: int) -> int:
    """Delete what a marker says is gone; returns how many rows.

    Not by their place alone: where somebody sets back the counter of ids, or moves a row, what is live lies there.
    """
    deleted = 0
    if not marker.number:
        return 0
    while pks := list(_pruned(marker).values_list("pk", flat=True)[: max(batch, 1)]):
        deleted += issued_tokens().filter(pk__in=pks).delete()[0]
    return deleted


def _delete_altered(marker: Marker, now: datetime, keys: EvidenceKeys) -> int:
    """Delete what else lies in the place of pruned rows and was edited, unless a gateway might still meet it."""
    deleted, window = 0, timedelta(seconds=SETTLED)
    pks = list(_until(marker.last).values_list("pk", flat=True))
    for start in range(0, len(pks), BATCH):
        rows, doomed = readable(_until(marker.last).filter(pk__in=pks[start : start + BATCH]))
        for row in rows:
            verdict = verdict_of(row, keys.keks)
            if verdict is not HmacStatus.AUTHENTIC and not now - window <= row.issued_at <= now + window:
                doomed.append(row.pk)
        deleted += issued_tokens().filter(pk__in=doomed).delete()[0]
    return deleted


def prunable(before: datetime, keys: EvidenceKeys, *, now: datetime | None = None) -> int:
    """How many rows `prune` would delete now."""
    now = now or timezone.now()
    marker = latest_marker(keys)
    last, number = marker.last, marker.number
    for statement in _old(before, keys):
        last, number = statement.last, statement.number
    sealed = _until(last).filter(pk__gt=marker.last).count()
    if not checkpoints.checkpoints().filter(number__gt=number).exists():
        # What is not sealed yet would be, up to the first row that is too young.
        young = min(before, now - timedelta(seconds=SETTLED))
        first_young = rows_after(last).filter(issued_at__gte=young).values_list("pk", flat=True).first()
        waiting = rows_after(last) if first_young is None else rows_after(last).filter(pk__lt=first_young)
        sealed += waiting.count()
    return _pruned(marker).count() + sealed


def _old(before: datetime, keys: EvidenceKeys) -> Iterator[Statement]:
    """The checkpoints, from the first on, whose rows are all older than a moment."""
    for checkpoint in checkpoints.checkpoints().filter(number__gt=latest_marker(keys).number).iterator(chunk_size=20):
        statement = statements.read_checkpoint(checkpoint, keys)
        if statement.newest >= before.timestamp():
            return
        yield statement


def _pruned(marker: Marker) -> QuerySet[IssuedToken]:
    return _until(marker.last).filter(issued_at__lt=datetime.fromtimestamp(marker.newest + 1, UTC))


def _until(last: int) -> QuerySet[IssuedToken]:
    return issued_tokens().order_by("pk").filter(pk__lte=last)
