"""What the audit's checkpoints and prune markers say, how that is signed, and how it is read back.

A statement is a JWS by the signing key with a `typ` of its own, so that no token passes for one, and none for a token
(RFC 8725 §3.11). In the database it carries an HMAC as well: who can write there can insert a signing key of their
own, but has no key-encryption key.
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
        verification: the public keys of all signing keys that ever existed, by kid. Revoked and expired keys are
            included, because they signed checkpoints too.
        sign: signs a payload with the current signing key. Takes the payload and the `typ` of the JWS header,
            returns a compact JWS. Raises KeyUnavailable or UnsealError if there is no usable signing key.
    """

    keks: Sequence[bytes]
    verification: Mapping[str, JWK]
    sign: Callable[[bytes, str], str]


@dataclass(frozen=True, slots=True)
class Statement:
    """What a checkpoint says.

    Attributes:
        number: 1, 2, 3 …
        previous: digest of the checkpoint before; empty for the first.
        first, last: ids of the first and last row.
        rows: how many there are.
        newest: when the newest of their tokens was issued, seconds since the epoch.
        digest: SHA-256 of `previous` and of each row's SHA-256, hexadecimal.
        index: SHA-256 of the index, which names the rows one by one.
        altered: how many rows had an HMAC that did not fit when they were sealed; the index says which.
        sealed_at: seconds since the epoch.
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
    """A row in the index of a checkpoint: its id, the beginning of its SHA-256, and whether its HMAC did not fit."""

    row: int
    print: str
    altered: bool = False

    def __str__(self) -> str:
        return f"{self.row} {self.print}{' altered' * self.altered}"


@dataclass(frozen=True, slots=True)
class Marker:
    """What a prune marker says: the rows up to checkpoint `number`, whose last row was `last`, are gone.

    Attributes:
        digest: that of the checkpoint, from which the chain goes on.
        newest: when the newest of their tokens was issued, seconds since the epoch: a younger row was never pruned.
        rows: how many rows have been pruned so far, by this and all earlier prunings.
        altered: what was found altered among them, in words; empty where nothing was.
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
"""Where the chain begins as long as nothing was pruned."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint as it was exported: kept off the machine, it stands above what the database says."""

    statement: Statement
    jws: str
    index: str


def row_digest(row_id: int, facts: bytes) -> bytes:
    """SHA-256 of a row in its place."""
    return hashlib.sha256(b"%d\n%s" % (row_id, facts)).digest()


def fingerprint(digest: bytes) -> str:
    """How the index knows a row: long enough to name one, while `digest` proves it."""
    return digest.hex()[:8]


def read_checkpoint(checkpoint: Checkpoint, keys: EvidenceKeys) -> Statement:
    """What a checkpoint of the database says. Raises AuditAltered where it is not as we made it."""
    name = f"checkpoint {checkpoint.number}"
    _check_mac(name, checkpoint.mac, data(CHECKPOINT, checkpoint.jws, checkpoint.index), keys)
    statement = read_signed(checkpoint.jws, checkpoint.index, keys, name=name)
    if statement.number != checkpoint.number:
        raise AuditAltered(f"{name} was altered: it is checkpoint {statement.number}")
    return statement


def read_signed(jws: str, index: str, keys: EvidenceKeys, *, name: str) -> Statement:
    """What a checkpoint says, by its signature alone. Raises AuditAltered."""
    statement = _verified(Statement, jws, CHECKPOINT, name, keys)
    if hashlib.sha256(index.encode("utf-8", "surrogatepass")).hexdigest() != statement.index:
        raise AuditAltered(f"{name} was altered: its index is another")
    return statement


def read_marker(row: PruneMarker, keys: EvidenceKeys) -> Marker:
    """What a prune marker says. Raises AuditAltered where it is not as we made it."""
    name = f"prune marker {row.number}"
    _check_mac(name, row.mac, data(MARKER, row.jws), keys)
    marker = _verified(Marker, row.jws, MARKER, name, keys)
    if marker.number != row.number:
        raise AuditAltered(f"{name} was altered: it is that of checkpoint {marker.number}")
    return marker


def signed_by(jws: str) -> str:
    """The kid of the key that signed a statement; of one whose signature was checked."""
    header: dict[str, str] = json.loads(base64url_decode(jws.partition(".")[0]))
    return header["kid"]


def export_checkpoint(checkpoint: Checkpoint) -> str:
    """A checkpoint as JSON, to be kept where whoever can change this database has no hand."""
    return json.dumps({"format": _EXPORT_FORMAT, "jws": checkpoint.jws, "index": checkpoint.index})


def read_exported(text: str, keys: EvidenceKeys, *, name: str) -> Exported:
    """What `export` made. Raises AuditAltered, naming it, where it is none or its signature does not hold."""
    try:
        document = json.loads(text)
        jws, index, fits = document["jws"], document["index"], document["format"] == _EXPORT_FORMAT
    except (LookupError, TypeError, ValueError, RecursionError):
        jws = index = fits = None
    if not fits or not isinstance(jws, str) or not isinstance(index, str):
        raise AuditAltered(f"{name} is no exported checkpoint")
    return Exported(read_signed(jws, index, keys, name=name), jws, index)


def entries(index: str) -> list[Entry]:
    """The rows of a checkpoint, one by one; of an index whose SHA-256 was checked."""
    found = []
    for line in index.split("\n"):
        row, print_, *altered = line.split(" ")
        found.append(Entry(int(row), print_, altered=bool(altered)))
    return found


def sign(statement: Statement | Marker, typ: str, keys: EvidenceKeys) -> str:
    """A statement as it is kept and handed out. Raises KeyUnavailable, UnsealError."""
    payload = json.dumps(asdict(statement), separators=(",", ":")).encode()
    return keys.sign(payload, typ)


def _verified(kind: type[_S], jws: str, typ: str, name: str, keys: EvidenceKeys) -> _S:
    try:
        payload, _ = tokens.verify(jws, keys.verification, typ=typ)
    except InvalidToken as error:
        raise AuditAltered(
            f"{name} was altered: its signature does not hold ({error.detail or error.code})"
        ) from error
    # Another version of this package may have signed other members.
    types = {member.name: {"int": int, "str": str}[str(member.type)] for member in fields(kind)}
    if {member: type(value) for member, value in payload.items()} != types:
        raise AuditAltered(f"{name} can't be read: it says other things than those of this version do")
    return kind(**payload)


def _check_mac(name: str, mac: str, data: bytes, keys: EvidenceKeys) -> None:
    match row_hmac.check(data, mac, keys.keks):
        case row_hmac.HmacStatus.BROKEN:
            raise AuditAltered(f"{name} was altered: its HMAC does not fit")
        case row_hmac.HmacStatus.UNKNOWN:
            raise AuditAltered(
                f"{name} can't be checked: its HMAC was made under a key-encryption key that is not in "
                "INSTACCESS['KEY_ENCRYPTION_KEYS']; put that back and run `python manage.py instaccess_keys reseal`",
                code=Reason.KEK_MISSING,
            )


def mac(keys: EvidenceKeys, typ: str, jws: str, index: str = "") -> str:
    """The HMAC of a statement and its index."""
    return row_hmac.authenticate(data(typ, jws, index), keys.keks)


def data(typ: str, jws: str, index: str = "") -> bytes:
    """What that HMAC covers. SQLite takes bytes into any column: those must not fit, and not fail either."""
    digest = hashlib.sha256(str(index).encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps([typ, jws, digest], default=repr).encode()
