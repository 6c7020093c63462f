"""Signed statements about the audit log: formatting, signing and reading of checkpoints and prune markers.

A statement is a JWS signed with the signing key. Its `typ` header differs from the `typ` of tokens, so a statement
can't be used as a token or the reverse (RFC 8725 §3.11).

In the database, a statement also has an HMAC. An attacker who can write to the database could insert a signing key
and sign a statement, but can't compute the HMAC without the key-encryption key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TypeVar

from jwcrypto.common import base64url_decode
from jwcrypto.jwk import JWK

from ... import tokens
from ...conf import KeyEncryptionKey
from ...exceptions import AuditAltered, InvalidToken, Reason
from ...models import Checkpoint, PruneMarker
from .. import row_hmac

CHECKPOINT, MARKER = "instaccess-checkpoint", "instaccess-prune-marker"
_EXPORT_FORMAT = "instaccess checkpoint 1"


@dataclass(frozen=True, slots=True)
class EvidenceKeys:
    """The keys that sign, authenticate and check the tamper evidence; `keys.evidence_keys()` builds them.

    Attributes:
        keks: the key-encryption keys. HMACs are computed with the first one and checked with any of them.
        verification: the public keys of all signing keys that ever existed, as a mapping from kid to key. Revoked and
            expired keys are included, because they signed checkpoints too.
        sign: a function that signs with the current signing key. The arguments are the payload and the `typ` of the
            JWS header. Returns a compact JWS. Raises KeyUnavailable or UnsealError if there is no usable signing key.
    """

    keks: Sequence[KeyEncryptionKey]
    verification: Mapping[str, JWK]
    sign: Callable[[bytes, str], str]


@dataclass(frozen=True, slots=True)
class Statement:
    """The contents of a checkpoint.

    Attributes:
        number: 1, 2, 3 …
        previous: digest of the previous checkpoint; empty for the first checkpoint.
        first, last: ids of the first and last covered row.
        rows: number of covered rows.
        newest: when the newest covered token was issued, in seconds since the epoch.
        digest: SHA-256 of `previous` and of the SHA-256 of each row, hexadecimal.
        index: SHA-256 of the index, which lists the rows one by one.
        altered: number of rows whose HMAC didn't match when the checkpoint was created; the index marks these rows.
        sealed_at: when the checkpoint was created, in seconds since the epoch.
    """

    number: int
    previous: str
    first: int
    last: int
    rows: int
    newest: int
    digest: str
    index: str
    altered: int
    sealed_at: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A row in the index of a checkpoint.

    Attributes:
        row: id of the row.
        print: the first characters of the SHA-256 of the row, see `fingerprint`.
        altered: whether the HMAC of the row didn't match when the checkpoint was created.
    """

    row: int
    print: str
    altered: bool = False

    def __str__(self) -> str:
        return f"{self.row} {self.print}{' altered' * self.altered}"


@dataclass(frozen=True, slots=True)
class Marker:
    """The contents of a prune marker: the rows up to the last row of a checkpoint were pruned.

    Attributes:
        number: number of the last pruned checkpoint.
        last: id of the last row of this checkpoint.
        digest: digest of this checkpoint; the next checkpoint is chained to the digest.
        newest: when the newest pruned token was issued, in seconds since the epoch. Newer rows were not pruned.
        rows: number of rows pruned so far, by this and all earlier prunings.
        altered: a description of the tampering found among the pruned rows; empty if there was none.
        pruned_at: seconds since the epoch.
    """

    number: int
    last: int
    digest: str
    newest: int
    rows: int
    altered: str
    pruned_at: int


_S = TypeVar("_S", Statement, Marker)

START = Marker(number=0, last=0, digest="", newest=0, rows=0, altered="", pruned_at=0)
"""The beginning of the chain if no rows have been pruned."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported checkpoint. If the database differs from an exported checkpoint, `verify` trusts the export."""

    statement: Statement
    jws: str
    index: str


def row_digest(row_id: int, row_bytes: bytes) -> bytes:
    """Compute the SHA-256 of a row's id and its `canonical_bytes`."""
    return hashlib.sha256(b"%d\n%s" % (row_id, row_bytes)).digest()


def fingerprint(digest: bytes) -> str:
    """Shorten a row's SHA-256 for the index, which only identifies rows. `Statement.digest` proves their contents."""
    return digest.hex()[:8]


def read_checkpoint(checkpoint: Checkpoint, keys: EvidenceKeys) -> Statement:
    """Return the contents of a checkpoint in the database.

    Raises AuditAltered if its HMAC, signature, index or number doesn't match.
    """
    name = f"checkpoint {checkpoint.number}"
    _check_mac(name, checkpoint.mac, covered_bytes(CHECKPOINT, checkpoint.jws, checkpoint.index), keys)
    statement = read_signed(checkpoint.jws, checkpoint.index, keys, name=name)
    if statement.number != checkpoint.number:
        raise AuditAltered(f"{name} was modified: its signed number is {statement.number}")
    return statement


def read_signed(jws: str, index: str, keys: EvidenceKeys, *, name: str) -> Statement:
    """Return the contents of a checkpoint after checking the signature and the index, but not the HMAC.

    Raises AuditAltered if the signature or the index doesn't match. Error messages call the checkpoint `name`.
    """
    statement = _verify_signature(Statement, jws, CHECKPOINT, name, keys)
    if hashlib.sha256(index.encode("utf-8", "surrogatepass")).hexdigest() != statement.index:
        raise AuditAltered(f"{name} was modified: its index doesn't match its signature")
    return statement


def read_marker(row: PruneMarker, keys: EvidenceKeys) -> Marker:
    """Return the contents of a prune marker.

    Raises AuditAltered if its HMAC, signature or number doesn't match.
    """
    name = f"prune marker {row.number}"
    _check_mac(name, row.mac, covered_bytes(MARKER, row.jws), keys)
    marker = _verify_signature(Marker, row.jws, MARKER, name, keys)
    if marker.number != row.number:
        raise AuditAltered(f"{name} was modified: its signed number is {marker.number}")
    return marker


def signed_by(jws: str) -> str:
    """Return the kid of the key that signed a statement. The caller has verified the signature."""
    header: dict[str, str] = json.loads(base64url_decode(jws.partition(".")[0]))
    return header["kid"]


def export_checkpoint(checkpoint: Checkpoint) -> str:
    """Format a checkpoint as JSON. Store the copy where an attacker on this server or database can't change it."""
    return json.dumps({"format": _EXPORT_FORMAT, "jws": checkpoint.jws, "index": checkpoint.index})


def read_exported(text: str, keys: EvidenceKeys, *, name: str) -> Exported:
    """Parse the output of `export_checkpoint`, and check the signature and the index.

    Raises AuditAltered if the text isn't an exported checkpoint, or if the signature or the index doesn't match.
    Error messages call the copy `name`.
    """
    try:
        document = json.loads(text)
        jws, index, matches = document["jws"], document["index"], document["format"] == _EXPORT_FORMAT
    except (LookupError, TypeError, ValueError, RecursionError):
        jws = index = matches = None
    if not matches or not isinstance(jws, str) or not isinstance(index, str):
        raise AuditAltered(f"{name} isn't an exported checkpoint")
    return Exported(read_signed(jws, index, keys, name=name), jws, index)


def entries(index: str) -> list[Entry]:
    """Parse the index of a checkpoint. The caller has compared the index with its SHA-256."""
    parsed = []
    for line in index.split("\n"):
        row, print_, *altered = line.split(" ")
        parsed.append(Entry(int(row), print_, altered=bool(altered)))
    return parsed


def sign(statement: Statement | Marker, typ: str, keys: EvidenceKeys) -> str:
    """Sign a statement and return the compact JWS. Raises KeyUnavailable or UnsealError without a usable key."""
    payload = json.dumps(asdict(statement), separators=(",", ":")).encode()
    return keys.sign(payload, typ)


def _verify_signature(kind: type[_S], jws: str, typ: str, name: str, keys: EvidenceKeys) -> _S:
    try:
        payload, _ = tokens.verify(jws, keys.verification, typ=typ)
    except InvalidToken as error:
        raise AuditAltered(f"{name} was modified: its signature is invalid ({error.detail or error.code})") from error
    # The members are compared, because another version of this package may have signed other members.
    types = {member.name: {"int": int, "str": str}[str(member.type)] for member in fields(kind)}
    if {member: type(value) for member, value in payload.items()} != types:
        raise AuditAltered(f"{name} can't be read: it was signed by an incompatible version of django-instaccess")
    return kind(**payload)


def _check_mac(name: str, mac: str, data: bytes, keys: EvidenceKeys) -> None:
    match row_hmac.check(data, mac, keys.keks):
        case row_hmac.HmacStatus.BROKEN:
            raise AuditAltered(f"{name} was modified: its HMAC doesn't match")
        case row_hmac.HmacStatus.UNKNOWN:
            raise AuditAltered(
                f"{name} can't be checked: its HMAC was computed with a key-encryption key that isn't in "
                "INSTACCESS['KEY_ENCRYPTION_KEYS']. Add the key again and run "
                "`python manage.py instaccess_keys reseal`",
                code=Reason.KEK_MISSING,
            )


def mac(keys: EvidenceKeys, typ: str, jws: str, index: str = "") -> str:
    """Compute the HMAC of a statement and its index."""
    return row_hmac.authenticate(covered_bytes(typ, jws, index), keys.keks)


def covered_bytes(typ: str, jws: str, index: str = "") -> bytes:
    """Return the bytes that the HMAC of a statement covers."""
    # SQLite can store bytes in a text column. Converting bytes with `str` and `repr` makes the HMAC comparison fail
    # instead of raising TypeError.
    digest = hashlib.sha256(str(index).encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps([typ, jws, digest], default=repr).encode()
