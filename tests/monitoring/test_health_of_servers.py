"""Tests of the health of a real server process whose database and Redis stop answering."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from tests.monitoring.helpers import LIVE, READY, probe, problems
from tests.support import servers
from tests.support.caches import DJANGO_REDIS, DJANGOS, on_redis
from tests.support.paths import ROOT
from tests.support.processes import environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def database() -> Iterator[servers.WireTap]:
    """Forward connections to the database server. A test can make the forwarder silent."""
    tap = servers.WireTap(int(os.environ.get("PGPORT", "5432")))
    yield tap
    tap.close()


@pytest.fixture
def silent_redis() -> Iterator[int]:
    """Return the port of a socket that accepts connections and never answers."""
    with socket.create_server((servers.HOST, 0), backlog=100) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def start(database: servers.WireTap, silent_redis: int, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Return a function that starts the test project with all roles, and returns its port."""
    running = []

    def start_(**instaccess: Any) -> int:
        port = servers.free_port()
        env = {
            **environment(),
            "DJANGO_SETTINGS_MODULE": "tests.support.served_settings",
            "PGHOST": servers.HOST,
            "PGPORT": str(database.port),
            "REDIS_URL": f"redis://{servers.HOST}:{silent_redis}/9",
            "CACHE_PREFIX": str(uuid.uuid4()),
            "INSTACCESS_SETTINGS": json.dumps(instaccess),
        }
        options = ["--workers", "1", "--worker-class", "gthread", "--threads", "4"]
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi", "--bind", f"{servers.HOST}:{port}", *options]
        running.append(servers.Process(command, port=port, log=tmp_path / "server.log", env=env, cwd=ROOT))
        return port

    yield start_
    for process in running:
        process.kill()


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    client = http.client.HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
    try:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, json.loads(response.read())
    finally:
        client.close()


def wait_for(port: int, path: str, status: int) -> dict[str, Any]:
    """Repeat a probe until the response has the given status. Returns the JSON of this response."""
    return servers.wait_until(lambda: ask(port, path), lambda answer: answer[0] == status)[1]


@pytest.mark.postgresql
class TestADatabaseAndARedisThatNeverAnswer:
    def test_o20_server_answers_probes_during_an_outage_and_is_ready_when_the_database_recovers(
        self, start, database, initial_keys, tmp_path
    ):
        database.may_answer = lambda sent: False
        port = start()

        assert ask(port, LIVE) == (200, {"status": "live"})
        # Neither the database nor Redis answers, so each probe ends only at its time limit.
        for _ in range(3):
            status, body = ask(port, READY)
            assert status == 503
            assert set(body["roles"].values()) == {"not ready"}
            assert problems(body).pop("cache") == "warning"
            assert set(problems(body)) == set(body["checks"])

        database.may_answer = lambda sent: True
        # The database answers again, but Redis doesn't. The outage of Redis causes only a warning.
        assert problems(wait_for(port, READY, 200)) == {"cache": "warning"}
        assert "Traceback" not in (tmp_path / "server.log").read_text()
        assert "internal/health" not in (tmp_path / "server.log").read_text()

    def test_o20_gateway_is_ready_in_an_outage_of_the_database_while_its_keys_and_deny_list_are_usable(
        self, start, database, initial_keys
    ):
        port = start(KEY_CACHE_SECONDS=1, DENY_LIST_SECONDS=1, MAX_STALENESS=3600)
        wait_for(port, READY, 200)

        database.may_answer = lambda sent: False
        body = wait_for(port, READY, 503)

        assert body["roles"]["issuer"] == "not ready"
        # On a busy machine, a probe can reach its time limit before the other checks end, and answers 503.
        servers.wait_until(
            lambda: ask(port, f"{READY}?role=gateway"),
            lambda answer: (answer[0], answer[1]["checks"]["deny_list"]["status"]) == (200, "warning"),
        )

    def test_o20_gateway_is_not_ready_if_the_database_is_unavailable_for_longer_than_max_staleness(
        self, start, database, initial_keys
    ):
        port = start(KEY_CACHE_SECONDS=1, DENY_LIST_SECONDS=1, MAX_STALENESS=2)
        wait_for(port, f"{READY}?role=gateway", 200)

        database.may_answer = lambda sent: False
        body = wait_for(port, f"{READY}?role=gateway", 503)
        assert "error" in problems(body).values()

        database.may_answer = lambda sent: True
        wait_for(port, f"{READY}?role=gateway", 200)


@pytest.mark.services
@pytest.mark.parametrize("backend", [DJANGOS, DJANGO_REDIS], ids=["django", "django-redis"])
class TestRedisUnavailable:
    def test_o2_issuer_is_ready_with_a_warning_while_the_redis_server_is_unavailable(self, backend, initial_keys):
        with override_settings(CACHES=on_redis(backend, f"redis://{servers.HOST}:{servers.free_port()}/9")):
            status, body = probe()

        assert (status, problems(body)) == (200, {"cache": "warning"})
        assert "ConnectionError" in body["checks"]["cache"]["detail"]

    @pytest.mark.usefixtures("answer_soon")
    def test_o20_ready_endpoint_reports_a_redis_server_that_never_answers_as_pending(
        self, backend, silent_redis, initial_keys
    ):
        with override_settings(CACHES=on_redis(backend, f"redis://{servers.HOST}:{silent_redis}/9")):
            _, body = probe("issuer")

        assert body["checks"]["cache"]["status"] == "warning"
        assert body["checks"]["cache"]["detail"] == "no answer yet"
