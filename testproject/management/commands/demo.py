"""`manage.py demo`: from an empty folder to a token, and a server to play with."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess.audit import revocation, rows
from instaccess.conf import SCOPE
from instaccess.keys import keks_for_revocation, ring
from instaccess.tokens import jose

HOST = "127.0.0.1"
USERNAME = "admin"
APPLICATION = "demo"
ENDPOINT = "/api/v1/inst_access_tokens"
PROXY = "http://127.0.0.1:8080"
VERIFY = "/internal/gateway/verify"
PROTECTED = "/api/v1/users/self"
REVOKED_WITHIN = 5
"""Seconds in which a revocation has reached every gateway."""
STOPS_WITHIN = 0.5
"""Seconds after which a signal that did not wake the main thread is acted on all the same."""


class Command(BaseCommand):
    help = "Set the demo up (database, keys, admin, OAuth2 application and access token), serve it, issue a token."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--setup-only", action="store_true", help="Print what there is as one JSON object; serve nothing."
        )
        parser.add_argument(
            "--port",
            default=os.environ.get("PORT") or "8000",
            help="Port to serve on (default: the environment variable PORT, or 8000).",
        )
        parser.add_argument(
            "--nginx", action="store_true", help=f"Put the real nginx before it, on {PROXY}, with examples/nginx."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        port = _port(options["port"])
        # The story is told on stdout, step by step; the log joins in (on stderr) when there is more to say than it.
        logging.disable(logging.WARNING)
        if options["setup_only"]:
            self.stdout.write(json.dumps(self._set_up(port)))
            return
        nginx = _nginx() if options["nginx"] else ""
        # The port first: nothing is made when somebody else has it.
        try:
            server = ThreadedWSGIServer((HOST, port), WSGIRequestHandler)
        except OSError as error:
            raise CommandError(
                f"Nothing can listen on {HOST}:{port} ({error.strerror}): try `PORT={port + 1} make demo`."
            ) from error
        try:
            facts = self._set_up(port)
            with _proxy(nginx, port) if nginx else contextlib.nullcontext():
                self._serve(server, facts, proxied=bool(nginx))
        finally:
            server.server_close()

    def _set_up(self, port: int) -> dict[str, str]:
        settings.DEMO_DIR.mkdir(parents=True, exist_ok=True)
        call_command("migrate", verbosity=0, interactive=False)
        # stdout belongs to the one JSON object of --setup-only.
        call_command("instaccess_init", stdout=self.stderr)
        password = self._password()
        user, _ = get_user_model().objects.get_or_create(username=USERNAME)
        # Whatever a visitor did to it in the admin: what is printed below holds.
        user.is_active = user.is_staff = user.is_superuser = True
        if not user.check_password(password):
            user.set_password(password)
        user.save()
        application = get_application_model().objects.filter(name=APPLICATION).order_by("pk").first()
        if application is None:
            application = get_application_model().objects.create(
                name=APPLICATION,
                user=user,
                client_type="confidential",
                authorization_grant_type="authorization-code",
                redirect_uris="https://client.example/callback",
            )
        text = secrets.token_urlsafe(32)
        get_access_token_model().objects.create(
            user=user,
            application=application,
            token=text,
            scope=SCOPE,
            expires=timezone.now() + timedelta(days=1),
        )
        base_url = f"http://{HOST}:{port}"
        return {
            "base_url": base_url,
            "access_token": text,
            "client_id": application.client_id,
            "admin_username": USERNAME,
            "admin_password": password,
            "curl": f"curl -X POST -H 'Authorization: Bearer {text}' {base_url}{ENDPOINT}",
        }

    def _password(self) -> str:
        """The demo admin's password: random at the first run, kept beside the database for the next ones."""
        path = settings.DEMO_DIR / "demo.admin-password"
        if not path.exists():
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(secrets.token_urlsafe(12))
        return str(path.read_text())

    def _serve(self, server: ThreadedWSGIServer, facts: dict[str, str], *, proxied: bool) -> None:
        # A shell that starts this in the background has it ignore SIGINT; `kill` and `docker stop` send SIGTERM.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server.set_app(StaticFilesHandler(get_wsgi_application()))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            self._tell(facts, proxied=proxied)
            # Before anybody is told to press Ctrl-C: this takes a lock, and KeyboardInterrupt would leave it taken.
            logging.disable(logging.NOTSET)
            self.stdout.write("\nServing until Ctrl-C. The log follows.")
            self.stdout.flush()
            # Not one join() for ever: Python acts on a signal when the main thread is back from what it waits in, and
            # one that came just before it went there, or that the system gave to another thread, doesn't wake it.
            while thread.is_alive():
                thread.join(timeout=STOPS_WITHIN)
        except KeyboardInterrupt:
            self.stdout.write(
                f"\nStopped. Everything is kept in {settings.DEMO_DIR}; `make demo` goes on from there."
            )
        finally:
            server.shutdown()

    def _tell(self, facts: dict[str, str], *, proxied: bool) -> None:
        base_url = facts["base_url"]
        self._headline("A client with an OAuth2 access token of the right scope asks for an InstAccess token")
        self.stdout.write(f"POST {base_url}{ENDPOINT}\nAuthorization: Bearer {facts['access_token']}")
        status, body = _post(base_url + ENDPOINT, facts["access_token"])
        self._headline(f"The answer, {status}: the token is encrypted, the client can't read it")
        self.stdout.write(body)
        token = json.loads(body)["token"]
        signed, _ = jose.decrypt(token, ring.current_ring().decryption_keys())
        self._headline("Opened, as the gateway does it: encrypted for the gateway's key …")
        self.stdout.write(json.dumps(_decoded(token.split(".")[0])))
        self._headline("… signed by the issuer's key …")
        self.stdout.write(json.dumps(_decoded(signed.split(".")[0])))
        self._headline("… these claims")
        self.stdout.write(json.dumps(_decoded(signed.split(".")[1]), indent=2))
        self._call_and_revoke(base_url, token, str(_decoded(signed.split(".")[1])["jti"]), proxied=proxied)
        self._headline("The audit tells who got it; the keys are there, too")
        self.stdout.write(f"{base_url}/admin/   user {facts['admin_username']}, password {facts['admin_password']}")
        self._headline("Do it again, in another terminal")
        self.stdout.write(facts["curl"])

    def _call_and_revoke(self, base_url: str, token: str, jti: str, *, proxied: bool) -> None:
        url = PROXY + PROTECTED if proxied else base_url + VERIFY
        status, authorization, body = _get(url, f"Bearer {token}")
        if proxied:
            self._headline(
                f"nginx has the gateway open it, and the service believes what is inside, GET {url}: {status}"
            )
        else:
            self._headline(f"A reverse proxy asks the gateway about it, GET {VERIFY}: {status}, and goes on with")
            self.stdout.write(f"Authorization: {authorization[:40]}…")
            status, _, body = _get(base_url + PROTECTED, authorization)
            self._headline(f"The service believes the signed token, GET {PROTECTED}: {status}")
        self.stdout.write(body)
        revocation.revoke(
            rows.live_tokens().filter(jti=jti), keks=keks_for_revocation(), reason="the demo's laptop was stolen"
        )
        deadline = time.monotonic() + REVOKED_WITHIN
        while (answer := _get(url, f"Bearer {token}"))[0] != 401 and time.monotonic() < deadline:
            time.sleep(0.1)
        self._headline(f"Revoked in the audit, and the gateway refuses it, {answer[0]}")
        self.stdout.write(answer[2])

    def _headline(self, text: str) -> None:
        self.stdout.write("\n" + self.style.MIGRATE_HEADING(text))


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise CommandError(f"The port must be a number from 1 to 65535, not {text!r}: try `PORT=8001 make demo`.")
    return port


def _nginx() -> str:
    path = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        raise CommandError("nginx is not installed: `apt-get install --no-install-recommends nginx-light`.")
    return path


@contextlib.contextmanager
def _proxy(nginx: str, port: int) -> Iterator[None]:
    """nginx with the example configuration, asking this server's port."""
    prefix = settings.DEMO_DIR.absolute() / "demo.nginx"
    prefix.mkdir(exist_ok=True)
    example = (settings.BASE_DIR / "examples/nginx/nginx.conf").read_text()
    (prefix / "nginx.conf").write_text(example.replace("server 127.0.0.1:8000;", f"server {HOST}:{port};"))
    command = [nginx, "-p", str(prefix), "-c", str(prefix / "nginx.conf")]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  (our own file)
    try:
        address = urllib.parse.urlsplit(PROXY)
        while True:
            with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=1):
                break
            time.sleep(0.05)
            if process.poll() is not None:
                raise CommandError(f"nginx has not started: does somebody else listen on {PROXY}?")
        if process.poll() is not None:
            raise CommandError(f"nginx has not started: does somebody else listen on {PROXY}?")
        yield
    finally:
        process.terminate()
        process.wait()


def _post(url: str, access_token: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method="POST", headers={"Authorization": f"Bearer {access_token}"})
    # Not through a proxy that the environment may name: it knows another 127.0.0.1.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        raise CommandError(f"POST {url} answered {error.code}: {error.read().decode()}") from error


def _get(url: str, authorization: str) -> tuple[int, str, str]:
    """Status, Authorization header and body of an answer."""
    request = urllib.request.Request(url, headers={"Authorization": authorization})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.headers.get("Authorization", ""), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", error.read().decode()


def _decoded(segment: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
