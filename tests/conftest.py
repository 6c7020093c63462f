"""What the tests share: RSA keys made once a session, and a user with an application and an access token."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import connections
from django.utils import timezone, translation
from django.utils.log import AdminEmailHandler
from jwcrypto.jwk import JWK
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess import trust, users
from instaccess.audit import row_hmac
from instaccess.conf import SCOPE, conf
from instaccess.issuer import throttling
from instaccess.keys import provision, ring
from instaccess.models import IssuedToken, Key
from instaccess.web import refusals
from tests.support import checked_keys, demos, mailing

ISSUE_URL = "/api/v1/inst_access_tokens"


_DATABASE_FIXTURES = {"db", "transactional_db", "live_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks a database is marked so: the rest says the same on each of them, and need not run on all three.

    pytest-django keeps a test without its marker or fixtures from asking one.
    """
    for item in items:
        asked = _DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if (asked or item.get_closest_marker("django_db")) and not item.get_closest_marker("own_database"):
            item.add_marker("database")


class RSAPool:
    """Key pairs that are made once a session and handed out again, in the same order, in every test."""

    def __init__(self) -> None:
        self._made: list[JWK] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def take(self, use: str | None = None) -> JWK:
        """The next pair; never the same twice within a test."""
        if self._next == len(self._made):
            self._made.append(JWK.generate(kty="RSA", size=2048))
            checked_keys.trust_generated(self._made[-1])
        key = JWK(**self._made[self._next])
        self._next += 1
        if use is not None:
            key["use"] = use
        return key


@pytest.fixture(scope="session")
def _rsa_pool() -> RSAPool:
    return RSAPool()


@pytest.fixture
def rsa_pool(_rsa_pool: RSAPool) -> RSAPool:
    _rsa_pool.rewind()
    return _rsa_pool


@pytest.fixture(autouse=True)
def ready_made_keys(rsa_pool: RSAPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generating an RSA key takes a tenth of a second and teaches nothing."""
    monkeypatch.setattr(trust, "generate_jwk", lambda use: rsa_pool.take(str(use)))


@pytest.fixture(scope="session", autouse=True)
def keys_checked_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JWK, "_rsa_pri", checked_keys.load)
        yield


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Hashing passwords slowly is Django's to test."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """SQLite's journals of a run that was killed would be taken for those of the new test database."""
    database = connections["default"].settings_dict
    if database["ENGINE"].endswith("sqlite3"):
        for journal in ("-wal", "-shm", "-journal"):
            Path(f"{database['TEST']['NAME']}{journal}").unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def quick_flush() -> Iterator[None]:
    """After a test that commits, Django empties all tables: on PostgreSQL with TRUNCATE, which makes a new file for
    each table and index, 60 ms in all. There is next to nothing in them; on the other two, Django deletes it, too."""

    operations: Any = type(connections["default"].ops)
    truncate = operations.sql_flush

    def delete(self: Any, style: Any, tables: list[str], *, reset_sequences: bool = False, **options: Any) -> Any:
        if reset_sequences:
            return truncate(self, style, tables, reset_sequences=True, **options)
        return [f"DELETE FROM {self.quote_name(table)};" for table in tables]

    with pytest.MonkeyPatch.context() as patch:
        if connections["default"].vendor == "postgresql":
            patch.setattr(operations, "sql_flush", delete)
        yield


@pytest.fixture(autouse=True)
def open_throttle(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests are not about the throttle, and the primary keys it counts by come again in every test. Those that
    are ask for the fixture `throttled`."""
    if "throttled" not in request.fixturenames:
        monkeypatch.setattr(throttling, "_with_bucket", lambda *args: throttling.Level(allowed=True, level=0.0))


@pytest.fixture
def throttled() -> Iterator[None]:
    """The throttle as it is, its buckets empty."""
    throttling.reset()
    # This one, whatever the test puts in its place: a Redis that is not there can't be cleared.
    buckets = caches["default"]
    buckets.clear()
    yield
    throttling.reset()
    buckets.clear()


@pytest.fixture(autouse=True)
def own_language() -> Iterator[None]:
    """LocaleMiddleware leaves its thread in the language of the last request."""
    yield
    translation.deactivate()


@pytest.fixture(autouse=True)
def fresh_keyring() -> Iterator[None]:
    """No test sees keys that the process remembers from another."""
    ring.clear_cache()
    yield
    ring.clear_cache()


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    """No test writes the refusals that another one has met, and none that does not wait for it writes its own."""
    refusals.counter.reset()
    yield
    refusals.counter.reset()


@pytest.fixture
def initial_keys(db: None) -> list[Key]:
    """What `instaccess_init` makes."""
    return provision.init()


@pytest.fixture
def user(db: None) -> Any:
    return get_user_model().objects.create_user("ada", password="correct horse battery staple")


@pytest.fixture
def application(db: None) -> Any:
    return get_application_model().objects.create(
        name="LTI tool",
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://tool.example/callback",
    )


@pytest.fixture
def make_access_token(user: Any, application: Any) -> Callable[..., Any]:
    """Makes an access token that may issue; every column can be given. Its text is in `.token`."""

    def make(**columns: Any) -> Any:
        values: dict[str, Any] = {
            "user": user,
            "application": application,
            "token": secrets.token_urlsafe(24),
            "scope": f"read {SCOPE}",
            "expires": timezone.now() + timedelta(hours=1),
        }
        return get_access_token_model().objects.create(**(values | columns))

    return make


@pytest.fixture
def access_token(make_access_token: Callable[..., Any]) -> Any:
    return make_access_token()


@pytest.fixture
def row(user: Any, application: Any) -> Callable[..., IssuedToken]:
    """Makes audit rows as `issuer.issue` would; what is not given is that of a live token of `user`.

    `age` is in seconds. Every column can be given.
    """

    def make(age: float = 0, **columns: Any) -> IssuedToken:
        issued_at = timezone.now() - timedelta(seconds=age)
        values: dict[str, Any] = {
            "jti": uuid.uuid4(),
            "user": user,
            "user_uuid": users.user_uuid(user),
            "application": application,
            "client_id": application.client_id,
            "account_uuid": "3f1c",
            "canvas_domain": "canvas.example.edu",
            "signing_kid": "s",
            "encryption_kid": "e",
            "ip_address": "192.0.2.7",
            "user_agent": "client/1.0",
            "issued_at": issued_at,
            "expires_at": issued_at + timedelta(hours=1),
        }
        made = IssuedToken(**(values | columns))
        made.mac = row_hmac.authenticate(row_hmac.canonical_bytes(made), conf.key_encryption_keys)
        made.save(force_insert=True)
        return made

    return make


@pytest.fixture(scope="session")
def set_up_once(tmp_path_factory: pytest.TempPathFactory) -> demos.SetUp:
    return demos.SetUp(tmp_path_factory.mktemp("demo") / "made by the demo")


@pytest.fixture
def error_mail(settings: Any) -> Iterator[None]:
    """Django's error e-mails, as text and as HTML, also with DEBUG on: see `mailing.mailed`."""
    settings.ADMINS = mailing.ADMINS
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.ERROR)
    loggers = [logging.getLogger("django.request"), logging.getLogger("instaccess")]
    for logger in loggers:
        logger.addHandler(handler)
    yield
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def post(client: Any) -> Callable[..., Any]:
    """POST to the issuing endpoint; `token` goes into the Authorization header."""

    def post_(token: Any = None, url: str = ISSUE_URL, **kwargs: Any) -> Any:
        headers = dict(kwargs.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {getattr(token, 'token', token)}"
        return client.post(url, headers=headers, **kwargs)

    return post_


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())
