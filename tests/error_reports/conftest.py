"""Fixtures: a deployment with every kind of secret, and a function that makes each SQL statement fail."""

from __future__ import annotations

import secrets as random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.cache import caches
from django.db import connection, transaction

from instaccess.conf import conf, key_encryption
from instaccess.gateway import views as gateway_views
from instaccess.keys import provision, ring
from instaccess.models import Key
from tests.support import mailing
from tests.support.error_reports import Collector
from tests.support.failing import FailAt
from tests.support.secrets import Secrets

MOST_STATEMENTS = 300


@pytest.fixture(autouse=True)
def every_secret(monkeypatch: pytest.MonkeyPatch, settings: Any, rsa_pool: Any) -> Secrets:
    """Configure random key-encryption keys, SECRET_KEY and a service secret. Returns a recorder of all secrets."""
    secrets = Secrets(monkeypatch)
    texts = [random.token_urlsafe(32), random.token_urlsafe(32)]
    service_secret = random.token_urlsafe(32)
    settings.SECRET_KEY = random.token_urlsafe(48)
    settings.INSTACCESS = {
        "KEY_ENCRYPTION_KEYS": [texts[0], "SECRET_KEY", texts[1]],
        "SERVICE_SECRETS": [service_secret],
    }
    secrets.add(settings.SECRET_KEY, service_secret, *texts)
    key_encryption.derive_kek.cache_clear()
    key_encryption._hmac_key.cache_clear()
    secrets.add(*(kek.reveal() for kek in conf.key_encryption_keys))
    take = rsa_pool.take

    def take_and_record(*args: Any) -> Any:
        key = take(*args)
        secrets.add(dict(key))
        return key

    monkeypatch.setattr(rsa_pool, "take", take_and_record)
    return secrets


@pytest.fixture
def deployment(every_secret: Secrets, db: None) -> None:
    """Set up a deployment with a current and a future key for each use."""
    provision.init()
    provision.generate(Key.Use.ENCRYPTION)


@pytest.fixture
def superuser(db: None) -> Any:
    return get_user_model().objects.create_superuser("root", password="correct horse battery staple")


@pytest.fixture
def collector(settings: Any) -> Iterator[Collector]:
    settings.ADMINS = mailing.ADMINS
    collector = Collector()
    collector.start()
    yield collector
    collector.stop()


@pytest.fixture
def project(request: pytest.FixtureRequest, settings: Any) -> None:
    """Change the settings of the host project. The parameter is a name in `PROJECTS`."""
    match request.param:
        case "middleware with a query":
            settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.error_reports.middleware.run_query"]
        case "CSRF token in the session":
            settings.CSRF_USE_SESSIONS = True
        case "debug":
            settings.DEBUG = True


PROJECTS = ["middleware with a query", "CSRF token in the session", "debug"]
"""The parameters of the fixture `project`: with these settings, more code can fail, or Django displays more data."""


def clear_caches() -> None:
    """Clear all caches, so that an action runs the same SQL statements each time."""
    ring.clear_cache()
    gateway_views.clear_caches()
    ContentType.objects.clear_cache()
    caches["default"].clear()


@contextmanager
def undone() -> Iterator[None]:
    """Undo all changes to the database when the context ends."""
    atomic = transaction.atomic()
    # Mark the transaction as Django's TestCase does, because the app refuses to issue a token in any other open
    # transaction.
    atomic._from_testcase = True  # type: ignore[attr-defined]
    with atomic:
        yield
        transaction.set_rollback(True)


@pytest.fixture
def find_leaks(
    collector: Collector, every_secret: Secrets, rsa_pool: Any
) -> Callable[[Callable[[], str]], list[str]]:
    """Return a function that makes each SQL statement of an action fail, and returns the secrets in all reports.

    Each statement first fails alone, and then together with all later statements. The action is a function that
    returns a text, such as a page, or raises an exception. The text or the exception is searched too.
    """

    def find(action: Callable[[], str]) -> list[str]:
        leaks: list[str] = []
        first_key = rsa_pool._next
        for number in range(1, MOST_STATEMENTS):
            for once in (True, False):
                clear_caches()
                collector.clear()
                rsa_pool._next = first_key
                fail = FailAt(number, once=once)
                raised: BaseException | None = None
                output = ""
                with undone(), connection.execute_wrapper(fail):
                    try:
                        output = action()
                    except Exception as error:
                        raised = error
                for kind, text in {"output": output, **collector.texts(raised)}.items():
                    for line in every_secret.find_in(text):
                        leaks.append(f"statement {number}, {kind}: {line[:200]}")
            if not fail.failed:
                return leaks
        raise AssertionError(f"the action runs more than {MOST_STATEMENTS} statements")

    return find
