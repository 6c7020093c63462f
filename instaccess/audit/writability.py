"""Health checks that the database of the audit log answers, and that rows can be inserted into the audit log.

Only an INSERT of rows reveals a full disk. `try_insert` inserts rows and rolls them back. The rolled-back rows take
space until the database cleans its table, so a health endpoint must not insert rows in each probe. The health check
therefore calls `try_insert` only after this process has failed to insert the row of a token.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connections, models, router, transaction
from django.utils import timezone

from ..models import IssuedToken
from .row_ids import row_id

# The rows together are larger than a page of each database (SQLite 4 KB, PostgreSQL 8 KB, MariaDB 16 KB). A single
# row could fit into the free space of the last page, and the insert would succeed although the disk is full.
_ROWS = 20


class _LastInsert:
    """The result of the last attempt of this process to insert an audit row.

    The class uses no lock, because a forked process could inherit a locked lock.

    Attributes:
        failed: whether the attempt failed because of the database.
    """

    failed = False


_last_insert = _LastInsert()


def check_database() -> None:
    """Run a trivial query in the database of the audit log. Raises DatabaseError if the database is unavailable."""
    with connections[router.db_for_write(IssuedToken)].cursor() as cursor:
        cursor.execute("SELECT 1")


def check_writable() -> None:
    """Run an INSERT that inserts no row. Raises DatabaseError if rows can't be inserted into the audit log.

    The statement fails if the database is read-only, if the table or a column is missing, or if the database user
    lacks a permission. The statement stores nothing, so it doesn't detect a full disk. After this process has failed
    to insert the row of a token, each call inserts rows and rolls them back instead, until an insert succeeds.
    """
    if _last_insert.failed:
        try_insert()
        _last_insert.failed = False
        return
    connection = connections[router.db_for_write(IssuedToken)]
    quote, meta = connection.ops.quote_name, IssuedToken._meta
    table = quote(meta.db_table)
    columns = ", ".join(quote(str(field.column)) for field in meta.concrete_fields)
    sql = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE 1 = 0"  # noqa: S608  (constant names)
    with connection.cursor() as cursor:
        cursor.execute(sql)


def record_failure() -> None:
    """Record that this process could not insert the row of a token, because the database failed."""
    _last_insert.failed = True


def reset() -> None:
    """Forget that this process could not insert the row of a token. Tests call this function between tests."""
    _last_insert.failed = False


def try_insert() -> None:
    """Insert rows into the audit log and roll them back. Raises DatabaseError if rows can't be inserted.

    The rows are never committed, and no signal is sent. PostgreSQL and MariaDB allocate space when a row is
    inserted. SQLite writes to the disk only when a transaction is committed. On SQLite, the function therefore
    can't detect a full disk, but can detect that the limit `PRAGMA max_page_count` is reached.
    """
    alias = router.db_for_write(IssuedToken)
    rows = [_build_row() for _ in range(_ROWS)]
    with transaction.atomic(using=alias):
        IssuedToken.objects.using(alias).bulk_create(rows)
        transaction.set_rollback(True, using=alias)


def _build_row() -> IssuedToken:
    """Build an audit row without a user. Every text column contains only the letter x, in its maximum length."""
    jti, now = uuid.uuid4(), timezone.now()
    columns: list[Any] = [each for each in IssuedToken._meta.concrete_fields if isinstance(each, models.CharField)]
    texts = {column.name: "x" * column.max_length for column in columns}
    return IssuedToken(id=row_id(now, jti), jti=jti, issued_at=now, expires_at=now, **texts)
