"""A temporary database for a benchmark, on SQLite or PostgreSQL, with keys, users and access tokens."""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

VENDORS = ("sqlite", "postgresql")
CALLERS = 50
"""The number of users. Each user has one access token, and the requests use the access tokens in turn."""


@dataclass(frozen=True)
class Stage:
    """The environment of a benchmark.

    Attributes:
        folder: a temporary folder for the output of servers.
        bearers: the access tokens, which have the scope for issuing.
        basic: an Authorization value with the credentials of an application, for the client credentials grant.
    """

    folder: Path
    bearers: tuple[str, ...]
    basic: str


@contextmanager
def stage(vendor: str) -> Iterator[Stage]:
    """Set up Django with a new database, and yield the environment. Call this function once per process."""
    with tempfile.TemporaryDirectory(prefix="instaccess-benchmark-") as folder, database(vendor, Path(folder)):
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0, interactive=False)
        call_command("instaccess_init", stdout=StringIO())
        bearers, basic = populate()
        try:
            yield Stage(Path(folder), bearers, basic)
        finally:
            connections.close_all()


@contextmanager
def database(vendor: str, folder: Path) -> Iterator[None]:
    """Create an empty database, and set the environment variables that select this database."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    os.environ["INSTACCESS_DATABASE"] = vendor
    if vendor == "sqlite":
        os.environ["SQLITE_NAME"] = str(folder / "benchmark.sqlite3")
        yield
        return
    name = f"instaccess_benchmark_{os.getpid()}"
    os.environ["PGDATABASE"] = name
    psql(f"CREATE DATABASE {name}")
    try:
        yield
    finally:
        psql(f"DROP DATABASE {name} WITH (FORCE)")


def psql(*statements: str, name: str = "postgres") -> list[Any]:
    """Execute SQL statements on PostgreSQL in autocommit mode. Returns the rows of the last query."""
    import psycopg

    rows: list[Any] = []
    with psycopg.connect(
        dbname=name,
        host=os.environ.get("PGHOST", "127.0.0.1"),
        user=os.environ.get("PGUSER", "postgres"),
        password=os.environ.get("PGPASSWORD", ""),
        autocommit=True,
    ) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else rows
    return rows


def populate() -> tuple[tuple[str, ...], str]:
    """Create users with access tokens, and an application.

    Returns the access tokens, and the Authorization value with the application's credentials.
    """
    from django.contrib.auth import get_user_model
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model, get_application_model

    from instaccess import users
    from instaccess.conf import SCOPE

    application = get_application_model().objects.create(
        name="LTI tool",
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://tool.example/callback",
    )
    bearers = []
    for number in range(CALLERS):
        user = get_user_model().objects.create(username=f"caller-{number}", password="!")
        users.user_uuid(user)
        text = secrets.token_urlsafe(24)
        get_access_token_model().objects.create(
            user=user, application=application, token=text, scope=SCOPE, expires=timezone.now() + timedelta(days=1)
        )
        bearers.append(text)
    # Store the client secret unhashed, because checking a hash would take longer than the rest of the request.
    secret = secrets.token_urlsafe(32)
    own = get_application_model().objects.create(
        name="nightly job",
        client_type="confidential",
        authorization_grant_type="client-credentials",
        client_secret=secret,
        hash_client_secret=False,
    )
    basic = base64.b64encode(f"{own.client_id}:{secret}".encode()).decode()
    return tuple(bearers), f"Basic {basic}"
