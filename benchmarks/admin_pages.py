"""Benchmark of the dashboard and the admin pages of issued tokens, with 10,000 and 1,000,000 rows.

    .venv/bin/python -m benchmarks.admin_pages

The benchmark needs PostgreSQL (PGHOST, PGUSER, PGPASSWORD as in the tests). The benchmark creates two databases, and
spreads their rows over the same period. Without the option `--keep`, the benchmark drops the databases at the end.
Each page is requested `--runs` times from both databases in turn. The benchmark compares the medians, and writes
benchmarks/results-admin.json. The exit status is 1 if a page with 1,000,000 rows takes one second or longer, or more
than twice as long as with 10,000 rows.
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django can be set up only after the databases exist.)
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"small": 10_000, "big": 1_000_000}
PREFIX = "instaccess_admin_pages"
MAX_MS, MAX_RATIO = 1000, 2

LIST = "/admin/instaccess/issuedtoken/"
DASHBOARD = "/admin/instaccess/"
REVOKE_ACTIONS = ["revoke_chosen", "revoke_users", "revoke_applications"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="number of requests for each page and size")
    parser.add_argument("--days", type=int, default=400, help="number of days over which the rows are spread")
    parser.add_argument("--keep", action="store_true", help="keep the databases, and reuse existing databases")
    parser.add_argument("--only", default="", help="measure only the pages whose name contains this text")
    options = parser.parse_args()
    with databases(days=options.days, keep=options.keep):
        results = measure(runs=options.runs, only=options.only)
    return report(results, options)


@contextmanager
def databases(*, days: int, keep: bool) -> Iterator[None]:
    """Create a database for each size in `SIZES`, and drop the databases at the end.

    If `keep` is true, existing databases are used again, and no database is dropped.
    """
    os.environ["INSTACCESS_DATABASE"] = "postgresql"
    existing = psql("SELECT datname FROM pg_database").split()
    for size, rows in SIZES.items():
        name = f"{PREFIX}_{size}"
        if name in existing and keep:
            continue
        psql(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        manage(name, "migrate", "--verbosity", "0")
        manage(name, "instaccess_init")
        manage(name, "instaccess_tokens", "seed", "--rows", str(rows), "--days", str(days))
        # Run VACUUM now, so that autovacuum doesn't run during the measurement.
        psql("VACUUM ANALYZE", database=name)
    try:
        yield
    finally:
        if not keep:
            from django.db import connections

            connections.close_all()
            for size in SIZES:
                psql(f"DROP DATABASE IF EXISTS {PREFIX}_{size}")


def psql(*statements: str, database: str = "postgres") -> str:
    import psycopg

    with psycopg.connect(
        dbname=database,
        host=os.environ.get("PGHOST", "127.0.0.1"),
        user=os.environ.get("PGUSER", "postgres"),
        password=os.environ.get("PGPASSWORD", ""),
        autocommit=True,
    ) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return "\n".join(row[0] for row in cursor) if cursor.description else ""


def manage(database: str, *command: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=os.environ | {"PGDATABASE": database},
        check=True,
        stderr=subprocess.DEVNULL,
    )


def measure(*, runs: int, only: str) -> dict[str, dict[str, list[float]]]:
    """Return the durations of the requests in milliseconds, by name of the page and size of the database."""
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    os.environ["PGDATABASE"] = f"{PREFIX}_small"
    import django
    from django.conf import settings
    from django.db import connection, connections

    settings.DEBUG = False
    django.setup()
    connections["default"].settings_dict["CONN_MAX_AGE"] = None

    def use(size: str) -> None:
        # Measure both databases in the same process, so that differences between processes don't affect the ratio.
        connection.settings_dict["NAME"] = f"{PREFIX}_{size}"
        connection.connection = opened.get(size)
        connection.ensure_connection()
        opened[size] = connection.connection

    opened: dict[str, Any] = {}
    clients, pages = {}, {}
    for size in SIZES:
        use(size)
        clients[size] = log_in()
        pages[size] = {name: page for name, page in all_pages().items() if only in name}
    times: dict[str, dict[str, list[float]]] = {name: {size: [] for size in SIZES} for name in pages["small"]}
    for run in range(runs + 1):
        for name in times:
            for size in SIZES:
                use(size)
                started = time.perf_counter()
                response = pages[size][name](clients[size])
                took = (time.perf_counter() - started) * 1000
                if response.status_code != 200:
                    raise SystemExit(f"{name} at {size}: {response.status_code}")
                if run:  # The first run is a warm-up, so its time is not recorded.
                    times[name][size].append(took)
    for raw in opened.values():
        raw.close()
    connection.connection = None
    return times


def log_in() -> Any:
    from django.contrib.auth import get_user_model
    from django.test import Client

    user = get_user_model().objects.filter(username="benchmark").first()
    user = user or get_user_model().objects.create_superuser("benchmark")
    client = Client()
    client.force_login(user)
    return client


def all_pages() -> dict[str, Callable[[Any], Any]]:
    """Return the pages to measure: a mapping from the name of a page to a function that requests the page."""
    from django.db.models import Count

    from instaccess.models import IssuedToken

    rows = IssuedToken.objects.select_related("user").order_by("-issued_at", "-pk")
    latest = rows.exclude(user=None)[0]
    masqueraded = rows.filter(real_user_uuid__gt="")[0]
    latest_orphan = rows.filter(user=None)[0]
    first_orphan = rows.filter(user=None).reverse()[0]
    accounts = rows.order_by().values_list("account_uuid").annotate(n=Count("pk")).order_by("-n")
    clients = rows.order_by().values_list("client_id").annotate(n=Count("pk")).order_by("-n")
    accounts, clients = [value for value, _ in accounts], [value for value, _ in clients]

    night = latest.issued_at - timedelta(days=1)
    queries = {
        "list": {},
        "list, page 2": {"p": "2"},
        "list, page 100": {"p": "100"},
        "list, by time upwards": {"o": "1"},
        "status live": {"status": "live"},
        "status expired": {"status": "expired"},
        "status revoked": {"status": "revoked"},
        "masquerading": {"masquerading": "yes"},
        "not masquerading": {"masquerading": "no"},
        **{f"period {value}": {"period": value} for value in ("1h", "24h", "7d", "30d", "90d", "365d")},
        "access, last night": {"since": f"{night:%Y-%m-%dT18:00}", "until": f"{latest.issued_at:%Y-%m-%dT08:00}"},
        "access, until a year ago": {"until": f"{latest.issued_at - timedelta(days=365):%Y-%m-%dT08:00}"},
        "client, most used": {"client_id": clients[0]},
        "client, least used": {"client_id": clients[-1]},
        "client, most used, 365 days": {"client_id": clients[0], "period": "365d"},
        "client, unknown": {"client_id": "nobody"},
        "account, largest": {"account_uuid": accounts[0]},
        "account, largest, 365 days": {"account_uuid": accounts[0], "period": "365d"},
        "account, rare": {"account_uuid": accounts[-1]},
        "account rare, masquerading": {"account_uuid": accounts[-1], "masquerading": "yes"},
        "account rare, revoked, 365 days": {"account_uuid": accounts[-1], "status": "revoked", "period": "365d"},
        "masquerading, revoked, client": {"masquerading": "yes", "status": "revoked", "client_id": clients[2]},
        "masquerading, expired, 365 days": {"masquerading": "yes", "status": "expired", "period": "365d"},
        "not masquerading, expired, 365 days": {"masquerading": "no", "status": "expired", "period": "365d"},
        "search user name": {"q": latest.user.get_username()},
        "search user name, 365 days": {"q": latest.user.get_username(), "period": "365d"},
        "search masquerader": {"q": masqueraded.real_user.get_username()},
        "search uuid": {"q": latest.user_uuid},
        "search uuid of a deleted user": {"q": latest_orphan.user_uuid},
        "search uuid of the first deleted user": {"q": first_orphan.user_uuid},
        "search name of a deleted user": {"q": latest_orphan.user_name},
        "search name of the first deleted user": {"q": first_orphan.user_name},
        "search client id, most used": {"q": clients[0]},
        "search client id, least used": {"q": clients[-1]},
        "search address": {"q": latest.ip_address},
        "search token id": {"q": str(latest.jti)},
        "search user and client": {"q": f"{latest.user.get_username()} {clients[0]}"},
        "search something absent": {"q": "nobody-of-this-name"},
        "search uuid that is absent": {"q": "00000000-0000-4000-8000-000000000000"},
        "search user in rare account": {"q": latest.user.get_username(), "account_uuid": accounts[-1]},
    }
    pages: dict[str, Callable[[Any], Any]] = {
        name: lambda client, query=query: client.get(LIST, query) for name, query in queries.items()
    }
    pages["dashboard"] = lambda client: client.get(DASHBOARD)
    pages["one token"] = lambda client: client.get(f"{LIST}{latest.pk}/change/")
    pages["history of a token"] = lambda client: client.get(f"{LIST}{latest.pk}/history/")
    chosen = [str(pk) for pk in rows.values_list("pk", flat=True)[:100]]
    for action in REVOKE_ACTIONS:
        form = {"action": action, "index": "0", "_selected_action": chosen}
        pages[f"{action}, 100 chosen"] = lambda client, form=form: client.post(LIST, form)
    everything = {"action": "revoke_chosen", "index": "0", "_selected_action": chosen, "select_across": "1"}
    pages["revoke_chosen, all there are"] = lambda client: client.post(LIST, everything)
    pages["revoke_chosen, all of a client"] = lambda client: client.post(f"{LIST}?client_id={clients[0]}", everything)
    rare = everything | {"action": "revoke_users"}
    pages["revoke_users, all of a rare account"] = lambda client: client.post(
        f"{LIST}?account_uuid={accounts[-1]}", rare
    )
    return pages


def report(results: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> int:
    """Print a table of the medians and write the results to a file. Returns the exit status of the command."""
    failed, pages = [], {}
    print(f"{'page':<38} {'10,000 rows':>22} {'1,000,000 rows':>24}  ratio")
    for name, sizes in results.items():
        medians = {size: statistics.median(times) for size, times in sizes.items()}
        ratio = medians["big"] / medians["small"]
        too_slow = medians["big"] >= MAX_MS or ratio > MAX_RATIO
        failed += [name] * too_slow
        cells = [f"{medians[size]:6.0f} ms ({min(sizes[size]):.0f} to {max(sizes[size]):.0f})" for size in SIZES]
        print(f"{name:<38} {cells[0]:>22} {cells[1]:>24}  {ratio:5.2f}{'  <-- too slow' * too_slow}")
        pages[name] = {
            **{f"{SIZES[size]} rows, ms": [round(value, 1) for value in sizes[size]] for size in SIZES},
            "ratio of medians": round(ratio, 2),
        }
    if not options.only:
        document = {"runs": options.runs, "days": options.days, "pages": pages}
        (ROOT / "benchmarks/results-admin.json").write_text(json.dumps(document, indent=1) + "\n")
    print(
        f"{len(failed)} of {len(results)} pages are too slow"
        if failed
        else f"All {len(results)} pages are fast enough."
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
