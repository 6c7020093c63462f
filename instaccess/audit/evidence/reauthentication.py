"""Recomputation of the audit log's HMACs after the key-encryption key was replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import connections
from django.db.models import QuerySet

from ...conf import KeyEncryptionKey
from ...logs import get_logger
from ...models import IssuedToken
from .. import names, row_hmac
from ..batches import in_batches
from ..long_work import Advance, Progress, ignore_progress
from ..revocation import BATCH
from ..rows import issued_tokens
from ..stored_rows import StoredRow
from . import signatures
from .checkpoints import AT_ONCE, chain_end, checkpoints, markers, rows_after
from .reviews import reviews
from .statements import EvidenceKeys

logger = get_logger("instaccess.audit")


def reauthenticate(keys: EvidenceKeys, *, progress: Progress = ignore_progress) -> int:
    """Recompute, with the first key-encryption key, the HMACs that were computed with other key-encryption keys.

    Recomputes the HMACs of checkpoints, prune markers, reviews, audit rows without a checkpoint, and the user names
    in all audit rows. A row that a checkpoint covers needs no new HMAC, because the checkpoint proves the contents of
    the row. The user names need a new HMAC, because no checkpoint covers the names.

    If an HMAC doesn't match, it is not replaced, because a new HMAC would hide that the data was modified. Each batch
    of rows is changed with one statement. If a call is interrupted, the next call recomputes the remaining HMACs.

    Args:
        progress: the function to which the progress is reported.

    Returns the number of replaced HMACs.
    """
    count = sum(_renew_statements(stored(), keys) for stored in (checkpoints, markers, reviews))
    uncovered = rows_after(chain_end(keys).last)
    count += _renew(
        "mac", uncovered, row_hmac.canonical_bytes, keys.keks, progress("renewing HMACs", uncovered.count)
    )
    outdated = names.outdated(keys.keks).order_by("pk")
    advance = progress("renewing HMACs of user names", outdated.count)
    return count + _renew("names_mac", outdated, names.canonical_bytes, keys.keks, advance)


def _renew(
    column: str,
    rows: QuerySet[IssuedToken],
    canonical_bytes: Callable[[StoredRow], bytes],
    keks: Sequence[KeyEncryptionKey],
    advance: Advance,
) -> int:
    """Recompute the HMACs in one column of audit rows. Returns the number of replaced HMACs.

    Args:
        rows: the audit rows, ordered by id.
        canonical_bytes: the function that returns the bytes that the HMACs cover.
    """
    count, remaining = 0, rows
    while page := row_hmac.load(remaining[:BATCH]):
        if unreadable := [pk for pk, row in page if row is None]:
            logger.error("unreadable rows get no new HMAC: %(rows)s", rows=unreadable)
        changes = []
        for pk, row in page:
            current = "" if row is None else getattr(row, column)
            if row is not None and (renewed := _new_mac(canonical_bytes(row), current, keks)):
                changes.append((pk, current, renewed))
        count += _replace(column, changes) if changes else 0
        remaining = rows.filter(pk__gt=page[-1][0])
        advance(len(page))
    return count


def _replace(column: str, changes: Sequence[tuple[int, str, str]]) -> int:
    """Replace HMACs with one hand-written UPDATE. Django would take ten times as long to compile the statement.

    If another process has changed an HMAC since the rows were loaded, this function doesn't replace the HMAC.

    Args:
        column: the column with the HMACs.
        changes: the id, the current HMAC and the new HMAC of each row.

    Returns the number of changed rows.
    """
    places = ", ".join(["%s"] * len(changes))
    statement = (
        f"UPDATE {IssuedToken._meta.db_table} SET {column} = CASE id {'WHEN %s THEN %s ' * len(changes)}"  # noqa: S608
        f"ELSE {column} END WHERE id IN ({places}) AND {column} IN ({places})"
    )
    values: list[Any] = [value for pk, _, renewed in changes for value in (pk, renewed)]
    values += [pk for pk, _, _ in changes]
    values += [current for _, current, _ in changes]
    with connections[issued_tokens().db].cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def _renew_statements(stored: QuerySet[Any], keys: EvidenceKeys) -> int:
    count = 0
    for row in in_batches(stored, AT_ONCE):
        if mac := _new_mac(signatures.covered_bytes(row), row.mac, keys.keks):
            count += stored.filter(pk=row.pk, mac=row.mac).update(mac=mac)
    return count


def _new_mac(data: bytes, mac: str, keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the HMAC of `data` with the first key-encryption key.

    Returns an empty string if the current HMAC `mac` doesn't match, can't be checked, or was already computed with
    this key.
    """
    if row_hmac.check(data, mac, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    renewed = row_hmac.authenticate(data, keks)
    return "" if renewed == mac else renewed
