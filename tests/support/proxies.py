"""The test project behind a real nginx or Caddy with the example configurations.

Only addresses in the configurations are replaced. Wire taps record the traffic to the gateway and to the service.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.demos import SetUp, manage
from tests.support.paths import ROOT

ISSUE = "/api/v1/inst_access_tokens"
USERS = ("ada", "boole", "curry")
"""The users of the tests. Each token request uses another access token, because the throttle counts per token."""


# `manage.py shell` runs this script, which creates users and access tokens in the database of the site.
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
    made[name] = [secrets.token_urlsafe(32) for _ in range(20)]
    for text in made[name]:
        get_access_token_model().objects.create(
            user=user, application=get_application_model().objects.get(), token=text, scope=SCOPE,
            expires=timezone.now() + timedelta(days=1),
        )
print(json.dumps(made))
"""


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """Two processes of the test project on one database: the gateway, and the service with the issuer.

    A wire tap is in front of each process.
    """

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        inherited = {n: v for n, v in os.environ.items() if n not in {"INSTACCESS_DATABASE", "PORT", "SQLITE_NAME"}}
        self.env = (
            inherited
            | {
                "DEMO_DIR": str(folder),
                "DJANGO_SETTINGS_MODULE": "testproject.settings",
            }
            | self._settings()
        )
        self.folder = set_up.copy_to(folder)
        self.access_tokens: dict[str, list[str]] = json.loads(
            self.manage("shell", "--no-imports", "-c", _MAKE_USERS).splitlines()[-1]
        )
        self.gateway_process = self.start_server("gateway")
        self.service_process = self.start_server("service")
        self.gateway = servers.WireTap(self.gateway_process.port)
        self.service = servers.WireTap(self.service_process.port)

    @staticmethod
    def _settings(**instaccess: Any) -> dict[str, str]:
        return {"INSTACCESS_SETTINGS": json.dumps({"TRUSTED_PROXIES": 1, **instaccess})}

    def start_server(self, name: str, **instaccess: Any) -> servers.Process:
        """Start a process of the test project that has loaded its keys.

        Keyword arguments change the INSTACCESS settings.
        """
        port = servers.free_port()
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi", "--bind", f"{servers.HOST}:{port}"]
        command += ["--threads", "8", "--keep-alive", "30", "--limit-request-field_size", "16380"]
        env = self.env | self._settings(**instaccess)
        process = servers.Process(command, port=port, log=self.folder / f"{name}.log", env=env, cwd=ROOT)
        # gunicorn accepts connections before its worker has imported Django. On a busy machine, the import can take
        # longer than a proxy waits for the gateway.
        connection = HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
        connection.request("GET", "/internal/services/jwks")
        connection.getresponse().read()
        connection.close()
        return process

    def manage(self, *args: str) -> str:
        return manage(*args, env=self.env)

    def restart_gateway(self) -> None:
        """Start a new gateway process and connect the wire tap to its port."""
        old, self.gateway_process = self.gateway_process, self.start_server("gateway")
        old.kill()
        self.gateway.retarget(self.gateway_process.port)

    def close(self) -> None:
        self.gateway.close()
        self.service.close()
        self.gateway_process.kill()
        self.service_process.kill()


class Proxy:
    """The public listener of a proxy."""

    def __init__(self, name: str, port: int, site: Site) -> None:
        self.name, self.port, self.site = name, port, site
        self._tokens: dict[str, str] = {}

    def call(self, method: str, path: str, token: str | None = None, *, body: bytes | None = None, **headers: str):
        """Send a request. `_` in the name of a header is replaced by `-`."""
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
        """Write the lines of a request to the socket without changes."""
        with socket.create_connection((servers.HOST, self.port), timeout=servers.PATIENCE) as stream:
            stream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            response = HTTPResponse(stream)
            response.begin()
            return Answer(response.status, response.headers, response.read())

    def issue(self, user: str) -> str:
        answer = self.call("POST", ISSUE, self.site.access_tokens[user].pop())
        assert answer.status == 201, answer
        token: str = answer.json["token"]
        return token

    def token(self, user: str = "ada") -> str:
        """Return an InstAccess token of this user. The token is requested once."""
        if user not in self._tokens:
            self._tokens[user] = self.issue(user)
        return self._tokens[user]


def program(name: str, package: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        pytest.fail(f"{name} is not installed: `apt-get install --no-install-recommends {package}`", pytrace=False)
    return path


def substitute(text: str, old: str, new: str, times: int) -> str:
    assert text.count(old) == times, f"the example contains {old!r} {text.count(old)} times"
    return text.replace(old, new)


def start_nginx(site: Site, port: int, server: servers.Process | None = None) -> servers.Process:
    """Start nginx on this port. `server` replaces the gateway, the service and the issuer of the site."""
    text = (ROOT / "examples/nginx/nginx.conf").read_text()
    text = substitute(text, "listen 127.0.0.1:8080;", f"listen {servers.HOST}:{port};", 1)
    upstreams = {"gateway": site.gateway, "service": site.service, "issuer": site.service_process}
    for name, target in upstreams.items():
        block = f"upstream {name} {{\n        server "
        text = substitute(text, f"{block}127.0.0.1:8000;", f"{block}{servers.HOST}:{(server or target).port};", 1)
    prefix = site.folder / (f"nginx-{port}" if server else "nginx")
    prefix.mkdir(exist_ok=True)
    (prefix / "nginx.conf").write_text(text)
    command = [program("nginx", "nginx-light"), "-p", str(prefix), "-c", str(prefix / "nginx.conf")]
    return servers.Process(command, port=port, log=prefix.with_suffix(".log"), env=site.env, cwd=ROOT)


def start_caddy(site: Site, port: int) -> servers.Process:
    env = site.env | {
        "HOME": str(site.folder),
        "XDG_CONFIG_HOME": str(site.folder / "caddy"),
        "XDG_DATA_HOME": str(site.folder / "caddy"),
        "LISTEN_PORT": str(port),
        "GATEWAY": f"{servers.HOST}:{site.gateway.port}",
        "SERVICE": f"{servers.HOST}:{site.service.port}",
        "ISSUER": f"{servers.HOST}:{site.service_process.port}",
    }
    command = [program("caddy", "caddy"), "run", "--config", "examples/caddy/Caddyfile"]
    return servers.Process(command, port=port, log=site.folder / "caddy.log", env=env, cwd=ROOT)


class ScriptedGateway:
    """A context manager that replaces the gateway by a server with one fixed answer."""

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
