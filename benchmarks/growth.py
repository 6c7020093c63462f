"""A benchmark that issues tokens and reads the deny list, with up to 1,000,000 audit rows on PostgreSQL.

    python -m benchmarks.growth [--growth-rounds 1000] [--ten-million]

One process queries three databases in turn. The databases differ only in the number of audit rows: 0, 10,000 and
1,000,000. Keys, users, access tokens and the number of revoked tokens are the same.
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import sections, timing
from .serve import ROOT
from .stage import psql, stage

SIZES = (0, 10_000, 1_000_000)
TEN_MILLION = 10_000_000
DENIED = 50
DAYS = 400


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--growth-rounds", type=int, default=1000)
    parser.add_argument(
        "--ten-million",
        action="store_true",
        help="also measure 10,000,000 rows, which takes ten more minutes and 10 GB more disk space",
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    sizes = (*SIZES, TEN_MILLION) if options.ten_million else SIZES
    with stage("postgresql") as staged:
        from django.db import connection

        # Generate one audit row and delete the row, so that the same users and applications exist in every database.
        _seed(os.environ["PGDATABASE"], 1)
        connection.cursor().execute("DELETE FROM instaccess_issuedtoken")
        connection.close()
        with _copies(os.environ["PGDATABASE"], sizes) as names:
            return _compare(names, staged.bearers, options.growth_rounds)


@contextmanager
def _copies(base: str, sizes: tuple[int, ...]) -> Iterator[dict[int, str]]:
    """Create one copy of the database `base` for each size, with this number of audit rows.

    Yields a mapping from the number of rows to the name of the copy, and drops the copies afterwards.
    """
    names = {rows: f"{base}_{rows}" for rows in sizes}
    try:
        for rows, name in names.items():
            psql(f"CREATE DATABASE {name} TEMPLATE {base}")
            if rows:
                _seed(name, rows)
            # Run VACUUM and CHECKPOINT now, so that PostgreSQL doesn't run these commands during the measurement.
            psql("VACUUM ANALYZE", "CHECKPOINT", name=name)
        yield names
    finally:
        psql(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in names.values()))


def _seed(name: str, rows: int) -> None:
    command = [sys.executable, "-m", "django", "instaccess_tokens", "seed", "--rows", str(rows), "--days", str(DAYS)]
    command += ["--seed", str(rows)]
    environment = {**os.environ, "PGDATABASE": name, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _compare(names: dict[int, str], bearers: tuple[str, ...], rounds: int) -> dict[str, Any]:
    from django.db import connection

    from instaccess import audit, keys
    from instaccess.trust import denylist

    connections: dict[int, Any] = {}

    def use(rows: int) -> None:
        # Measure all databases in the same process, so that differences between processes don't affect the ratios.
        connection.settings_dict["NAME"] = names[rows]
        connection.connection = connections.get(rows)
        connection.ensure_connection()
        connections[rows] = connection.connection

    issue = issuing(bearers)
    for rows in names:
        use(rows)
        for _ in range(DENIED):
            issue()
        latest = list(audit.live_tokens().order_by("-pk").values_list("pk", flat=True)[:DENIED])
        denied = audit.live_tokens().filter(pk__in=latest)
        audit.revoke(denied, keks=keys.keks_for_revocation(), reason="benchmark")
        assert DENIED <= len(denylist.read_database()) < DENIED + 20

    operations = {"issue": issue, "read the deny list": denylist.read_database}
    times: dict[str, dict[int, list[float]]] = {what: {rows: [] for rows in names} for what in operations}
    for number in range(rounds):
        order = list(names)
        for rows in reversed(order) if number % 2 else order:
            use(rows)
            for what, run in operations.items():
                start = time.perf_counter()
                run()
                times[what][rows].append((time.perf_counter() - start) * 1000)
    size = {
        rows: psql("SELECT pg_total_relation_size('instaccess_issuedtoken')", name=name)
        for rows, name in names.items()
    }
    for raw in connections.values():
        raw.close()
    connection.connection = None
    return {
        "rounds": rounds,
        "bytes of table and indexes": {str(rows): result[0][0] for rows, result in size.items()},
        "milliseconds": {
            what: {str(rows): timing.spread(each) for rows, each in by.items()} for what, by in times.items()
        },
        "ratio to empty": {
            what: {str(rows): timing.ratios(each, by[0]) for rows, each in by.items()} for what, by in times.items()
        },
    }


def issuing(bearers: tuple[str, ...]) -> Callable[[], Any]:
    """Return a function that calls the issuer's view. The view authenticates the client and commits an audit row."""
    from django.test import RequestFactory

    from instaccess.issuer import views

    factory = RequestFactory()
    turn = itertools.cycle(bearers)

    def issue() -> Any:
        headers = {"Authorization": f"Bearer {next(turn)}", "User-Agent": "benchmark/1.0"}
        response = views.issue(factory.generic("POST", "/api/v1/inst_access_tokens", headers=headers))
        assert response.status_code == 201
        return response

    return issue


def show(result: dict[str, Any]) -> str:
    rows = []
    for what, by in result["milliseconds"].items():
        for size, values in by.items():
            ratio = result["ratio to empty"][what][size]
            rows.append([f"{what}, {int(size):,} rows", timing.ranged(values), f"{ratio['median']:.2f}"])
    sizes = {int(rows): size for rows, size in result["bytes of table and indexes"].items()}
    most = max(sizes)
    title = f"Growth on PostgreSQL, in process ({sizes[most] / most:.0f} bytes per row with all indexes)"
    return timing.table(title, ["", "ms", "ratio to empty"], rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
