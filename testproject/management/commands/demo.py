"""`manage.py demo`: from an empty folder to a token, and a server to play with."""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import urllib.error
import urllib.request
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

from instaccess import jose, keyring
from instaccess.conf import SCOPE

HOST = "127.0.0.1"
USERNAME = "admin"
PASSWORD_FILE = settings.BASE_DIR / "demo.admin-password"


class Command(BaseCommand):
    help = "Set the demo up (database, keys, admin, OAuth2 application and access token), serve it, issue a token."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--setup-only", action="store_true", help="Print what there is as one JSON object; serve nothing."
        )
        parser.add_argument(
            "--port",
            default=os.environ.get("PORT", "8000"),
            help="Port to serve on (default: the environment variable PORT, or 8000).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            port = int(options["port"])
        except ValueError:
            raise CommandError(f"The port must be a number, not {options['port']!r}: PORT=8001 make demo") from None
        facts = self._set_up(port)
        if options["setup_only"]:
            self.stdout.write(json.dumps(facts))
            return
        self._serve(port, facts)

    def _set_up(self, port: int) -> dict[str, str]:
        call_command("migrate", verbosity=0, interactive=False)
        # stdout belongs to the one JSON object of --setup-only.
        call_command("instaccess_init", stdout=self.stderr)
        password = self._password()
        user, _ = get_user_model().objects.get_or_create(
            username=USERNAME, defaults={"is_staff": True, "is_superuser": True}
        )
        if not user.check_password(password):
            user.set_password(password)
            user.save()
        application, _ = get_application_model().objects.get_or_create(
            name="demo",
            defaults={
                "user": user,
                "client_type": "confidential",
                "authorization_grant_type": "authorization-code",
                "redirect_uris": "https://client.example/callback",
            },
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
            "curl": f"curl -X POST -H 'Authorization: Bearer {text}' {base_url}/api/v1/inst_access_tokens",
        }

    def _password(self) -> str:
        """The demo admin's password: random at the first run, kept beside the database for the next ones."""
        if not PASSWORD_FILE.exists():
            file = os.open(PASSWORD_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(secrets.token_urlsafe(12))
        return str(PASSWORD_FILE.read_text())

    def _serve(self, port: int, facts: dict[str, str]) -> None:
        try:
            server = ThreadedWSGIServer((HOST, port), WSGIRequestHandler)
        except OSError as error:
            raise CommandError(
                f"Nothing can listen on {HOST}:{port} ({error.strerror}): try PORT={port + 1} make demo"
            ) from error
        server.set_app(StaticFilesHandler(get_wsgi_application()))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            self._tell(facts)
            thread.join()
        except KeyboardInterrupt:
            self.stdout.write("\nStopped. Everything is kept in demo.sqlite3; `make demo` goes on from there.")
        finally:
            server.shutdown()
            server.server_close()

    def _tell(self, facts: dict[str, str]) -> None:
        url = facts["base_url"] + "/api/v1/inst_access_tokens"
        request = urllib.request.Request(
            url, method="POST", headers={"Authorization": "Bearer " + facts["access_token"]}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, body = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            raise CommandError(f"POST {url} answered {error.code}: {error.read().decode()}") from error
        signed, _ = jose.decrypt(json.loads(body)["token"], keyring.current().decryption_keys())
        self._headline(f"POST {url} answered {status}")
        self.stdout.write(body)
        self._headline("Inside, decrypted as the gateway does it")
        self.stdout.write(json.dumps(_decoded(signed.split(".")[0])))
        self.stdout.write(json.dumps(_decoded(signed.split(".")[1]), indent=2))
        self._headline("Do it again")
        self.stdout.write(facts["curl"])
        self._headline("Look at the audit and the keys")
        self.stdout.write(f"{facts['base_url']}/admin/")
        self.stdout.write(f"user {facts['admin_username']}, password {facts['admin_password']}")
        self.stdout.write("\nServing until Ctrl-C.")
        self.stdout.flush()

    def _headline(self, text: str) -> None:
        self.stdout.write("\n" + self.style.MIGRATE_HEADING(text))


def _decoded(segment: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
