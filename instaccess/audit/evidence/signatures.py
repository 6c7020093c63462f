"""Functions that sign, authenticate and read statements about the audit log: checkpoints, prune markers and reviews.

A statement is a JWS signed with the signing key. Statements and tokens have different `typ` headers, so no
reader accepts a statement as a token, or a token as a statement (RFC 8725 §3.11).

In the database, each statement also has an HMAC. An attacker who can write to the database could insert a signing key
and sign a statement with this key. Without the key-encryption key, the attacker can't compute the HMAC.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TypeVar

from django.db import router, transaction
from jwcrypto.common import base64url_decode

from ... import tokens
from ...exceptions import AuditAltered, InvalidToken, Reason
from ...models import Checkpoint, IncidentReview, PruneMarker
from .. import row_hmac
from .statements import EvidenceKeys, Marker, Review, Statement, chain_digest, sha256

_Row = Checkpoint | PruneMarker | IncidentReview
_S = TypeVar("_S", Statement, Marker, Review)
_R = TypeVar("_R")

CHECKPOINT, MARKER, REVIEW = "instaccess-checkpoint", "instaccess-prune-marker", "instaccess-review"
_TYPES: dict[type, str] = {Statement: CHECKPOINT, Marker: MARKER, Review: REVIEW}
"""The `typ` header of each kind of statement."""


def read_checkpoint(checkpoint: Checkpoint, keys: EvidenceKeys, *, check_hmac: bool = True) -> Statement:
    """Check a checkpoint from the database and return its contents.

    Raises AuditAltered if the HMAC, the signature, the index or the number of the checkpoint doesn't match.
    """
    name = f"checkpoint {checkpoint.number}"
    statement = _read(Statement, checkpoint, keys, name=name, check_hmac=check_hmac)
    _check_index(statement, checkpoint.index, name)
    return statement


def read_signed(jws: str, index: str, keys: EvidenceKeys, *, name: str) -> Statement:
    """Check the signature and the index of a checkpoint, but not the HMAC, and return the contents.

    Raises AuditAltered if the signature or the index doesn't match. Error messages contain `name`.
    """
    statement = _verify_signature(Statement, jws, name, keys)
    _check_index(statement, index, name)
    return statement


def read_marker(marker: PruneMarker, keys: EvidenceKeys, *, check_hmac: bool = True) -> Marker:
    """Check a prune marker from the database and return its contents.

    Raises AuditAltered if the HMAC, the signature or the number of the marker doesn't match.
    """
    return _read(Marker, marker, keys, name=f"prune marker {marker.number}", check_hmac=check_hmac)


def read_review(review: IncidentReview, keys: EvidenceKeys) -> Review:
    """Check a review from the database and return its contents.

    Raises AuditAltered if the HMAC, the signature, the number or the list of problems of the review doesn't match.
    """
    name = f"review {review.number}"
    contents = _read(Review, review, keys, name=name)
    if contents.problems != sha256(review.problems):
        raise AuditAltered(f"{name} was modified: its list of problems doesn't match its signature")
    return contents


def try_read(read: Callable[..., _S], row: _R, keys: EvidenceKeys) -> tuple[_S | None, AuditAltered | None]:
    """Read a checkpoint or a prune marker. Returns the contents (or None) and the error (or None).

    Returns both the error and the contents if only the key-encryption key of the HMAC is missing, because the
    signature proves the contents. `seal` then works, even if an operator removed the key-encryption key too early.
    """
    try:
        return read(row, keys), None
    except AuditAltered as error:
        if error.code != Reason.KEK_MISSING:
            return None, error
        try:
            return read(row, keys, check_hmac=False), error
        except AuditAltered as other:
            # If the row of the signing key needs the same missing key-encryption key, the second read fails with
            # UNKNOWN_KID. Return the first error, because the first error names the cause.
            return None, error if other.code == Reason.UNKNOWN_KID else other


def signed_by(jws: str) -> str:
    """Return the kid of the key that signed a statement. Verify the signature before this call."""
    header: dict[str, str] = json.loads(base64url_decode(jws.partition(".")[0]))
    return header["kid"]


def sign(statement: Statement | Marker | Review, keys: EvidenceKeys) -> str:
    """Sign a statement. Returns a compact JWS. Raises KeyUnavailable or UnsealError if no signing key is usable."""
    payload = json.dumps(asdict(statement), separators=(",", ":")).encode()
    return keys.sign(payload, _TYPES[type(statement)])


def check_signing_key(keys: EvidenceKeys) -> None:
    """Raise KeyUnavailable or UnsealError if there is no usable signing key."""
    keys.sign(b"{}", CHECKPOINT)


def _read(kind: type[_S], row: _Row, keys: EvidenceKeys, *, name: str, check_hmac: bool = True) -> _S:
    if check_hmac:
        _check_hmac(name, row, keys)
    contents = _verify_signature(kind, row.jws, name, keys)
    if row.number != contents.number:
        raise AuditAltered(f"{name} was modified: its signed number is {contents.number}")
    return contents


def _verify_signature(kind: type[_S], jws: str, name: str, keys: EvidenceKeys) -> _S:
    try:
        # An attacker can store bytes in a text column of SQLite. Convert bytes with `str`, so that the signature is
        # reported as invalid. Without `str`, `tokens.verify` would raise TypeError and the check would abort.
        payload, _ = tokens.verify(str(jws), keys.verification, typ=_TYPES[kind])
    except InvalidToken as error:
        raise AuditAltered(
            f"{name} was modified: its signature is invalid ({error.detail or error.code})",
            code=Reason.UNKNOWN_KID if error.code == Reason.UNKNOWN_KID else None,
        ) from error
    # Check the names and types of the members, because an incompatible version of this package may have signed the
    # statement.
    types = {member.name: {"int": int, "str": str}[str(member.type)] for member in fields(kind)}
    if {member: type(value) for member, value in payload.items()} != types:
        raise AuditAltered(f"{name} can't be read: it was signed by an incompatible version of django-instaccess")
    return kind(**payload)


def _check_index(statement: Statement, index: str, name: str) -> None:
    if chain_digest(statement.previous, index) != statement.digest:
        raise AuditAltered(f"{name} was modified: its index doesn't match its signature")


def _check_hmac(name: str, row: _Row, keys: EvidenceKeys) -> None:
    match row_hmac.check(covered_bytes(row), row.mac, keys.keks):
        case row_hmac.HmacStatus.BROKEN:
            raise AuditAltered(f"{name} was modified: its HMAC doesn't match")
        case row_hmac.HmacStatus.UNKNOWN:
            raise AuditAltered(
                f"{name} can't be checked: its HMAC was computed with a key-encryption key that isn't in "
                "INSTACCESS['KEY_ENCRYPTION_KEYS']. Add this key-encryption key again and run `python manage.py "
                "instaccess_keys reseal`",
                code=Reason.KEK_MISSING,
            )


def authenticate(row: _Row, keys: EvidenceKeys) -> None:
    """Compute and set the HMAC of an unsaved checkpoint, prune marker or review."""
    row.mac = row_hmac.authenticate(covered_bytes(row), keys.keks)


def insert(row: _Row, keys: EvidenceKeys) -> None:
    """Compute the HMAC of an unsaved checkpoint, prune marker or review, and insert the row.

    Raises IntegrityError if another process inserted a row with the same number.
    """
    authenticate(row, keys)
    # Without this transaction, the IntegrityError would make an open transaction of the caller unusable.
    with transaction.atomic(using=router.db_for_write(type(row))):
        row.save()


def covered_bytes(row: _Row) -> bytes:
    """Return the bytes that the HMAC of a checkpoint, prune marker or review covers."""
    match row:
        case Checkpoint():
            typ, text = CHECKPOINT, row.index
        case PruneMarker():
            typ, text = MARKER, ""
        case _:
            typ, text = REVIEW, row.problems
    # An attacker can store bytes in a text column of SQLite. Encode bytes with `repr`, so that the row is reported as
    # modified because the HMAC doesn't match. Without `default=repr`, `json` would raise TypeError and the check
    # would abort.
    return json.dumps([typ, row.jws, sha256(text)], default=repr).encode()
