"""The report of `verify`: the problems in the audit log, and the number of checked rows and checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from .statements import Marker, Review, Statement

LISTED = 100
"""The maximum number of problems that a report of `verify` describes. Further problems are only counted."""


class Kind(StrEnum):
    """The kind of a problem that `verify` finds."""

    MODIFIED = "modified"
    """The HMAC of the audit row doesn't match, or the row differs from its checkpoint."""
    DELETED = "deleted"
    ADDED = "added"
    UNREADABLE = "unreadable"
    """The audit row contains a value that Django can't read."""
    UNCHECKED = "unchecked"
    """No checkpoint covers the audit row, and the key-encryption key of its HMAC is no longer configured."""
    REFERENCE = "reference"
    """The audit row no longer refers to its original user or application."""
    NAMES = "names"
    """The HMAC of the row's user names doesn't match, or the HMAC's key-encryption key is no longer configured."""
    CHECKPOINT = "checkpoint"
    PRUNE_MARKER = "prune_marker"
    REVIEW = "review"


_RANGES = {
    Kind.MODIFIED: "don't match their HMACs or checkpoints",
    Kind.DELETED: "were deleted",
    Kind.ADDED: "were added",
    Kind.UNREADABLE: "contain invalid values and can't be read",
    Kind.UNCHECKED: "can't be checked",
    Kind.REFERENCE: "no longer refer to their original users or applications",
    Kind.NAMES: "contain user names that don't match their HMACs or can't be checked",
}


class Finding(NamedTuple):
    """A problem with one audit row, checkpoint, prune marker or review.

    Attributes:
        state: an ASCII string that changes with each further change to the row, checkpoint, prune marker or review.
            Empty for an unreadable row and for a deleted review.
        text: a description for the operator.
    """

    kind: Kind
    state: str
    text: str


def state(data: bytes, mac: str) -> str:
    """Compute `Finding.state` from an HMAC and from the bytes that the HMAC covers."""
    return hashlib.sha256(data + b"\n" + repr(mac).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with consecutive audit rows, or with one checkpoint, prune marker or review.

    Attributes:
        first: the id of the first row, or the number of the checkpoint, prune marker or review.
        last: the id of the last row, or the number in `first`.
        count: the number of rows; 1 for a checkpoint, prune marker or review.
        digest: the hexadecimal SHA-256 of the kind, and of the id and the state of each row. A further change to a
            row changes the digest.
        text: a description for the operator.
    """

    kind: Kind
    first: int
    last: int
    count: int
    digest: str
    text: str

    @property
    def code(self) -> str:
        """The first 12 characters of the digest, which an operator passes to `instaccess_tokens review`."""
        return self.digest[:12]


@dataclass(slots=True)
class Incident:
    """A review in the database, with the problems that an operator reviewed.

    Attributes:
        review: the contents of the review.
        problems: the problems that the operator reviewed.
        present: the number of these problems that `verify` has found again.
    """

    review: Review
    problems: tuple[Problem, ...]
    present: int = 0


@dataclass(slots=True)
class Report:
    """The result of `verify`.

    Attributes:
        rows: the number of checked audit rows.
        sealed: the number of checked audit rows that a checkpoint covers.
        checkpoints: the number of checked checkpoints.
        last: the contents of the last checkpoint; None if there is no checkpoint.
        pruned: the latest prune marker; None if no rows were pruned.
        problems: the first `LISTED` problems that no operator has reviewed.
        more: the number of further problems that no operator has reviewed.
        incidents: the reviews, with the problems that operators reviewed.
        notes: information for the operator that isn't a sign of tampering.
    """

    rows: int = 0
    sealed: int = 0
    checkpoints: int = 0
    last: Statement | None = None
    pruned: Marker | None = None
    problems: list[Problem] = field(default_factory=list)
    more: int = 0
    incidents: list[Incident] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The text of the first problem, with the number of further problems, or an empty string if there is none."""
        if not self.problems:
            return ""
        more = len(self.problems) - 1 + self.more
        return self.problems[0].text + (f" (and {more} more problems)" if more else "")


class _Range:
    """A range of consecutive audit rows with the same kind of problem."""

    def __init__(self, first: int, finding: Finding) -> None:
        self.kind, self.first, self.text = finding.kind, first, finding.text
        self.last, self.count = first, 0
        self._hash = hashlib.sha256(finding.kind.encode())

    def add(self, row: int, finding: Finding) -> None:
        self.last, self.count = row, self.count + 1
        self._hash.update(f"\n{row} {finding.state}".encode())

    def problem(self) -> Problem:
        text = self.text
        if self.count > 1:
            text = f"{self.count} rows, {self.first} to {self.last}, {_RANGES[self.kind]}; the first: {text}"
        return Problem(self.kind, self.first, self.last, self.count, self._hash.hexdigest(), text)


class Collector:
    """A collector of problems for a report.

    To limit memory use, problems of the same kind with consecutive rows become one problem.

    Args:
        report: the report to which problems are added. Problems that an operator has reviewed are not added. The
            collector counts them in `Incident.present`.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: dict[Kind, _Range] = {}
        self._incidents = {problem.digest: each for each in report.incidents for problem in each.problems}
        reviewed = [problem for each in report.incidents for problem in each.problems]
        # Never join the rows of a reviewed problem with other rows. The joined problem would have a different digest,
        # so `verify` would report the reviewed problem again.
        self._begins = {(problem.kind, problem.first) for problem in reviewed}
        self._ends = {(problem.kind, problem.last) for problem in reviewed}

    def add_row(self, row: int, findings: Iterable[Finding] = ()) -> None:
        """Add the problems with an audit row, at most one of each kind. Call this method for every row."""
        findings = list(findings)
        if self._open:
            for kind in self._open.keys() - {finding.kind for finding in findings}:
                self._close(kind)
        for finding in findings:
            if (finding.kind, row) in self._begins:
                self._close(finding.kind)
            self._open.setdefault(finding.kind, _Range(row, finding)).add(row, finding)
            if (finding.kind, row) in self._ends:
                self._close(finding.kind)

    def add(self, number: int, finding: Finding) -> None:
        """Add a problem with the checkpoint, prune marker or review that has this number."""
        single = _Range(number, finding)
        single.add(number, finding)
        self._record(single.problem())

    def close(self) -> None:
        """Add the problems with the last rows to the report. Call this method after the last audit row."""
        for kind in list(self._open):
            self._close(kind)

    def _close(self, kind: Kind) -> None:
        rows = self._open.pop(kind, None)
        if rows is not None:
            self._record(rows.problem())

    def _record(self, problem: Problem) -> None:
        incident = self._incidents.get(problem.digest)
        if incident is not None:
            incident.present += 1
        elif len(self._report.problems) < LISTED:
            self._report.problems.append(problem)
        else:
            self._report.more += 1
