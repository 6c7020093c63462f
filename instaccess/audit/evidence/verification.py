"""Verification of the audit log: the detection of rows that were modified, deleted, moved or added.

`verify` compares each row that a checkpoint covers with the checkpoint. For rows without a valid checkpoint, `verify`
can only check the HMAC of each row, so `verify` can't detect that such a row was deleted. This module never writes to
the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ...exceptions import AuditAltered
from ...models import Checkpoint, PruneMarker
from ...times import format_utc
from ..batches import in_batches
from ..long_work import Advance, Progress, ignore_progress
from ..row_ids import id_time
from ..rows import current_time, issued_tokens
from . import reviews, signatures
from .checkpoint_index import Exported
from .checkpoints import AT_ONCE, SETTLED, ChainEnd, chain_start, checkpoints, markers
from .report import Collector, Finding, Kind, Report, state
from .row_checks import RowChecker
from .statements import EvidenceKeys, Marker, Statement


@dataclass(frozen=True, slots=True)
class _Trusted:
    """The verified contents of a checkpoint."""

    statement: Statement
    index: str


def verify(
    keys: EvidenceKeys,
    exported: Iterable[Exported] = (),
    *,
    until: Statement | None = None,
    progress: Progress = ignore_progress,
) -> Report:
    """Compare all audit rows with their HMACs, with the checkpoints, and with exported copies of checkpoints.

    The verification continues after a problem. While the function runs, other processes may issue, revoke or prune
    tokens, and create checkpoints.

    Args:
        exported: copies of checkpoints from another machine.
        until: the contents of the last checkpoint to check. If `until` is given, later checkpoints, later rows and
            reviews are not checked.
        progress: the function to which the progress is reported.
    """
    copies = {copy.statement.number: copy for copy in exported}
    while True:
        latest = _latest_marker()
        rows = issued_tokens() if until is None else issued_tokens().filter(pk__lte=until.last)
        advance = progress("verifying", rows.count)
        report = _Verification(keys, copies, until, current_time(), advance).run()
        # If another process has pruned rows since the verification began, missing rows aren't a problem. Verify the
        # audit log again.
        if not report.problems or _latest_marker() == latest:
            return report


def _latest_marker() -> PruneMarker | None:
    return markers().last()


class _Verification:
    """A single run of the verification, which produces one report."""

    def __init__(
        self,
        keys: EvidenceKeys,
        copies: Mapping[int, Exported],
        until: Statement | None,
        now: datetime,
        advance: Advance,
    ) -> None:
        self._keys, self._copies, self._until, self._now = keys, copies, until, now
        self._report = Report()
        self._report.incidents, self._unusable_reviews = reviews.load(keys)
        self._problems = Collector(self._report)
        self._rows = RowChecker(self._report, self._problems, keys.keks, advance)
        self._latest_review = 0

    def run(self) -> Report:
        start = self._check_markers()
        self._check_pruned(start)
        last = self._check_chain(start)
        self._note_newer_copies(start)
        if self._until is None:
            first = self._rows.check_uncovered(last)
            if first is not None and self._now - id_time(first) > timedelta(seconds=SETTLED, days=1):
                self._report.notes.append(
                    f"no checkpoint covers row {first} or the rows after this row, so the deletion of such a row "
                    "can't be detected: run `python manage.py instaccess_tokens seal` from cron"
                )
        self._problems.close()
        if self._until is None:
            self._check_reviews()
        self._mark_truncation()
        return self._report

    def _check_markers(self) -> Marker:
        """Check the prune markers. Returns the latest marker that can be read, or `START`."""
        start = chain_start(self._keys)
        for row in markers().filter(number__gte=start.number):
            _, error = signatures.try_read(signatures.read_marker, row, self._keys)
            if error is not None:
                self._problems.add(row.number, _finding(Kind.PRUNE_MARKER, row, error))
        if start.number:
            self._report.pruned = start
            if start.altered:
                self._report.notes.append(f"modified rows were pruned: {start.altered}")
        return start

    def _check_pruned(self, start: Marker) -> None:
        """Check that the prune marker matches the exported checkpoints, and that no added row has a pruned id."""
        for number, copy in self._copies.items():
            if number == start.number and copy.statement.digest != start.digest:
                text = f"checkpoint {number}, the last pruned checkpoint, differs from its exported copy"
                self._problems.add(number, Finding(Kind.CHECKPOINT, start.digest, text))
            if number < start.number:
                self._report.notes.append(f"checkpoint {number} was pruned, so its exported copy can't be compared")
        if self._rows.check_pruned(start):
            self._report.notes.append(
                f"pruning the rows up to {start.last} was interrupted: run `python manage.py instaccess_tokens "
                "prune` again to delete the remaining rows"
            )

    def _check_chain(self, start: Marker) -> int:
        """Check the checkpoints and the audit rows that they cover. Returns the id of the last covered row."""
        end = ChainEnd(start.number, start.last, start.digest)
        unusable: set[int] = set()
        for number, checkpoint, copy in self._numbered(start.number):
            trusted = self._read(number, checkpoint, copy)
            if trusted is None:
                unusable.add(number)
                continue
            statement = trusted.statement
            self._check_gap(statement, end, unusable)
            after = end.last
            if statement.previous != end.digest:
                # Earlier checkpoints are missing or were modified, so no checkpoint proves the rows before this
                # checkpoint.
                self._rows.check_uncovered(after, statement.first - 1)
                after = max(after, statement.first - 1)
            self._rows.check_covered(statement, trusted.index, after)
            end = ChainEnd(number, max(end.last, statement.last), statement.digest)
            self._report.checkpoints, self._report.last = self._report.checkpoints + 1, statement
            self._latest_review = max(self._latest_review, statement.reviews)
        return end.last

    def _note_newer_copies(self, start: Marker) -> None:
        """Add a note if an exported copy is newer than every checkpoint in the database."""
        newest = max(self._copies, default=0)
        if newest > start.number and not checkpoints().filter(number__gte=newest).exists():
            sealed_at = datetime.fromtimestamp(self._copies[newest].statement.sealed_at, UTC)
            self._report.notes.append(
                f"the database is older than the exported checkpoint {newest} of {format_utc(sealed_at)}: if the "
                "database was restored from a backup, run `python manage.py instaccess_keys after-restore`"
            )

    def _numbered(self, start: int) -> Iterator[tuple[int, Checkpoint | None, Exported | None]]:
        """Yield each checkpoint number with the checkpoint (or None) and its exported copy (or None)."""
        waiting = sorted(number for number in self._copies if number > start)
        stored = checkpoints().filter(number__gt=start)
        if self._until is not None:
            stored = stored.filter(number__lte=self._until.number)
        for checkpoint in in_batches(stored, AT_ONCE):
            # In SQLite, an attacker can store a value of any type as the number. Comparing such a value with an
            # integer could raise TypeError.
            while waiting and isinstance(checkpoint.number, int) and waiting[0] < checkpoint.number:
                number = waiting.pop(0)
                yield number, None, self._copies[number]
            copy = self._copies.get(checkpoint.number)
            if copy is not None:
                waiting.remove(checkpoint.number)
            yield checkpoint.number, checkpoint, copy
        for number in waiting:
            yield number, None, self._copies[number]

    def _read(self, number: int, checkpoint: Checkpoint | None, copy: Exported | None) -> _Trusted | None:
        """Check a checkpoint and its exported copy, and report the problems.

        Returns the contents of the copy, or of the checkpoint if there is no copy. Returns None if the contents can't
        be trusted.
        """
        statement = None
        if checkpoint is not None:
            statement, error = signatures.try_read(signatures.read_checkpoint, checkpoint, self._keys)
            if error is not None:
                self._problems.add(number, _finding(Kind.CHECKPOINT, checkpoint, error))
        if copy is None:
            return None if statement is None or checkpoint is None else _Trusted(statement, checkpoint.index)
        if checkpoint is None:
            text = f"checkpoint {number} was deleted, but an exported copy exists"
            self._problems.add(number, Finding(Kind.CHECKPOINT, copy.statement.digest, text))
        elif statement is not None and checkpoint.jws != copy.jws:
            text = f"checkpoint {number} differs from its exported copy"
            self._problems.add(number, Finding(Kind.CHECKPOINT, f"{statement.digest} {copy.statement.digest}", text))
        return _Trusted(copy.statement, copy.index)

    def _check_gap(self, statement: Statement, end: ChainEnd, unusable: set[int]) -> None:
        """Check that no checkpoint is missing between the end of the chain and the next checkpoint."""
        gap = range(end.number + 1, statement.number)
        missing = sorted(set(gap) - unusable)
        previous = f"checkpoint {end.number}" if end.number else "the beginning of the audit log"
        if missing:
            count = f"{len(missing)} checkpoints are" if len(missing) > 1 else "a checkpoint is"
            text = f"{count} missing: checkpoint {statement.number} doesn't follow {previous}"
        elif not gap and statement.previous != end.digest:
            text = (
                f"checkpoint {statement.number} doesn't follow {previous}: an earlier checkpoint was replaced. "
                "Verify with an exported copy of an earlier checkpoint to find where the differences begin"
            )
        else:
            return
        self._problems.add(statement.number, Finding(Kind.CHECKPOINT, f"{end.digest} {statement.digest}", text))

    def _check_reviews(self) -> None:
        for number, finding in self._unusable_reviews.items():
            self._problems.add(number, finding)
        for number in reviews.find_missing(self._latest_review, self._report.incidents, self._unusable_reviews):
            self._problems.add(number, Finding(Kind.REVIEW, "", f"review {number} was deleted"))

    def _mark_truncation(self) -> None:
        """Add a note to the description of a problem if the last rows of the audit log were deleted."""
        last_row = issued_tokens().order_by("pk").values_list("pk", flat=True).last()
        for place, problem in enumerate(self._report.problems):
            if problem.kind is Kind.DELETED and (last_row is None or last_row < problem.first):
                text = f"the audit log was truncated: {problem.text}, and no later row exists"
                self._report.problems[place] = replace(problem, text=text)


def _finding(kind: Kind, row: Checkpoint | PruneMarker, error: AuditAltered) -> Finding:
    return Finding(kind, state(signatures.covered_bytes(row), row.mac), error.detail)
