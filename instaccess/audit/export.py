"""The export of the audit log, as CSV for spreadsheets or as JSON Lines for programs.

An export is produced in batches, in constant memory. For each export, the logger `instaccess.audit` records the user
who started the export, the filters, and the result.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..conf import conf
from ..logs import get_logger
from ..models import IssuedToken
from ..times import format_rfc3339
from .rows import token_status

logger = get_logger("instaccess.audit")

BATCH = 1000
"""The maximum number of audit rows that the export reads per query."""

# The columns are listed explicitly, so that a new column of the table isn't exported by accident. With `id` and
# `mac`, an auditor can compare an old export with the table. `mac` is the HMAC of the row and contains no part of a
# token.
COLUMNS = (
    "id",
    "jti",
    "status",
    "user",
    "user_name",
    "user_uuid",
    "actor",
    "actor_name",
    "actor_uuid",
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
    "names_mac",
)
# The actor is the real user of a masquerade: the user who requested the token.
_LOOKUPS = {
    "user": "user__{}",
    "actor": "real_user__{}",
    "actor_name": "real_user_name",
    "actor_uuid": "real_user_uuid",
    "application": "application__name",
}


class Format(StrEnum):
    """The file format of an export. The value is also the extension of the file name."""

    CSV = "csv"
    JSON_LINES = "jsonl"

    @property
    def content_type(self) -> str:
        """The media type of the file.

        JSON Lines has no registered media type, so this property returns the type that the authors of the format
        propose.
        """
        return {Format.CSV: "text/csv; charset=utf-8; header=present"}.get(self, "application/jsonl")


class Export:
    """An iterable export of audit rows, the latest first. Each item is the text of one batch. Iterate only once.

    Each query continues after the last row of the previous batch. Rows that exist during the whole export are
    therefore exported exactly once, even if rows are added or pruned meanwhile. OFFSET is not used, because it could
    repeat or omit rows. A cursor is not used, because a connection pooler can't keep a cursor open between
    transactions.

    If an error occurs after the first batch, the last item is a line that reports an incomplete file, and the error
    is raised afterwards. Without this line, an aborted download through an HTTP/1.0 proxy would look complete.

    Args:
        rows: the audit rows to export, in any order and not sliced.
        by: the name of the user or operator who starts the export, for the log.
        filters: the filters that the caller has applied to the rows, for the log.
        batch: the number of rows per query.
        now: the current time, which decides whether a token is live or expired. By default, the time when the
            iteration begins.
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
        logger.info(
            "export started by=%(by)r format=%(format)s filters=%(filters)s",
            by=self._by,
            format=str(self._format),
            filters=json.dumps(self._filters),
        )
        # The CSV header is part of the first batch. If the header were sent before the first query, the view could no
        # longer return an error when this query fails.
        text = as_csv([COLUMNS]) if self._format is Format.CSV else ""
        try:
            for batch in _pages(self._rows, self._batch):
                text += write([_record(row, now) for row in batch])
                self.rows_written += len(batch)
                yield text
                text = ""
            if text:
                yield text
        except GeneratorExit:
            logger.info("export aborted by=%(by)r rows=%(rows)d", by=self._by, rows=self.rows_written)
            raise
        except Exception as error:
            logger.error(
                "export failed by=%(by)r rows=%(rows)d: %(error)s",
                by=self._by,
                rows=self.rows_written,
                error=type(error).__name__,
            )
            if self.rows_written:
                yield _incomplete(self._format, self.rows_written)
            raise
        logger.info("export complete by=%(by)r rows=%(rows)d", by=self._by, rows=self.rows_written)


def _pages(rows: QuerySet[IssuedToken], size: int) -> Iterator[list[dict[str, Any]]]:
    name, uuid = get_user_model().USERNAME_FIELD, conf.user_uuid_field or "instaccess_identity__uuid"
    paths = {column: _LOOKUPS.get(column, column).format(name) for column in COLUMNS if column != "status"}
    paths |= {
        "uuid_of_user": f"user__{uuid}",
        "uuid_of_actor": f"real_user__{uuid}",
        "id_of_client": "application__client_id",
    }
    # Read values instead of model instances. Each batch then needs only one query, which reads only the columns that
    # the export needs.
    values = rows.order_by("-issued_at", "-pk").values_list(*paths.values())
    after = Q()
    while True:
        batch = [dict(zip(paths, row, strict=True)) for row in values.filter(after)[:size]]
        if batch:
            yield batch
        if len(batch) < size:
            return
        issued_at, pk = batch[-1]["issued_at"], batch[-1]["id"]
        # The first condition lets the database use the index on `issued_at`. With only the second condition, the
        # database would scan all newer rows.
        after = Q(issued_at__lte=issued_at) & (Q(issued_at__lt=issued_at) | Q(pk__lt=pk))


def _record(row: dict[str, Any], now: datetime) -> list[Any]:
    """Convert an audit row to one value per column of `COLUMNS`: None or a string."""
    values = row | {
        # The id is a string because many JSON parsers round numbers above 2**53 (RFC 7493 §2.2).
        "id": str(row["id"]),
        "jti": str(row["jti"]),
        "status": token_status(row["revoked_at"], row["expires_at"], now=now),
        "user": _matching_name(row["user"], row["uuid_of_user"], row["user_uuid"]),
        "actor": _matching_name(row["actor"], row["uuid_of_actor"], row["actor_uuid"]),
        "application": _matching_name(row["application"], row["id_of_client"], row["client_id"]),
    }
    for column in ("issued_at", "expires_at", "revoked_at"):
        values[column] = None if row[column] is None else format_rfc3339(row[column])
    return [values[column] for column in COLUMNS]


def _matching_name(name: Any, current_id: Any, recorded_id: str) -> str | None:
    # Return the name only if the ids match, because the HMAC of the row doesn't cover foreign keys. If the name
    # were always returned, an attacker who changes a foreign key could put another name into the export.
    return str(name) if current_id is not None and str(current_id) == recorded_id else None


def as_json_lines(records: Iterable[Sequence[Any]]) -> str:
    """Format each record as one line with a JSON object. The keys of the object are `COLUMNS`.

    Unlike `as_csv`, this function doesn't escape strings for spreadsheets.
    """
    # `dumps` escapes non-ASCII characters. Unescaped Unicode line separators could split a line, and unescaped lone
    # surrogates could not be encoded as UTF-8.
    return "".join(json.dumps(dict(zip(COLUMNS, record, strict=True))) + "\n" for record in records)


def as_csv(records: Iterable[Sequence[Any]]) -> str:
    """Format each record as a CSV line (RFC 4180). Strings are passed to `safe_cell`. None becomes an empty cell."""
    text = io.StringIO()
    # Quote all values, because some spreadsheets also split unquoted values at semicolons.
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([safe_cell(value) if isinstance(value, str) else value for value in row] for row in records)
    return text.getvalue()


def _incomplete(file_format: Format, count: int) -> str:
    # The structure of this line differs from the structure of a row, so that a strict parser rejects an incomplete
    # file.
    text = f"INCOMPLETE: the export failed after {count} rows."
    return f'"{text}"\r\n' if file_format is Format.CSV else json.dumps({"incomplete": text}) + "\n"


# These characters start a formula in spreadsheets. Their full-width, small, superscript and subscript forms are
# included, because Unicode normalization or a Windows code page converts these forms to the ASCII characters.
_FORMULA = (
    "=+@\\-"
    "\uff1d\uff0b\uff20\uff0d\ufe66\ufe62\ufe6b\ufe63\u207c\u207a\u207b\u208c\u208a\u208b\u2212\ufb29\u2a75\u2a76"
)
_CONTROL = "\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff"
# Some spreadsheets ignore these characters before a formula: white space, control and zero-width characters, quotes.
_DROPPED = f'\\s{_CONTROL}\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"'

_UNUSUAL = re.compile(f"\\A[{_DROPPED}{_FORMULA}]|;|[{_CONTROL}]")
# The lookbehind and the possessive quantifier prevent backtracking, so each run of these characters is matched once.
_BEFORE_FORMULA = re.compile(f"(?<![;{_DROPPED}])[;{_DROPPED}]*+(?=[{_FORMULA}])")
_CONTROLS = re.compile(f"[{_CONTROL}]")


def safe_cell(text: str) -> str:
    """Escape a string for spreadsheets. The result contains no formula and only one line.

    Adds an apostrophe before text that could start a formula (CWE-1236). Such text can also follow a semicolon,
    because spreadsheets split at semicolons in locales with a decimal comma. Replaces ASCII control characters with
    their symbols (from U+2400). Replaces other control characters, Unicode line separators and lone surrogates with
    U+FFFD.
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
