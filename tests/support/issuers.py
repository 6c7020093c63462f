"""A server process with all roles, and clients that request tokens while the database or Redis fails."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ISSUE_URL
from tests.support import servers
from tests.support.paths import ROOT

MINUTE = 60
# Python prints the traceback of a cause, a line that ends with `exception:` or `occurred:`, and then the traceback of
# the error. Don't count the second traceback.
_TRACEBACK = re.compile(r"(?<!exception:\n\n)(?<!occurred:\n\n)Traceback \(most recent call last\)")


class Answer(NamedTuple):
    """A response of the server. Status 0 means that the server closed the connection without a response."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Issuer:
    """A running gunicorn server with all roles of the test project, and the file of its log."""

    def __init__(self, port: int, log: Path) -> None:
        self._port, self._log, self._started_at = port, log, time.monotonic()

    def request(self, method: str, path: str, bearer: str = "") -> Answer:
        client = http.client.HTTPConnection(servers.HOST, self._port, timeout=servers.PATIENCE)
        try:
            client.request(method, path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
            response = client.getresponse()
            body = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return Answer(response.status, response.headers, json.loads(body) if is_json else None)
        except (http.client.HTTPException, ConnectionError):
            return Answer(0, {}, None)
        finally:
            client.close()

    def issue(self, access_token: Any, **parameters: str) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return self.request("POST", f"{ISSUE_URL}?{query}", access_token.token)

    def wait_until_issued(self, access_token: Any) -> Answer:
        """Request tokens until the server returns a token. Returns the response."""
        return servers.wait_until(lambda: self.issue(access_token), lambda answer: answer.status == 201)

    def ask_gateway(self, token: str) -> int:
        return self.request("GET", "/internal/gateway/verify", token).status

    def health(self, role: str) -> Answer:
        return self.request("GET", f"/internal/health/ready?role={role}")

    def log(self) -> str:
        return self._log.read_text()

    def tracebacks_per_minute(self) -> float:
        """Return the average number of tracebacks per minute in the log.

        A traceback and the tracebacks of its causes count as one traceback.
        """
        return len(_TRACEBACK.findall(self.log())) / self._minutes

    def lines_per_minute(self, text: str) -> float:
        """Return how often per minute, on average, the log contains a text."""
        return self.log().count(text) / self._minutes

    @property
    def _minutes(self) -> float:
        """The number of minutes that have begun since the start of the server."""
        return 1 + (time.monotonic() - self._started_at) // MINUTE


@contextmanager
def issuer(
    folder: Path, env: Mapping[str, str], *, database: Any = None, cache: Any = None, **instaccess: Any
) -> Iterator[Issuer]:
    """Run a server with one worker and four threads until the end of the `with` block.

    Args:
        env: additional environment variables, for example the address of the database.
        database: members that replace members of DATABASES["default"].
        cache: the value of CACHES["default"]. If None, the server uses the cache of the test project.
        instaccess: members that replace members of the setting INSTACCESS.
    """
    port, log = servers.free_port(), folder / "server.log"
    values = {"DATABASE": database or {}, "INSTACCESS_SETTINGS": instaccess} | ({"CACHE": cache} if cache else {})
    options = ["--workers", "1", "--worker-class", "gthread", "--threads", "4", "--bind", f"{servers.HOST}:{port}"]
    process = servers.Process(
        [sys.executable, "-m", "gunicorn", "testproject.wsgi", *options],
        port=port,
        log=log,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **env,
            "DJANGO_SETTINGS_MODULE": "tests.support.outage_settings",
            **{name: json.dumps(value) for name, value in values.items()},
        },
        cwd=ROOT,
    )
    try:
        yield Issuer(port, log)
    finally:
        process.kill()


class Clients:
    """Clients in threads that request tokens until the end of the `with` block.

    Attributes:
        statuses: the statuses of all responses.
        jtis: the ids of all tokens that the clients received.
    """

    def __init__(self, server: Issuer, access_token: Any, count: int = 3) -> None:
        self.statuses: list[int] = []
        self.jtis: list[str] = []
        self._server, self._access_token = server, access_token
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        while not self._stopped.is_set():
            answer = self._server.issue(self._access_token, unencrypted="1")
            if answer.status == 201:
                self.jtis.append(read_jti(answer.body["token"]))
            self.statuses.append(answer.status)

    def wait_for_tokens(self, count: int = 20) -> None:
        """Wait until the clients have received `count` more tokens."""
        wanted = len(self.jtis) + count
        servers.wait_until(lambda: len(self.jtis), lambda number: number >= wanted)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def read_jti(signed: str) -> str:
    """Return the id of a signed token."""
    claims = signed.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"])
