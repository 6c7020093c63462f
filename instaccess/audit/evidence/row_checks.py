"""The checks of audit rows in `verify`: each row must match its HMACs, and its checkpoint if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...conf import KeyEncryptionKey
from .. import names, row_hmac
from ..long_work import Advance
from ..row_hmac import HmacStatus
from ..row_ids import row_id
from ..rows import issued_tokens
from ..stored_rows import StoredRow, to_datetime
from . import checkpoint_index, references
from .checkpoint_index import Entry, row_digest
from .checkpoints import ROWS
from .findings import deleted, describe, modified_reference, row_state, unreadable
from .references import Reference
from .report import Collector, Finding, Kind, Report, state
from .statements import Marker, Statement

_OTHER_UUIDS = (
    "some rows refer to users whose uuid differs from the uuid in the row, for example after "
    "INSTACCESS['USER_UUID_FIELD'] was changed: trust the uuids in the rows, because the HMACs cover these uuids"
)
_OTHER_CLIENT_IDS = (
    "some rows refer to applications whose client id differs from the client id in the row, for example after the "
    "client id was changed: trust the client ids in the rows, because the HMACs cover these client ids"
)
_ADD_KEK = (
    "its HMAC was computed with a key-encryption key that isn't in INSTACCESS['KEY_ENCRYPTION_KEYS']. Add this "
    "key-encryption key again"
)

_RESEAL = "then run `python manage.py instaccess_keys reseal`"

_NONE: tuple[Finding, ...] = ()


class RowChecker:
    """A checker that reads audit rows page by page, in constant memory, and adds their problems to a collector."""

    def __init__(
        self, report: Report, problems: Collector, keks: Sequence[KeyEncryptionKey], advance: Advance
    ) -> None:
        self._report, self._problems, self._keks, self._advance = report, problems, keks, advance
        self._hmacs = row_hmac.HmacChecker(keks)
        self._matching: dict[str, set[references.Pair]] = {}

    def check_covered(self, statement: Statement, index: str, after: int) -> None:
        """Compare audit rows with the index of their checkpoint, to find modified, deleted and added rows.

        Args:
            index: the index of the checkpoint. The caller has verified the index.
            after: the id of the last row that the caller has already checked.
        """
        entries = checkpoint_index.Entries(index, after)
        for row, token, modified_keys in self._rows(after, statement.last):
            if token is not None and not modified_keys and self._is_unmodified(token, entries.next_line):
                entries.skip()
                self._report.sealed += 1
                self._problems.add_row(row)
                continue
            for entry in entries.take_before(row):
                self._problems.add_row(entry.row, [deleted(entry)])
            found = entries.take(row)
            if found is not None:
                findings = self._compare(row, token, found, statement)
                self._report.sealed += 1
            else:
                findings = [self._added(row, token, f"after checkpoint {statement.number} was created")]
            self._problems.add_row(row, [*findings, *modified_keys, *self._check_names(token, findings)])
        for entry in entries.take_before(None):
            self._problems.add_row(entry.row, [deleted(entry)])

    def _is_unmodified(self, token: StoredRow, line: str) -> bool:
        """Return whether an audit row matches both of its HMACs and the next line of the index.

        This method is fast, because almost every row matches. If a row doesn't match, `_compare` and `_check_names`
        find the problem.
        """
        row_bytes, authentic = row_hmac.canonical_bytes(token), HmacStatus.AUTHENTIC
        return (
            line == f"{token.pk} {row_digest(row_bytes)}"
            and self._hmacs.check(row_bytes, token.mac) is authentic
            and self._hmacs.check(names.canonical_bytes(token), token.names_mac) is authentic
        )

    def check_uncovered(self, after: int, through: int | None = None) -> int | None:
        """Check the HMACs of audit rows that no checkpoint covers. This check can't detect a deleted row.

        Args:
            after: the id after which the check begins.
            through: the id of the last row to check; None for all later rows.

        Returns the id of the first checked row, or None if there is no row to check.
        """
        first = None
        for row, token, modified_keys in self._rows(after, through):
            first = row if first is None else first
            findings = self._check_hmac(row, token)
            self._problems.add_row(row, [*findings, *modified_keys, *self._check_names(token, findings)])
        return first

    def check_pruned(self, marker: Marker) -> bool:
        """Check the audit rows whose ids a prune marker covers.

        An interrupted pruning leaves rows whose HMACs match. Every other row is reported as added or unreadable.

        Returns whether an interrupted pruning left any rows.
        """
        left = False
        for row, token, modified_keys in self._rows(None, marker.last):
            if token is not None and marker.number and row_hmac.row_status(token, self._keks) is HmacStatus.AUTHENTIC:
                left = True
                self._problems.add_row(row, modified_keys)
            else:
                added = self._added(row, token, "with an id that new rows can't have")
                self._problems.add_row(row, [added, *modified_keys])
        return left

    def _rows(
        self, after: int | None, through: int | None
    ) -> Iterator[tuple[int, StoredRow | None, Sequence[Finding]]]:
        """Yield the id of each audit row, the row (None if unreadable), and the problems with its foreign keys."""
        rows = issued_tokens().order_by("pk")
        if through is not None:
            rows = rows.filter(pk__lte=through)
        # Stop when the row `through` has been read. Without this comparison, one more query per checkpoint would look
        # for further rows.
        while after != through and (
            page := row_hmac.load((rows if after is None else rows.filter(pk__gt=after))[:ROWS])
        ):
            modified = self._compare_references([token for _, token in page if token is not None])
            self._report.rows += len(page)
            for row, token in page:
                yield row, token, modified.get(row, _NONE)
            after = page[-1][0]
            self._advance(len(page))

    def _compare(self, row: int, token: StoredRow | None, entry: Entry, statement: Statement) -> list[Finding]:
        """Compare an audit row with its entry in the index of a checkpoint. Returns the problems."""
        if token is None:
            return [unreadable(row)]
        row_bytes = row_hmac.canonical_bytes(token)
        status = row_hmac.check(row_bytes, token.mac, self._keks)
        name = describe(token)
        same, number = row_digest(row_bytes) == entry.digest, statement.number
        match status, entry.altered:
            case (HmacStatus.AUTHENTIC, _) | (HmacStatus.UNKNOWN, False) if same:
                return []
            case HmacStatus.UNKNOWN, True if same:
                text = f"{name} can't be checked, and its HMAC didn't match when checkpoint {number} was created"
                text = f"{text}: {_ADD_KEK}"
            case HmacStatus.BROKEN, True if same:
                text = f"{name} was modified before checkpoint {number} was created: the HMAC of the row didn't match"
            case HmacStatus.BROKEN, False if same:
                text = f"the HMAC of {name} was modified"
            case HmacStatus.AUTHENTIC, True:
                text = f"{name} was restored: checkpoint {number} covers a modified version of the row"
            case HmacStatus.AUTHENTIC, False:
                text = f"{name} was replaced by an older version of the row after checkpoint {number} was created"
            case _:
                text = f"{name} was modified after checkpoint {number} was created"
        return [self._modified(token, text)]

    def _check_hmac(self, row: int, token: StoredRow | None) -> list[Finding]:
        """Check the HMAC of an audit row that no checkpoint covers. Returns the problems."""
        if token is None:
            return [unreadable(row)]
        row_bytes = row_hmac.canonical_bytes(token)
        name = describe(token)
        match row_hmac.check(row_bytes, token.mac, self._keks):
            case HmacStatus.BROKEN:
                return [self._modified(token, f"{name} was modified, or was not written by the issuer")]
            case HmacStatus.UNKNOWN:
                text = f"{name} can't be checked: {_ADD_KEK}, {_RESEAL}"
                return [Finding(Kind.UNCHECKED, state(row_bytes, token.mac), text)]
        return []

    def _check_names(self, token: StoredRow | None, findings: Sequence[Finding]) -> list[Finding]:
        """Check the separate HMAC of the user names in an audit row. Returns the problems.

        Args:
            findings: the other problems with the row. If the row was modified or added, its names are not checked.
        """
        if token is None or any(finding.kind in {Kind.MODIFIED, Kind.ADDED} for finding in findings):
            return []
        current = state(names.canonical_bytes(token), token.names_mac)
        match names.names_status(token, self._keks):
            case HmacStatus.BROKEN:
                return [Finding(Kind.NAMES, current, f"the user names in {describe(token)} were modified")]
            case HmacStatus.UNKNOWN:
                text = f"the user names in {describe(token)} can't be checked: {_ADD_KEK}, {_RESEAL}"
                return [Finding(Kind.NAMES, current, text)]
        return []

    def _added(self, row: int, token: StoredRow | None, text: str) -> Finding:
        """Build the finding that an audit row was added.

        `text` completes the sentence "row … was added", with the time of the addition or a description of the id.
        """
        if token is None:
            return unreadable(row)
        row_bytes = row_hmac.canonical_bytes(token)
        text = f"{describe(token)} was added {text}"
        match row_hmac.check(row_bytes, token.mac, self._keks):
            case HmacStatus.AUTHENTIC:
                text = f"{text}, but its HMAC matches: the clock of an issuer is slow, or an attacker has the keys"
            case HmacStatus.UNKNOWN:
                text = f"{text}, and can't be checked: {_ADD_KEK}"
        original = self._original_id(token)
        if original is not None:
            text = f"{text}: only its id was changed; the token was issued with the id {original}"
        return Finding(Kind.ADDED, row_state(token), text)

    def _modified(self, token: StoredRow, text: str) -> Finding:
        """Build the finding that an audit row was modified, with the description `text`.

        If only the id of the row was changed, the finding contains another description.
        """
        original = self._original_id(token)
        if original is not None:
            text = (
                f"{describe(token)} was moved: only its id was changed; the token was issued with the id {original}"
            )
        return Finding(Kind.MODIFIED, row_state(token), text)

    def _original_id(self, token: StoredRow) -> int | None:
        """Return the original id of an audit row if only its id was changed. Returns None in all other cases."""
        original = token._replace(pk=row_id(to_datetime(token.issued_at), token.jti))
        moved = original.pk != token.pk and row_hmac.row_status(original, self._keks) is HmacStatus.AUTHENTIC
        return original.pk if moved else None

    def _compare_references(self, rows: Sequence[StoredRow]) -> dict[int, list[Finding]]:
        """Compare the foreign keys of audit rows, because the HMACs don't cover foreign keys.

        Returns the problems by row id.
        """
        comparison = references.compare(rows, self._matching)
        for differs, note in (
            (comparison.users_differ, _OTHER_UUIDS),
            (comparison.applications_differ, _OTHER_CLIENT_IDS),
        ):
            if differs and note not in self._report.notes:
                self._report.notes.append(note)
        by_row: dict[int, list[Reference]] = {}
        for reference in comparison.modified:
            by_row.setdefault(reference.row, []).append(reference)
        tokens = {token.pk: token for token in rows}
        return {row: [modified_reference(tokens[row], modified)] for row, modified in by_row.items()}
