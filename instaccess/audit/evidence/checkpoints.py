"""Checkpoints: signed statements that cover a range of audit rows, created when the rows can no longer change.

`seal` creates checkpoints. Each checkpoint covers the rows after the previous checkpoint: at most `ROWS` rows, all of
the same UTC day. A checkpoint contains the number of rows and the ids of the first and the last row. The index of the
checkpoint lists a digest of each row. The checkpoint also contains a SHA-256 digest of its index and of the previous
checkpoint's digest. Copies stored on another machine reveal changes even if the attacker has all keys (see
`verification.py`).

Tampering doesn't stop `seal`. A checkpoint also covers modified and unreadable rows, which its index marks. If the
last checkpoints were modified, the next checkpoint is chained to the last checkpoint that can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from django.db import IntegrityError, router
from django.db.models import QuerySet

from ...logs import get_logger
from ...models import Checkpoint, IssuedToken, PruneMarker
from ...tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME
from .. import row_hmac
from ..batches import in_batches
from ..long_work import Progress, ignore_progress
from ..row_ids import PER_DAY, first_id, id_time
from ..rows import current_time, issued_tokens
from ..stored_rows import StoredRow
from . import reviews, signatures
from .checkpoint_index import UNREADABLE, Entry, row_digest
from .statements import START, EvidenceKeys, Marker, Statement, chain_digest, next_number

logger = get_logger("instaccess.audit")

ROWS = 10_000
"""The maximum number of audit rows that one checkpoint covers, and that `seal` and `verify` keep in memory."""

AT_ONCE = 4
"""The maximum number of checkpoints that one query reads or deletes.

This number limits the use of memory, because the index of a checkpoint can contain 700 KB.
"""

SETTLED = MAX_LIFETIME + AFTERLIFE + CLOCK_SKEW + 600
"""The age of a token, in seconds, from which the token's audit row can no longer change.

At this age, the token can no longer be revoked, and the INSERT of the row was committed or has failed. Ten minutes
are allowed for a slow INSERT. If the clock of an issuer is slow by more than `SETTLED`, `verify` reports the issuer's
rows as added.
"""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The result of `seal`.

    Attributes:
        made: the contents of the new checkpoints.
        waiting: the number of audit rows that no checkpoint covers yet, because the rows can still change.
        ready_at: the time when a checkpoint can cover the first of these rows. None if every row is covered.
    """

    made: tuple[Statement, ...]
    waiting: int
    ready_at: datetime | None


class ChainEnd(NamedTuple):
    """The end of the chain of checkpoints: the last checkpoint, or the latest prune marker if there is no checkpoint.

    Attributes:
        number: the number of the last checkpoint.
        last: the id of the last audit row that this checkpoint covers.
        digest: the digest of this checkpoint. The next checkpoint contains the digest as `previous`.
        taken: the numbers of later checkpoints that can't be read.
    """

    number: int
    last: int
    digest: str
    taken: frozenset[int] = frozenset()


def rows_after(row_id: int) -> QuerySet[IssuedToken]:
    """Return the audit rows whose id is greater than `row_id`, ordered by id."""
    return issued_tokens().filter(pk__gt=row_id).order_by("pk")


def seal(
    keys: EvidenceKeys,
    *,
    now: datetime | None = None,
    cut: datetime | None = None,
    progress: Progress = ignore_progress,
) -> Sealed:
    """Create checkpoints for all audit rows that no checkpoint covers yet and that can no longer change.

    Several processes can call this function at the same time, because only one of them can insert the next
    checkpoint. A process can be killed at any time, because each checkpoint is inserted with one statement. The next
    call continues after the last checkpoint.

    Args:
        cut: a time at which a checkpoint ends, in addition to every midnight UTC.
        progress: the function to which the progress is reported.

    Raises KeyUnavailable or UnsealError if there is no usable signing key.
    """
    now = now or current_time()
    signatures.check_signing_key(keys)  # Fail before reading rows if no key is usable.
    made: list[Statement] = []
    # Only the ids determine which rows can no longer change. If the column `issued_at` were used, an attacker could
    # stop `seal` by storing an unreadable time or a time in the future.
    settled = first_id(now - timedelta(seconds=SETTLED))
    end = _log_modified(chain_end(keys))
    review = reviews.last_number(keys)
    advance = progress("creating checkpoints", rows_after(end.last).filter(pk__lt=settled).count)
    try:
        for rows in _parts(end.last, settled, cut):
            statement = _add_checkpoint(end, rows, keys, now, review)
            made.append(statement)
            end = ChainEnd(statement.number, statement.last, statement.digest, end.taken)
            advance(statement.rows)
    except IntegrityError:
        logger.info(
            "another process created the next checkpoint, and creates the remaining checkpoints",
            checkpoints=len(made),
        )
    waiting = rows_after(chain_end(keys).last)
    first = waiting.values_list("pk", flat=True).first()
    ready_at = None if first is None else id_time(first) + timedelta(seconds=SETTLED)
    return Sealed(tuple(made), waiting.count(), ready_at)


def _log_modified(end: ChainEnd) -> ChainEnd:
    if end.taken:
        logger.error(
            "these checkpoints were modified, so the next checkpoint follows checkpoint %(checkpoint)d: %(modified)s",
            checkpoint=end.number,
            modified=sorted(end.taken),
        )
    return end


def _parts(last: int, settled: int, cut: datetime | None) -> Iterator[list[tuple[int, StoredRow | None]]]:
    """Yield the audit rows of each checkpoint to create: at most `ROWS` rows of one UTC day, on one side of `cut`.

    Args:
        last: the id of the last row that a checkpoint already covers.
        settled: the id from which rows can still change.
        cut: a time at which a checkpoint ends, in addition to every midnight UTC.
    """
    limit = None if cut is None else first_id(cut)
    rows: list[tuple[int, StoredRow | None]] = []
    while True:
        page = row_hmac.load(rows_after(last).filter(pk__lt=settled)[: ROWS - len(rows)])
        rows += page
        parts = [
            list(part)
            for _, part in groupby(rows, key=lambda row: (row[0] // PER_DAY, limit is not None and row[0] >= limit))
        ]
        # Don't yield the last part yet, because the next page may begin with rows of the same part.
        rows = parts.pop() if page and len(parts[-1]) < ROWS else []
        yield from parts
        if not page:
            return
        last = page[-1][0]


def _add_checkpoint(
    end: ChainEnd, rows: Sequence[tuple[int, StoredRow | None]], keys: EvidenceKeys, now: datetime, review: int
) -> Statement:
    """Create a checkpoint for the audit rows that follow the end of the chain.

    `review` is the number of the latest review.
    """
    lines, altered = _index_lines(rows, keys)
    index = "\n".join(lines)
    statement = Statement(
        number=next_number(end.number, end.taken),
        previous=end.digest,
        first=rows[0][0],
        last=rows[-1][0],
        rows=len(rows),
        digest=chain_digest(end.digest, index),
        altered=len(altered),
        reviews=review,
        sealed_at=int(now.timestamp()),
    )
    checkpoint = Checkpoint(number=statement.number, jws=signatures.sign(statement, keys), index=index)
    signatures.insert(checkpoint, keys)
    logger.info(
        "checkpoint %(checkpoint)d: %(rows)d rows up to %(last)d digest=%(digest)s",
        checkpoint=statement.number,
        rows=len(rows),
        last=statement.last,
        digest=statement.digest,
    )
    if altered:
        logger.error(
            "checkpoint %(checkpoint)d covers rows whose HMAC doesn't match: %(modified)s",
            checkpoint=statement.number,
            modified=altered[:100],
        )
    return statement


def _index_lines(rows: Sequence[tuple[int, StoredRow | None]], keys: EvidenceKeys) -> tuple[list[str], list[int]]:
    """Return the lines of the index for audit rows, and the ids of the rows whose HMAC doesn't match."""
    checker = row_hmac.HmacChecker(keys.keks)
    lines, altered = [], []
    for pk, row in rows:
        row_bytes = b"" if row is None else row_hmac.canonical_bytes(row)
        if row is not None and checker.check(row_bytes, row.mac) is row_hmac.HmacStatus.AUTHENTIC:
            lines.append(f"{pk} {row_digest(row_bytes)}")
        else:
            digest = UNREADABLE if row is None else row_digest(row_bytes)
            lines.append(str(Entry(pk, digest, altered=True)))
            altered.append(pk)
    return lines, altered


def checkpoints() -> QuerySet[Checkpoint]:
    """Return all checkpoints, ordered by number."""
    return Checkpoint.objects.using(router.db_for_write(Checkpoint)).order_by("number")


def markers() -> QuerySet[PruneMarker]:
    """Return all prune markers, ordered by number."""
    return PruneMarker.objects.using(router.db_for_write(PruneMarker)).order_by("number")


def chain_start(keys: EvidenceKeys) -> Marker:
    """Return the contents of the latest prune marker that can be read, or `START` if no marker can be read."""
    for row in in_batches(markers(), 1, latest_first=True):
        marker, _ = signatures.try_read(signatures.read_marker, row, keys)
        if marker is not None:
            return marker
    return START


def chain_end(keys: EvidenceKeys) -> ChainEnd:
    """Return the end of the chain: the last checkpoint that can be read, or else the latest prune marker."""
    start = chain_start(keys)
    taken: set[int] = set()
    for row in in_batches(checkpoints().filter(number__gt=start.number), 1, latest_first=True):
        statement, _ = signatures.try_read(signatures.read_checkpoint, row, keys)
        if statement is not None:
            return ChainEnd(statement.number, statement.last, statement.digest, frozenset(taken))
        taken.add(row.number)
    return ChainEnd(start.number, start.last, start.digest, frozenset(taken))
