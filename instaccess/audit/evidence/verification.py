"""Verification of the audit log: finds the first row that was modified, deleted, moved or added.

`verify` compares each covered row with the checkpoint. After the last checkpoint, `verify` can only check the HMAC of
each row, so `verify` can't detect a deleted row. This module never writes to the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, NoReturn

from django.utils import timezone

from ...conf import KeyEncryptionKey
from ...exceptions import AuditAltered
from .. import row_hmac
from ..rows import issued_tokens
from . import row_checks, statements
from .checkpoints import ROWS, checkpoints, latest_marker
from .report import Report
from .row_checks import describe_row
from .statements import EvidenceKeys, Exported, Marker


class _ChainEnd(NamedTuple):
    """The last checkpoint that was checked, or the latest prune marker: its number, last row id and digest."""

    number: int
    last: int
    digest: str


def verify(
    keys: EvidenceKeys,
    exported: Iterable[Exported] = (),
    *,
    until: int | None = None,
    now: datetime | None = None,
) -> Report:
    """Compare all rows with their HMACs, with the checkpoints, and with exported copies of checkpoints.

    Stops at the first problem and describes the problem in the report. Can run while other processes issue, revoke or
    prune tokens, or create checkpoints.

    Args:
        exported: copies of checkpoints from another machine.
        until: number of the last checkpoint to check; later checkpoints and rows are not checked.
    """
    copies = {copy.statement.number: copy for copy in exported}
    while True:
        report = Report()
        start: Marker | None = None
        try:
            start = latest_marker(keys)
            end = _check_covered(report, start, copies, until, keys)
            if until is None:
                _check_missing_checkpoints(copies, end, report, keys.keks)
                row_checks.check_uncovered_rows(report, end.last, now or timezone.now(), keys.keks)
        except AuditAltered as error:
            report.broken, report.row = error.detail, error.row
        # If another process has pruned rows in the meantime, missing rows aren't a problem, so everything is checked
        # again.
        if not report.broken or start is None or _is_latest(start, keys):
            return report


def _is_latest(marker: Marker, keys: EvidenceKeys) -> bool:
    try:
        return latest_marker(keys) == marker
    except AuditAltered:
        return False  # The next pass reports the modified marker.


def _check_covered(
    report: Report, start: Marker, copies: Mapping[int, Exported], until: int | None, keys: EvidenceKeys
) -> _ChainEnd:
    """Check the checkpoints and the rows that they cover. Returns the end of the chain."""
    end = _ChainEnd(start.number, start.last, start.digest)
    if start.number:
        report.pruned = start
        if start.altered:
            report.notes.append(f"modified rows were pruned: {start.altered}")
    _check_pruned(copies, start, report, keys.keks)
    unpruned = checkpoints().filter(number__gt=start.number)
    for checkpoint in (unpruned if until is None else unpruned.filter(number__lte=until)).iterator(chunk_size=20):
        statement = statements.read_checkpoint(checkpoint, keys)
        if statement.number != end.number + 1 or statement.previous != end.digest:
            previous = f"checkpoint {end.number}" if end.number else "the beginning of the audit log"
            raise AuditAltered(f"a checkpoint is missing: checkpoint {statement.number} doesn't follow {previous}")
        copy = copies.get(statement.number)
        if copy is not None and copy.jws != checkpoint.jws:
            _check_replaced_checkpoint(report, copy, end, keys.keks)
        row_checks.check_covered_rows(report, statement, checkpoint.index, end.last, keys.keks)
        end = _ChainEnd(statement.number, statement.last, statement.digest)
        report.checkpoints, report.last = report.checkpoints + 1, statement
    return end


def _check_replaced_checkpoint(
    report: Report, copy: Exported, end: _ChainEnd, keks: Sequence[KeyEncryptionKey]
) -> NoReturn:
    """Raise AuditAltered for a checkpoint that differs from its exported copy, and name the modified row if possible.

    The index of the copy can identify the modified row only if the previous checkpoint is unchanged.
    """
    number = copy.statement.number
    if copy.statement.previous != end.digest:
        raise AuditAltered(
            f"checkpoint {number} and the checkpoint before it differ from the exported copy of checkpoint {number}: "
            "verify with an exported copy of an earlier checkpoint to find where the differences begin"
        )
    row_checks.check_covered_rows(report, copy.statement, copy.index, end.last, keks)
    raise AuditAltered(f"checkpoint {number} differs from its exported copy")


def _check_pruned(
    copies: Mapping[int, Exported], start: Marker, report: Report, keks: Sequence[KeyEncryptionKey]
) -> None:
    """Check that the prune marker matches the exported copies, and that no unexpected row has a pruned id."""
    for number, copy in copies.items():
        if number == start.number and copy.statement.digest != start.digest:
            raise AuditAltered(f"checkpoint {number}, the last one that was pruned, differs from its exported copy")
        if 0 < number < start.number:
            report.notes.append(f"checkpoint {number} was pruned, so its exported copy can't be compared")
    rows, after = issued_tokens().filter(pk__lte=start.last).order_by("pk"), None
    while page := row_hmac.loaded((rows if after is None else rows.filter(pk__gt=after))[:ROWS]):
        for row in page:
            status = row_hmac.row_status(row, keks)
            is_newer = row.issued_at.timestamp() >= start.newest + 1
            if not start.number or is_newer or status is row_hmac.HmacStatus.BROKEN:
                raise AuditAltered(f"{describe_row(row)} was added with an id that new rows can't have", row.pk)
            if status is row_hmac.HmacStatus.UNKNOWN:
                raise AuditAltered(
                    f"{describe_row(row)} has the id of a pruned row and can't be checked: its HMAC names a "
                    "key-encryption key that isn't in INSTACCESS['KEY_ENCRYPTION_KEYS']. Run "
                    "`python manage.py instaccess_tokens prune` to delete the rest of an interrupted pruning",
                    row.pk,
                )
        after = page[-1].pk
    if after is not None:
        report.notes.append(
            f"pruning the rows up to {start.last} was interrupted: run `python manage.py instaccess_tokens prune` "
            "again to delete the rest"
        )


def _check_missing_checkpoints(
    copies: Mapping[int, Exported], end: _ChainEnd, report: Report, keks: Sequence[KeyEncryptionKey]
) -> None:
    """Raise AuditAltered if a checkpoint that was exported is no longer in the database."""
    missing = sorted(number for number in copies if number > end.number)
    if not missing:
        return
    copy = copies[missing[0]]
    if missing[0] == end.number + 1 and copy.statement.previous == end.digest:
        row_checks.check_covered_rows(report, copy.statement, copy.index, end.last, keks)
    last_row = issued_tokens().order_by("-pk").values_list("pk", flat=True).first() or 0
    last_covered = copies[missing[-1]].statement.last
    if last_row < last_covered:
        raise AuditAltered(
            f"the audit log was truncated: its last row is {last_row}, but the exported copy of checkpoint "
            f"{missing[-1]} covers rows up to {last_covered}",
            last_row + 1,
        )
    raise AuditAltered(f"checkpoint {missing[0]} was deleted, but there is an exported copy of it")
