"""Requests a second, ours beside the peers', with gunicorn's sync workers on one database.

python -m benchmarks.over_http --database postgresql [--seconds 1] [--rounds 15] [--only ours,nothing]
"""

from __future__ import annotations

import argparse
from typing import Any

from . import load, sections, stage, timing
from .endpoints import Endpoint, endpoints
from .serve import TRIVIAL, Server, machine_cpu

WARM_UP_SECONDS = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", choices=stage.VENDORS, default="sqlite")
    parser.add_argument("--seconds", type=float, default=1, help="of load on an endpoint in each round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--only", default="", help="names of endpoints, with commas; what they are compared with comes along"
    )
    parser.add_argument("--workers", type=int, default=2)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    wanted = set(filter(None, options.only.split(",")))
    with stage.stage(options.database) as there:
        log = there.folder / "server.log"
        with Server(log, application=TRIVIAL, workers=options.workers) as server:
            limit = load.drive(load.Request("POST", server.url), seconds=min(options.seconds, 3))
        with Server(log, workers=options.workers) as server:
            found = _chosen(endpoints(server.url, there), wanted)
            for endpoint in found:
                endpoint.prove()
                load.drive(endpoint.request, seconds=min(WARM_UP_SECONDS, options.seconds))
            rounds = _rounds(server, found, options)
    return {
        "database": options.database,
        "workers": options.workers,
        "connections": load.CONNECTIONS,
        "driver alone, requests/s": round(limit.rate),
        "endpoints": [_summary(endpoint, rounds) for endpoint in found],
    }


def _chosen(all_: list[Endpoint], wanted: set[str]) -> list[Endpoint]:
    if unknown := wanted - {endpoint.name for endpoint in all_}:
        raise SystemExit(f"no such endpoint: {', '.join(sorted(unknown))}")
    wanted |= {endpoint.beside for endpoint in all_ if endpoint.name in wanted}
    return [endpoint for endpoint in all_ if not wanted or endpoint.name in wanted]


def _rounds(server: Server, found: list[Endpoint], options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {endpoint.name: [] for endpoint in found}
    for number in range(options.rounds):
        for endpoint in reversed(found) if number % 2 else found:
            before, all_before = server.cpu(), machine_cpu()
            measured = load.drive(endpoint.request, seconds=options.seconds)
            all_after = machine_cpu()
            results[endpoint.name].append(
                {
                    "rate": measured.rate,
                    "cpu": (server.cpu() - before) / measured.requests * 1000,
                    "machine": (all_after - all_before) / measured.requests * 1000,
                    "p50": measured.p50,
                    "p99": measured.p99,
                    "driver": measured.driver,
                }
            )
    return results


def _summary(endpoint: Endpoint, rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    def column(name: str, of: str = endpoint.name) -> list[float]:
        return [each[name] for each in rounds[of]]

    return {
        "name": endpoint.name,
        "title": endpoint.title,
        "compared with": endpoint.beside,
        "requests/s": timing.spread(column("rate"), 1),
        "ratio": timing.ratios(column("rate"), column("rate", endpoint.beside)),
        "worker CPU, ms": timing.spread(column("cpu")),
        "machine CPU, ms": timing.spread(column("machine")),
        "p50, ms": timing.spread(column("p50")),
        "p99, ms": timing.spread(column("p99")),
        "driver, cores": timing.spread(column("driver"), 2),
    }


def show(result: dict[str, Any]) -> str:
    header = ["", "requests/s", "ratio", "to", "CPU, ms: workers", "all", "p50, ms", "p99, ms", "wrk, cores"]
    rows = [
        [
            each["title"],
            timing.ranged(each["requests/s"], 0),
            timing.ranged(each["ratio"]),
            each["compared with"],
            f"{each['worker CPU, ms']['median']:.2f}",
            f"{each['machine CPU, ms']['median']:.2f}",
            f"{each['p50, ms']['median']:.1f}",
            f"{each['p99, ms']['median']:.1f}",
            f"{each['driver, cores']['median']:.2f}",
        ]
        for each in result["endpoints"]
    ]
    title = (
        f"Over HTTP on {result['database']}: {result['workers']} gunicorn workers, "
        f"{result['connections']} connections; before a server that does nothing "
        f"{result['driver alone, requests/s']} requests/s"
    )
    return timing.table(title, header, rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
