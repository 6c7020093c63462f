"""The audit as a file to hand over: CSV for people and their spreadsheets, JSON Lines for programs.

Written piece by piece in constant memory. Every export stands in the log `instaccess.audit`: who wanted what, and
whether it ended as it should.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..conf import conf
from ..models import IssuedToken
from ..times import format_rfc3339
from .rows import token_status

logger = logging.getLogger("instaccess.audit")

BATCH = 1000
"""Rows that are read, and held, at a time."""

# One by one: a column that the table gets later is exported once somebody has decided so. `id` and `mac` let an
# auditor hold an old export against the table; the mac is an HMAC of the row, no part of a token.
COLUMNS = (
    "id",
    "jti",
    "status",
    "user",
    "user_uuid",
    "real_user",
    "real_user_uuid",
    "application",
    "client_id",
    "access_token_pk",
    "account_uuid",
    "canvas_domain",
    "ip_address",
    "user_agent",
    "issued_at",
    "expires_at",
    "signing_kid",
    "encryption_kid",
    "revoked_at",
    "revoked_by",
    "revocation_reason",
    "mac",
)
_CALLED_OTHERWISE = {"user": "user__{}", "real_user": "real_user__{}", "application": "application__name"}


class Format(StrEnum):
    """How an export is written; the value is the file name's ending as well."""

    CSV = "csv"
    JSON_LINES = "jsonl"

    @property
    def content_type(self) -> str:
        """RFC 4180 for CSV. JSON Lines has no registered type; `application/jsonl` is what its authors propose."""
        return {Format.CSV: "text/csv; charset=utf-8; header=present"}.get(self, "application/jsonl")


class Export:
    """These rows, the latest first. Iterate once: text comes, a batch of rows at a time, to be encoded as UTF-8.

    Each batch is what comes after the last row of the one before: no OFFSET, no cursor that a connection pooler would
    have to keep. Rows that are issued or pruned meanwhile neither repeat others nor hide them.

    An error of the database comes through, after a last line that is no row and says that the file is incomplete:
    behind a proxy that speaks HTTP/1.0 to the server, a broken connection looks like the end of a complete file.

    Args:
        rows: which; their order doesn't matter, and they must not be sliced.
        by: who wants them, for the log.
        filters: what they were narrowed down by, for the log.
        now: as of when a token is live or expired.
    """

    rows_written = 0

    def __init__(
        self,
        rows: QuerySet[IssuedToken],
        file_format: Format,
        *,
        by: str,
        filters: Mapping[str, str] | None = None,
        batch: int = BATCH,
        now: datetime | None = None,
    ) -> None:
        self._rows, self._format, self._batch = rows, file_format, batch
        self._by, self._filters, self._now = by, dict(filters or {}), now

    def __iter__(self) -> Iterator[str]:
        write = as_csv if self._format is Format.CSV else as_json_lines
        now = self._now or timezone.now()
        logger.info("export begins by=%r format=%s filters=%s", self._by, self._format, json.dumps(self._filters))
        # The header waits for the first batch: where that fails already, a server can still answer with an error.
        text = as_csv([COLUMNS]) if self._format is Format.CSV else ""
        try:
            for batch in _batches(self._rows, self._batch):
                text += write([_record(row, now) for row in batch])
                self.rows_written += len(batch)
                yield text
                text = ""
            if text:
                yield text
        except GeneratorExit:
            logger.info("export given up by its reader by=%r rows=%d", self._by, self.rows_written)
            raise
        except Exception as error:
            logger.error("export broke off by=%r rows=%d: %s", self._by, self.rows_written, type(error).__name__)
            if self.rows_written:
                yield _incomplete(self._format, self.rows_written)
            raise
        logger.info("export complete by=%r rows=%d", self._by, self.rows_written)


def _batches(rows: QuerySet[IssuedToken], size: int) -> Iterator[list[dict[str, Any]]]:
    name, uuid = get_user_model().USERNAME_FIELD, conf.user_uuid_field or "instaccess_identity__uuid"
    paths = {column: _CALLED_OTHERWISE.get(column, column).format(name) for column in COLUMNS if column != "status"}
    paths |= {
        "its_user": f"user__{uuid}",
        "its_real_user": f"real_user__{uuid}",
        "its_client": "application__client_id",
    }
    # Values, not instances: one query a batch, and of users nothing but their names is read.
    values = rows.order_by("-issued_at", "-pk").values_list(*paths.values())
    after = Q()
    while True:
        batch = [dict(zip(paths, found, strict=True)) for found in values.filter(after)[:size]]
        if batch:
            yield batch
        if len(batch) < size:
            return
        issued_at, pk = batch[-1]["issued_at"], batch[-1]["id"]
        # The first half is what an index on issued_at can begin with; the OR alone would begin at the newest row.
        after = Q(issued_at__lte=issued_at) & (Q(issued_at__lt=issued_at) | Q(pk__lt=pk))


def _record(row: dict[str, Any], now: datetime) -> list[Any]:
    """One value a column: None, a number, or text."""
    said = row | {
        "jti": str(row["jti"]),
        "status": token_status(row["revoked_at"], row["expires_at"], now=now),
        "user": _named(row["user"], row["its_user"], row["user_uuid"]),
        "real_user": _named(row["real_user"], row["its_real_user"], row["real_user_uuid"]),
        "application": _named(row["application"], row["its_client"], row["client_id"]),
    }
    for column in ("issued_at", "expires_at", "revoked_at"):
        said[column] = None if row[column] is None else format_rfc3339(row[column])
    return [said[column] for column in COLUMNS]


def _named(name: Any, its_id: Any, said: str) -> str | None:
    # The HMAC does not cover references. One to another than the row says names nobody.
    return str(name) if its_id is not None and str(its_id) == said else None


def as_json_lines(records: Iterable[Sequence[Any]]) -> str:
    """An object a record, with the names of `COLUMNS`, exactly as the database has it."""
    # ASCII: no line separator of Unicode's, no lone surrogate; whoever parses a line gets what the row says.
    return "".join(json.dumps(dict(zip(COLUMNS, record, strict=True))) + "\n" for record in records)


def as_csv(records: Iterable[Sequence[Any]]) -> str:
    """A line a record (RFC 4180), each value a `safe_cell`; None is an empty one."""
    text = io.StringIO(newline="")
    # All in quotes: some spreadsheets split at semicolons too, unless there are quotes around them.
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([safe_cell(value) if isinstance(value, str) else value for value in row] for row in records)
    return text.getvalue()


def _incomplete(file_format: Format, count: int) -> str:
    # Of another shape than a row, so that a strict reader stumbles over it.
    said = f"INCOMPLETE: the export broke off after {count} rows."
    return f'"{said}"\r\n' if file_format is Format.CSV else json.dumps({"incomplete": said}) + "\n"


# What a spreadsheet takes for the beginning of a formula, and the characters that Unicode or a code page of Windows
# turns into one of them: full width, small, superscript, subscript.
_FORMULA = (
    "=+@\\-"
    "\uff1d\uff0b\uff20\uff0d\ufe66\ufe62\ufe6b\ufe63\u207c\u207a\u207b\u208c\u208a\u208b\u2212\ufb29\u2a75\u2a76"
)
_CONTROL = "\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff"
# What some spreadsheet drops before it looks: white space, control characters, what has no width, quotes.
_DROPPED = f'\\s{_CONTROL}\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"'

_UNUSUAL = re.compile(f"\\A[{_DROPPED}{_FORMULA}]|;|[{_CONTROL}]")
# A run is looked at once, from its first character: a cell of nothing but such characters costs no more than others.
_BEFORE_FORMULA = re.compile(f"(?<![;{_DROPPED}])[;{_DROPPED}]*+(?=[{_FORMULA}])")
_CONTROLS = re.compile(f"[{_CONTROL}]")


def safe_cell(text: str) -> str:
    """A value as a spreadsheet may see it: never a formula, always on one line.

    Before what could begin a formula (CWE-1236) stands an apostrophe, also after a semicolon within: where decimals
    have a comma, spreadsheets split at semicolons. Control characters are shown by their symbols (U+2400 and on), and
    what is none of UTF-8's as U+FFFD. All else stays.
    """
    if not _UNUSUAL.search(text):
        return text
    guarded = _BEFORE_FORMULA.sub(_guard, text)
    if guarded.startswith(("\t", "\r", "\n")):
        guarded = "'" + guarded
    return _CONTROLS.sub(_symbol, guarded)


def _guard(match: re.Match[str]) -> str:
    before, semicolon, after = match[0].rpartition(";")
    apostrophe = "'" if semicolon or match.start() == 0 else ""
    return f"{before}{semicolon}{apostrophe}{after}"


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"
