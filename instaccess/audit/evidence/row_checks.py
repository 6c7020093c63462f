"""The checks of rows in `verify`: covered rows match their checkpoint, and the other rows match their HMAC."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from ...conf import KeyEncryptionKey
from ...exceptions import AuditAltered
from ...models import IssuedToken
from .. import row_hmac
from ..names import names_status
from ..row_hmac import HmacStatus
from . import references, statements
from .checkpoints import ROWS, SETTLED, rows_after
from .report import Report
from .statements import Entry, Statement, fingerprint, row_digest

_DAY = 86_400
_OTHER_UUIDS = (
    "some rows refer to users whose uuid differs from the uuid in the row, for example after "
    "INSTACCESS['USER_UUID_FIELD'] was changed: trust the uuids in the rows, because the HMACs cover them"
)


def describe_row(row: IssuedToken) -> str:
    """Return the id and the jti of a row, for messages."""
    return f"row {row.pk} (jti {row.jti})"


def check_covered_rows(
    report: Report, statement: Statement, index: str, after: int, keks: Sequence[KeyEncryptionKey]
) -> None:
    """Compare the rows of one checkpoint with its index and digest.

    Args:
        index: the index of the checkpoint, already compared with its SHA-256.
        after: the last row id of the previous checkpoint.

    Raises AuditAltered at the first row that was modified, deleted, moved or added.
    """
    rows = row_hmac.loaded(rows_after(after).filter(pk__lte=statement.last))
    chain = hashlib.sha256(statement.previous.encode())
    remaining = iter(rows)
    row = next(remaining, None)
    for entry in statements.entries(index):
        if row is None or row.pk > entry.row:
            raise _deleted(entry, statement)
        if row.pk < entry.row:
            raise _added(row, statement)
        chain.update(_check_covered_row(row, entry, statement, keks))
        row = next(remaining, None)
    if row is not None:
        raise _added(row, statement)
    if chain.hexdigest() != statement.digest:
        raise AuditAltered(
            f"rows {statement.first} to {statement.last} don't match the digest of checkpoint {statement.number}"
        )
    _check_neighbours(report, rows)
    report.rows += len(rows)
    report.sealed += len(rows)


def _check_covered_row(
    row: IssuedToken, entry: Entry, statement: Statement, keks: Sequence[KeyEncryptionKey]
) -> bytes:
    row_bytes = row_hmac.canonical_bytes(row)
    digest, status = row_digest(row.pk, row_bytes), row_hmac.check(row_bytes, row.mac, keks)
    if fingerprint(digest) == entry.print:
        if entry.altered and status is HmacStatus.UNKNOWN:
            raise AuditAltered(
                f"{describe_row(row)} can't be checked, and its HMAC was not confirmed when checkpoint "
                f"{statement.number} was created: the HMAC names a key-encryption key that isn't in "
                "INSTACCESS['KEY_ENCRYPTION_KEYS']. Add the key again",
                row.pk,
            )
        if entry.altered and status is HmacStatus.BROKEN:
            raise AuditAltered(
                f"{describe_row(row)} was modified before checkpoint {statement.number} was created: its HMAC didn't "
                "match then",
                row.pk,
            )
        if status is HmacStatus.BROKEN:
            raise AuditAltered(f"the HMAC of {describe_row(row)} was modified", row.pk)
    elif status is HmacStatus.AUTHENTIC:
        raise AuditAltered(
            f"{describe_row(row)} was replaced after checkpoint {statement.number} was created: by a row moved "
            "from another id, or by an older version of the same row",
            row.pk,
        )
    else:
        raise AuditAltered(f"{describe_row(row)} was modified", row.pk)
    _check_names(row, keks)
    return digest


def _check_names(row: IssuedToken, keks: Sequence[KeyEncryptionKey]) -> None:
    """Check the user names, which neither the HMAC of the row nor a checkpoint covers. Raises AuditAltered."""
    match names_status(row, keks):
        case HmacStatus.BROKEN:
            raise AuditAltered(f"the user names in {describe_row(row)} were modified", row.pk)
        case HmacStatus.UNKNOWN:
            raise AuditAltered(
                f"the user names in {describe_row(row)} can't be checked: their HMAC names a key-encryption key that "
                "isn't in INSTACCESS['KEY_ENCRYPTION_KEYS']. Add the key again, then run "
                "`python manage.py instaccess_keys reseal`",
                row.pk,
            )


def _deleted(entry: Entry, statement: Statement) -> AuditAltered:
    if not rows_after(entry.row).exists():
        return AuditAltered(
            f"the audit log was truncated: row {entry.row} and all later rows were deleted, at least up to row "
            f"{statement.last}",
            entry.row,
        )
    return AuditAltered(f"row {entry.row} was deleted", entry.row)


def _added(row: IssuedToken, statement: Statement) -> AuditAltered:
    return AuditAltered(f"{describe_row(row)} was added after checkpoint {statement.number} was created", row.pk)


def check_uncovered_rows(report: Report, last: int, now: datetime, keks: Sequence[KeyEncryptionKey]) -> None:
    """Check the HMACs of the rows after the last checkpoint. This can't detect a deleted row.

    Args:
        last: the last row id of the last checkpoint.

    Raises AuditAltered at the first row whose HMAC doesn't match or can't be checked.
    """
    overdue = None
    while rows := row_hmac.loaded(rows_after(last)[:ROWS]):
        for row in rows:
            status = row_hmac.row_status(row, keks)
            if status is HmacStatus.BROKEN:
                raise AuditAltered(f"{describe_row(row)} was modified, or was not written by the issuer", row.pk)
            if status is HmacStatus.UNKNOWN:
                raise AuditAltered(
                    f"{describe_row(row)} can't be checked: its HMAC names a key-encryption key that isn't in "
                    "INSTACCESS['KEY_ENCRYPTION_KEYS']. Add the key again, then run "
                    "`python manage.py instaccess_keys reseal`",
                    row.pk,
                )
            _check_names(row, keks)
        overdue = overdue or (rows[0] if now - rows[0].issued_at > timedelta(seconds=SETTLED, days=1) else None)
        _check_neighbours(report, rows)
        report.rows += len(rows)
        last = rows[-1].pk
    if overdue is not None:
        report.notes.append(
            f"no checkpoint covers row {overdue.pk} and the later rows, so a deleted row can't be detected: run "
            "`python manage.py instaccess_tokens seal` from cron"
        )


def _check_neighbours(report: Report, rows: Sequence[IssuedToken]) -> None:
    """Check facts that the HMAC doesn't cover: the foreign keys, and that no pruned row was restored.

    Raises AuditAltered.
    """
    for row in rows:
        # A row with a higher id than a pruned row can be older only by minutes. A row that is a day older is
        # therefore a restored copy of a pruned row.
        if report.pruned is not None and row.issued_at.timestamp() < report.pruned.newest - _DAY:
            raise AuditAltered(f"{describe_row(row)} was restored: it is as old as the rows that were pruned", row.pk)
    reference, has_differences = references.find_mismatched(rows)
    if reference is not None:
        expected = f"the user with the uuid {reference.uuid}" if reference.uuid else "no user"
        raise AuditAltered(
            f"{describe_row(reference.row)} was modified: it refers to user {reference.user} instead of {expected}",
            reference.row.pk,
        )
    if has_differences and _OTHER_UUIDS not in report.notes:
        report.notes.append(_OTHER_UUIDS)
