"""A benchmark that compares the requests per second of this package and of alternatives, on gunicorn's sync workers.

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
    parser.add_argument("--seconds", type=float, default=1, help="seconds of load per endpoint and round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--only",
        default="",
        help="names of endpoints, separated by commas; the endpoints they are compared with are included",
    )
    parser.add_argument("--workers", type=int, default=2)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    names = set(filter(None, options.only.split(",")))
    with stage.stage(options.database) as env:
        log = env.folder / "server.log"
        with Server(log, application=TRIVIAL, workers=options.workers) as server:
            limit = load.drive(load.Request("POST", server.url), seconds=min(options.seconds, 3))
        with Server(log, workers=options.workers) as server:
            chosen = _choose(endpoints(server.url, env), names)
            for endpoint in chosen:
                endpoint.check_responses()
                load.drive(endpoint.request, seconds=min(WARM_UP_SECONDS, options.seconds))
            rounds = _rounds(server, chosen, options)
    return {
        "database": options.database,
        "workers": options.workers,
        "connections": load.CONNECTIONS,
        "driver alone, requests/s": round(limit.rate),
        "endpoints": [_summary(endpoint, rounds) for endpoint in chosen],
    }


def _choose(all_endpoints: list[Endpoint], names: set[str]) -> list[Endpoint]:
    """Return the endpoints with these names, and their baselines. Returns all endpoints if `names` is empty."""
    if unknown := names - {endpoint.name for endpoint in all_endpoints}:
        raise SystemExit(f"no such endpoint: {', '.join(sorted(unknown))}")
    names |= {endpoint.baseline for endpoint in all_endpoints if endpoint.name in names}
    return [endpoint for endpoint in all_endpoints if not names or endpoint.name in names]


def _rounds(server: Server, chosen: list[Endpoint], options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {endpoint.name: [] for endpoint in chosen}
    for number in range(options.rounds):
        for endpoint in reversed(chosen) if number % 2 else chosen:
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
        "compared with": endpoint.baseline,
        "requests/s": timing.spread(column("rate"), 1),
        "ratio": timing.ratios(column("rate"), column("rate", endpoint.baseline)),
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
        f"{result['connections']} connections; a do-nothing server answers "
        f"{result['driver alone, requests/s']} requests/s"
    )
    return timing.table(title, header, rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
