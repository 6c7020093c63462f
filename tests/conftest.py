"""Fixtures that the tests share: cached RSA keys, a user, an application and an access token."""

from __future__ import annotations

import logging
import secrets
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import connections
from django.utils import timezone, translation
from django.utils.log import AdminEmailHandler
from jwcrypto.jwk import JWK
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess import audit, database_clock, trust, users, web
from instaccess.audit import names, row_hmac
from instaccess.conf import SCOPE, conf
from instaccess.gateway import views as gateway_views
from instaccess.issuer import throttling
from instaccess.keys import provision, ring
from instaccess.models import IssuedToken, Key
from instaccess.tokens import PrivateKey
from instaccess.trust import fetch
from instaccess.web import refusals
from tests.support import audit_rows, cached_functions, checked_keys, demos, mailing
from tests.support.processes import Crew

ISSUE_URL = "/api/v1/inst_access_tokens"

# On a busy machine, an example can take longer than the default deadline of 0.2 seconds.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")


_DATABASE_FIXTURES = {"db", "transactional_db", "live_server"}


def pytest_configure() -> None:
    """Accept SIGINT, which a shell makes programs in the background ignore.

    The programs that a test starts would ignore SIGINT too, and a test that presses Ctrl-C would wait forever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a database. Only the marked tests need to run on all three databases.

    A test without the mark can't use a database, because pytest-django refuses its queries.
    """
    for item in items:
        fixtures = _DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        on_sqlite_only = item.get_closest_marker("own_database") or item.get_closest_marker("sqlite")
        if (fixtures or item.get_closest_marker("django_db")) and not on_sqlite_only:
            item.add_marker("database")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests have recorded with `record_property`."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid.partition('::')[0]}: {name}: {value}")


class RSAPool:
    """RSA key pairs that are generated once per session. Every test gets the pairs in one fixed order."""

    def __init__(self) -> None:
        self._keys: list[JWK] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def take(self, use: str | None = None) -> JWK:
        """Return the next key pair, which this test has not received before."""
        if self._next == len(self._keys):
            self._keys.append(JWK.generate(kty="RSA", size=2048))
            checked_keys.skip_validation_of_generated(self._keys[-1])
        key = JWK(**self._keys[self._next])
        self._next += 1
        if use is not None:
            key["use"] = use
        return key

    def take_private(self, use: str) -> PrivateKey:
        """Return the next key pair as a `PrivateKey`, which is what the app generates."""
        return PrivateKey(self.take(str(use)))


@pytest.fixture(scope="session")
def _rsa_pool() -> RSAPool:
    return RSAPool()


@pytest.fixture
def rsa_pool(_rsa_pool: RSAPool) -> RSAPool:
    _rsa_pool.rewind()
    return _rsa_pool


@pytest.fixture(autouse=True)
def use_cached_keys(rsa_pool: RSAPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the app use cached RSA keys, because generating an RSA key takes a tenth of a second."""
    monkeypatch.setattr(trust, "generate_key", rsa_pool.take_private)


@pytest.fixture(scope="session", autouse=True)
def validate_keys_once() -> Iterator[None]:
    """Let OpenSSL validate each key only once per session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JWK, "_rsa_pri", checked_keys.load)
        yield


@pytest.fixture(autouse=True)
def load_in_the_calling_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load keys and deny lists in the thread that needs them, except in tests that use `load_in_background`.

    A separate thread would not see the uncommitted rows of a test, and would load keys at unpredictable times.
    """
    if "load_in_background" not in request.fixturenames:
        monkeypatch.setattr(trust.Refreshed, "in_background", False)


@pytest.fixture
def load_in_background() -> None:
    """Load keys and deny lists in separate threads, as in production."""


@pytest.fixture(autouse=True)
def patient_fetches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limits of fetches, except in tests that use `real_fetch_limits`.

    On a busy machine, a server in a thread of the test process may answer later than the limits allow.
    """
    if "real_fetch_limits" not in request.fixturenames:
        monkeypatch.setattr(fetch, "TIMEOUT", 10)
        monkeypatch.setattr(fetch, "BODY_SECONDS", 30)


@pytest.fixture
def real_fetch_limits() -> None:
    """Keep the time limits of fetches, as in production."""


@pytest.fixture(autouse=True)
def fast_password_hasher(settings: Any) -> None:
    """Use a fast password hasher, because Django's default hasher is slow on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """Delete SQLite journals of a killed test run, which SQLite would apply to the new test database."""
    database = connections["default"].settings_dict
    if database["ENGINE"].endswith("sqlite3"):
        for journal in ("-wal", "-shm", "-journal"):
            Path(f"{database['TEST']['NAME']}{journal}").unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def fast_flush() -> Iterator[None]:
    """Empty the tables with DELETE on PostgreSQL after a test that commits rows.

    By default, Django uses TRUNCATE, which creates a new file for each table and index, and takes 60 ms.
    """

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


@pytest.fixture(scope="session", autouse=True)
def known_json_functions() -> Iterator[None]:
    """Answer in advance whether SQLite has JSON functions.

    From Django 6.1 on, each run of the system checks runs a query to find out. Tests without a database also run the
    system checks, and the query would fail.
    """
    with pytest.MonkeyPatch.context() as patch:
        if connections["default"].vendor == "sqlite":
            patch.setitem(vars(connections["default"].features), "supports_json_field", True)
        yield


@pytest.fixture(autouse=True)
def disable_throttling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off throttling, except in tests that use the fixture `throttled`.

    The primary keys of rows identify the buckets and repeat in every test, so a test would use the full buckets of
    earlier tests.
    """
    if "throttled" not in request.fixturenames:
        monkeypatch.setattr(throttling, "_with_bucket", lambda *args: throttling.Level(allowed=True, level=0.0))


@pytest.fixture
def throttled() -> Iterator[None]:
    """Turn on throttling, with empty buckets."""
    throttling.reset()
    # Keep the cache object, because the test may replace the cache with an unavailable Redis, which
    # can't be cleared.
    buckets = caches["default"]
    buckets.clear()
    yield
    throttling.reset()
    buckets.clear()


@pytest.fixture
def slow_leak(settings: Any) -> None:
    """Let a bucket that three requests have filled refuse requests for at least 100 seconds after the first request.

    With the default settings, a bucket accepts a fourth request one second after the first request. A busy machine
    can need more than one second for four requests.
    """
    settings.INSTACCESS = {"THROTTLE_LIMIT": 500, "THROTTLE_LEAK": 1}


@pytest.fixture(autouse=True)
def reset_language() -> Iterator[None]:
    """Reset the language after each test, because LocaleMiddleware keeps the language of the last request active."""
    yield
    translation.deactivate()


@pytest.fixture(autouse=True)
def clear_cached_functions() -> None:
    """Discard results that functions cached in earlier tests.

    With a cached result, a function doesn't run again, so a test would not notice a fault in the function.
    """
    cached_functions.clear()


@pytest.fixture(autouse=True)
def fresh_keyring() -> Iterator[None]:
    """Clear the cached keys before and after each test."""
    ring.clear_cache()
    yield
    ring.clear_cache()


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    """Discard the pending refusals of earlier tests, and restart the interval until the next write."""
    refusals.counter.reset()
    yield
    refusals.counter.reset()


@pytest.fixture(autouse=True)
def database_clock_of_the_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock of the database follow the clock of time-machine, which sets only the clock of this process.

    Tests that use `real_database_clock` read the clock of the database.
    """
    if "real_database_clock" not in request.fixturenames:
        monkeypatch.setattr(database_clock, "now", lambda using: timezone.now())
        monkeypatch.setattr(database_clock, "compare", lambda using: None)


@pytest.fixture
def real_database_clock() -> None:
    """Read the clock of the database server, as in production."""


@pytest.fixture(autouse=True)
def fresh_outage_log() -> None:
    """Discard the outages of earlier tests, so that the next outage is logged completely."""
    web.outage_log.clear()
    audit.reset_writability()


@pytest.fixture
def initial_keys(db: None) -> list[Key]:
    """Generate the keys that `instaccess_init` generates, and return the rows of the keys."""
    return provision.init()


@pytest.fixture
def empty_gateway_caches(initial_keys: list[Key]) -> Iterator[None]:
    """Clear the gateway's cached tokens and its deny list before and after a test."""
    gateway_views.clear_caches()
    yield
    gateway_views.clear_caches()


@pytest.fixture
def crew(transactional_db: None) -> Iterator[Crew]:
    """Yield a crew without worker processes. After the test, kill all processes that the test has started."""
    crew = Crew()
    yield crew
    crew.close()


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
    """Return a function that creates an access token with the issuing scope and columns from keyword arguments."""

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
    """Return a function that creates an audit row, by default of an unexpired token of `user`.

    `age` is the age of the token in seconds. Keyword arguments set columns of the row. Rows of the same second have
    ids in the order of their creation.
    """

    def make(age: float = 0, **columns: Any) -> IssuedToken:
        issued_at = timezone.now() - timedelta(seconds=age)
        values: dict[str, Any] = {
            "jti": audit_rows.next_jti(),
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
        values |= columns
        for reference in ("user", "real_user"):
            if values.get(reference) is not None:
                values.setdefault(f"{reference}_name", users.user_name(values[reference]))
        issued = IssuedToken(**values)
        if "id" not in columns:
            audit_rows.with_id(issued)
        issued.mac = row_hmac.authenticate(row_hmac.canonical_bytes(issued), conf.key_encryption_keys)
        issued.names_mac = row_hmac.authenticate(names.canonical_bytes(issued), conf.key_encryption_keys)
        issued.save(force_insert=True)
        return issued

    return make


@pytest.fixture(scope="session")
def set_up_once(tmp_path_factory: pytest.TempPathFactory) -> demos.SetUp:
    return demos.SetUp(tmp_path_factory.mktemp("demo") / "made by the demo")


@pytest.fixture
def error_mail(settings: Any) -> Iterator[None]:
    """Turn on Django's error emails in text and HTML, even with DEBUG. `mailing.mailed` returns the emails."""
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
    """Return a function that posts to the issuing endpoint, with `token` in the Authorization header."""

    def post_(token: Any = None, url: str = ISSUE_URL, **kwargs: Any) -> Any:
        headers = dict(kwargs.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {getattr(token, 'token', token)}"
        return client.post(url, headers=headers, **kwargs)

    return post_


def epoch(time: datetime) -> int:
    return int(time.timestamp())
