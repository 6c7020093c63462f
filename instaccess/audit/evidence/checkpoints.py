"""Checkpoints: signed statements that cover a range of audit rows after the rows can no longer change.

`seal` creates checkpoints. Each checkpoint covers the rows after the previous checkpoint: at most `ROWS` rows, all of
the same UTC day. A checkpoint contains the number of rows, the id of the last row, and a SHA-256 digest. The digest
is chained to the previous checkpoint. Copies stored on another machine reveal changes even if the attacker has all
keys (see `verification.py`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, router, transaction
from django.db.models import QuerySet
from django.utils import timezone

from ...conf import KeyEncryptionKey
from ...models import Checkpoint, IssuedToken, PruneMarker
from ...tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME
from .. import row_hmac
from ..rows import issued_tokens
from . import statements
from .statements import START, Entry, EvidenceKeys, Marker, Statement, fingerprint, row_digest

logger = logging.getLogger("instaccess.audit")

ROWS = 10_000
"""The maximum number of rows per checkpoint. `seal`, `verify` and `prune` read this many rows into memory at once."""

SETTLED = MAX_LIFETIME + AFTERLIFE + CLOCK_SKEW + 600
"""Seconds after the time of issue until a row can no longer change.

After this time, the token can no longer be revoked, and every INSERT of a row with a lower id was committed or has
failed. Ten minutes are allowed for a slow INSERT.
"""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The result of `seal`.

    Attributes:
        made: the new checkpoints.
        waiting: number of rows that no checkpoint covers yet, because the rows can still change.
        ready_at: when a checkpoint can cover the first waiting row. None if no rows are waiting.
    """

    made: tuple[Statement, ...]
    waiting: int
    ready_at: datetime | None


def rows_after(row_id: int) -> QuerySet[IssuedToken]:
    """Return the rows with a greater id, ordered by id."""
    return issued_tokens().filter(pk__gt=row_id).order_by("pk")


def seal(keys: EvidenceKeys, *, now: datetime | None = None, cut: datetime | None = None) -> Sealed:
    """Create checkpoints for all rows that can no longer change.

    Can run at any time, also in several processes at once, because only one process creates the next checkpoint. Can
    be killed at any time, because each checkpoint is one INSERT.

    Args:
        cut: a time at which a checkpoint ends, in addition to every midnight UTC.

    Raises KeyUnavailable or UnsealError if there is no usable signing key. Raises AuditAltered if a row can't be read
    or the last checkpoint was modified.
    """
    now = now or timezone.now()
    settled = now - timedelta(seconds=SETTLED)
    keys.sign(b"{}", statements.CHECKPOINT)  # Without a usable key, the function fails before it reads any rows.
    made: list[Statement] = []
    try:
        while added := _seal_page(keys, now, settled, cut):
            made += added
    except IntegrityError:
        logger.info("another process created the next checkpoint and continues with the rest")
    waiting = rows_after(chain_end(keys).last)
    first = waiting.first()
    if first is None:
        return Sealed(tuple(made), 0, None)
    ready_at = first.issued_at
    with suppress(OverflowError):  # The addition fails if an attacker set the year to 9999.
        ready_at += timedelta(seconds=SETTLED)
    return Sealed(tuple(made), waiting.count(), ready_at)


def _seal_page(keys: EvidenceKeys, now: datetime, settled: datetime, cut: datetime | None) -> list[Statement]:
    """Create checkpoints for the next `ROWS` rows. Returns an empty list if no rows are ready."""
    made: list[Statement] = []
    position = chain_end(keys)
    rows = page = row_hmac.loaded(rows_after(position.last)[:ROWS])
    while ready := _select_next_rows(rows, settled, cut, keys.keks):
        if len(ready) == len(rows) < len(page) == ROWS:
            break  # The next page may contain more rows for the same checkpoint.
        made.append(_add_checkpoint(position, ready, keys, now, settled))
        position, rows = chain_end(keys), rows[len(ready) :]
    return made


def _select_next_rows(
    rows: Sequence[IssuedToken], settled: datetime, cut: datetime | None, keks: Sequence[KeyEncryptionKey]
) -> list[IssuedToken]:
    """Return the rows from the beginning of `rows` that the next checkpoint covers."""
    selected: list[IssuedToken] = []
    newest = None  # The latest time of the selected rows, which isn't always the time of the last selected row.
    last_settled_id = next((row.pk for row in reversed(rows) if row.issued_at < settled), 0)
    for row in rows:
        if row.issued_at >= settled:
            if row.pk > last_settled_id or row_hmac.row_status(row, keks) is row_hmac.HmacStatus.AUTHENTIC:
                break
            # An attacker moved the time of this row into the future. The row is selected, because waiting for its
            # time would block checkpoints for all later rows.
            selected.append(row)
            continue
        midnight = row.issued_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if newest and any(limit and newest < limit <= row.issued_at for limit in (midnight, cut)):
            break
        newest = max(newest or row.issued_at, row.issued_at)
        selected.append(row)
    return selected


def _add_checkpoint(
    position: Marker, rows: Sequence[IssuedToken], keys: EvidenceKeys, now: datetime, settled: datetime
) -> Statement:
    chain, entries, modified = hashlib.sha256(position.digest.encode()), [], []
    for row in rows:
        row_bytes = row_hmac.canonical_bytes(row)
        digest = row_digest(row.pk, row_bytes)
        chain.update(digest)
        matches = row_hmac.check(row_bytes, row.mac, keys.keks) is row_hmac.HmacStatus.AUTHENTIC
        entries.append(str(Entry(row.pk, fingerprint(digest), altered=not matches)))
        if not matches:
            modified.append(row.pk)
    index = "\n".join(entries)
    statement = Statement(
        number=position.number + 1,
        previous=position.digest,
        first=rows[0].pk,
        last=rows[-1].pk,
        rows=len(rows),
        # Times in the future are ignored. Otherwise, an attacker who moves the time of one row could prevent the
        # other rows from being pruned.
        newest=int(max((row.issued_at for row in rows if row.issued_at < settled), default=settled).timestamp()),
        digest=chain.hexdigest(),
        index=hashlib.sha256(index.encode()).hexdigest(),
        altered=len(modified),
        sealed_at=int(now.timestamp()),
    )
    jws = statements.sign(statement, statements.CHECKPOINT, keys)
    mac = statements.mac(keys, statements.CHECKPOINT, jws, index)
    checkpoint = Checkpoint(number=statement.number, jws=jws, index=index, mac=mac)
    alias = router.db_for_write(Checkpoint)
    with transaction.atomic(using=alias):
        checkpoint.save(using=alias, force_insert=True)
    logger.info(
        "checkpoint %d: %d rows up to %d digest=%s", statement.number, len(rows), statement.last, statement.digest
    )
    if modified:
        logger.error("checkpoint %d covers rows whose HMAC doesn't match: %s", statement.number, modified[:100])
    return statement


def mark_pruned(
    statement: Statement,
    keys: EvidenceKeys,
    *,
    rows: int,
    newest: int,
    altered: str = "",
    now: datetime | None = None,
) -> Marker:
    """Create a prune marker for the rows up to a checkpoint. Called before the first of these rows is deleted.

    Args:
        rows: number of rows that this pruning deletes.
        newest: when the newest token of the pruned rows was issued, in seconds since the epoch.
        altered: a description of the tampering found among the pruned rows; empty if there was none.

    Raises KeyUnavailable or UnsealError if there is no usable signing key, and IntegrityError if another process
    created the same marker.
    """
    before = latest_marker(keys)
    marker = Marker(
        number=statement.number,
        last=statement.last,
        digest=statement.digest,
        newest=max(newest, before.newest),
        rows=before.rows + rows,
        altered=altered or before.altered,
        pruned_at=int((now or timezone.now()).timestamp()),
    )
    jws = statements.sign(marker, statements.MARKER, keys)
    row = PruneMarker(number=marker.number, jws=jws, mac=statements.mac(keys, statements.MARKER, jws))
    alias = router.db_for_write(PruneMarker)
    with transaction.atomic(using=alias):
        row.save(using=alias, force_insert=True)
    return marker


def checkpoints() -> QuerySet[Checkpoint]:
    """Return all checkpoints, ordered by number."""
    return Checkpoint.objects.using(router.db_for_write(Checkpoint)).order_by("number")


def markers() -> QuerySet[PruneMarker]:
    """Return all prune markers, ordered by number."""
    return PruneMarker.objects.using(router.db_for_write(PruneMarker)).order_by("number")


def latest_marker(keys: EvidenceKeys) -> Marker:
    """Return the latest prune marker, or `START` if there is none. Raises AuditAltered if the marker was modified."""
    row = markers().last()
    return START if row is None else statements.read_marker(row, keys)


def chain_end(keys: EvidenceKeys) -> Marker:
    """Return the number, last row and digest of the last checkpoint, to which the next checkpoint is chained."""
    marker = latest_marker(keys)
    checkpoint = checkpoints().filter(number__gt=marker.number).last()
    if checkpoint is None:
        return marker
    statement = statements.read_checkpoint(checkpoint, keys)
    return replace(marker, number=statement.number, last=statement.last, digest=statement.digest)
