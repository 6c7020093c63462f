"""Functions that classify the errors of a database, and describe an error without passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connections
from django.db import Error as DbError

_MISSING = frozenset({"42P01", "42703", "1146", "1054"})
"""The codes of a missing table and of a missing column: SQLSTATE of PostgreSQL, and error numbers of MariaDB."""

# SQLite has one code for all errors in a statement, so only the message shows that a table or a column is missing.
_MISSING_IN_SQLITE = re.compile(r"no such (table|column)|has no column named")

_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")
_NAMED_PASSWORD = re.compile(r"(\bpass(?:word|wd)\s*=\s*)('[^']*'|\"[^\"]*\"|\S+)", re.IGNORECASE)
_MIN_PASSWORD_CHARS = 4
_HIDDEN = "[password]"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of its cause, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def code(error: BaseException) -> str:
    """Return the code of a database error: an SQLSTATE, an error number or a name.

    Returns "" if the error has no code.
    """
    for each in chain(error):
        for name in ("sqlstate", "pgcode", "sqlite_errorname"):
            if isinstance(value := getattr(each, name, None), str) and value:
                return value
    number = error.args[0] if error.args else None
    return str(number) if isinstance(number, int) else ""


def needs_migration(error: BaseException) -> bool:
    """Return whether a database error reports a missing table or column. Running `migrate` fixes most such errors."""
    if not isinstance(error, DatabaseError):
        return False
    if (found := code(error)) in {"", "SQLITE_ERROR"}:
        return _MISSING_IN_SQLITE.search(str(error)) is not None
    return found in _MISSING


def is_outage(error: BaseException) -> bool:
    """Return whether an error comes from a database that can't be used, and not from the values of one request."""
    return any(
        isinstance(each, (DatabaseError, InterfaceError)) and not isinstance(each, (DataError, IntegrityError))
        for each in chain(error)
    )


def describe(error: BaseException) -> str:
    """Return the message of an error. The message of a database error becomes one line without passwords."""
    if not any(isinstance(each, DbError) for each in chain(error)):
        return str(error)
    return without_passwords(" ".join(str(error).split()))


def without_passwords(text: str) -> str:
    """Replace passwords in a string: the passwords of DATABASES, and the text after `://user:` or `password=`."""
    for password in sorted(_passwords(), key=len, reverse=True):
        text = text.replace(password, _HIDDEN)
    return _NAMED_PASSWORD.sub(rf"\1{_HIDDEN}", _URL_PASSWORD.sub(rf"\1{_HIDDEN}@", text))


def _passwords() -> set[str]:
    """Return the passwords of DATABASES that have at least `_MIN_PASSWORD_CHARS` characters.

    Replacing a shorter password would also replace parts of other words.
    """
    found = set()
    for database in connections.settings.values():
        options = database.get("OPTIONS") or {}
        for value in (database.get("PASSWORD"), options.get("password"), options.get("passwd")):
            if isinstance(value, str) and len(value) >= _MIN_PASSWORD_CHARS:
                found.add(value)
    return found
