"""Tests of a real Prometheus that reads the metrics of a real server with several workers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import ISSUE_URL
from tests.monitoring.metrics import METRICS, Scraped
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.processes import environment

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]

WORKERS = 3


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., servers.Process]]:
    """Return a function that starts a server process, which ends when the test ends."""
    running: list[servers.Process] = []

    def start_(command: list[str], port: int, cwd: Path = ROOT, **variables: str) -> servers.Process:
        env = {**environment(), **variables}
        log = tmp_path / f"{len(running)}.log"
        running.append(servers.Process(command, port=port, log=log, env=env, cwd=cwd))
        return running[-1]

    yield start_
    for process in running:
        process.kill()


@pytest.fixture
def issuer(start: Callable[..., servers.Process], tmp_path: Path) -> int:
    """Start the test project with several workers and the multi-process mode, and return its port."""
    folder, port = tmp_path / "metrics", servers.free_port()
    folder.mkdir()
    options = ["--workers", str(WORKERS), "--bind", f"{servers.HOST}:{port}"]
    command = [sys.executable, "-m", "gunicorn", "tests.support.served:application", *options]
    settings = {"DJANGO_SETTINGS_MODULE": "testproject.settings", "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    start(command, port, **settings, INSTACCESS_SETTINGS=json.dumps({"THROTTLE_LIMIT": None}))
    return port


def request(port: int, method: str, path: str, token: str = "") -> tuple[int, bytes, str]:
    """Send a request on a new connection. Returns the status, the body and the process ID of the worker."""
    client = http.client.HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
    try:
        client.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = client.getresponse()
        return response.status, response.read(), response.headers.get("X-Worker", "")
    finally:
        client.close()


def use_all_workers(port: int, token: str) -> int:
    """Issue tokens until each worker has issued at least one token. Returns the number of tokens."""
    workers = []
    deadline = time.monotonic() + servers.PATIENCE
    while len(set(workers)) < WORKERS:
        assert time.monotonic() < deadline
        status, _, worker = request(port, "POST", ISSUE_URL, token)
        assert status == 201
        workers.append(worker)
    return len(workers)


def query(port: int, expression: str) -> list[dict[str, Any]]:
    """Return the result of a query to Prometheus."""
    status, body, _ = request(port, "GET", f"/api/v1/query?query={quote(expression)}")
    result: list[dict[str, Any]] = json.loads(body)["data"]["result"] if status == 200 else []
    return result


class TestSeveralWorkers:
    def test_scrape_of_several_workers_returns_the_sum_of_their_counts(self, issuer, initial_keys, access_token):
        issued = use_all_workers(issuer, access_token.token)

        for _ in range(WORKERS):  # Repeat the scrape, because any worker may answer.
            scraped = Scraped(request(issuer, "GET", METRICS)[1].decode())
            assert scraped("instaccess_tokens_issued_total") == issued
            assert scraped("instaccess_issue_stage_duration_seconds_count", stage="audit") == issued

    def test_scrape_of_several_workers_contains_the_measurements_of_the_database(self, issuer, initial_keys):
        # Repeat the scrape, because a busy machine might not read the database in time for the first scrape.
        servers.wait_until(
            lambda: Scraped(request(issuer, "GET", METRICS)[1].decode()),
            lambda scraped: scraped("instaccess_keys", use="sig", status="current") == 1,
        )

    def test_promtool_finds_no_problem_in_the_metrics_of_several_workers(self, issuer, initial_keys, access_token):
        use_all_workers(issuer, access_token.token)
        request(issuer, "POST", ISSUE_URL)

        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=request(issuer, "GET", METRICS)[1],
            capture_output=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


class TestARealPrometheus:
    def test_prometheus_reads_the_metrics_and_evaluates_the_alerts(
        self, issuer, start, initial_keys, access_token, tmp_path
    ):
        issued = use_all_workers(issuer, access_token.token)
        folder, port = tmp_path / "prometheus", servers.free_port()
        shutil.copytree(ROOT / "examples" / "prometheus", folder)
        config = folder / "prometheus.yml"
        text = config.read_text().replace("192.0.2.21:8080", f"{servers.HOST}:{issuer}")
        config.write_text(text.replace("_interval: 30s", "_interval: 5s"))
        address = f"--web.listen-address={servers.HOST}:{port}"
        prometheus = shutil.which("prometheus") or "prometheus"
        start([prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data", address], port, cwd=folder)

        expression = 'instaccess_tokens_issued_total{job="instaccess-issuer"}'
        [found] = servers.wait_until(lambda: query(port, expression), lambda result: len(result) > 0)
        assert float(found["value"][1]) == issued
        [up] = query(port, f'up{{instance="{servers.HOST}:{issuer}"}}')
        assert up["value"][1] == "1"

        rules = servers.wait_until(
            lambda: json.loads(request(port, "GET", "/api/v1/rules")[1])["data"]["groups"][0]["rules"],
            lambda rules: all(rule["health"] != "unknown" for rule in rules),
        )
        assert {rule["health"] for rule in rules} == {"ok"}
        assert os.listdir(folder / "data")
