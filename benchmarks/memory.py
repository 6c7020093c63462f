"""A benchmark that measures the memory of one gunicorn worker while the worker issues tokens.

    python -m benchmarks.memory [--issues 20000]

The default database is PostgreSQL, because SQLite caches up to 2 MiB of database pages in the worker.
"""

from __future__ import annotations

import argparse
from typing import Any

from . import load, sections, timing
from .serve import Server
from .stage import VENDORS, stage

WARM_UP = 3000
STEPS = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", choices=VENDORS, default="postgresql")
    parser.add_argument("--issues", type=int, default=20_000, help="number of tokens to issue after the warm-up")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with stage(options.database) as env, Server(env.folder / "server.log", workers=1) as server:
        [worker] = server.workers
        request = load.Request(
            "POST", server.url + "/api/v1/inst_access_tokens", tuple(f"Bearer {text}" for text in env.bearers)
        )
        done, steps = 0, []
        while done < WARM_UP + options.issues:
            done += load.drive(request, seconds=1).requests
            if done >= WARM_UP:
                steps.append((done, server.memory()))
        assert server.workers == [worker], "the worker was replaced"
    # Keep about ten steps for the table, including the first and the last step.
    kept = sorted({round(number * (len(steps) - 1) / STEPS) for number in range(STEPS + 1)})
    return {
        "database": options.database,
        "issues": steps[-1][0] - steps[0][0],
        "growth, bytes": steps[-1][1] - steps[0][1],
        "steps": [{"issues": steps[index][0], "resident, bytes": steps[index][1]} for index in kept],
    }


def show(result: dict[str, Any]) -> str:
    rows = [[f"{step['issues']:,}", f"{step['resident, bytes'] / 2**20:.2f}"] for step in result["steps"]]
    title = (
        f"Memory of a worker on {result['database']}: "
        f"{result['growth, bytes'] / 1024:+.0f} KiB over {result['issues']:,} tokens"
    )
    return timing.table(title, ["tokens issued so far", "MiB resident"], rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
