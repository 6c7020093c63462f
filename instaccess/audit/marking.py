"""Functions that mark audit rows as revoked, with new HMACs and one UPDATE per batch of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import connections

from ..conf import KeyEncryptionKey
from ..logs import get_logger
from ..models import IssuedToken
from . import row_hmac
from .revocation_log import Act
from .rows import expiry_cutoff, issued_tokens
from .stored_rows import StoredRow, microseconds

logger = get_logger("instaccess.revocation")


def mark_batch(
    pks: Sequence[int], act: Act, keks: Sequence[KeyEncryptionKey], now: datetime
) -> tuple[int, list[str]]:
    """Mark audit rows as revoked. Rows that are already marked are not changed.

    Args:
        pks: the ids of the audit rows, at most a few hundred.
        act: the time, the author and the reason of the revocation.
        keks: the key-encryption keys, for the new HMACs. If empty, the HMACs are not replaced.
        now: the current time. The rows of tokens that every gateway refuses as expired are not changed.

    Returns the number of marked rows, and the token ids of the readable marked rows. Raises DatabaseError if a query
    fails.
    """
    # Filter the rows again, because a token may have expired since the caller's query. A checkpoint may then cover
    # the row, and `verify` would report the change (see `evidence/checkpoints.py`).
    cutoff = expiry_cutoff(now)
    rows = issued_tokens().filter(pk__in=pks, revoked_at=None, expires_at__gt=cutoff)
    # An attacker with write access to the table can make rows unreadable. The tokens of these rows are revoked too,
    # and `verify` reports the rows.
    loaded = row_hmac.load(rows)
    readable = [row for _, row in loaded if row is not None]
    if unreadable := [pk for pk, row in loaded if row is None]:
        logger.error(
            "these rows can't be read and get no new HMAC, but their tokens are revoked, because the revocation "
            "covers the tokens; run python manage.py instaccess_tokens verify (rows: %(rows)s)",
            rows=unreadable,
        )
    jtis = {row.pk: str(row.jti) for row in readable}
    macs = {row.pk: mac for row in readable if (mac := _new_mac(row, act, keks))}
    selected = [*jtis, *unreadable]
    count = _update(selected, act, macs, cutoff) if selected else 0
    # Leave out the ids of tokens that another process has revoked since the rows were loaded, because this call has
    # not marked their rows.
    if count < len(selected):
        kept = issued_tokens().filter(pk__in=list(jtis), revoked_at=act.revoked_at)
        jtis = {pk: jtis[pk] for pk in kept.values_list("pk", flat=True)}
    return count, list(jtis.values())


def _update(pks: Sequence[int], act: Act, macs: Mapping[int, str], cutoff: datetime) -> int:
    """Update a batch of rows with hand-written SQL. Django would take ten times as long to compile the statement."""
    connection = connections[issued_tokens().db]
    adapt = connection.ops.adapt_datetimefield_value
    new_mac = f"CASE id {'WHEN %s THEN %s ' * len(macs)}ELSE mac END" if macs else "mac"
    places = ", ".join(["%s"] * len(pks))
    statement = (
        f"UPDATE {IssuedToken._meta.db_table} SET revoked_at = %s, revoked_by = %s, revocation_reason = %s,"  # noqa: S608
        f" mac = {new_mac} WHERE id IN ({places}) AND revoked_at IS NULL AND expires_at > %s"
    )
    values: list[Any] = [adapt(act.revoked_at), act.revoked_by, act.reason]
    values += [value for pair in macs.items() for value in pair]
    with connection.cursor() as cursor:
        cursor.execute(statement, [*values, *pks, adapt(cutoff)])
        return int(cursor.rowcount)


def _new_mac(row: StoredRow, act: Act, keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the HMAC of an audit row after the revocation of its token.

    Returns an empty string if there are no key-encryption keys, or if the current HMAC doesn't match or can't be
    checked. A new HMAC would hide that the row was modified.
    """
    if not keks or row_hmac.row_status(row, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    revoked = row._replace(
        revoked_at=microseconds(act.revoked_at), revoked_by=act.revoked_by, revocation_reason=act.reason
    )
    return row_hmac.authenticate(row_hmac.canonical_bytes(revoked), keks)
