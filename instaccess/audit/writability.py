"""Health checks that the database of the audit log answers, and that rows can be inserted."""

from __future__ import annotations

from django.db import connections, router

from ..models import IssuedToken


def check_database() -> None:
    """Run a trivial query in the database of the audit log. Raises DatabaseError if the database is unavailable."""
    with connections[router.db_for_write(IssuedToken)].cursor() as cursor:
        cursor.execute("SELECT 1")


def check_writable() -> None:
    """Run an INSERT that inserts no row. Raises DatabaseError if rows can't be inserted into the audit log.

    The statement fails if the database is read-only, if the table or a column is missing, or if the database user
    lacks a permission. The statement leaves nothing behind, whereas each row that is inserted and rolled back would
    take space. The check therefore doesn't notice a full disk.
    """
    connection = connections[router.db_for_write(IssuedToken)]
    quote, meta = connection.ops.quote_name, IssuedToken._meta
    table = quote(meta.db_table)
    columns = ", ".join(quote(str(field.column)) for field in meta.concrete_fields)
    sql = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE 1 = 0"  # noqa: S608  (constant names)
    with connection.cursor() as cursor:
        cursor.execute(sql)
