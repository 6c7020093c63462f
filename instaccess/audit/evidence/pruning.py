"""Pruning: the only code that deletes rows of the audit log.

`prune` first stores a signed prune marker. Then `prune` deletes, in short transactions, all rows that the oldest
checkpoints cover.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError
from django.db.models import QuerySet

from ...exceptions import AuditAltered
from ...models import IssuedToken
from .. import revocation_log
from ..batches import in_batches
from ..revocation import BATCH
from ..row_hmac import HmacStatus, load, row_status
from ..row_ids import first_id, id_time
from ..rows import current_time, issued_tokens
from . import checkpoints, signatures, verification
from .checkpoints import SETTLED, chain_start, rows_after
from .statements import EvidenceKeys, Marker, Statement


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of `prune`.

    Attributes:
        rows: the number of deleted audit rows.
        checkpoints: the number of deleted checkpoints.
        last: the id of the last row that this or an earlier pruning deleted. 0 if no rows were ever pruned.
    """

    rows: int
    checkpoints: int
    last: int


def prune(
    before: datetime, keys: EvidenceKeys, *, batch: int = 1000, force: bool = False, now: datetime | None = None
) -> Pruned:
    """Delete the audit rows of tokens that were issued before a time, oldest first, in transactions of `batch` rows.

    Before deleting a row, the function creates missing checkpoints, compares the rows with their checkpoints, and
    stores a signed prune marker. The rows that a checkpoint covers are deleted together, when the newest of these
    rows is old enough. The row of a token that a gateway could still accept, or must still refuse, is never deleted.
    Reviews are never deleted. If the process is killed, the next call deletes the remaining rows.

    Raises AuditAltered if `verify` finds a problem in the rows to be deleted that no operator has reviewed. With
    `force`, deletes the rows anyway and records the tampering in the prune marker. Raises KeyUnavailable or
    UnsealError if there is no usable signing key.
    """
    now = now or current_time()
    checkpoints.seal(keys, now=now, cut=before)
    deleted = _delete_pruned(chain_start(keys), batch)
    old = list(_old_checkpoints(before, keys))
    if old:
        problems = verification.verify(keys, until=old[-1].number).summary
        if problems and not force:
            raise AuditAltered(
                f"nothing was pruned: {problems}. Investigate the cause, and record a review with `instaccess_tokens "
                "review`. To prune these rows without a review, add `--force`, which records the tampering in the "
                "prune marker"
            )
        # Ignore IntegrityError, which is raised if another process prunes at the same time and has created the same
        # marker.
        with suppress(IntegrityError):
            checkpoints.mark_pruned(
                old[-1], keys, rows=sum(statement.rows for statement in old), altered=problems, now=now
            )
    marker = chain_start(keys)
    deleted += _delete_pruned(marker, batch)
    # The modified rows may be deleted here, because an operator has reviewed their problems or has used `force`.
    if old or force:
        deleted += _delete_modified(_rows_through(marker.last), now, keys)
    if force:
        moved_to_the_end = issued_tokens().filter(pk__gte=first_id(now + timedelta(days=1)), issued_at__lt=before)
        deleted += _delete_modified(moved_to_the_end, now, keys)
    # Keep recent revocations, because gateways must still refuse the revoked tokens.
    revocation_log.prune(min(before, now - timedelta(seconds=SETTLED)))
    deleted_checkpoints = checkpoints.checkpoints().filter(number__lte=marker.number).delete()[0]
    return Pruned(deleted, deleted_checkpoints, marker.last)


def _delete_pruned(marker: Marker, batch: int) -> int:
    """Delete the audit rows that a prune marker covers. Returns the number of deleted rows.

    A row is deleted only if both its id and its time of issue are in the pruned range. Otherwise, an attacker could
    have the row of a live token deleted by changing the id of the row.
    """
    deleted = 0
    if not marker.number:
        return 0
    while pks := list(_pruned_rows(marker).values_list("pk", flat=True)[: max(batch, 1)]):
        deleted += issued_tokens().filter(pk__in=pks).delete()[0]
    return deleted


def _delete_modified(rows: QuerySet[IssuedToken], now: datetime, keys: EvidenceKeys) -> int:
    """Delete the audit rows that were modified, except rows that may belong to a live token.

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
    """Return the number of audit rows that `prune` would delete now if no row was modified."""
    now = now or current_time()
    marker = chain_start(keys)
    last, number = marker.last, marker.number
    for statement in _old_checkpoints(before, keys):
        last, number = statement.last, statement.number
    count = _rows_through(last).filter(pk__gt=marker.last).count()
    if not checkpoints.checkpoints().filter(number__gt=number).exists():
        # `prune` also creates checkpoints for the rows after the last checkpoint, except rows that are too recent.
        limit = min(before, now - timedelta(seconds=SETTLED))
        count += rows_after(last).filter(pk__lt=first_id(limit)).count()
    return _pruned_rows(marker).count() + count


def _old_checkpoints(before: datetime, keys: EvidenceKeys) -> Iterator[Statement]:
    """Yield the oldest checkpoints, until a checkpoint covers an audit row that was issued at `before` or later.

    Modified checkpoints are left out, because `verify` reports them.
    """
    unpruned = checkpoints.checkpoints().filter(number__gt=chain_start(keys).number)
    for checkpoint in in_batches(unpruned, 20):
        statement, _ = signatures.try_read(signatures.read_checkpoint, checkpoint, keys)
        if statement is not None and statement.last >= first_id(before):
            return
        if statement is not None:
            yield statement


def _pruned_rows(marker: Marker) -> QuerySet[IssuedToken]:
    return _rows_through(marker.last).filter(issued_at__lt=id_time(marker.last) + timedelta(seconds=1))


def _rows_through(last: int) -> QuerySet[IssuedToken]:
    return issued_tokens().order_by("pk").filter(pk__lte=last)
