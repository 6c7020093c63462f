"""Pruning: the only code that deletes rows of the audit log.

`prune` stores a signed prune marker, then deletes the rows of whole checkpoints in short transactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError
from django.db.models import QuerySet
from django.utils import timezone

from ...exceptions import AuditAltered
from ...models import IssuedToken
from .. import revocation_log
from ..revocation import BATCH
from ..row_hmac import HmacStatus, load, row_status
from ..row_ids import first_id, id_time
from ..rows import issued_tokens
from . import checkpoints, signatures, verification
from .checkpoints import SETTLED, chain_start, rows_after
from .statements import EvidenceKeys, Marker, Statement


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of `prune`.

    Attributes:
        rows, checkpoints: the number of deleted rows and checkpoints.
        last: id of the last row that this or an earlier pruning deleted. 0 if no rows were ever pruned.
    """

    rows: int
    checkpoints: int
    last: int


def prune(
    before: datetime, keys: EvidenceKeys, *, batch: int = 1000, force: bool = False, now: datetime | None = None
) -> Pruned:
    """Delete the rows of tokens that were issued before a time, oldest first, in transactions of `batch` rows.

    First covers the rows with checkpoints and compares the rows with the checkpoints. Deletes whole checkpoints only,
    so the rows of a checkpoint stay until the newest of these rows is old enough. Never deletes the row of a token
    that a gateway could still accept or must still refuse. Stores a signed prune marker before deleting the first
    row. If the process is killed, the next run deletes the remaining rows. Reviews are never deleted.

    Raises AuditAltered if a row to be deleted was modified, unless the problem was reviewed. With `force`, deletes
    the rows anyway and records the tampering in the prune marker. Raises KeyUnavailable or UnsealError if there is no
    usable signing key.
    """
    now = now or timezone.now()
    checkpoints.seal(keys, now=now, cut=before)
    deleted = _delete_pruned(chain_start(keys), batch)
    old = list(_old_checkpoints(before, keys))
    if old:
        problems = verification.verify(keys, until=old[-1].number).summary
        if problems and not force:
            raise AuditAltered(
                f"nothing was pruned: {problems}. Investigate the cause first, and record a review with "
                "`instaccess_tokens review`. `--force` prunes these rows anyway and records the tampering in the "
                "prune marker"
            )
        # IntegrityError means that another process prunes at the same time and has created the same marker.
        with suppress(IntegrityError):
            checkpoints.mark_pruned(
                old[-1], keys, rows=sum(statement.rows for statement in old), altered=problems, now=now
            )
    marker = chain_start(keys)
    deleted += _delete_pruned(marker, batch)
    # At this point, the problems of the pruned rows were reviewed, or `force` was given.
    if old or force:
        deleted += _delete_modified(_rows_through(marker.last), now, keys)
    if force:
        moved_to_the_end = issued_tokens().filter(pk__gte=first_id(now + timedelta(days=1)), issued_at__lt=before)
        deleted += _delete_modified(moved_to_the_end, now, keys)
    # A recent revocation stays, because gateways must still refuse its tokens.
    revocation_log.prune(min(before, now - timedelta(seconds=SETTLED)))
    deleted_checkpoints = checkpoints.checkpoints().filter(number__lte=marker.number).delete()[0]
    return Pruned(deleted, deleted_checkpoints, marker.last)


def _delete_pruned(marker: Marker, batch: int) -> int:
    """Delete the rows that a prune marker covers. Returns the number of deleted rows.

    Rows must match by time as well as by id: an attacker who moves a row can give the row of a live token an id in
    the pruned range.
    """
    deleted = 0
    if not marker.number:
        return 0
    while pks := list(_pruned_rows(marker).values_list("pk", flat=True)[: max(batch, 1)]):
        deleted += issued_tokens().filter(pk__in=pks).delete()[0]
    return deleted


def _delete_modified(rows: QuerySet[IssuedToken], now: datetime, keys: EvidenceKeys) -> int:
    """Delete the modified ones of some rows, except rows that may belong to a live token.

    Returns the number of deleted rows.
    """
    deleted, window = 0, timedelta(seconds=SETTLED)
    pks = list(rows.values_list("pk", flat=True))
    for start in range(0, len(pks), BATCH):
        modified = []
        for pk, row in load(issued_tokens().filter(pk__in=pks[start : start + BATCH])):
            if row is None or (
                row_status(row, keys.keks) is not HmacStatus.AUTHENTIC
                and not now - window <= row.issued_at <= now + window
            ):
                modified.append(pk)
        deleted += issued_tokens().filter(pk__in=modified).delete()[0]
    return deleted


def prunable(before: datetime, keys: EvidenceKeys, *, now: datetime | None = None) -> int:
    """Return the number of rows that `prune` would delete now, if no row was modified."""
    now = now or timezone.now()
    marker = chain_start(keys)
    last, number = marker.last, marker.number
    for statement in _old_checkpoints(before, keys):
        last, number = statement.last, statement.number
    count = _rows_through(last).filter(pk__gt=marker.last).count()
    if not checkpoints.checkpoints().filter(number__gt=number).exists():
        # `prune` creates checkpoints for the remaining rows, up to the first row that is too recent.
        limit = min(before, now - timedelta(seconds=SETTLED))
        count += rows_after(last).filter(pk__lt=first_id(limit)).count()
    return _pruned_rows(marker).count() + count


def _old_checkpoints(before: datetime, keys: EvidenceKeys) -> Iterator[Statement]:
    """Yield checkpoints from the beginning of the chain until one contains a row issued at `before` or later.

    Leaves out modified checkpoints, which `verify` reports.
    """
    unpruned = checkpoints.checkpoints().filter(number__gt=chain_start(keys).number)
    for checkpoint in unpruned.iterator(chunk_size=20):
        statement, _ = signatures.try_read(signatures.read_checkpoint, checkpoint, keys)
        if statement is not None and statement.last >= first_id(before):
            return
        if statement is not None:
            yield statement


def _pruned_rows(marker: Marker) -> QuerySet[IssuedToken]:
    return _rows_through(marker.last).filter(issued_at__lt=id_time(marker.last) + timedelta(seconds=1))


def _rows_through(last: int) -> QuerySet[IssuedToken]:
    return issued_tokens().order_by("pk").filter(pk__lte=last)
