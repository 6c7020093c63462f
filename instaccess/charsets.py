"""The characters that a text column can store, and a plainer spelling for all other characters.

Most databases can store every character. A MariaDB table with the character set `utf8mb3` can't store emoji, and a
PostgreSQL database with the encoding LATIN1 can store only Western European letters. There, a statement with another
character fails, even if the statement only compares text. Text from clients and operators therefore gets the plainer
spelling before it is stored or compared.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from django.db import connections

_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""NUL, which PostgreSQL can't store, and lone surrogates, which no database can store."""

# The first 65,536 characters of Unicode (plane 0). Python has no codec for only these characters.
_PLANE_0 = "plane 0"
_BEYOND_PLANE_0 = re.compile("[\U00010000-\U0010ffff]")

# A database with the encoding SQL_ASCII stores any bytes, but counts bytes instead of characters. Only ASCII is
# therefore stored there, although a column of another app may contain other characters.
_BYTES = "us-ascii"

# Character sets whose characters are exactly those of a Python codec. Only ASCII is used with any other character
# set, because every character set contains ASCII, and because codecs of the same name differ in details.
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
    r"""Return a text in a spelling that a column can store, shortened to the length of the column.

    Characters that the column can't store become escape sequences, such as `\U0001f631`. An escape sequence is never
    cut. NUL and lone surrogates become U+FFFD. The same text always gets the same spelling, so call this function
    for the text of a search too.

    Args:
        column: the model field of the column.
        using: the alias of the database.

    Raises DatabaseError if the character set of the column is not known yet and the database is unavailable. A
    process reads the character sets of a table at most once, and only if a text is not ASCII.
    """
    if text.isascii() and "\0" not in text:
        return text[: column.max_length]
    text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[: column.max_length]
    codecs = _find_codecs(column, using)
    spelled = _spell(text, codecs)
    if spelled == text:
        return text
    pieces = [_spell(character, codecs) for character in text]
    ends = accumulate(map(len, pieces))
    limit = column.max_length or len(spelled)
    return "".join(piece for piece, end in zip(pieces, ends, strict=True) if end <= limit)


def can_store(text: str, column: Any, *, using: str) -> bool:
    """Return whether a column can store every character of a text. If not, no row contains the text.

    Raises DatabaseError under the same conditions as `fit`.
    """
    if _UNSTORABLE.search(text):
        return False
    return text.isascii() or _spell(text, _find_codecs(column, using) - {_BYTES}) == text


def _spell(text: str, codecs: Collection[str]) -> str:
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
    """Return a mapping from column to the character sets of the column and of the connection.

    A column can store only the characters that all its character sets contain. PostgreSQL has one encoding for a
    whole database, so the mapping contains only the key "".

    Args:
        database: the name of the database. With this argument, the cached result for a project's database is not
            used for the test database.
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
