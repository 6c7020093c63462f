"""A benchmark that compares application servers on PostgreSQL, for issuing and for a view that does nothing.

    python -m benchmarks.servers [--servers-rounds 10] [--seconds 1] [--servers sync,gthread,uvicorn-pool]

All servers run at the same time, and one server at a time is under load.

uvicorn is not measured with persistent database connections, because Django advises against such connections under
ASGI. Each request has its own thread, so other requests can't reuse a connection. The connection stays open until
Python's garbage collector closes the connection. In a trial, all 100 connections of PostgreSQL were used up within
seconds.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from . import load, sections, timing
from .endpoints import Endpoint, endpoints
from .serve import Server
from .stage import psql, stage

WARM_UP_SECONDS = 2
WORKERS, THREADS = 2, 4
MEASURED = ("nothing", "ours")


@dataclass(frozen=True)
class Kind:
    """An application server and its kind of database connections.

    Attributes:
        name: the name of the server, for the option `--servers`.
        title: the title of the server in tables.
        server: the worker class of gunicorn, or `uvicorn`.
        connections: the kind of database connections: `persistent`, `closed` after each request, or from a `pool`.
    """

    name: str
    title: str
    server: str
    connections: str = "persistent"

    def serve(self, log: Any) -> Server:
        env = {"PGAPPNAME": self.name}
        if self.connections != "persistent":
            env |= {"DJANGO_SETTINGS_MODULE": "benchmarks.connections", "BENCHMARK_CONNECTIONS": self.connections}
        return Server(log, workers=WORKERS, kind=self.server, threads=THREADS, env=env)


KINDS = (
    Kind("sync", "gunicorn sync", "sync"),
    Kind("gthread", "gunicorn gthread", "gthread"),
    Kind("gthread-pool", "gunicorn gthread, pool", "gthread", "pool"),
    Kind("uvicorn", "uvicorn, CONN_MAX_AGE=0", "uvicorn", "closed"),
    Kind("uvicorn-pool", "uvicorn, pool", "uvicorn", "pool"),
)
BASE = KINDS[0].name
"""The name of the server with which the other servers are compared."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1, help="seconds of load per endpoint and round")
    parser.add_argument("--servers-rounds", type=int, default=10)
    parser.add_argument(
        "--servers", default="", help=f"names of servers, separated by commas; {BASE} is always included"
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    kinds = _chosen(set(filter(None, options.servers.split(","))))
    with stage("postgresql") as env, ExitStack() as stack:
        up = {kind.name: stack.enter_context(kind.serve(env.folder / f"{kind.name}.log")) for kind in kinds}
        measured = {name: _endpoints(server, env, options.seconds) for name, server in up.items()}
        rounds: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in kinds}
        for number in range(options.servers_rounds):
            for kind in reversed(kinds) if number % 2 else kinds:
                rounds[kind.name].append(_turn(up[kind.name], kind, measured[kind.name], options.seconds))
    return {
        "database": "postgresql",
        "workers": WORKERS,
        "threads": THREADS,
        "connections": load.CONNECTIONS,
        "servers": [_summary(kind, rounds) for kind in kinds],
    }


def _chosen(wanted: set[str]) -> list[Kind]:
    if unknown := wanted - {kind.name for kind in KINDS}:
        raise SystemExit(f"no such server: {', '.join(sorted(unknown))}")
    return [kind for kind in KINDS if not wanted or kind.name in wanted | {BASE}]


def _endpoints(server: Server, env: Any, seconds: float) -> list[Endpoint]:
    measured = [endpoint for endpoint in endpoints(server.url, env) if endpoint.name in MEASURED]
    for endpoint in measured:
        endpoint.check_responses()
        load.drive(endpoint.request, seconds=min(WARM_UP_SECONDS, seconds))
    return measured


def _turn(server: Server, kind: Kind, endpoints_: list[Endpoint], seconds: float) -> dict[str, Any]:
    """Send requests to each endpoint of one server in turn. Returns the measured values."""
    turn: dict[str, Any] = {}
    for endpoint in endpoints_:
        before = server.cpu()
        measured = load.drive(endpoint.request, seconds=seconds)
        turn[endpoint.name] = {
            "rate": measured.rate,
            "cpu": (server.cpu() - before) / measured.requests * 1000,
            "p50": measured.p50,
            "p99": measured.p99,
        }
    turn["memory"] = server.memory() / WORKERS
    turn["connections"] = psql(
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{os.environ['PGDATABASE']}'"
        f" AND application_name = '{kind.name}'"
    )[0][0]
    return turn


def _summary(kind: Kind, rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def column(endpoint: str, name: str, of: str = kind.name) -> list[float]:
        return [turn[endpoint][name] for turn in rounds[of]]

    own = rounds[kind.name]
    return {
        "name": kind.name,
        "title": kind.title,
        "endpoints": {
            endpoint: {
                "requests/s": timing.spread(column(endpoint, "rate"), 1),
                "ratio": timing.ratios(column(endpoint, "rate"), column(endpoint, "rate", BASE)),
                "worker CPU, ms": timing.spread(column(endpoint, "cpu")),
                "p50, ms": timing.spread(column(endpoint, "p50")),
                "p99, ms": timing.spread(column(endpoint, "p99")),
            }
            for endpoint in MEASURED
        },
        "memory of a worker at the end, bytes": round(own[-1]["memory"]),
        "database connections after a turn": {"most": max(turn["connections"] for turn in own)},
    }


def show(result: dict[str, Any]) -> str:
    header = ["", "requests/s", f"ratio to {BASE}", "worker CPU, ms", "p50, ms", "p99, ms"]
    titles = {"ours": "instaccess", "nothing": "do-nothing view behind DOT"}
    tables = []
    for endpoint in reversed(MEASURED):
        rows = []
        for each in result["servers"]:
            of = each["endpoints"][endpoint]
            rows.append(
                [
                    each["title"],
                    timing.ranged(of["requests/s"], 0),
                    timing.ranged(of["ratio"]),
                    timing.ranged(of["worker CPU, ms"]),
                    timing.ranged(of["p50, ms"], 1),
                    timing.ranged(of["p99, ms"], 1),
                ]
            )
        title = (
            f"{titles[endpoint]} on PostgreSQL: {result['workers']} workers, {result['threads']} threads per gthread "
            f"worker, {result['connections']} connections"
        )
        tables.append(timing.table(title, header, rows))
    resources = [
        [
            each["title"],
            f"{each['memory of a worker at the end, bytes'] / 2**20:.0f}",
            each["database connections after a turn"]["most"],
        ]
        for each in result["servers"]
    ]
    tables.append(
        timing.table("Memory and connections", ["", "MiB per worker", "peak connections to PostgreSQL"], resources)
    )
    return "\n".join(tables)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
