"""Escaping of the characters that a database column can't store.

A MariaDB table with the character set `utf8mb3`, for example, can't store emoji. A PostgreSQL database with the
encoding LATIN1 can store only Western European letters. An SQL statement that contains any other character fails,
even if the statement only compares text. Text from clients and operators is therefore escaped before the text is
stored or compared.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from django.db import connections

_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""A pattern for NUL, which PostgreSQL can't store, and for lone surrogates, which can't be encoded as UTF-8."""

# In `_CODECS`, this name means the first 65,536 characters of Unicode (plane 0), because no codec of Python contains
# exactly these characters.
_PLANE_0 = "plane 0"
_BEYOND_PLANE_0 = re.compile("[\U00010000-\U0010ffff]")

# A database with the encoding SQL_ASCII stores any bytes, and limits the length of a column in bytes instead of
# characters. This package therefore stores only ASCII in such a database.
_BYTES = "us-ascii"

# For each database vendor and character set, this mapping contains the Python codec with exactly the same characters.
# For any other character set, only ASCII is stored, because Python's codec of the same name may contain other
# characters.
_CODECS = {
    "mysql": {
        **dict.fromkeys(("utf8mb4", "utf16", "utf16le", "utf32"), "utf-8"),
        **dict.fromkeys(("utf8mb3", "utf8", "ucs2"), _PLANE_0),
        "latin1": "cp1252",
    },
    "postgresql": {
        "UTF8": "utf-8",
        "LATIN1": "latin-1",
        "LATIN9": "iso8859-15",
        "WIN1252": "cp1252",
        "SQL_ASCII": _BYTES,
    },
}


def fit(text: str, column: Any, *, using: str) -> str:
    r"""Escape each character that a column can't store, and shorten the string to the column's length.

    An escaped character, such as `\U0001f631`, is never cut. NUL and lone surrogates are first replaced with U+FFFD.
    Two calls with the same string and column have the same result, so also call this function for a string that you
    search for.

    Args:
        text: a string from a client or an operator.
        column: the model field of the column.
        using: the alias of the database.

    Raises DatabaseError if the character set of the column is not known yet and the database is unavailable. The
    character sets of a table are read only for a string that contains NUL or is not ASCII, and are then cached.
    """
    if text.isascii() and "\0" not in text:
        return text[: column.max_length]
    text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[: column.max_length]
    codecs = _find_codecs(column, using)
    escaped = _escape_unstorable(text, codecs)
    if escaped == text:
        return text
    pieces = [_escape_unstorable(character, codecs) for character in text]
    ends = accumulate(map(len, pieces))
    limit = column.max_length or len(escaped)
    return "".join(piece for piece, end in zip(pieces, ends, strict=True) if end <= limit)


def can_store(text: str, column: Any, *, using: str) -> bool:
    """Return whether a column can store every character of a string.

    If the result is False, no row contains the string, so a query for the string isn't needed.

    Raises DatabaseError if the character set of the column is not known yet and the database is unavailable.
    """
    if _UNSTORABLE.search(text):
        return False
    return text.isascii() or _escape_unstorable(text, _find_codecs(column, using) - {_BYTES}) == text


def _escape_unstorable(text: str, codecs: Collection[str]) -> str:
    for codec in codecs:
        if codec == _PLANE_0:
            text = _BEYOND_PLANE_0.sub(lambda match: f"\\U{ord(match[0]):08x}", text)
        else:
            text = text.encode(codec, "backslashreplace").decode(codec)
    return text


def _find_codecs(column: Any, using: str) -> set[str]:
    connection = connections[using]
    known = _CODECS.get(connection.vendor)
    if known is None:
        return set()
    charsets = _read_charsets(using, str(connection.settings_dict["NAME"]), column.model._meta.db_table)
    return {known.get(charset, "ascii") for charset in charsets.get(column.column, charsets.get("", ()))}


@cache
def _read_charsets(using: str, database: str, table: str) -> Mapping[str, Sequence[str]]:
    """Return a mapping from the name of a column to the character sets of the column and of the connection.

    A column can store only the characters that both character sets contain. A PostgreSQL database has a single
    encoding, so the mapping then contains only the key "".

    Args:
        using: the alias of the database.
        database: the name of the database. Because of this argument, the result that is cached for a project's
            database is not used for its test database.
        table: the name of the table.
    """
    with connections[using].cursor() as cursor:
        if connections[using].vendor == "postgresql":
            cursor.execute("SHOW server_encoding")
            return {"": cursor.fetchone()}
        cursor.execute(
            "SELECT column_name, character_set_name, @@character_set_client FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s AND character_set_name IS NOT NULL",
            [table],
        )
        return {name: charsets for name, *charsets in cursor.fetchall()}
