"""A benchmark of the CPU time and the memory of the commands that process every audit row, on PostgreSQL.

    python -m benchmarks.long_work [--long-rows 20000] [--long-rows 200000] [--ten-million]

Each operation runs in its own process, so that the peak of its memory is known. The CPU time is the time of this
process, and doesn't include the time of the database server. The baseline reads the rows with Django, as tuples in
pages of 10,000 rows, and computes one HMAC per row.
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from . import sections, timing
from .growth import TEN_MILLION
from .serve import ROOT
from .stage import psql, stage

SIZES = (20_000, 200_000)
DAYS = 400
AGE = 146
"""The age, in days, above which `prune` deletes rows. 63% of the rows are older."""
PAGE = 10_000
BASELINE, BARE_DELETE = "baseline", "bare DELETE"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--long-rows",
        type=int,
        action="append",
        help="number of audit rows; can be repeated (default: 20000, 200000)",
    )
    parser.add_argument(
        "--ten-million",
        action="store_true",
        help="also measure 10,000,000 rows, which takes 20 more minutes and 15 GB more disk space",
    )
    parser.add_argument("--operation", choices=OPERATIONS, help=argparse.SUPPRESS)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.operation:
        return _measure_here(options.operation)
    sizes = tuple(options.long_rows or SIZES) + (TEN_MILLION,) * options.ten_million
    with stage("postgresql"):
        from django.db import connection

        connection.close()
        base = os.environ["PGDATABASE"]
        return {"sizes": {str(rows): _measure_size(base, rows) for rows in sizes}}


def _measure_size(base: str, rows: int) -> dict[str, Any]:
    with _copy(base, rows):
        return {name: _measure_in_process(name, rows) for name in OPERATIONS}


@contextmanager
def _copy(base: str, rows: int) -> Iterator[None]:
    """Copy the database `base`, add audit rows, and connect this process to the copy. Drop the copy afterwards."""
    from django.db import connection
    from django.utils import timezone

    from .bulk_rows import copy_rows

    name = f"{base}_{rows}"
    psql(f"CREATE DATABASE {name} TEMPLATE {base}")
    os.environ["PGDATABASE"] = connection.settings_dict["NAME"] = name
    try:
        copy_rows(rows, DAYS, timezone.now())
        connection.close()
        # Run VACUUM and CHECKPOINT now, so that PostgreSQL doesn't run these commands during the measurement.
        psql("VACUUM ANALYZE", "CHECKPOINT", name=name)
        yield
    finally:
        connection.close()
        os.environ["PGDATABASE"] = connection.settings_dict["NAME"] = base
        psql(f"DROP DATABASE {name} WITH (FORCE)")


def _measure_in_process(name: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.long_work", "--operation", name, "--output", "/dev/stdout"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "CPU per row, microseconds": round(result["CPU, seconds"] / max(result["rows"], 1) * 1e6, 2)}


def _measure_here(name: str) -> dict[str, Any]:
    """Run one operation in this process, and return its CPU time, duration and peak memory."""
    import django

    django.setup()
    operation = OPERATIONS[name]
    _warm_up()
    wall, cpu = time.perf_counter(), time.process_time()
    rows = operation()
    return {
        "operation": name,
        "rows": rows,
        "CPU, seconds": round(time.process_time() - cpu, 3),
        "wall clock, seconds": round(time.perf_counter() - wall, 3),
        "peak memory, bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _warm_up() -> None:
    """Connect to the database and load the keys."""
    from instaccess import audit, keys

    audit.current_time()
    keys.evidence_keys().sign(b"{}", "warm-up")


def _baseline() -> int:
    import hmac

    from instaccess import audit
    from instaccess.audit.stored_rows import StoredRow
    from instaccess.conf import conf, kek_id

    [kek] = conf.key_encryption_keys[:1]
    key = kek_id(kek).encode()  # No HMAC is compared with a stored HMAC, so the loop can use any key.
    names, rows, last = StoredRow._fields[:-1], 0, 0
    while page := list(audit.issued_tokens().order_by("pk").filter(pk__gt=last).values_list(*names)[:PAGE]):
        for values in page:
            hmac.digest(key, audit.canonical_bytes(StoredRow._make((*values, True))), "sha256")
        rows, last = rows + len(page), page[-1][0]
    return rows


def _seal() -> int:
    from instaccess import audit, keys

    return sum(statement.rows for statement in audit.seal(keys.evidence_keys()).made)


def _verify() -> int:
    from instaccess import audit, keys

    report = audit.verify(keys.evidence_keys())
    assert not report.problems, report.summary
    return report.rows


def _export() -> int:
    from instaccess import audit

    export = audit.Export(audit.issued_tokens(), audit.Format.CSV, by="benchmark")
    with open(os.devnull, "w") as file:
        file.writelines(export)
    return export.rows_written


def _bare_delete() -> int:
    from django.db import connection, transaction

    from instaccess import audit
    from instaccess.audit.row_ids import first_id

    limit = first_id(audit.current_time() - timedelta(days=AGE))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM instaccess_issuedtoken WHERE id < %s", [limit])
        transaction.set_rollback(True)
        return int(cursor.rowcount)


def _prune() -> int:
    from instaccess import audit, keys

    return audit.prune(audit.current_time() - timedelta(days=AGE), keys.evidence_keys()).rows


def _reseal() -> int:
    from instaccess import audit, keys
    from instaccess.conf import KeyEncryptionKey

    current = keys.evidence_keys()
    return audit.reauthenticate(replace(current, keks=[KeyEncryptionKey(bytes(32)), *current.keks]))


OPERATIONS: dict[str, Callable[[], int]] = {
    BASELINE: _baseline,
    "seal": _seal,
    "verify": _verify,
    "export": _export,
    BARE_DELETE: _bare_delete,
    "prune": _prune,
    # `reseal` runs last. The other operations can't check the new HMACs, because the settings don't contain the
    # key-encryption key of the new HMACs.
    "reseal": _reseal,
}


def show(result: dict[str, Any]) -> str:
    if "sizes" not in result:
        return json.dumps(result)
    rows = []
    for size, operations in result["sizes"].items():
        base = operations[BASELINE]["CPU per row, microseconds"]
        for name, each in operations.items():
            cpu = each["CPU per row, microseconds"]
            rows.append(
                [
                    f"{name}, {int(size):,} rows",
                    f"{each['rows']:,}",
                    f"{cpu:.1f}",
                    "" if name == BARE_DELETE else f"{cpu / base:.2f}",
                    f"{each['wall clock, seconds']:.1f}",
                    f"{each['peak memory, bytes'] / 2**20:.0f}",
                ]
            )
    header = ["", "rows", "µs of CPU per row", "ratio to baseline", "s", "MiB at most"]
    return timing.table("Long work on PostgreSQL", header, rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
