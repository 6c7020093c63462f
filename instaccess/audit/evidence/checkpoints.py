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

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from django.db import IntegrityError, router, transaction
from django.db.models import QuerySet

from ...logs import get_logger
from ...models import Checkpoint, IssuedToken, PruneMarker
from ...tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME
from .. import row_hmac
from ..batches import in_batches
from ..row_ids import first_id, id_time
from ..rows import current_time, issued_tokens
from . import reviews, signatures
from .checkpoint_index import UNREADABLE, Entry, row_digest
from .statements import START, EvidenceKeys, Marker, Statement, chain_digest, next_number

logger = get_logger("instaccess.audit")

ROWS = 10_000
"""The maximum number of audit rows that one checkpoint covers, and that `seal` and `verify` hold in memory."""

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


def seal(keys: EvidenceKeys, *, now: datetime | None = None, cut: datetime | None = None) -> Sealed:
    """Create checkpoints for all audit rows that no checkpoint covers yet and that can no longer change.

    Several processes can call this function at once, because only one process can insert the next checkpoint. A
    process can be killed at any time, because each checkpoint is inserted with one statement.

    Args:
        cut: a time at which a checkpoint ends, in addition to every midnight UTC.

    Raises KeyUnavailable or UnsealError if there is no usable signing key.
    """
    now = now or current_time()
    signatures.check_signing_key(keys)  # Fail before reading rows if no key is usable.
    made: list[Statement] = []
    try:
        while added := _seal_page(keys, now, cut):
            made += added
    except IntegrityError:
        logger.info(
            "another process created the next checkpoint, and creates the remaining checkpoints",
            checkpoints=len(made),
        )
    waiting = rows_after(chain_end(keys).last)
    first = waiting.values_list("pk", flat=True).first()
    ready_at = None if first is None else id_time(first) + timedelta(seconds=SETTLED)
    return Sealed(tuple(made), waiting.count(), ready_at)


def _seal_page(keys: EvidenceKeys, now: datetime, cut: datetime | None) -> list[Statement]:
    """Create checkpoints for the next `ROWS` audit rows. Returns an empty list if all later rows can still change."""
    # The ids alone decide which rows can no longer change. Otherwise, an attacker could stop `seal` with a row that
    # can't be read, or whose time of issue is in the future.
    end = chain_end(keys)
    if end.taken:
        logger.error(
            "these checkpoints were modified, so the next checkpoint follows checkpoint %(checkpoint)d: %(modified)s",
            checkpoint=end.number,
            modified=sorted(end.taken),
        )
    settled = rows_after(end.last).filter(pk__lt=first_id(now - timedelta(seconds=SETTLED)))
    ids = list(settled.values_list("pk", flat=True)[:ROWS])
    ranges = [list(group) for _, group in groupby(ids, key=lambda row: _part(row, cut))]
    if len(ids) == ROWS and len(ranges) > 1:
        ranges.pop()  # The next page may begin with rows that belong to this range.
    made = []
    for rows in ranges:
        made.append(_add_checkpoint(end, rows[-1], keys, now))
        end = ChainEnd(made[-1].number, made[-1].last, made[-1].digest, end.taken)
    return made


def _part(row: int, cut: datetime | None) -> tuple[int, bool]:
    """Return the part of the audit log that a row is in: the UTC day, and whether the id is at or after the cut.

    A checkpoint never covers rows of two parts.
    """
    return id_time(row).toordinal(), cut is not None and row >= first_id(cut)


def _add_checkpoint(end: ChainEnd, last: int, keys: EvidenceKeys, now: datetime) -> Statement:
    """Create a checkpoint for the audit rows after the end of the chain, up to the row with the id `last`."""
    entries = [_entry(row, token, keys) for row, token in row_hmac.load(rows_after(end.last).filter(pk__lte=last))]
    index = "\n".join(map(str, entries))
    altered = [entry.row for entry in entries if entry.altered]
    statement = Statement(
        number=next_number(end.number, end.taken),
        previous=end.digest,
        first=entries[0].row,
        last=entries[-1].row,
        rows=len(entries),
        digest=chain_digest(end.digest, index),
        altered=len(altered),
        reviews=reviews.last_number(keys),
        sealed_at=int(now.timestamp()),
    )
    checkpoint = Checkpoint(number=statement.number, jws=signatures.sign(statement, keys), index=index)
    signatures.authenticate(checkpoint, keys)
    alias = router.db_for_write(Checkpoint)
    with transaction.atomic(using=alias):
        checkpoint.save(using=alias, force_insert=True)
    logger.info(
        "checkpoint %(checkpoint)d: %(rows)d rows up to %(last)d digest=%(digest)s",
        checkpoint=statement.number,
        rows=len(entries),
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


def _entry(row: int, token: IssuedToken | None, keys: EvidenceKeys) -> Entry:
    if token is None:
        return Entry(row, UNREADABLE, altered=True)
    row_bytes = row_hmac.canonical_bytes(token)
    authentic = row_hmac.check(row_bytes, token.mac, keys.keks) is row_hmac.HmacStatus.AUTHENTIC
    return Entry(row, row_digest(row_bytes), altered=not authentic)


def mark_pruned(
    statement: Statement, keys: EvidenceKeys, *, rows: int, altered: str = "", now: datetime | None = None
) -> Marker:
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
        pruned_at=int((now or current_time()).timestamp()),
    )
    row = PruneMarker(number=marker.number, jws=signatures.sign(marker, keys))
    signatures.authenticate(row, keys)
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


def chain_start(keys: EvidenceKeys) -> Marker:
    """Return the contents of the latest prune marker that can be read, or `START` if no marker can be read."""
    for row in in_batches(markers().reverse(), 1):
        marker, _ = signatures.try_read(signatures.read_marker, row, keys)
        if marker is not None:
            return marker
    return START


def chain_end(keys: EvidenceKeys) -> ChainEnd:
    """Return the end of the chain: the last checkpoint that can be read, or else the latest prune marker."""
    start = chain_start(keys)
    taken: set[int] = set()
    for row in in_batches(checkpoints().filter(number__gt=start.number).reverse(), 1):
        statement, _ = signatures.try_read(signatures.read_checkpoint, row, keys)
        if statement is not None:
            return ChainEnd(statement.number, statement.last, statement.digest, frozenset(taken))
        taken.add(row.number)
    return ChainEnd(start.number, start.last, start.digest, frozenset(taken))
