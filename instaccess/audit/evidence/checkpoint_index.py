"""Exported checkpoints, and the index of a checkpoint, which lists the audit rows that the checkpoint covers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from ...exceptions import AuditAltered, Reason
from ...models import Checkpoint
from .signatures import read_signed
from .statements import EvidenceKeys, Statement

_EXPORT_FORMAT = "instaccess checkpoint 1"
UNREADABLE = "unreadable"
"""The digest in the index for an audit row that could not be read when the checkpoint was created."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry in the index of a checkpoint, for one audit row.

    Attributes:
        row: the id of the audit row.
        digest: the digest of the audit row (see `row_digest`), or `UNREADABLE`.
        altered: True if the HMAC of the audit row didn't match when the checkpoint was created.
    """

    row: int
    digest: str
    altered: bool = False

    def __str__(self) -> str:
        return f"{self.row} {self.digest}{' altered' * self.altered}"


def row_digest(row_bytes: bytes) -> str:
    """Return the SHA-256 digest of an audit row's `canonical_bytes`, in base64url."""
    return base64.urlsafe_b64encode(hashlib.sha256(row_bytes).digest()).rstrip(b"=").decode()


def parse(index: str) -> list[Entry]:
    """Return the entries of an index, which contains one entry per line. Verify the index before this call."""
    entries = []
    for line in index.split("\n"):
        row, digest, *altered = line.split(" ")
        entries.append(Entry(int(row), digest, altered=bool(altered)))
    return entries


class Entries:
    """The entries of an index, in the order of the rows. A caller takes the entries one by one.

    The lines of the index are parsed only if a row is missing, was added or was modified.

    Args:
        index: the index, which the caller has verified.
        after: the id of an audit row. The entries of this row and of earlier rows are left out.
    """

    def __init__(self, index: str, after: int) -> None:
        self._lines, self._next = index.split("\n"), 0
        while self._next < len(self._lines) and self._row() <= after:
            self._next += 1

    @property
    def next_line(self) -> str:
        """The next line of the index, or an empty string after the last line."""
        return self._lines[self._next] if self._next < len(self._lines) else ""

    def skip(self) -> None:
        """Take the next entry without parsing its line."""
        self._next += 1

    def take_before(self, row: int | None) -> Iterator[Entry]:
        """Take and yield the entries of rows whose id is less than `row`. If `row` is None, take all entries."""
        while self.next_line and (row is None or self._row() < row):
            yield self._take()

    def take(self, row: int) -> Entry | None:
        """Take and return the next entry if it belongs to the row with the id `row`."""
        return self._take() if self.next_line and self._row() == row else None

    def _row(self) -> int:
        return int(self._lines[self._next].partition(" ")[0])

    def _take(self) -> Entry:
        [entry] = parse(self._lines[self._next])
        self._next += 1
        return entry


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported checkpoint. If the checkpoint in the database differs, `verify` trusts the exported checkpoint."""

    statement: Statement
    jws: str
    index: str


def export_checkpoint(checkpoint: Checkpoint) -> str:
    """Return a checkpoint as JSON. Store the JSON on a machine that an attacker on this server can't reach."""
    return json.dumps({"format": _EXPORT_FORMAT, "jws": checkpoint.jws, "index": checkpoint.index})


def read_exported(text: str, keys: EvidenceKeys, *, name: str) -> Exported:
    """Parse the output of `export_checkpoint`, and check the signature and the index of the checkpoint.

    Raises AuditAltered if the text isn't an exported checkpoint, or if the signature or the index doesn't match.
    `name` is the name of the exported checkpoint in error messages.
    """
    try:
        document = json.loads(text)
        jws, index, matches = document["jws"], document["index"], document["format"] == _EXPORT_FORMAT
    except (LookupError, TypeError, ValueError, RecursionError):
        jws = index = matches = None
    if not matches or not isinstance(jws, str) or not isinstance(index, str):
        raise AuditAltered(f"{name} isn't an exported checkpoint")
    try:
        return Exported(read_signed(jws, index, keys, name=name), jws, index)
    except AuditAltered as error:
        if error.code != Reason.UNKNOWN_KID:
            raise
        raise AuditAltered(
            f"{name} can't be compared, because the database doesn't contain its signing key. If the database was "
            "restored from a backup that is older than the key, run `python manage.py instaccess_keys "
            "after-restore`. Otherwise, the checkpoint belongs to another deployment, or an attacker has signed the "
            "checkpoint",
            code=error.code,
        ) from error
