"""Checkpoints of the audit: signed statements of what its rows said, once nothing in them can change any more.

`seal` adds them. Each covers the rows after the last one, at most `ROWS` and at most those of one UTC day, and holds
their number, the last row's id and a digest that is chained to the checkpoint before (SHA-256). Copies kept elsewhere
show what was done by somebody who holds all keys, too (`verification.py`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, router, transaction
from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone

from ...models import Checkpoint, IssuedToken, PruneMarker
from ...tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME
from .. import row_hmac
from ..rows import issued_tokens
from . import statements
from .statements import START, Entry, EvidenceKeys, Marker, Statement, fingerprint, row_digest

logger = logging.getLogger("instaccess.audit")

ROWS = 10_000
"""Rows a checkpoint covers at most: what is read into memory at once, and what pruning takes at a time."""

SETTLED = MAX_LIFETIME + AFTERLIFE + CLOCK_SKEW + 600
"""Seconds after a token was issued at which its row can't change any more: it can't be revoked, and an INSERT that
was overtaken by others has long been committed or has failed (ten minutes are allowed for that)."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What `seal` did.

    Attributes:
        made: the new checkpoints.
        waiting: rows that are not sealed yet, because they may still change.
        ready_at: when the first of them can be sealed; None where none waits.
    """

    made: tuple[Statement, ...]
    waiting: int
    ready_at: datetime | None


def rows_after(row_id: int) -> QuerySet[IssuedToken]:
    """The rows behind one, in the order of their ids."""
    return issued_tokens().filter(pk__gt=row_id).order_by("pk")


def seal(keys: EvidenceKeys, *, now: datetime | None = None, cut: datetime | None = None) -> Sealed:
    """Add checkpoints over all rows that can't change any more.

    Args:
        cut: a moment at which a checkpoint ends, as it does at midnight UTC.

    Safe to run at any time, by several at once (one of them does it), and to be killed: a checkpoint is one INSERT.
    Raises KeyUnavailable and UnsealError without a signing key that opens.
    """
    now = now or timezone.now()
    settled = now - timedelta(seconds=SETTLED)
    keys.sign(b"{}", statements.CHECKPOINT)  # raises now, not after the rows were read
    made: list[Statement] = []
    try:
        while added := _seal_page(keys, now, settled, cut):
            made += added
    except IntegrityError:
        logger.info("a checkpoint was made by somebody else, who goes on")
    waiting = rows_after(_position(keys).last)
    first = waiting.first()
    if first is None:
        return Sealed(tuple(made), 0, None)
    ready_at = first.issued_at
    with suppress(OverflowError):  # somebody wrote the year 9999 into it
        ready_at += timedelta(seconds=SETTLED)
    return Sealed(tuple(made), waiting.count(), ready_at)


def _seal_page(keys: EvidenceKeys, now: datetime, settled: datetime, cut: datetime | None) -> list[Statement]:
    """Checkpoints over the next `ROWS` rows; none where there is nothing to seal."""
    made: list[Statement] = []
    position = _position(keys)
    rows = page = row_hmac.loaded(rows_after(position.last)[:ROWS])
    while ready := _ready(rows, settled, cut, keys.keks):
        if len(ready) == len(rows) < len(page) == ROWS:
            break  # the next page may hold more of this day
        made.append(_add(position, ready, keys, now, settled))
        position, rows = _position(keys), rows[len(ready) :]
    return made


def _ready(
    rows: Sequence[IssuedToken], settled: datetime, cut: datetime | None, keks: Sequence[bytes]
) -> list[IssuedToken]:
    """The first of these rows, as many as belong into the next checkpoint."""
    ready: list[IssuedToken] = []
    newest = None  # of those before; ids and times do not rise quite together
    oldest_last = next((row.pk for row in reversed(rows) if row.issued_at < settled), 0)
    for row in rows:
        if row.issued_at >= settled:
            if row.pk > oldest_last or row_hmac.row_status(row, keks) is row_hmac.HmacStatus.AUTHENTIC:
                break
            # Edited to be young for ever: it would hold up all that come after it.
            ready.append(row)
            continue
        midnight = row.issued_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if newest and any(moment and newest < moment <= row.issued_at for moment in (midnight, cut)):
            break
        newest = max(newest or row.issued_at, row.issued_at)
        ready.append(row)
    return ready


def _add(
    position: Marker, rows: Sequence[IssuedToken], keys: EvidenceKeys, now: datetime, settled: datetime
) -> Statement:
    chain, entries, altered = hashlib.sha256(position.digest.encode()), [], []
    for row in rows:
        facts = row_hmac.canonical_bytes(row)
        digest = row_digest(row.pk, facts)
        chain.update(digest)
        fits = row_hmac.check(facts, row.mac, keys.keks) is row_hmac.HmacStatus.AUTHENTIC
        entries.append(str(Entry(row.pk, fingerprint(digest), altered=not fits)))
        if not fits:
            altered.append(row.pk)
    index = "\n".join(entries)
    statement = Statement(
        number=position.number + 1,
        previous=position.digest,
        first=rows[0].pk,
        last=rows[-1].pk,
        rows=len(rows),
        # A row that was edited to be younger must not keep the others from being pruned.
        newest=int(max((row.issued_at for row in rows if row.issued_at < settled), default=settled).timestamp()),
        digest=chain.hexdigest(),
        index=hashlib.sha256(index.encode()).hexdigest(),
        altered=len(altered),
        sealed_at=int(now.timestamp()),
    )
    jws = statements.sign(statement, statements.CHECKPOINT, keys)
    checkpoint = Checkpoint(
        number=statement.number, jws=jws, index=index, mac=statements.mac(keys, statements.CHECKPOINT, jws, index)
    )
    alias = router.db_for_write(Checkpoint)
    with transaction.atomic(using=alias):
        checkpoint.save(using=alias, force_insert=True)
    logger.info(
        "checkpoint %d: %d rows up to %d digest=%s", statement.number, len(rows), statement.last, statement.digest
    )
    if altered:
        logger.error("checkpoint %d holds rows whose HMAC does not fit: %s", statement.number, altered[:100])
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
    """Say that the rows up to a checkpoint are pruned; done before the first of them is deleted.

    `rows` are those that this pruning takes, `newest` is when the newest of them was issued, in seconds since the
    epoch. Raises KeyUnavailable and UnsealError without a signing key.
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
    made = PruneMarker(number=marker.number, jws=jws, mac=statements.mac(keys, statements.MARKER, jws))
    alias = router.db_for_write(PruneMarker)
    with transaction.atomic(using=alias):
        made.save(using=alias, force_insert=True)
    return marker


def checkpoints() -> QuerySet[Checkpoint]:
    """All checkpoints, in their order."""
    return Checkpoint.objects.using(router.db_for_write(Checkpoint)).order_by("number")


def markers() -> QuerySet[PruneMarker]:
    """All prune markers, in their order."""
    return PruneMarker.objects.using(router.db_for_write(PruneMarker)).order_by("number")


def latest_marker(keys: EvidenceKeys) -> Marker:
    """Up to where the audit was pruned. Raises AuditAltered where the marker is not ours."""
    row = markers().last()
    return START if row is None else statements.read_marker(row, keys)


def reauthenticate(keys: EvidenceKeys) -> int:
    """Give every HMAC that was made under another key-encryption key a new one under the first; returns how many.

    Those of checkpoints, markers and rows that are not sealed yet. A sealed row needs none: its checkpoint stands for
    it. One that does not fit stays as it is, and goes on not fitting.
    """
    count = 0
    for checkpoint in checkpoints().iterator(chunk_size=100):
        data = statements.data(statements.CHECKPOINT, checkpoint.jws, checkpoint.index)
        if mac := _renewed(data, checkpoint.mac, keys.keks):
            count += checkpoints().filter(pk=checkpoint.pk, mac=checkpoint.mac).update(mac=mac)
    for marker in markers():
        if mac := _renewed(statements.data(statements.MARKER, marker.jws), marker.mac, keys.keks):
            count += markers().filter(pk=marker.pk, mac=marker.mac).update(mac=mac)
    last = _position(keys).last
    while pks := list(rows_after(last).values_list("pk", flat=True)[:200]):
        rows, unreadable = row_hmac.readable(rows_after(last).filter(pk__lte=pks[-1]))
        if unreadable:
            logger.error("rows that can't be read get no new HMAC: %s", unreadable)
        renewed = {row: mac for row in rows if (mac := _renewed(row_hmac.canonical_bytes(row), row.mac, keys.keks))}
        if renewed:
            whens = [When(pk=row.pk, mac=row.mac, then=Value(mac)) for row, mac in renewed.items()]
            changed = issued_tokens().filter(pk__in=[row.pk for row in renewed], mac__in=[row.mac for row in renewed])
            count += changed.update(mac=Case(*whens, default=F("mac")))
        last = pks[-1]
    return count


def _renewed(data: bytes, mac: str, keks: Sequence[bytes]) -> str:
    """The HMAC under the first key-encryption key, where `mac` fits and is under another; else nothing."""
    if row_hmac.check(data, mac, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    renewed = row_hmac.authenticate(data, keks)
    return "" if renewed == mac else renewed


def _position(keys: EvidenceKeys) -> Marker:
    """Where the next checkpoint goes on."""
    marker = latest_marker(keys)
    checkpoint = checkpoints().filter(number__gt=marker.number).last()
    if checkpoint is None:
        return marker
    statement = statements.read_checkpoint(checkpoint, keys)
    return replace(marker, number=statement.number, last=statement.last, digest=statement.digest)
