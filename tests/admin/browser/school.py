"""Sample data of a fictitious school for the screenshots, and a server for the test project outside pytest."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

USERNAME, PASSWORD = "ada", "correct horse battery staple"
HOST = "127.0.0.1"


def set_up(folder: Path, *, rows: int, theme: Sequence[str] = (), language: str = "en") -> None:
    """Set up Django with a new SQLite database in `folder` and generate sample data.

    `theme` contains the apps of a theme of the admin, which must precede the admin in INSTALLED_APPS. If there is no
    theme, the server sends the content security policy of the tests. `language` is the language code of the pages.

    The database contains the keys of a deployment that was installed almost three months ago, `rows` issued tokens,
    two revoked tokens of a lost laptop, and refusals of forged tokens. One key is revoked, and one key has just
    become current.
    """
    os.environ |= {
        "INSTACCESS_DATABASE": "sqlite",
        "SQLITE_NAME": str(folder / "db.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
        "INSTACCESS_SETTINGS": json.dumps({"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}),
    }
    import django

    from testproject import settings as module

    module.INSTALLED_APPS = [*theme, *module.INSTALLED_APPS]
    module.LANGUAGE_CODE = language
    django.setup()
    logging.disable(logging.WARNING)
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.utils import timezone

    from instaccess.audit import revocation
    from instaccess.audit import rows as audit_rows
    from instaccess.keys import keks_for_revocation, lifecycle, provision
    from instaccess.models import Key, RefusalCount

    settings.DEBUG = False  # If DEBUG were True, Django would keep every query in memory.
    # Use a fast hasher. With Django's slow hasher, hashing ten client secrets would take longer than inserting 20,000
    # rows.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    if not theme:
        settings.MIDDLEWARE = ["tests.admin.browser.csp.ContentSecurityPolicy", *settings.MIDDLEWARE]
    call_command("migrate", verbosity=0)
    now = timezone.now()

    def ago(days: float) -> datetime:
        return now - timedelta(days=days)

    provision.init(now=ago(85))
    for use in Key.Use:
        lifecycle.rotate(use, now=ago(54))
        lifecycle.rotate(use, now=ago(23))
    lifecycle.revoke(Key.objects.get(use="sig", status="current").kid, reason="backup left on a train", now=ago(9))
    lifecycle.rotate(Key.Use.ENCRYPTION, force=True, now=now - timedelta(minutes=25))
    for use in Key.Use:
        # Simulate the daily cron job, which erases private keys after their tokens have expired.
        lifecycle.rotate(use, now=now)
    ada = get_user_model().objects.create_superuser(USERNAME, password=PASSWORD)
    with open(os.devnull, "w") as nowhere:
        call_command("instaccess_tokens", "seed", "--rows", str(rows), "--days", "30", "--seed", "6", stdout=nowhere)
    lost = [token.pk for token in audit_rows.revocable_tokens().order_by("-issued_at")[1:4:2]]
    revocation.revoke(
        audit_rows.revocable_tokens().filter(pk__in=lost), keks=keks_for_revocation(), reason="laptop lost", by=ada
    )
    make_token(real_user=ada)
    RefusalCount.objects.update_or_create(
        hour=now.replace(minute=0, second=0, microsecond=0),
        role=RefusalCount.Role.GATEWAY,
        reason="bad_signature",
        client_id="",
        user_uuid="",
        defaults={"count": 143},
    )


def make_token(*, real_user: Any = None) -> str:
    """Issue and return a token. If `real_user` is given, this user masquerades as the subject."""
    from django.contrib.auth import get_user_model
    from oauth2_provider.models import get_application_model

    from instaccess.issuer import issuing

    _, text = issuing.issue(
        user=get_user_model().objects.get(username="user-007"),
        origin=issuing.Origin("canvas.example.edu", "192.0.2.7", "canvasapi/3.6"),
        now=time.time(),
        real_user=real_user,
        application=get_application_model().objects.get(name="Gradebook sync"),
    )
    return text


@contextmanager
def served() -> Iterator[str]:
    """Serve the test project and its static files until the context ends. Yields the base URL."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadedWSGIServer((HOST, 0), Quiet)
    server.daemon_threads = True
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
