"""Tests of case O18: a Redis server is killed, or never answers, while a server issues tokens."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.outages.conftest import documented_cache
from tests.support import servers
from tests.support.issuers import Issuer, issuer
from tests.support.processes import environment

pytestmark = [pytest.mark.postgresql, pytest.mark.services, pytest.mark.django_db(transaction=True)]

UNAVAILABLE = "requests are not throttled, because the cache 'default' is unavailable"
FULL = "600.0"
"""The value of the header `X-Rate-Limit-Remaining` if the request was not counted."""


class Redis:
    """A Redis server that a test starts, kills and suspends."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = servers.free_port(), folder
        self.start()

    def start(self) -> None:
        options = {"port": self.port, "bind": servers.HOST, "save": "", "appendonly": "no", "dir": self._folder}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [shutil.which("redis-server") or "redis-server", *arguments]
        log = self._folder / "redis.log"
        self.process = servers.Process(command, port=self.port, log=log, env=dict(os.environ), cwd=self._folder)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    redis = Redis(tmp_path)
    yield redis
    redis.process.kill()


@pytest.fixture
def server(redis: Redis, initial_keys: Any, tmp_path: Path) -> Iterator[Issuer]:
    cache = documented_cache() | {
        "LOCATION": f"redis://{servers.HOST}:{redis.port}/0",
        "KEY_PREFIX": str(uuid.uuid4()),
    }
    with issuer(tmp_path, environment(), cache=cache) as server:
        yield server


FAILURES: dict[str, tuple[Callable[[Redis], None], Callable[[Redis], None]]] = {
    "killed": (lambda redis: redis.process.kill(), lambda redis: redis.start()),
    "suspended": (lambda redis: redis.process.suspend(), lambda redis: redis.process.resume()),
}


@pytest.mark.parametrize(("fail", "recover"), FAILURES.values(), ids=FAILURES)
class TestAnUnavailableRedis:
    def test_o18_server_issues_tokens_while_redis_is_unavailable_and_throttles_after_the_recovery(
        self, redis, server, make_access_token, fail, recover
    ):
        # On a busy machine, Redis may answer later than the documented time limit, and the request isn't counted. Use
        # a new access token for each request, because Redis may have counted the request nevertheless.
        counted = servers.wait_until(
            lambda: server.issue(make_access_token()), lambda answer: answer.headers["X-Rate-Limit-Remaining"] != FULL
        )
        assert (counted.status, counted.headers["X-Rate-Limit-Remaining"]) == (201, "400.0")

        fail(redis)
        access_token = make_access_token()
        answers = [server.issue(access_token) for _ in range(10)]

        assert {answer.status for answer in answers} == {201}
        assert {answer.headers["X-Rate-Limit-Remaining"] for answer in answers} == {FULL}
        assert server.ask_gateway(counted.body["token"]) == 204
        # On a busy machine, the first probe can exceed its time limit.
        health = servers.wait_until(lambda: server.health("issuer"), lambda health: health.status == 200)
        assert health.body["checks"]["cache"]["status"] == "warning"
        assert UNAVAILABLE in server.log()
        assert server.lines_per_minute(UNAVAILABLE) <= 1
        assert "Traceback" not in server.log()

        recover(redis)
        access_token = make_access_token()
        answer = servers.wait_until(
            lambda: server.issue(access_token), lambda answer: answer.headers["X-Rate-Limit-Remaining"] != FULL
        )
        assert answer.status == 201
        assert 429 in [server.issue(access_token).status for _ in range(10)]
