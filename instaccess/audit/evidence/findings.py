"""The problems with audit rows that `row_checks.py` reports, as texts for operators."""

from __future__ import annotations

from collections.abc import Sequence

from .. import names, row_hmac
from ..stored_rows import StoredRow
from .checkpoint_index import Entry
from .references import Reference
from .report import Finding, Kind, state


def row_state(token: StoredRow) -> str:
    """Return `Finding.state` for a modified or an added audit row."""
    # The user names are included because `verify` must report a reviewed row again if a name is modified later. The
    # HMAC of the names is left out because a new key-encryption key changes this HMAC.
    return state(row_hmac.canonical_bytes(token) + names.canonical_bytes(token), token.mac)


def describe(token: StoredRow) -> str:
    """Return the name by which the descriptions of problems refer to an audit row."""
    return f"row {token.pk} (jti {token.jti})"


def deleted(entry: Entry) -> Finding:
    """Build the finding that an audit row was deleted."""
    return Finding(Kind.DELETED, entry.digest, f"row {entry.row} was deleted")


def unreadable(row: int) -> Finding:
    """Build the finding that an audit row can't be read."""
    # The state is empty because the contents of the row can't be read. A review of this problem therefore covers any
    # invalid value.
    return Finding(Kind.UNREADABLE, "", f"row {row} was modified: it contains an invalid value and can't be read")


def modified_reference(token: StoredRow, modified: Sequence[Reference]) -> Finding:
    """Build the finding that foreign keys of an audit row were modified."""
    texts = []
    for reference in modified:
        kind, identifier = ("application", "client id") if reference.name == "application" else ("user", "uuid")
        expected = f"the {kind} with the {identifier} {reference.recorded}" if reference.recorded else f"no {kind}"
        texts.append(f"refers to {kind} {reference.target} instead of {expected}")
    text = f"{describe(token)} was modified: it {' and '.join(texts)}"
    current = ascii([(reference.name, str(reference.target)) for reference in modified])
    return Finding(Kind.REFERENCE, current, text)
