"""Recomputation of the audit log's HMACs after the key-encryption key was replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Case, F, QuerySet, Value, When

from ...conf import KeyEncryptionKey
from ...logs import get_logger
from .. import names, row_hmac
from ..batches import in_batches
from ..rows import issued_tokens
from . import signatures
from .checkpoints import chain_end, checkpoints, markers, rows_after
from .reviews import reviews
from .statements import EvidenceKeys

logger = get_logger("instaccess.audit")


def reauthenticate(keys: EvidenceKeys) -> int:
    """Recompute, with the first key-encryption key, the HMACs that were computed with other key-encryption keys.

    Recomputes the HMACs of checkpoints, prune markers, reviews, audit rows without a checkpoint, and the user names
    in all audit rows. A row that a checkpoint covers needs no new HMAC, because the checkpoint proves the contents of
    the row. The user names need a new HMAC, because no checkpoint covers the names.

    If an HMAC doesn't match, it is not replaced, because a new HMAC would hide that the data was modified.

    Returns the number of replaced HMACs.
    """
    count = sum(_renew_statements(stored(), keys) for stored in (checkpoints, markers, reviews))
    last = chain_end(keys).last
    while pks := list(rows_after(last).values_list("pk", flat=True)[:200]):
        loaded = row_hmac.load(rows_after(last).filter(pk__lte=pks[-1]))
        if unreadable := [pk for pk, row in loaded if row is None]:
            logger.error("unreadable rows get no new HMAC: %(rows)s", rows=unreadable)
        rows = [row for _, row in loaded if row is not None]
        renewed = {row: mac for row in rows if (mac := _new_mac(row_hmac.canonical_bytes(row), row.mac, keys.keks))}
        if renewed:
            whens = [When(pk=row.pk, mac=row.mac, then=Value(mac)) for row, mac in renewed.items()]
            unchanged = issued_tokens().filter(
                pk__in=[row.pk for row in renewed], mac__in=[row.mac for row in renewed]
            )
            count += unchanged.update(mac=Case(*whens, default=F("mac")))
        last = pks[-1]
    return count + _renew_names(keys.keks)


def _renew_names(keks: Sequence[KeyEncryptionKey]) -> int:
    count, outdated = 0, names.outdated(keks).order_by("pk")
    rows = outdated
    while pks := list(rows.values_list("pk", flat=True)[:200]):
        loaded = [row for _, row in row_hmac.load(issued_tokens().filter(pk__in=pks)) if row is not None]
        renewed = {row: mac for row in loaded if (mac := _new_mac(names.canonical_bytes(row), row.names_mac, keks))}
        if renewed:
            whens = [When(pk=row.pk, then=Value(mac)) for row, mac in renewed.items()]
            # The condition on `names_mac` leaves out rows whose names were erased after the rows were loaded.
            unchanged = issued_tokens().filter(
                pk__in=[row.pk for row in renewed], names_mac__in=[row.names_mac for row in renewed]
            )
            count += unchanged.update(names_mac=Case(*whens, default=F("names_mac")))
        rows = outdated.filter(pk__gt=pks[-1])
    return count


def _renew_statements(stored: QuerySet[Any], keys: EvidenceKeys) -> int:
    count = 0
    for row in in_batches(stored, 100):
        if mac := _new_mac(signatures.covered_bytes(row), row.mac, keys.keks):
            count += stored.filter(pk=row.pk, mac=row.mac).update(mac=mac)
    return count


def _new_mac(data: bytes, mac: str, keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the HMAC of `data` with the first key-encryption key.

    Returns an empty string if the current HMAC `mac` doesn't match, or was already computed with this key.
    """
    if row_hmac.check(data, mac, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    renewed = row_hmac.authenticate(data, keks)
    return "" if renewed == mac else renewed
