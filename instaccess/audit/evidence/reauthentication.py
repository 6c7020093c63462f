"""New HMACs for the audit log after the key-encryption key was replaced."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db.models import Case, F, Value, When

from ...conf import KeyEncryptionKey
from .. import names, row_hmac
from ..rows import issued_tokens
from . import statements
from .checkpoints import chain_end, checkpoints, markers, rows_after
from .statements import EvidenceKeys

logger = logging.getLogger("instaccess.audit")


def reauthenticate(keys: EvidenceKeys) -> int:
    """Replace the HMACs of older key-encryption keys with HMACs of the first key-encryption key.

    Recomputes the HMACs of checkpoints, prune markers, rows without a checkpoint, and the user names in all rows. A
    row that a checkpoint covers needs no new HMAC, because the checkpoint proves the row, except the names. An HMAC
    that doesn't match is not replaced, because a new HMAC would hide that the data was modified.

    Returns the number of new HMACs.

    Raises AuditAltered if the last checkpoint or the latest prune marker was modified.
    """
    count = 0
    for checkpoint in checkpoints().iterator(chunk_size=100):
        covered = statements.covered_bytes(statements.CHECKPOINT, checkpoint.jws, checkpoint.index)
        if mac := _new_mac(covered, checkpoint.mac, keys.keks):
            count += checkpoints().filter(pk=checkpoint.pk, mac=checkpoint.mac).update(mac=mac)
    for marker in markers():
        if mac := _new_mac(statements.covered_bytes(statements.MARKER, marker.jws), marker.mac, keys.keks):
            count += markers().filter(pk=marker.pk, mac=marker.mac).update(mac=mac)
    last = chain_end(keys).last
    while pks := list(rows_after(last).values_list("pk", flat=True)[:200]):
        rows, unreadable = row_hmac.readable(rows_after(last).filter(pk__lte=pks[-1]))
        if unreadable:
            logger.error("unreadable rows get no new HMAC: %s", unreadable)
        renewed = {row: mac for row in rows if (mac := _new_mac(row_hmac.canonical_bytes(row), row.mac, keys.keks))}
        if renewed:
            whens = [When(pk=row.pk, mac=row.mac, then=Value(mac)) for row, mac in renewed.items()]
            unchanged = issued_tokens().filter(
                pk__in=[row.pk for row in renewed], mac__in=[row.mac for row in renewed]
            )
            count += unchanged.update(mac=Case(*whens, default=F("mac")))
        last = pks[-1]
    return count + _reauthenticate_names(keys.keks)


def _reauthenticate_names(keks: Sequence[KeyEncryptionKey]) -> int:
    count = last = 0
    while pks := list(names.outdated(keks).filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:200]):
        rows, _ = row_hmac.readable(issued_tokens().filter(pk__in=pks))
        renewed = {row: mac for row in rows if (mac := _new_mac(names.canonical_bytes(row), row.names_mac, keks))}
        if renewed:
            whens = [When(pk=row.pk, then=Value(mac)) for row, mac in renewed.items()]
            # The condition on the HMAC leaves out rows whose names were erased since they were read.
            unchanged = issued_tokens().filter(
                pk__in=[row.pk for row in renewed], names_mac__in=[row.names_mac for row in renewed]
            )
            count += unchanged.update(names_mac=Case(*whens, default=F("names_mac")))
        last = pks[-1]
    return count


def _new_mac(data: bytes, mac: str, keks: Sequence[KeyEncryptionKey]) -> str:
    """Compute the HMAC with the first key-encryption key.

    Returns an empty string if `mac` doesn't match, or was already computed with the first key-encryption key.
    """
    if row_hmac.check(data, mac, keks) is not row_hmac.HmacStatus.AUTHENTIC:
        return ""
    renewed = row_hmac.authenticate(data, keks)
    return "" if renewed == mac else renewed
