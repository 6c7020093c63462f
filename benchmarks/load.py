"""A load generator that sends requests with wrk (Debian package wrk), and measures the CPU time of wrk."""

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
    """A request that wrk sends repeatedly, with each Authorization value in turn."""

    method: str
    url: str
    authorizations: tuple[str, ...] = ("none",)
    body: str = ""


@dataclass(frozen=True)
class Measured:
    """The result of one run of wrk.

    Attributes:
        requests: the number of responses, all with a status below 400.
        rate: the number of responses per second.
        p50: the median of the latency, in milliseconds.
        p95: the 95th percentile of the latency, in milliseconds.
        p99: the 99th percentile of the latency, in milliseconds.
        driver: the share of one core that wrk used, from 0 to 1.
    """

    requests: int
    rate: float
    p50: float
    p95: float
    p99: float
    driver: float


def drive(request: Request, *, seconds: float) -> Measured:
    """Send a request repeatedly for `seconds`, and return the result. Raises RuntimeError if any request fails."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: `apt-get install --no-install-recommends wrk`")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(request.authorizations) + "\n")
        file.flush()
        # wrk accepts only whole seconds. To end a run after a fraction of a second, send SIGINT, because wrk then
        # still prints a summary.
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
