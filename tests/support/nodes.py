"""Two issuers and two gateways behind nginx, with the files in `examples/high-availability`, and clients under load.

Only the addresses in the files are replaced.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from pathlib import Path
from typing import Any

from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from tests.support import servers
from tests.support.answers import unverified_jti
from tests.support.demos import SetUp, manage
from tests.support.paths import ROOT
from tests.support.proxies import (
    ISSUE,
    Answer,
    Change,
    create_access_tokens,
    environment,
    program,
    substitute,
    unchanged,
)

SELF, VERIFY = "/api/v1/users/self", "/internal/gateway/verify"
READY = "/internal/health/ready?role="
SECRET = "0123456789abcdef0123456789abcdef"
EXAMPLE = ROOT / "examples/high-availability"
CLIENTS = 2
"""The number of clients of each kind that send requests at the same time."""


class Node:
    """An issuer, a gateway or a service, with gunicorn's configuration in `examples/high-availability`.

    Args:
        name: the name of the node, for its log.
        role: the role whose readiness the probes check.
        folder: the folder for the log.
        env: the environment variables of the node.
    """

    def __init__(self, name: str, role: str, folder: Path, env: dict[str, str]) -> None:
        self._name, self._role, self._folder, self._env = name, role, folder, env
        self.port = servers.free_port()
        self._count = 0

    def start(self) -> None:
        """Start the server. This method doesn't wait until the node is ready."""
        self._count += 1
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi", "--bind", f"{servers.HOST}:{self.port}"]
        command += ["--config", str(EXAMPLE / "gunicorn.conf.py"), "--log-level", "warning"]
        log = self._folder / f"{self._name}-{self._count}.log"
        self._process = servers.Process(command, port=self.port, log=log, env=self._env, cwd=ROOT)

    def wait_until_ready(self) -> None:
        servers.wait_until(self.readiness, lambda status: status == 200)

    def readiness(self) -> int:
        """Return the HTTP status of a readiness probe, or 0 if the node doesn't answer."""
        return self.ask(f"{READY}{self._role}")

    def ask(self, path: str, token: str | None = None) -> int:
        """Send a request directly to this node. Returns the status, or 0 if the node doesn't answer."""
        try:
            return call(self.port, "GET", path, token).status
        except (OSError, HTTPException):
            return 0

    def reload(self) -> None:
        """Send HUP to gunicorn, and wait until new workers have replaced all workers and the node is ready."""
        old = self._process.workers
        self._process.send_signal(signal.SIGHUP)
        servers.wait_until(lambda: self._process.workers, lambda new: bool(new) and not new & old)
        self.wait_until_ready()

    def stop(self) -> None:
        """Stop the server with TERM, and wait until the server has ended."""
        self._process.stop()

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL, as a power failure would. Wait until the port is free."""
        self._process.kill()
        servers.wait_until(self._refuses_connections, bool)

    def _refuses_connections(self) -> bool:
        try:
            socket.create_connection((servers.HOST, self.port)).close()
        except OSError:
            return True
        return False


def call(port: int, method: str, path: str, token: str | None = None) -> Answer:
    """Send a request over a new connection. Returns the response."""
    connection = HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
    try:
        connection.request(method, path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Load:
    """Clients that send requests until they are stopped.

    Attributes:
        statuses: the number of responses by kind of request and status.
        tokens: all tokens that the clients received.
        failures: a description of each request that got no response, or a status other than 200 and 201.
    """

    def __init__(self, port: int, access_tokens: list[str], token: str) -> None:
        self._port = port
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.tokens: list[str] = []
        self.failures: list[str] = []
        self._stopped = threading.Event()
        kinds: list[Callable[[], Iterator[tuple[str, str]]]] = [
            lambda: ((ISSUE, each) for each in cycle(access_tokens)),
            lambda: cycle([(SELF, token)]),
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(requests(),)) for requests in kinds for _ in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, requests: Iterator[tuple[str, str]]) -> None:
        for path, bearer in requests:
            if self._stopped.is_set():
                return
            try:
                answer = call(self._port, "POST" if path == ISSUE else "GET", path, bearer)
            except (OSError, HTTPException) as error:
                self.failures.append(f"{path}: {type(error).__name__}: {error}")
                continue
            self.statuses[path, answer.status] += 1
            if answer.status == 201:
                self.tokens.append(answer.json["token"])
            elif answer.status != 200:
                self.failures.append(f"{path}: {answer.status} {answer.body.decode()}")

    def wait_for_more(self, count: int = 20) -> None:
        """Wait until `count` more requests of each kind have succeeded."""
        target = {kind: self.statuses[kind] + count for kind in ((ISSUE, 201), (SELF, 200))}
        servers.wait_until(lambda: all(self.statuses[kind] >= target[kind] for kind in target), bool)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


class Nodes:
    """Two issuers, two gateways and one service, and nginx.

    The gateways read the private encryption key from a file. They read the public signing keys and the revocations
    from the issuers, through the internal listener of nginx.

    Attributes:
        issuers, gateways, service: the nodes.
        port: the public port of nginx.
        folder: the folder with the database and the logs. The user of nginx's workers can enter this folder.
    """

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        self.folder = set_up.copy_to(folder)
        self._base_env = environment(folder)
        self.access_tokens = create_access_tokens(self._base_env)["ada"]
        self.port, self.internal_port = servers.free_port(), servers.free_port()
        env = self.env(SERVICE_SECRETS=[SECRET], THROTTLE_LIMIT=None, TRUSTED_PROXIES=1)
        self.issuers = [Node(f"issuer-{number}", "issuer", folder, env) for number in (1, 2)]
        self.service = Node("service", "service", folder, env)
        self._key_file = self._export_decryption_key()
        env = self.env(**self.gateway_settings(f"http://{servers.HOST}:{self.internal_port}/internal/services"))
        self.gateways = [Node(f"gateway-{number}", "gateway", folder, env) for number in (1, 2)]
        self._started: list[Node] = []

    def env(self, **instaccess: Any) -> dict[str, str]:
        """Return the environment variables of a node with these values of the setting INSTACCESS."""
        return self._base_env | {"INSTACCESS_SETTINGS": json.dumps(instaccess)}

    def gateway_settings(self, base_url: str) -> dict[str, Any]:
        """Return the settings of a gateway that reads the JWKS and the revocations below `base_url`."""
        return {
            "DECRYPTION_KEYS": [str(self._key_file)],
            "VERIFICATION_KEYS": f"{base_url}/jwks",
            "DENY_LIST": f"{base_url}/revocations",
            "SERVICE_SECRETS": [SECRET],
            "ALLOW_HTTP_URLS": True,
        }

    def _export_decryption_key(self) -> Path:
        [kid] = [
            key["kid"] for key in json.loads(self.manage("instaccess_keys", "list", "--json")) if key["use"] == "enc"
        ]
        path = self.folder / "gateway.pem"
        path.write_text(self.manage("instaccess_keys", "export", "--kid", kid, "--private", "--yes"))
        return path

    def manage(self, *args: str) -> str:
        return manage(*args, env=self._base_env)

    def start(self) -> None:
        """Start nginx and all nodes, and wait until all nodes are ready."""
        self._nginx = self._start_nginx("nginx", self.port, self.internal_port, unchanged)
        # Start the gateways after the issuers, because a gateway reads the JWKS from an issuer.
        for nodes in ([*self.issuers, self.service], self.gateways):
            for node in nodes:
                node.start()
                self._started.append(node)
            for node in nodes:
                node.wait_until_ready()

    @contextmanager
    def another_nginx(self, change: Change) -> Iterator[int]:
        """Run another nginx in front of the nodes. Yields its public port.

        Args:
            change: a function that edits the configuration of nginx, as an operator would.
        """
        port = servers.free_port()
        process = self._start_nginx(f"nginx-{port}", port, servers.free_port(), change)
        try:
            yield port
        finally:
            process.kill()

    def _start_nginx(self, name: str, port: int, internal_port: int, change: Change) -> servers.Process:
        prefix = self.folder / name
        prefix.mkdir()
        (prefix / "upstreams.conf").write_text(self._upstreams(internal_port))
        text = (ROOT / "examples/nginx/nginx.conf").read_text()
        text = substitute(text, "listen 127.0.0.1:8080;", f"listen {servers.HOST}:{port};")
        # Replace the three upstream blocks as the README of the example describes.
        text, count = re.subn(r"    upstream \w+ \{\n.*?\n    \}\n", "", text, flags=re.DOTALL)
        assert count == 3
        text = substitute(text, "\nhttp {\n", "\nhttp {\n    include upstreams.conf;\n")
        (prefix / "nginx.conf").write_text(change(text))
        command = [program("nginx", "run `apt-get install --no-install-recommends nginx-light`")]
        command += ["-p", str(prefix), "-c", str(prefix / "nginx.conf")]
        return servers.Process(command, port=port, log=prefix.with_suffix(".log"), env=self._base_env, cwd=ROOT)

    def _upstreams(self, internal_port: int) -> str:
        """Return the example's upstream blocks with the addresses of the nodes."""
        text = (EXAMPLE / "upstreams.conf").read_text()
        text = substitute(text, "listen 127.0.0.1:8081;", f"listen {servers.HOST}:{internal_port};")
        for name, nodes in (("gateway", self.gateways), ("issuer", self.issuers), ("service", [self.service])):
            lines = "".join(f"    server {servers.HOST}:{node.port} max_fails=0;\n" for node in nodes)
            block = rf"(upstream {name} {{\n)(?:    server 127\.0\.0\.1:\d+ max_fails=0;\n){{2}}"
            text, count = re.subn(block, rf"\1{lines}", text)
            assert count == 1
        return text

    def issue(self) -> str:
        """Request a token through nginx. Returns the token."""
        answer = self.request_token()
        assert answer.status == 201, answer
        token: str = answer.json["token"]
        return token

    def request_token(self, port: int | None = None) -> Answer:
        """Request a token through nginx, or through another nginx on `port`. Returns the response."""
        return call(self.port if port is None else port, "POST", ISSUE, self.access_tokens[0])

    def token_ids(self, tokens: Iterable[str]) -> set[str]:
        """Decrypt tokens with the key of the gateways. Returns the token ids."""
        key = JWK.from_pem(self._key_file.read_bytes())
        return {unverified_jti(f"Bearer {_decrypt(token, key)}") for token in tokens}

    def recorded_token_ids(self) -> set[str]:
        """Return the token ids of all rows in the audit log."""
        with closing(sqlite3.connect(self.folder / "demo.sqlite3")) as connection:
            rows = connection.execute("SELECT jti FROM instaccess_issuedtoken").fetchall()
        return {str(uuid.UUID(jti)) for (jti,) in rows}

    def use(self, token: str) -> int:
        """Send a token to the service through nginx. Returns the status."""
        return call(self.port, "GET", SELF, token).status

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Let clients send requests until the context ends.

        Waits for successful responses when the context starts, and for further successful responses before it ends.
        """
        load = Load(self.port, self.access_tokens, self.issue())
        try:
            load.wait_for_more()
            yield load
            load.wait_for_more()
        finally:
            load.stop()

    def close(self) -> None:
        for node in self._started:
            node.kill()
        self._nginx.kill()


def _decrypt(token: str, key: JWK) -> str:
    encrypted = JWE()
    encrypted.deserialize(token, key)
    return bytes(encrypted.payload).decode()
