"""A benchmark that compares sync and gthread workers of gunicorn for a gateway.

    python -m benchmarks.gateway_workers [--seconds 1] [--worker-rounds 10] [--stall-seconds 12]

The gateways read the JWKS and the revocations from an issuer. The first part measures requests per second through
nginx with the example configuration. nginx keeps connections to gthread workers open. A sync worker closes each
connection after one request.

The second part suspends the issuer and measures how long decisions and probes take in three states. `busy`: clients
send requests without a pause. `idle`: each of 8 clients sends one request every 3 seconds. `cold`: clients
send requests without a pause to a gateway that was started after the issuer was suspended.
"""

from __future__ import annotations

import argparse
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from . import load, nginx, sections, timing
from .behind_nginx import HOT_TOKENS, new_tokens
from .serve import HOST, Server, machine_cpu
from .stage import stage

WORKERS, THREADS = 2, 4
KINDS = {
    "sync": {"kind": "sync"},
    "gthread": {"kind": "gthread", "threads": THREADS, "keep_alive": 75},
}
CLIENTS = 8
VERIFY, PROBE = "/internal/gateway/verify", "/internal/health/ready?role=gateway"
STATES = ("busy", "idle", "cold")
PROBE_PAUSE, IDLE_PAUSE = 0.5, 3.0
"""The time between two probes, and between two requests of a client in the state `idle`, in seconds."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1, help="seconds of load per kind of worker and round")
    parser.add_argument("--worker-rounds", type=int, default=10)
    parser.add_argument("--stall-seconds", type=float, default=12, help="seconds for which the issuer is suspended")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with stage("sqlite") as staged, ExitStack() as stack:
        issuer = stack.enter_context(Server(staged.folder / "issuer.log", workers=1))
        tokens = new_tokens(HOT_TOKENS)
        rates = _rates(staged.folder, issuer, tokens, options)
        stalls = {
            f"{state}, {name}": _stall(staged.folder, issuer, name, tokens, state, options.stall_seconds)
            for state in STATES
            for name in KINDS
        }
    return {"workers": WORKERS, "threads": THREADS, "clients": CLIENTS, "rates": rates, "stalls": stalls}


def _gateway(folder: Path, issuer: Server, name: str) -> Server:
    env = {"DJANGO_SETTINGS_MODULE": "benchmarks.remote", "BENCHMARK_ISSUER": issuer.url}
    return Server(folder / f"gateway-{name}.log", workers=WORKERS, env=env, **KINDS[name])


def _rates(folder: Path, issuer: Server, tokens: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in KINDS}
    with ExitStack() as stack:
        service = stack.enter_context(nginx.service(folder / "service"))
        urls, gateways = {}, {}
        for name in KINDS:
            gateways[name] = gateway = stack.enter_context(_gateway(folder, issuer, name))
            urls[name] = stack.enter_context(nginx.example(folder / name, gateway=gateway.port, service=service))
            load.drive(load.Request("GET", urls[name], tokens), seconds=options.seconds)
        for number in range(options.worker_rounds):
            for name in reversed(KINDS) if number % 2 else KINDS:
                before, workers_before = machine_cpu(), gateways[name].cpu()
                measured = load.drive(load.Request("GET", urls[name], tokens), seconds=options.seconds)
                cpu = (machine_cpu() - before) / measured.requests * 1000
                workers = (gateways[name].cpu() - workers_before) / measured.requests * 1000
                rounds[name].append({"rate": measured.rate, "cpu": cpu, "workers": workers, "p99": measured.p99})
    return {
        name: {
            "requests/s": timing.spread([each["rate"] for each in rounds[name]], 1),
            "ratio": timing.ratios(
                [each["rate"] for each in rounds[name]], [each["rate"] for each in rounds["sync"]]
            ),
            "worker CPU, ms": timing.spread([each["workers"] for each in rounds[name]]),
            "machine CPU, ms": timing.spread([each["cpu"] for each in rounds[name]]),
            "p99, ms": timing.spread([each["p99"] for each in rounds[name]]),
        }
        for name in KINDS
    }


def _stall(
    folder: Path, issuer: Server, name: str, tokens: tuple[str, ...], state: str, seconds: float
) -> dict[str, Any]:
    """Suspend the issuer, and measure the latency of decisions and probes of one gateway in one of the STATES."""
    with ExitStack() as stack:
        if state == "cold":
            stack.enter_context(_suspended(issuer))
        gateway = stack.enter_context(_gateway(folder, issuer, name))
        if state != "cold":
            _clients(gateway.port, tokens, 2)
            stack.enter_context(_suspended(issuer))
        decisions, probes = _clients(gateway.port, tokens, seconds, IDLE_PAUSE if state == "idle" else 0)
    return {"decisions": _summary(decisions, seconds), "probes": _summary(probes, seconds)}


@contextmanager
def _suspended(issuer: Server) -> Iterator[None]:
    issuer.suspend()
    try:
        yield
    finally:
        issuer.resume()


Answers = list[tuple[float, int]]
"""The latency in seconds and the status of each response."""


def _summary(answers: Answers, seconds: float) -> dict[str, Any]:
    latencies = sorted(latency for latency, _ in answers)
    return {
        "responses/s": round(len(answers) / seconds, 1),
        "median, ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "longest, ms": round(latencies[-1] * 1000),
        "statuses": sorted({status for _, status in answers}),
        "slower than 100 ms": sum(latency > 0.1 for latency in latencies),
    }


def _clients(port: int, tokens: tuple[str, ...], seconds: float, pause: float = 0) -> tuple[Answers, Answers]:
    """Let CLIENTS clients request decisions, and one client send probes.

    Returns two lists of answers: to the requests for decisions, and to the probes.

    Args:
        pause: the time between two decisions of a client, in seconds.
    """
    decisions: Answers = []
    probes: Answers = []
    deadline = time.monotonic() + seconds

    def repeat(path: str, authorization: str, answers: Answers, seconds: float) -> None:
        while time.monotonic() < deadline:
            answers.append(_ask(port, path, authorization))
            time.sleep(seconds)

    runs = [(VERIFY, token, decisions, pause) for token in tokens[:CLIENTS]] + [(PROBE, "", probes, PROBE_PAUSE)]
    threads = [threading.Thread(target=repeat, args=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return decisions, probes


def _ask(port: int, path: str, authorization: str = "") -> tuple[float, int]:
    started = time.perf_counter()
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
        connection.request("GET", path, headers={"Authorization": authorization} if authorization else {})
        response = connection.getresponse()
        response.read()
    return time.perf_counter() - started, response.status


def show(result: dict[str, Any]) -> str:
    rates = [
        [
            name,
            timing.ranged(each["requests/s"], 0),
            timing.ranged(each["ratio"]),
            timing.ranged(each["worker CPU, ms"]),
            timing.ranged(each["machine CPU, ms"]),
            timing.ranged(each["p99, ms"], 1),
        ]
        for name, each in result["rates"].items()
    ]
    stalls = [
        [f"{name}: {kind}", *(str(value) for value in each[kind].values())]
        for name, each in result["stalls"].items()
        for kind in each
    ]
    names = ["responses/s", "median, ms", "longest, ms", "statuses", "slower than 100 ms"]
    return "\n".join(
        [
            timing.table(
                f"A gateway behind nginx: {result['workers']} workers, {result['threads']} threads (gthread)",
                ["", "requests/s", "ratio to sync", "worker CPU, ms", "CPU of all processes, ms", "p99, ms"],
                rates,
            ),
            timing.table(f"While the issuer doesn't answer: {result['clients']} clients", ["", *names], stalls),
        ]
    )


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
