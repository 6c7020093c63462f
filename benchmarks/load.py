"""Drives load at one endpoint with wrk (Debian: wrk), and says how much of a core wrk itself took."""

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
_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """What is sent again and again; the Authorization values in turn."""

    method: str
    url: str
    authorizations: tuple[str, ...] = ("none",)
    body: str = ""


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Attributes:
        requests: answered, all with a status below 400.
        rate: of them a second.
        p50, p99: milliseconds from request to answer.
        driver: the share of one core that wrk took.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    driver: float


def drive(request: Request, *, seconds: float) -> Measured:
    """Load for so many seconds. Raises RuntimeError when a single request fails."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: `apt-get install --no-install-recommends wrk`")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(request.authorizations) + "\n")
        file.flush()
        # It counts in whole seconds, and sums up as well when a signal ends it.
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{math.ceil(seconds)}s", "-s", str(SCRIPT), request.url, "--"]
        command += [request.method, file.name, request.body]
        before, begun = os.times(), time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said, _ = process.communicate(timeout=seconds if seconds % 1 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate()
        after, took = os.times(), time.monotonic() - begun
    found = _RESULT.search(said)
    if process.returncode or found is None:
        raise RuntimeError(f"{request.url}: wrk failed\n{said}")
    requests, microseconds, errors, p50, p99 = map(int, found.groups())
    if errors or not requests:
        raise RuntimeError(f"{request.url}: {errors} of {requests} requests failed\n{said}")
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(requests, requests / microseconds * 1e6, p50 / 1000, p99 / 1000, max(busy, 0.0) / took)
