"""A test database that can't store every character: `utf8mb3` tables on MariaDB, and LATIN1 on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection

from tests.support import cached_functions

TEXT = "Łódź \N{FACE SCREAMING IN FEAR}"
ESCAPED = {"mysql": "Łódź \\U0001f631", "postgresql": "\\u0141ód\\u017a \\U0001f631", "sqlite": TEXT}


@contextmanager
def narrow_database() -> Iterator[None]:
    """Use tables that can't store every character until the context ends.

    On MariaDB, the tables of the test database are converted. On PostgreSQL, another database is used. SQLite can
    store every character, so nothing changes on SQLite.
    """
    change = {"mysql": _utf8mb3_tables, "postgresql": _latin1_database}.get(connection.vendor)
    if change is None:
        yield
        return
    with change():
        cached_functions.clear()
        ContentType.objects.clear_cache()
        yield
    cached_functions.clear()
    ContentType.objects.clear_cache()


@contextmanager
def _utf8mb3_tables() -> Iterator[None]:
    names = ("instaccess", "oauth2_provider", "auth", "admin")
    tables = [model._meta.db_table for name in names for model in apps.get_app_config(name).get_models()]
    _convert(tables, "utf8mb3")
    try:
        yield
    finally:
        _convert(tables, "utf8mb4")


def _convert(tables: list[str], charset: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        for table in tables:
            cursor.execute(f"ALTER TABLE {connection.ops.quote_name(table)} CONVERT TO CHARACTER SET {charset}")
        cursor.execute("SET foreign_key_checks = 1")


@contextmanager
def _latin1_database() -> Iterator[None]:
    usual = connection.settings_dict["NAME"]
    narrow = f"{usual}_latin1"
    quoted = connection.ops.quote_name(narrow)
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {quoted}")
        cursor.execute(f"CREATE DATABASE {quoted} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        _connect(narrow)
        call_command("migrate", verbosity=0)
        yield
    finally:
        _connect(usual)
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE {quoted}")


def _connect(database: str) -> None:
    connection.close()
    connection.settings_dict["NAME"] = database
