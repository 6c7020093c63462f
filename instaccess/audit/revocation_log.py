"""The revocation log: the revocations in the order of their commits. Gateways read new revocations from the log.

A revocation of all tokens, or of all tokens of a user, an account or a key, is one row. Gateways compare the row with
the claims of each token. A batch of single tokens is also one row. Gateways find the tokens of a batch in the audit
log, by the time of the revocation. `trust/revocation_table.py` reads the rows without the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from django.db import router, transaction
from django.db.models import BigIntegerField, F, QuerySet, Value
from django.db.models.functions import Greatest

from ..conf import KeyEncryptionKey
from ..models import Revocation, RevocationLock
from . import row_hmac
from .scopes import Scope

_FORMAT = "instaccess revocation 1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Act:
    """The time, the author and the reason of a revocation, as audit rows store these values."""

    revoked_at: datetime
    revoked_by: str
    reason: str

    @classmethod
    def of(cls, revocation: Revocation) -> Self:
        return cls(revocation.revoked_at, revocation.revoked_by, revocation.reason)


def revocations() -> QuerySet[Revocation]:
    """Return all revocations, from the database for writes, because a replica may be outdated."""
    return Revocation.objects.using(router.db_for_write(Revocation))


def recorded_keys() -> set[str]:
    """Return the kids of the keys whose revocation the revocation log contains."""
    return set(revocations().filter(kind=Revocation.Kind.KEY).values_list("value", flat=True))


@contextmanager
def reserve_numbers(count: int, now: datetime) -> Iterator[int]:
    """Open a transaction during which no other process can record a revocation, and reserve numbers.

    Revocations are therefore committed in the order of their numbers. If number 1 were committed after number 2, a
    gateway that has already read number 2 would miss number 1.

    Args:
        count: the number of revocations to record.
        now: the time of the revocation. The first number is `now` in microseconds since 1970, or a higher number.

    Yields the first of `count` consecutive numbers.
    """
    alias = router.db_for_write(RevocationLock)
    lock = RevocationLock.objects.using(alias)
    lock.get_or_create(pk=1)
    with transaction.atomic(using=alias):
        earliest = Value((now - _EPOCH) // _MICROSECOND)
        first = Greatest(F("last_number") + 1, earliest, output_field=BigIntegerField())
        lock.filter(pk=1).update(last_number=first + (count - 1))
        yield lock.get(pk=1).last_number - (count - 1)


def record(
    scopes: Sequence[Scope], act: Act, *, latest_iat: int | None, keks: Sequence[KeyEncryptionKey]
) -> list[Revocation]:
    """Record that all tokens of scopes are revoked. After the commit, gateways refuse the tokens.

    Args:
        latest_iat: the latest `iat`, in seconds since 1970, of the tokens that are revoked. Not used for a key,
            because all its tokens are revoked.
        keks: the key-encryption keys, for the HMACs of the rows. If empty, the rows get no HMAC.

    Returns the recorded revocations.
    """
    if not scopes:
        return []
    with reserve_numbers(len(scopes), act.revoked_at) as first:
        rows = [
            _build(number, scope.kind, act, keks, value=scope.value, latest_iat=latest_iat)
            for number, scope in enumerate(scopes, first)
        ]
        return revocations().bulk_create(rows)


def record_batch(number: int, act: Act, *, keks: Sequence[KeyEncryptionKey]) -> None:
    """Record the revocation of the single tokens whose audit rows contain the time of `act` in `revoked_at`.

    Args:
        number: a number from `reserve_numbers`. The caller marks the audit rows in the same transaction.
        keks: the key-encryption keys, for the HMAC of the new row. If empty, the row gets no HMAC.
    """
    row = _build(number, Revocation.Kind.TOKENS, act, keks)
    row.completed_at = act.revoked_at
    revocations().bulk_create([row])


def is_authentic(row: Revocation, keks: Sequence[KeyEncryptionKey]) -> bool:
    """Return whether the HMAC of a revocation matches.

    An attacker who can only write to the table can't compute the HMAC.
    """
    return row_hmac.check(canonical_bytes(row), row.mac, keks) is row_hmac.HmacStatus.AUTHENTIC


def canonical_bytes(row: Revocation) -> bytes:
    """Return the canonical encoding of a revocation: a JSON array in ASCII, with all columns that never change."""
    revoked_at = (row.revoked_at - _EPOCH) // _MICROSECOND if row.revoked_at else None
    facts = [row.number, row.kind, row.value, row.latest_iat, revoked_at, row.revoked_by, row.reason]
    return json.dumps([_FORMAT, *facts], separators=(",", ":"), default=repr).encode("ascii")


def prune(before: datetime) -> int:
    """Delete the revocations before a time, except the latest revocation and the revocations of keys.

    The latest revocation is kept because gateways remember its number. Revocations of keys are kept because a gateway
    may still have a revoked key in a file.

    Returns the number of deleted revocations.
    """
    rows = revocations()
    latest = rows.order_by("-number").values_list("number", flat=True).first() or 0
    old = rows.filter(revoked_at__lt=before, number__lt=latest).exclude(kind=Revocation.Kind.KEY)
    return old.delete()[0]


def _build(
    number: int,
    kind: Revocation.Kind,
    act: Act,
    keks: Sequence[KeyEncryptionKey],
    *,
    value: str = "",
    latest_iat: int | None = None,
) -> Revocation:
    row = Revocation(
        number=number,
        kind=kind,
        value=value,
        latest_iat=None if kind == Revocation.Kind.KEY else latest_iat,
        revoked_at=act.revoked_at,
        revoked_by=act.revoked_by,
        reason=act.reason,
    )
    row.mac = row_hmac.authenticate(canonical_bytes(row), keks) if keks else ""
    return row
