"""The command `manage.py demo`, which sets up a demo, serves the demo and issues a token."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
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

from instaccess import audit, keys, tokens
from instaccess.conf import SCOPE
from instaccess.exceptions import InvalidToken

HOST = "127.0.0.1"
USERNAME = "admin"
APPLICATION = "demo"
ENDPOINT = "/api/v1/inst_access_tokens"
PROXY = "http://127.0.0.1:8080"
VERIFY = "/internal/gateway/verify"
PROTECTED = "/api/v1/users/self"
REVOKED_WITHIN = 5
"""The time, in seconds, within which every gateway refuses a revoked token."""
STOPS_WITHIN = 0.5
"""The maximum time, in seconds, after which the main thread handles a signal."""


class Command(BaseCommand):
    help = (
        "Set up the demo (database, keys, admin user, OAuth2 application, access token), serve the demo, and issue a "
        "token."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--setup-only",
            action="store_true",
            help="Set up the demo and print its data as one JSON object, without serving.",
        )
        parser.add_argument(
            "--port",
            default=os.environ.get("PORT") or "8000",
            help="Port to serve on (default: the environment variable PORT, or 8000).",
        )
        parser.add_argument(
            "--nginx", action="store_true", help=f"Run nginx in front of the demo, on {PROXY}, with examples/nginx."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        port = _parse_port(options["port"])
        # Disable logging until all steps of the demo are printed, so that no log line appears between the steps.
        logging.disable(logging.WARNING)
        if options["setup_only"]:
            self.stdout.write(json.dumps(self._set_up(port)))
            return
        nginx = _find_nginx() if options["nginx"] else ""
        # Listen on the port before the setup, so that nothing is set up if another process uses the port.
        try:
            server = ThreadedWSGIServer((HOST, port), WSGIRequestHandler)
        except OSError as error:
            raise CommandError(
                f"The demo can't listen on {HOST}:{port} ({error.strerror}). Run `PORT={port + 1} make demo`."
            ) from error
        try:
            setup = self._set_up(port)
            with _run_nginx(nginx, port) if nginx else contextlib.nullcontext():
                self._serve(server, setup, proxied=bool(nginx))
        finally:
            server.server_close()

    def _set_up(self, port: int) -> dict[str, str]:
        settings.DEMO_DIR.mkdir(parents=True, exist_ok=True)
        call_command("migrate", verbosity=0, interactive=False)
        # Write to stderr, because with --setup-only, stdout must contain only the JSON object.
        call_command("instaccess_init", stdout=self.stderr)
        password = self._password()
        user, _ = get_user_model().objects.get_or_create(username=USERNAME)
        # Undo changes of the demo's user, for example in the admin, so that the printed password works.
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
        access_token = secrets.token_urlsafe(32)
        get_access_token_model().objects.create(
            user=user,
            application=application,
            token=access_token,
            scope=SCOPE,
            expires=timezone.now() + timedelta(days=1),
        )
        base_url = f"http://{HOST}:{port}"
        return {
            "base_url": base_url,
            "access_token": access_token,
            "client_id": application.client_id,
            "admin_username": USERNAME,
            "admin_password": password,
            "curl": f"curl -X POST -H 'Authorization: Bearer {access_token}' {base_url}{ENDPOINT}",
        }

    def _password(self) -> str:
        """Return the admin user's password. The first run generates and stores the password."""
        path = settings.DEMO_DIR / "demo.admin-password"
        if not path.exists():
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(secrets.token_urlsafe(12))
        return str(path.read_text())

    def _serve(self, server: ThreadedWSGIServer, setup: dict[str, str], *, proxied: bool) -> None:
        # Handle SIGINT explicitly, because a shell makes background processes ignore SIGINT. Handle SIGTERM too,
        # because `kill` and `docker stop` send SIGTERM.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server.set_app(StaticFilesHandler(get_wsgi_application()))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            self._show_steps(setup, proxied=proxied)
            # Enable logging before the hint about Ctrl-C is printed. If Ctrl-C interrupted this call, `logging` would
            # stay locked.
            logging.disable(logging.NOTSET)
            self.stdout.write("\nServing. Press Ctrl-C to stop. The log follows.")
            self.stdout.flush()
            # Only the main thread handles signals. Wake the main thread regularly, because a signal does not wake the
            # main thread if the signal arrives in another thread or just before join().
            while thread.is_alive():
                thread.join(timeout=STOPS_WITHIN)
        except KeyboardInterrupt:
            self.stdout.write(
                f"\nStopped. All data is kept in {settings.DEMO_DIR}. The next `make demo` uses the data again."
            )
        finally:
            server.shutdown()

    def _show_steps(self, setup: dict[str, str], *, proxied: bool) -> None:
        base_url = setup["base_url"]
        self._headline("A client requests an InstAccess token with its OAuth2 access token")
        self.stdout.write(f"POST {base_url}{ENDPOINT}\nAuthorization: Bearer {setup['access_token']}")
        status, body = _post(base_url + ENDPOINT, setup["access_token"])
        self._headline(f"The issuer answers {status} with an encrypted token, which the client can't read")
        self.stdout.write(body)
        token = json.loads(body)["token"]
        self._headline("Header of the encrypted token, with the id of the gateway's key")
        self.stdout.write(json.dumps(_decode_segment(token.split(".")[0])))
        try:
            signed, _ = tokens.decrypt(token, keys.current_ring().decryption_keys())
        except InvalidToken:
            self._headline("This demo can't show the signed token, the gateway and the service")
            self.stdout.write(
                "The current encryption key was imported without its private key, so only another gateway can "
                "decrypt the token.\nTo see these steps again, run `python manage.py instaccess_keys generate --use "
                "enc`, and then `python manage.py instaccess_keys activate --kid …` with the id of the new key."
            )
        else:
            self._show_signed_token(signed)
            self._call_and_revoke(base_url, token, str(_decode_segment(signed.split(".")[1])["jti"]), proxied=proxied)
        self._headline("The admin shows the audit log and the keys")
        self.stdout.write(f"{base_url}/admin/   user {setup['admin_username']}, password {setup['admin_password']}")
        self._headline("Request another token in a second terminal")
        self.stdout.write(setup["curl"])
        self._show_next_steps(proxied=proxied)

    def _show_next_steps(self, *, proxied: bool) -> None:
        python = Path(sys.executable)
        # Print the full path of Python if the virtual environment is outside the current folder.
        with contextlib.suppress(ValueError):
            python = python.relative_to(Path.cwd())
        self._headline("Where to look next")
        self.stdout.write(
            '- A full audit log: run this command in a second terminal, and reload "Issued tokens" in the admin.\n'
            f"  {shlex.quote(str(python))} manage.py instaccess_tokens seed --rows 2000 --days 30"
        )
        if not proxied:
            self.stdout.write("- The demo behind nginx: stop this demo, and run `make demo-nginx`.")
        self.stdout.write(
            "- Your own project: docs/tutorial.md leads from an empty folder to a token through nginx.\n"
            "- The documentation: docs/index.md lists all pages. `make docs` builds a site that you can search."
        )

    def _show_signed_token(self, signed: str) -> None:
        header, claims, _ = signed.split(".")
        self._headline("Header of the signed token inside, with the id of the issuer's key")
        self.stdout.write(json.dumps(_decode_segment(header)))
        self._headline("Claims of the signed token")
        self.stdout.write(json.dumps(_decode_segment(claims), indent=2))

    def _call_and_revoke(self, base_url: str, token: str, jti: str, *, proxied: bool) -> None:
        url = PROXY + PROTECTED if proxied else base_url + VERIFY
        status, authorization, body = _get(url, f"Bearer {token}")
        if proxied:
            self._headline(f"nginx asks the gateway, and the service accepts the signed token, GET {url}: {status}")
        else:
            self._headline(f"The gateway answers a reverse proxy with the signed token, GET {VERIFY}: {status}")
            self.stdout.write(f"Authorization: {authorization[:40]}…")
            status, _, body = _get(base_url + PROTECTED, authorization)
            self._headline(f"The service accepts the signed token, GET {PROTECTED}: {status}")
        self.stdout.write(body)
        stolen = audit.live_tokens().filter(jti=jti)
        audit.revoke(stolen, keks=keys.keks_for_revocation(), reason="the laptop of the demo was stolen")
        deadline = time.monotonic() + REVOKED_WITHIN
        while (answer := _get(url, f"Bearer {token}"))[0] != 401 and time.monotonic() < deadline:
            time.sleep(0.1)
        self._headline(f"After the token is revoked, the gateway refuses the token: {answer[0]}")
        self.stdout.write(answer[2])

    def _headline(self, text: str) -> None:
        self.stdout.write("\n" + self.style.MIGRATE_HEADING(text))


def _parse_port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise CommandError(f"The port must be a number from 1 to 65535, not {text!r}. Run `PORT=8001 make demo`.")
    return port


def _find_nginx() -> str:
    path = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        raise CommandError("nginx is not installed. Run `apt-get install --no-install-recommends nginx-light`.")
    return path


@contextlib.contextmanager
def _run_nginx(nginx: str, port: int) -> Iterator[None]:
    """Run nginx with the example configuration, in front of the demo that listens on `port`."""
    prefix = settings.DEMO_DIR.absolute() / "demo.nginx"
    prefix.mkdir(exist_ok=True)
    example = (settings.BASE_DIR / "examples/nginx/nginx.conf").read_text()
    (prefix / "nginx.conf").write_text(example.replace("server 127.0.0.1:8000 ", f"server {HOST}:{port} "))
    command = [nginx, "-p", str(prefix), "-c", str(prefix / "nginx.conf")]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  (arguments are not from a user)
    try:
        address = urllib.parse.urlsplit(PROXY)
        while True:
            with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=1):
                break
            time.sleep(0.05)
            if process.poll() is not None:
                raise CommandError(f"nginx did not start. Check whether another process listens on {PROXY}.")
        if process.poll() is not None:
            raise CommandError(f"nginx did not start. Check whether another process listens on {PROXY}.")
        yield
    finally:
        process.terminate()
        process.wait()


def _post(url: str, access_token: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method="POST", headers={"Authorization": f"Bearer {access_token}"})
    # Ignore the proxy settings in the environment, because a proxy would connect to 127.0.0.1 on its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        raise CommandError(f"POST {url} answered {error.code}: {error.read().decode()}") from error


def _get(url: str, authorization: str) -> tuple[int, str, str]:
    """Send a GET request. Returns the status, the Authorization header and the body of the response."""
    request = urllib.request.Request(url, headers={"Authorization": authorization})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.headers.get("Authorization", ""), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", error.read().decode()


def _decode_segment(segment: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
