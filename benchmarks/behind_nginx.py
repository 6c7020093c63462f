"""A benchmark of the requests per second behind nginx, with and without checks of tokens by the gateway.

    python -m benchmarks.behind_nginx [--nginx-rounds 10] [--seconds 1]

Three nginx servers with the example configuration forward requests to one service, which answers immediately. The
first server doesn't authenticate requests. The second server asks the gateway about each request (`auth_request`).
The third server keeps each decision of the gateway for one second. Each server is measured with a few tokens that all
requests share, and with a new token for each request.
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import argparse
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from . import load, nginx, sections, timing
from .serve import Server, machine_cpu
from .stage import stage

HOT_TOKENS = 20
WORKERS = 2
KEPT_SECONDS = 1
WARM_UP_SECONDS = 1
FASTEST = 3_000
"""The number of new tokens per second of the warm-up.

The rate of the warm-up determines the number of new tokens for each later run: twice the number of expected requests.
"""

NONE, ASKED, KEPT = "none", "auth_request", "kept"
SERVERS = {NONE: "no authentication", ASKED: "`auth_request`", KEPT: f"decisions kept for {KEPT_SECONDS} s"}
HOT, NEW = "hot", "new"
TOKENS = {HOT: f"{HOT_TOKENS} tokens, used again and again", NEW: "a new token for each request"}

Rounds = dict[tuple[str, str], list[dict[str, float]]]
"""The measured values of each round, by kind of token (hot or new) and by server."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1, help="seconds of load per server and round")
    parser.add_argument("--nginx-rounds", type=int, default=10)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with stage("sqlite") as staged, ExitStack() as stack:
        asked, kept = (stack.enter_context(_gateway(staged.folder, seconds)) for seconds in (0, KEPT_SECONDS))
        service = stack.enter_context(nginx.service(staged.folder / "service"))
        urls = {
            name: stack.enter_context(
                nginx.example(staged.folder / name, gateway=gateway.port, service=service, authenticates=name != NONE)
            )
            for name, gateway in ((NONE, asked), (ASKED, asked), (KEPT, kept))
        }
        for name, url in urls.items():
            _check_responses(name, url)
        rounds = _rounds(urls, options)
    return {
        "workers": WORKERS,
        "connections": load.CONNECTIONS,
        "kept, s": KEPT_SECONDS,
        "rows": [_summary(tokens, name, rounds) for tokens in TOKENS for name in SERVERS],
        "new tokens, kept to auth_request": timing.ratios(
            _column(rounds, NEW, KEPT, "rate"), _column(rounds, NEW, ASKED, "rate")
        ),
    }


def _gateway(folder: Path, seconds: int) -> Server:
    return Server(
        folder / f"gateway-{seconds}.log", workers=WORKERS, env={"BENCHMARK_KEEP_DECISION_SECONDS": str(seconds)}
    )


def new_tokens(count: int) -> tuple[str, ...]:
    """Return Authorization values with new tokens. The tokens have no audit rows, because the gateway needs none."""
    from django.contrib.auth import get_user_model

    from . import views

    encoder, *_ = views._encoder()
    user = get_user_model().objects.select_related("instaccess_identity").first()
    uuid = user.instaccess_identity.uuid
    payloads = (json.dumps(views._claims(user.pk, str(uuid), "canvas.example.edu")) for _ in range(count))
    return tuple(f"Bearer {encoder.encode(payload.encode())}" for payload in payloads)


def _check_responses(name: str, url: str) -> None:
    """Check that a valid token reaches the service, and that an invalid token is refused if nginx asks the gateway.

    Raises AssertionError.
    """
    from instaccess.keys import ring
    from instaccess.tokens import jose

    with requests.Session() as session:
        session.trust_env = False
        (token,) = new_tokens(1)
        good = session.get(url, headers={"Authorization": token}, timeout=30)
        bad = session.get(url, headers={"Authorization": token[:-8] + "AAAAAAAA"}, timeout=30)
    assert good.status_code == 200, (name, good.text)
    if name == NONE:
        assert bad.status_code == 200
    else:
        jose.verify(good.text.removeprefix("Bearer "), ring.current_ring().verification_keys())
        assert bad.status_code == 401, (name, bad.text)


def _rounds(urls: dict[str, str], options: argparse.Namespace) -> Rounds:
    rounds: Rounds = {(tokens, name): [] for tokens in TOKENS for name in SERVERS}
    hot = new_tokens(HOT_TOKENS)
    warm_up = min(WARM_UP_SECONDS, options.seconds)
    new = new_tokens(math.ceil(FASTEST * warm_up))
    rates = {}
    for name, url in urls.items():
        load.drive(load.Request("GET", url, hot), seconds=warm_up)
        rates[name] = load.drive(load.Request("GET", url, new), seconds=warm_up).rate
    # Leave out the rate of the server without authentication. This server doesn't check tokens, so its tokens may
    # repeat.
    count = math.ceil(2 * max(rates[ASKED], rates[KEPT]) * options.seconds) + load.CONNECTIONS
    for number in range(options.nginx_rounds):
        new = new_tokens(count)
        order = list(rounds)
        for tokens, name in reversed(order) if number % 2 else order:
            request = load.Request("GET", urls[name], hot if tokens == HOT else new)
            before = machine_cpu()
            measured = load.drive(request, seconds=options.seconds)
            cpu = (machine_cpu() - before) / measured.requests * 1000
            if tokens == NEW and name != NONE and measured.requests > count:
                raise RuntimeError(f"{name}: {measured.requests} requests, but only {count} new tokens")
            rounds[tokens, name].append({"rate": measured.rate, "cpu": cpu, "p50": measured.p50, "p99": measured.p99})
    return rounds


def _column(rounds: Rounds, tokens: str, name: str, value: str) -> list[float]:
    return [each[value] for each in rounds[tokens, name]]


def _summary(tokens: str, name: str, rounds: Rounds) -> dict[str, Any]:
    def column(value: str) -> list[float]:
        return _column(rounds, tokens, name, value)

    return {
        "tokens": tokens,
        "server": name,
        "requests/s": timing.spread(column("rate"), 1),
        "ratio": timing.ratios(column("rate"), _column(rounds, tokens, NONE, "rate")),
        "machine CPU, ms": timing.spread(column("cpu")),
        "p50, ms": timing.spread(column("p50")),
        "p99, ms": timing.spread(column("p99")),
    }


def show(result: dict[str, Any]) -> str:
    header = ["", "", "requests/s", "ratio", "CPU of all processes, ms", "p50, ms", "p99, ms"]
    rows = [
        [
            SERVERS[each["server"]],
            TOKENS[each["tokens"]],
            timing.ranged(each["requests/s"], 0),
            timing.ranged(each["ratio"]),
            f"{each['machine CPU, ms']['median']:.3f}",
            f"{each['p50, ms']['median']:.2f}",
            f"{each['p99, ms']['median']:.2f}",
        ]
        for each in result["rows"]
    ]
    title = (
        f"Behind nginx: {result['workers']} gunicorn workers, {result['connections']} connections; ratios to nginx "
        "without authentication\nRate with new tokens if decisions are kept, compared with auth_request: "
        + timing.ranged(result["new tokens, kept to auth_request"])
    )
    return timing.table(title, header, rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
