"""Is the audit as it was written? Names the first row that was edited, deleted, moved, added or cut off.

Rows under a checkpoint are compared with it, one by one; the ones behind the last checkpoint by their HMAC alone, so
there a deletion does not show yet. Nothing is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils import timezone

from ...exceptions import AuditAltered
from ...models import IssuedToken
from .. import row_hmac
from ..rows import issued_tokens
from . import references, statements
from .checkpoints import ROWS, SETTLED, checkpoints, latest_marker, rows_after
from .statements import Entry, EvidenceKeys, Exported, Marker, Statement, fingerprint, row_digest

_DAY = 86_400
_OTHER_UUIDS = (
    "some rows point to users who go by other uuids than the rows say, as after a change of "
    "INSTACCESS['USER_UUID_FIELD']: believe the uuids, which the HMACs cover"
)


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        rows: how many were looked at; `sealed` of them stand under a checkpoint.
        checkpoints: how many were looked at.
        last: what the last checkpoint says; None where there is none.
        pruned: up to where rows were pruned; None where none were.
        broken: the first thing that is not as it was written, in words; empty where all is.
        row: the id of the row it is about, where it is about one.
        notes: what is no break and good to know.
    """

    rows: int = 0
    sealed: int = 0
    checkpoints: int = 0
    last: Statement | None = None
    pruned: Marker | None = None
    broken: str = ""
    row: int | None = None
    notes: list[str] = field(default_factory=list)


def verify(
    keys: EvidenceKeys,
    exported: Iterable[Exported] = (),
    *,
    until: int | None = None,
    now: datetime | None = None,
) -> Report:
    """Compare all rows with their HMACs, with the checkpoints and with exported copies of those.

    `until` is the number of the last checkpoint to look at; what comes after it is left out. Stops at the first
    break. It can run while tokens are issued, revoked, sealed and pruned.
    """
    kept = {copy.statement.number: copy for copy in exported}
    while True:
        report = Report()
        start: Marker | None = None
        try:
            start = latest_marker(keys)
            number, last, digest = _check_sealed(report, start, kept, until, keys)
            if until is None:
                _check_beyond(kept, number, last, digest, report, keys.keks)
                _check_unsealed(report, last, now or timezone.now(), keys.keks)
        except AuditAltered as error:
            report.broken, report.row = error.detail, error.row
        # Rows and checkpoints that vanished meanwhile may have been pruned.
        if not report.broken or start is None or _is_latest(start, keys):
            return report


def _is_latest(marker: Marker, keys: EvidenceKeys) -> bool:
    try:
        return latest_marker(keys) == marker
    except AuditAltered:
        return False  # the next round says so


def _check_sealed(
    report: Report, start: Marker, kept: Mapping[int, Exported], until: int | None, keys: EvidenceKeys
) -> tuple[int, int, str]:
    """What is under checkpoints; returns number, last row and digest of the last of them."""
    digest, last, number = start.digest, start.last, start.number
    if start.number:
        report.pruned = start
        if start.altered:
            report.notes.append(f"rows that were not as they were written have been pruned: {start.altered}")
    _check_pruned(kept, start, report, keys.keks)
    found = checkpoints().filter(number__gt=number)
    for checkpoint in (found if until is None else found.filter(number__lte=until)).iterator(chunk_size=20):
        statement = statements.read_checkpoint(checkpoint, keys)
        if statement.number != number + 1 or statement.previous != digest:
            before = f"checkpoint {number}" if number else "the beginning"
            raise AuditAltered(f"a checkpoint is missing: {before} is not what checkpoint {statement.number} follows")
        copy = kept.get(statement.number)
        if copy is not None and copy.jws != checkpoint.jws:
            # Its index tells which row it is, if it is one of its own.
            if copy.statement.previous != digest:
                raise AuditAltered(
                    f"checkpoint {statement.number} is another than its exported copy, and so is what came before "
                    "it: an exported copy of an earlier checkpoint would tell from where on"
                )
            _check_rows(report, copy.statement, copy.index, last, keys.keks)
            raise AuditAltered(f"checkpoint {statement.number} is another than its exported copy")
        _check_rows(report, statement, checkpoint.index, last, keys.keks)
        digest, last, number = statement.digest, statement.last, statement.number
        report.checkpoints, report.last = report.checkpoints + 1, statement
    return number, last, digest


def _check_pruned(kept: Mapping[int, Exported], start: Marker, report: Report, keks: Sequence[bytes]) -> None:
    for number, copy in kept.items():
        if number == start.number and copy.statement.digest != start.digest:
            raise AuditAltered(
                f"checkpoint {number}, up to which rows were pruned, is another than its exported copy"
            )
        if 0 < number < start.number:
            report.notes.append(f"checkpoint {number}, of which there is a copy, was pruned: nothing to compare with")
    there, after = issued_tokens().filter(pk__lte=start.last).order_by("pk"), None
    while left := row_hmac.loaded((there if after is None else there.filter(pk__gt=after))[:ROWS]):
        for row in left:
            verdict = row_hmac.row_status(row, keks)
            young = row.issued_at.timestamp() >= start.newest + 1
            if not start.number or young or verdict is row_hmac.HmacStatus.BROKEN:
                raise AuditAltered(f"row {row.pk} ({row.jti}) was added where no row can be", row.pk)
            if verdict is row_hmac.HmacStatus.UNKNOWN:
                raise AuditAltered(
                    f"row {row.pk} ({row.jti}), where rows were pruned, can't be checked: its HMAC names a "
                    "key-encryption key that is not in INSTACCESS['KEY_ENCRYPTION_KEYS']; `python manage.py "
                    "instaccess_tokens prune` deletes what was left of a pruning",
                    row.pk,
                )
        after = left[-1].pk
    if after is not None:
        report.notes.append(
            f"rows up to {start.last} were being pruned, and some are left: run `python manage.py instaccess_tokens "
            "prune` again"
        )


def _check_beyond(
    kept: Mapping[int, Exported], number: int, last: int, digest: str, report: Report, keks: Sequence[bytes]
) -> None:
    """Exported copies of checkpoints that the database does not have any more."""
    beyond = sorted(copy_number for copy_number in kept if copy_number > number)
    if not beyond:
        return
    copy = kept[beyond[0]]
    if beyond[0] == number + 1 and copy.statement.previous == digest:
        _check_rows(report, copy.statement, copy.index, last, keks)
    present = issued_tokens().order_by("-pk").values_list("pk", flat=True).first() or 0
    if present < kept[beyond[-1]].statement.last:
        raise AuditAltered(
            f"the audit was truncated: it ends with row {present}, and checkpoint {beyond[-1]} was made over rows "
            f"up to {kept[beyond[-1]].statement.last}",
            present + 1,
        )
    raise AuditAltered(f"checkpoint {beyond[0]}, of which there is an exported copy, is gone")


def _check_rows(report: Report, statement: Statement, index: str, after: int, keks: Sequence[bytes]) -> None:
    """The rows under one checkpoint, in their order."""
    expected = statements.entries(index)
    rows = row_hmac.loaded(rows_after(after).filter(pk__lte=statement.last))
    chain = hashlib.sha256(statement.previous.encode())
    found = iter(rows)
    row = next(found, None)
    for entry in expected:
        if row is None or row.pk > entry.row:
            raise _gone(entry, statement)
        if row.pk < entry.row:
            raise AuditAltered(f"row {row.pk} ({row.jti}) was added after its neighbours were sealed", row.pk)
        chain.update(_check_row(row, entry, keks))
        row = next(found, None)
    if row is not None:
        raise AuditAltered(f"row {row.pk} ({row.jti}) was added after its neighbours were sealed", row.pk)
    if chain.hexdigest() != statement.digest:
        raise AuditAltered(
            f"the rows {statement.first} to {statement.last} do not add up to checkpoint {statement.number}"
        )
    _check_company(report, rows)
    report.rows += len(rows)
    report.sealed += len(rows)


def _check_row(row: IssuedToken, entry: Entry, keks: Sequence[bytes]) -> bytes:
    facts = row_hmac.canonical_bytes(row)
    digest, verdict = row_digest(row.pk, facts), row_hmac.check(facts, row.mac, keks)
    if fingerprint(digest) == entry.print:
        if entry.altered and verdict is row_hmac.HmacStatus.UNKNOWN:
            raise AuditAltered(
                f"row {row.pk} ({row.jti}) can't be checked, and could not be when it was sealed: its HMAC names a "
                "key-encryption key that is not in INSTACCESS['KEY_ENCRYPTION_KEYS']; put it back",
                row.pk,
            )
        if entry.altered and verdict is row_hmac.HmacStatus.BROKEN:
            raise AuditAltered(
                f"row {row.pk} ({row.jti}) was edited before it was sealed: its HMAC did not fit", row.pk
            )
        if verdict is row_hmac.HmacStatus.BROKEN:
            raise AuditAltered(f"the HMAC of row {row.pk} ({row.jti}) was edited", row.pk)
    elif verdict is row_hmac.HmacStatus.AUTHENTIC:
        raise AuditAltered(
            f"row {row.pk} ({row.jti}) is not the one that was sealed: moved here from another place or time", row.pk
        )
    else:
        raise AuditAltered(f"row {row.pk} ({row.jti}) was edited", row.pk)
    return digest


def _gone(entry: Entry, statement: Statement) -> AuditAltered:
    if not rows_after(entry.row).exists():
        return AuditAltered(
            f"the audit was truncated: row {entry.row} and all that followed are gone, at least to {statement.last}",
            entry.row,
        )
    return AuditAltered(f"row {entry.row} was deleted", entry.row)


def _check_unsealed(report: Report, last: int, now: datetime, keks: Sequence[bytes]) -> None:
    """The rows behind the last checkpoint: each has its HMAC, and nothing yet says how many there were."""
    overdue = None
    while rows := row_hmac.loaded(rows_after(last)[:ROWS]):
        for row in rows:
            verdict = row_hmac.row_status(row, keks)
            if verdict is row_hmac.HmacStatus.BROKEN:
                raise AuditAltered(f"row {row.pk} ({row.jti}) was edited, or was not written by the issuer", row.pk)
            if verdict is row_hmac.HmacStatus.UNKNOWN:
                raise AuditAltered(
                    f"row {row.pk} ({row.jti}) can't be checked: its HMAC names a key-encryption key that is not in "
                    "INSTACCESS['KEY_ENCRYPTION_KEYS']; put it back, then `python manage.py instaccess_keys reseal`",
                    row.pk,
                )
        overdue = overdue or (rows[0] if now - rows[0].issued_at > timedelta(seconds=SETTLED, days=1) else None)
        _check_company(report, rows)
        report.rows += len(rows)
        last = rows[-1].pk
    if overdue is not None:
        report.notes.append(
            f"row {overdue.pk} and those after it are not sealed, so a deleted one would not show: let cron run "
            "`python manage.py instaccess_tokens seal`"
        )


def _check_company(report: Report, rows: Sequence[IssuedToken]) -> None:
    """What no row shows by itself: that it was not pruned before, and that it points to whom it names."""
    for row in rows:
        # The ids of rows rise with time, within minutes. One of another day was kept by somebody, HMAC and all.
        if report.pruned is not None and row.issued_at.timestamp() < report.pruned.newest - _DAY:
            raise AuditAltered(
                f"row {row.pk} ({row.jti}) is as old as those that were pruned: it was put back", row.pk
            )
    reference, others = references.find_mismatched(rows)
    if reference is not None:
        row, user, said = reference
        raise AuditAltered(f"row {row.pk} ({row.jti}) points to user {user}, who is not {said or 'in it'}", row.pk)
    if others and _OTHER_UUIDS not in report.notes:
        report.notes.append(_OTHER_UUIDS)
