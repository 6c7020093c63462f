"""Audit rows with valid HMACs for benchmarks, generated and copied into PostgreSQL in 20 µs per row.

`testproject/seeding.py` generates more realistic rows, but takes ten times as long.
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

TABLE = "instaccess_issuedtoken"
LIFETIME = 3600
AGENT = "python-requests/2.32.5"
CHECKED = 100_000
"""The number of rows per group. The app's own code checks the HMAC of the first row in each group."""


def copy_rows(rows: int, days: int, now: datetime) -> None:
    """Copy `rows` audit rows into the database, with regular issue times during the `days` days before `now`."""
    from django.db import connection

    from instaccess.models import IssuedToken
    from testproject.seeding import Seeding

    # Create the users and the applications first, because no query can run during COPY.
    seeding = Seeding(rows=1, days=days, seed=1, now=now)
    columns = ", ".join(str(field.column) for field in IssuedToken._meta.concrete_fields)
    with connection.cursor() as cursor:
        cursor.execute("SET maintenance_work_mem = '1GB'")
        with (
            _without_indexes(cursor),
            connection.wrap_database_errors,
            cursor.copy(f"COPY {TABLE} ({columns}) FROM STDIN") as copy,
        ):
            for line in _lines(seeding, rows, days, now):
                copy.write(line)


@contextmanager
def _without_indexes(cursor: Any) -> Iterator[None]:
    """Drop all indexes that aren't unique, and create them again after the `with` block.

    PostgreSQL needs less time to create the indexes once than to update the indexes for each row.
    """
    cursor.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef NOT LIKE '%% UNIQUE %%'",
        [TABLE],
    )
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f'DROP INDEX "{name}"')
    yield
    for _, definition in indexes:
        cursor.execute(definition)


def _lines(seeding: Any, rows: int, days: int, now: datetime) -> Iterator[str]:
    """Yield the rows in PostgreSQL's text format, in batches of 1000 rows."""
    from instaccess.audit import names, row_hmac
    from instaccess.conf import conf, kek_id

    users, applications = seeding.users, seeding.applications
    [kek] = conf.key_encryption_keys[:1]
    checker = row_hmac.HmacChecker([kek])
    prefix, digest = kek_id(kek), kek.prepare_hmac(info=row_hmac._PURPOSE).digest
    encode, draw = row_hmac._encode_mac, random.Random(rows).getrandbits
    account, domain, label, of_names = "cfdf82a1-c146-5cb5-b21f-4db813182831", "canvas.example.edu", *_LABELS
    first = int(now.timestamp()) - days * 86_400
    batch: list[str] = []
    for number in range(rows):
        seconds = first + number * days * 86_400 // rows
        bits = draw(128)
        jti, pk = f"{bits:032x}", seconds * 10**9 + bits % 10**9
        user, application = users[bits % len(users)], applications[bits % len(applications)]
        micros, access_token, byte = seconds * 10**6, bits % 10**6, bits & 0xFF
        row_bytes = (
            f'["{label}",{pk},"{jti}","{user.uuid}","","{application.client_id}","{access_token}","{account}",'
            f'"{domain}","s","e","0a0000{byte:02x}","{AGENT}",{micros},{micros + LIFETIME * 10**6},null,"",""]'
        ).encode()
        mac = encode(digest(row_bytes)).decode()
        names_bytes = f'["{of_names}","{jti}","{user.name}",""]'.encode()
        names_mac = encode(digest(names_bytes)).decode()
        issued = datetime.fromtimestamp(seconds, UTC)
        expires = datetime.fromtimestamp(seconds + LIFETIME, UTC)
        batch.append(
            f"{pk}\t{jti}\t{user.user_id}\t{user.uuid}\t{user.name}\t\\N\t\t\t{application.pk}\t"
            f"{application.client_id}\t{access_token}\t{account}\t{domain}\ts\te\t10.0.0.{byte}\t{AGENT}\t{issued}\t"
            f"{expires}\t\\N\t\t\t{prefix}.{mac}\t{prefix}.{names_mac}\n"
        )
        if number % CHECKED == 0:
            assert checker.check(row_bytes, f"{prefix}.{mac}") is row_hmac.HmacStatus.AUTHENTIC
        if len(batch) == 1000:
            yield "".join(batch)
            batch = []
    yield "".join(batch)
    assert of_names == names._FORMAT


_LABELS = ("instaccess audit row 1", "instaccess audit names 1")
