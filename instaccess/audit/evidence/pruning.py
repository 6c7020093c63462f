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
from ...models import IssuedToken, PruneMarker
from .. import revocation_log
from ..batches import in_batches
from ..long_work import Progress, ignore_progress
from ..revocation import BATCH
from ..row_hmac import HmacStatus, load, row_status
from ..row_ids import first_id, id_time
from ..rows import current_time, issued_tokens
from ..stored_rows import to_datetime
from . import checkpoints, signatures, verification
from .checkpoints import AT_ONCE, SETTLED, chain_start, rows_after
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
    before: datetime,
    keys: EvidenceKeys,
    *,
    batch: int = 1000,
    force: bool = False,
    progress: Progress = ignore_progress,
) -> Pruned:
    """Delete the audit rows of tokens that were issued before a time, oldest first, in transactions of `batch` rows.

    Before deleting a row, the function creates missing checkpoints, compares the rows with their checkpoints, and
    stores a signed prune marker. The rows that a checkpoint covers are deleted together, when the newest of these
    rows is old enough. The row of a token that a gateway could still accept, or must still refuse, is never deleted.
    Reviews are never deleted. If the process is killed, the next call deletes the remaining rows. The progress is
    reported to `progress`.

    Raises AuditAltered if `verify` finds an unreviewed problem in the rows to be deleted. If `force` is true, the
    function deletes these rows anyway and records the tampering in the prune marker. Raises KeyUnavailable or
    UnsealError if there is no usable signing key.
    """
    now = current_time()
    checkpoints.seal(keys, cut=before, progress=progress)
    deleted = _delete_pruned(chain_start(keys), batch, progress)
    last, old_rows = None, 0
    for last in _old_checkpoints(before, keys):
        old_rows += last.rows
    if last is not None:
        problems = verification.verify(keys, until=last, progress=progress).summary
        if problems and not force:
            raise AuditAltered(
                f"nothing was pruned: {problems}. Investigate the cause, and record a review with `instaccess_tokens "
                "review`. To prune these rows without a review, add `--force`, which records the tampering in the "
                "prune marker"
            )
        # Ignore IntegrityError, which is raised if another process prunes at the same time and has created the same
        # marker.
        with suppress(IntegrityError):
            _add_marker(last, keys, rows=old_rows, altered=problems, now=now)
    marker = chain_start(keys)
    deleted += _delete_pruned(marker, batch, progress)
    # The modified rows may be deleted here, because an operator has reviewed their problems or has used `force`.
    if last is not None or force:
        deleted += _delete_modified(_rows_through(marker.last), now, keys)
    if force:
        moved_to_the_end = issued_tokens().filter(pk__gte=first_id(now + timedelta(days=1)), issued_at__lt=before)
        deleted += _delete_modified(moved_to_the_end, now, keys)
    # Keep recent revocations, because gateways must still refuse the revoked tokens.
    revocation_log.prune(min(before, now - timedelta(seconds=SETTLED)))
    return Pruned(deleted, _delete_checkpoints(marker), marker.last)


def _add_marker(statement: Statement, keys: EvidenceKeys, *, rows: int, altered: str, now: datetime) -> None:
    """Create a prune marker for the audit rows up to a checkpoint. Call this function before deleting these rows.

    Args:
        statement: the contents of the last checkpoint whose rows are pruned.
        rows: the number of rows that this pruning deletes.
        altered: a description of the tampering found in the pruned rows; empty if no tampering was found.

    Raises KeyUnavailable or UnsealError if there is no usable signing key, and IntegrityError if another process
    created the same marker.
    """
    before = chain_start(keys)
    marker = Marker(
        number=statement.number,
        last=statement.last,
        digest=statement.digest,
        rows=before.rows + rows,
        altered=altered or before.altered,
        pruned_at=int(now.timestamp()),
    )
    row = PruneMarker(number=marker.number, jws=signatures.sign(marker, keys))
    signatures.insert(row, keys)


def _delete_pruned(marker: Marker, batch: int, progress: Progress) -> int:
    """Delete the audit rows that a prune marker covers, in ranges of ids. Returns the number of deleted rows.

    A row is deleted only if both its id and its time of issue are in the pruned range. If only the id were checked,
    an attacker could change the id in the row of a live token. This function would then delete the row.

    Each range begins after the previous range. If each range began at the first row, PostgreSQL would read the index
    entries of all deleted rows again, because only VACUUM removes these entries.
    """
    deleted, size = 0, max(batch, 1)
    rows = _pruned_rows(marker)
    if not marker.number or not rows.exists():
        return 0
    advance = progress("deleting", rows.count)
    remaining, pruned = _rows_through(marker.last), rows
    while True:
        end = remaining.values_list("pk", flat=True)[size - 1 : size].first()
        end = marker.last if end is None else end
        count = pruned.filter(pk__lte=end).delete()[0]
        deleted += count
        advance(count)
        if end == marker.last:
            return deleted
        remaining, pruned = _rows_through(marker.last).filter(pk__gt=end), rows.filter(pk__gt=end)


def _delete_checkpoints(marker: Marker) -> int:
    """Delete the checkpoints whose rows were pruned. Returns the number of deleted checkpoints."""
    deleted = 0
    pruned = checkpoints.checkpoints().filter(number__lte=marker.number)
    while pks := list(pruned.values_list("pk", flat=True)[:AT_ONCE]):
        deleted += checkpoints.checkpoints().filter(pk__in=pks).delete()[0]
    return deleted


def _delete_modified(rows: QuerySet[IssuedToken], now: datetime, keys: EvidenceKeys) -> int:
    """Delete the unreadable audit rows, and the rows whose HMAC doesn't match or can't be checked.

    A readable row is not deleted if its time of issue is close to `now`, because the row may belong to a live token.

    Returns the number of deleted rows.
    """
    deleted, window = 0, timedelta(seconds=SETTLED)
    remaining = rows.order_by("pk")
    while page := load(remaining[:BATCH]):
        modified = [
            pk
            for pk, row in page
            if row is None
            or (
                row_status(row, keys.keks) is not HmacStatus.AUTHENTIC
                and abs(to_datetime(row.issued_at) - now) > window
            )
        ]
        deleted += issued_tokens().filter(pk__in=modified).delete()[0]
        remaining = rows.order_by("pk").filter(pk__gt=page[-1][0])
    return deleted


def prunable(before: datetime, keys: EvidenceKeys) -> int:
    """Return the number of audit rows that `prune` would delete now if no row was modified."""
    marker = chain_start(keys)
    last, number = marker.last, marker.number
    for statement in _old_checkpoints(before, keys):
        last, number = statement.last, statement.number
    count = _rows_through(last).filter(pk__gt=marker.last).count()
    if not checkpoints.checkpoints().filter(number__gt=number).exists():
        # `prune` also creates checkpoints for the rows after the last checkpoint, except rows that are too recent.
        limit = min(before, current_time() - timedelta(seconds=SETTLED))
        count += rows_after(last).filter(pk__lt=first_id(limit)).count()
    return _pruned_rows(marker).count() + count


def _old_checkpoints(before: datetime, keys: EvidenceKeys) -> Iterator[Statement]:
    """Yield the oldest checkpoints, until a checkpoint covers an audit row that was issued at `before` or later.

    Modified checkpoints are left out, because `verify` reports them.
    """
    unpruned = checkpoints.checkpoints().filter(number__gt=chain_start(keys).number)
    for checkpoint in in_batches(unpruned, AT_ONCE):
        statement, _ = signatures.try_read(signatures.read_checkpoint, checkpoint, keys)
        if statement is not None and statement.last >= first_id(before):
            return
        if statement is not None:
            yield statement


def _pruned_rows(marker: Marker) -> QuerySet[IssuedToken]:
    return _rows_through(marker.last).filter(issued_at__lt=id_time(marker.last) + timedelta(seconds=1))


def _rows_through(last: int) -> QuerySet[IssuedToken]:
    return issued_tokens().order_by("pk").filter(pk__lte=last)
