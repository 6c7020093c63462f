"""Load on one endpoint by wrk (Debian package wrk), and measurement of the CPU time of wrk."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")
CONNECTIONS = 8
_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """The request that is sent repeatedly, with each Authorization value in turn."""

    method: str
    url: str
    authorizations: tuple[str, ...] = ("none",)
    body: str = ""


@dataclass(frozen=True)
class Measured:
    """The result of a run.

    Attributes:
        requests: number of responses, all with a status below 400.
        rate: responses per second.
        p50, p95, p99: percentiles of the latency, in milliseconds.
        driver: the share of one core that wrk, the load generator, used.
    """

    requests: int
    rate: float
    p50: float
    p95: float
    p99: float
    driver: float


def drive(request: Request, *, seconds: float) -> Measured:
    """Put load on an endpoint for the given number of seconds. Raises RuntimeError if any request fails."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: `apt-get install --no-install-recommends wrk`")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(request.authorizations) + "\n")
        file.flush()
        # wrk accepts only whole seconds, so SIGINT ends a run of a fraction. wrk then still prints its summary.
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{math.ceil(seconds)}s", "-s", str(SCRIPT), request.url, "--"]
        command += [request.method, file.name, request.body]
        before, started = os.times(), time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            output, _ = process.communicate(timeout=seconds if seconds % 1 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate()
        after, took = os.times(), time.monotonic() - started
    result = _RESULT.search(output)
    if process.returncode or result is None:
        raise RuntimeError(f"{request.url}: wrk failed\n{output}")
    requests, microseconds, errors, p50, p95, p99 = map(int, result.groups())
    if errors or not requests:
        raise RuntimeError(f"{request.url}: {errors} of {requests} requests failed\n{output}")
    driver_cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(
        requests,
        rate=requests / microseconds * 1e6,
        p50=p50 / 1000,
        p95=p95 / 1000,
        p99=p99 / 1000,
        driver=max(driver_cpu, 0.0) / took,
    )
