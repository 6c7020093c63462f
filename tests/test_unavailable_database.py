"""Tests of a gateway whose database is silent, unreachable, or drops connections, for each kind of server."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from instaccess import audit
from instaccess.conf import conf
from instaccess.issuer import issuing
from instaccess.models import IssuedToken
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.processes import environment, within

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")
ONE_THREAD = "gunicorn testproject.wsgi:application --workers 1 --worker-class sync --bind"
THREADS = "gunicorn testproject.wsgi:application --workers 1 --worker-class gthread --threads 4 --bind"
UVICORN = "uvicorn testproject.asgi:application --workers 1 --log-level warning --host 127.0.0.1 --port"
HYPERCORN = "hypercorn testproject.asgi:application --workers 1 --bind"
# The keys are loaded before the worker is forked, so no thread that loads keys runs in the worker.
PRELOADED = "gunicorn tests.support.preloaded:application --preload --workers 1 --worker-class sync --bind"
SERVERS = {
    "sync": ONE_THREAD,
    "gthread": THREADS,
    "preloaded": PRELOADED,
    "uvicorn": UVICORN,
    "hypercorn": HYPERCORN,
}


@pytest.fixture
def database() -> Iterator[servers.WireTap]:
    """Yield a wire tap that forwards connections to the database server. A test can make the wire tap silent."""
    tap = servers.WireTap(int(os.environ.get("PGPORT", "5432")))
    yield tap
    tap.close()


@pytest.fixture
def start(database: servers.WireTap, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Return a function that starts a gateway, connected to the database by the wire tap, and returns the port."""
    running = []

    def start_(kind: str, **instaccess: Any) -> int:
        port = servers.free_port()
        env = {
            **environment(),
            "DJANGO_SETTINGS_MODULE": "tests.support.persistent_settings",
            "PGHOST": servers.HOST,
            "PGPORT": str(database.port),
            "INSTACCESS_SETTINGS": json.dumps(instaccess),
        }
        address = [str(port)] if kind == "uvicorn" else [f"{servers.HOST}:{port}"]
        command = [sys.executable, "-m", *SERVERS[kind].split(), *address]
        running.append(servers.Process(command, port=port, log=tmp_path / "server.log", env=env, cwd=ROOT))
        return port

    yield start_
    for process in running:
        process.kill()


@pytest.fixture
def issued(initial_keys: Any, user: Any) -> tuple[IssuedToken, str]:
    return issuing.issue(user=user, origin=ORIGIN, now=time.time())


def ask(port: int, token: str) -> int:
    """Send a token to the gateway, and return the status of the response."""
    client = http.client.HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
    try:
        client.request("GET", "/internal/gateway/verify", headers={"Authorization": f"Bearer {token}"})
        return client.getresponse().status
    finally:
        client.close()


def revoke(row: IssuedToken) -> None:
    audit.revoke(audit.revocable_tokens().filter(pk=row.pk), keks=conf.key_encryption_keys, reason="lost")


def statuses(port: int, token: str, *, seconds: float) -> set[int]:
    """Send requests to the gateway for `seconds`, and return the statuses of the responses."""
    found, deadline = set(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.add(ask(port, token))
    return found


@pytest.mark.parametrize("kind", SERVERS)
class TestASilentDatabase:
    """Tests of a database server that stops answering, but accepts connections and queries."""

    def test_g34_gateway_uses_its_keys_and_its_deny_list_while_the_database_is_silent(
        self, start, database, issued, kind
    ):
        row, token = issued
        port = start(kind, KEY_CACHE_SECONDS=1, DENY_LIST_SECONDS=1, MAX_STALENESS=3600)
        assert ask(port, token) == 204

        database.may_answer = lambda sent: False
        # If requests waited for the database, the requests would time out.
        assert statuses(port, token, seconds=8) == {204}

        database.may_answer = lambda sent: True
        revoke(row)
        assert servers.wait_until(lambda: ask(port, token), lambda status: status != 204) == 401

    def test_g34_gateway_answers_503_after_max_staleness_and_204_when_the_silent_database_answers_again(
        self, start, database, issued, kind
    ):
        _, token = issued
        port = start(kind, KEY_CACHE_SECONDS=1, DENY_LIST_SECONDS=1, MAX_STALENESS=2)
        assert ask(port, token) == 204

        database.may_answer = lambda sent: False
        assert servers.wait_until(lambda: ask(port, token), lambda status: status != 204) == 503

        database.may_answer = lambda sent: True
        assert servers.wait_until(lambda: ask(port, token), lambda status: status != 503) == 204


@pytest.mark.parametrize("kind", SERVERS)
class TestAWorkerThatStartsDuringAnOutage:
    def test_g36_gateway_started_during_an_outage_answers_503_until_the_database_is_reachable(
        self, start, database, issued, kind
    ):
        target = database._target
        database.retarget(servers.free_port())
        port = start(kind)
        assert ask(port, issued[1]) == 503

        database.retarget(target)
        assert servers.wait_until(lambda: ask(port, issued[1]), lambda status: status != 503) == 204

    def test_g36_gateway_started_during_an_outage_answers_503_until_the_database_answers(
        self, start, database, issued, kind
    ):
        database.may_answer = lambda sent: False
        port = start(kind)
        assert ask(port, issued[1]) == 503

        database.may_answer = lambda sent: True
        assert servers.wait_until(lambda: ask(port, issued[1]), lambda status: status != 503) == 204


@pytest.mark.parametrize("kind", SERVERS)
class TestADeadConnection:
    def test_g31_a_revocation_takes_effect_within_five_seconds_after_the_database_closed_all_connections(
        self, start, issued, kind
    ):
        row, token = issued
        port = start(kind)
        assert ask(port, token) == 204
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchall()

        revoke(row)

        seen = set()
        assert within(5, lambda: seen.add(ask(port, token)) or 401 in seen)
        assert seen <= {204, 401}

    def test_g31_a_revocation_takes_effect_within_five_seconds_if_open_connections_are_silent(
        self, start, database, issued, kind
    ):
        row, token = issued
        port = start(kind)
        assert ask(port, token) == 204
        # Simulate a firewall that drops the open connections without a message. New connections work.
        dead = database.connections
        database.may_answer = lambda sent: all(sent is not each for each in database._sent[:dead])

        revoke(row)

        seen = set()
        assert within(5, lambda: seen.add(ask(port, token)) or 401 in seen)
        assert seen <= {204, 401}
