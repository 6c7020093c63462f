"""Tests of concurrent requests to gthread and uvicorn workers, and of the work in the thread of the event loop.

Django 5.2 runs each request of an ASGI server in a separate thread (one ThreadSensitiveContext per request). The
thread runs the middleware and then the view, and no code of other requests. So views that wait for a database or
compute block neither the event loop nor each other.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.db import connections
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse
from django.urls import path, resolve
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws

from instaccess import urls
from instaccess.audit import row_hmac
from instaccess.conf import conf
from instaccess.gateway import views
from instaccess.issuer import issuing
from instaccess.keys import lifecycle, ring
from instaccess.models import IssuedToken, Key, UserIdentity
from instaccess.monitoring import background
from instaccess.tokens import PrivateKey, jose
from instaccess.web import answers as web_answers
from testproject.urls import urlpatterns as testprojects
from tests.conftest import ISSUE_URL
from tests.support import servers
from tests.support.answers import INVALID, claims_of, signed_inside
from tests.support.asgi import PATIENCE, Exchange, Footprints, ask, held
from tests.support.caches import DJANGOS, REDIS_URL, on_redis
from tests.support.paths import ROOT
from tests.support.processes import environment
from tests.support.tokens import header_of

VERIFY_URL, SELF_URL = "/internal/gateway/verify", "/api/v1/users/self"
JWKS_URL, REVOCATIONS_URL = "/internal/services/jwks", "/internal/services/revocations"
SECRET = "a-secret-of-gateways-and-services-0123456789"
ORIGIN = issuing.Origin(canvas_domain="testserver", ip_address="192.0.2.7")


# The following tests use real servers.


def gthread(port: int) -> list[str]:
    options = ["--workers", "2", "--worker-class", "gthread", "--threads", "4", "--log-level", "warning"]
    return ["gunicorn", "testproject.wsgi:application", "--bind", f"{servers.HOST}:{port}", *options]


def uvicorn(port: int) -> list[str]:
    options = ["--workers", "2", "--log-level", "warning"]
    return ["uvicorn", "testproject.asgi:application", "--host", servers.HOST, "--port", str(port), *options]


@pytest.fixture(params=[gthread, uvicorn], ids=["gthread", "uvicorn"])
def start(request: pytest.FixtureRequest, tmp_path: Path, transactional_db: None) -> Iterator[Callable[..., int]]:
    """Return a function that starts the test project with the test database and Redis, and returns the port."""
    running = []

    def start_(**instaccess: Any) -> int:
        port = servers.free_port()
        env = {
            **environment(),
            "DJANGO_SETTINGS_MODULE": "tests.support.served_settings",
            "CACHE_PREFIX": str(uuid.uuid4()),
            "INSTACCESS_SETTINGS": json.dumps(instaccess),
        }
        command = [sys.executable, "-m", *request.param(port)]
        running.append(servers.Process(command, port=port, log=tmp_path / "server.log", env=env, cwd=ROOT))
        return port

    yield start_
    for process in running:
        process.kill()


@dataclass(frozen=True, eq=False)
class Used:
    """A token that was issued, decrypted by the gateway and accepted by the service.

    Attributes:
        user_pk: the primary key of the user of the access token.
        text: the issued token.
        upstream: the token that the gateway forwards.
        seen_as: the user that the service reported.
    """

    user_pk: int
    text: str
    upstream: str
    seen_as: dict[str, Any]


class Caller:
    """A client with an access token. Each request uses a new connection, which any worker can accept."""

    def __init__(self, port: int, user_pk: int, access_token: str) -> None:
        self._port, self._user_pk, self._access_token = port, user_pk, access_token

    def ask(self, method: str, url: str, bearer: str) -> tuple[int, bytes, str | None]:
        """Send a request, and return the status, the body, and the Authorization header of the response."""
        connection = http.client.HTTPConnection(servers.HOST, self._port, timeout=servers.PATIENCE)
        try:
            connection.request(method, url, headers={"Authorization": f"Bearer {bearer}"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers["Authorization"]
        finally:
            connection.close()

    def issue(self) -> tuple[int, bytes]:
        return self.ask("POST", ISSUE_URL, self._access_token)[:2]

    def use(self) -> Used:
        """Issue and return a token that gateway and service accept. Check that each role refuses modified tokens."""
        status, body = self.issue()
        assert status == 201, body
        text = json.loads(body)["token"]
        status, body, authorization = self.ask("GET", VERIFY_URL, text)
        assert (status, body) == (204, b"")
        upstream = (authorization or "").removeprefix("Bearer ")
        status, body, _ = self.ask("GET", SELF_URL, upstream)
        assert status == 200, body
        for method, url, bad in (
            ("GET", VERIFY_URL, modify_token(text)),
            ("GET", VERIFY_URL, upstream),
            ("GET", SELF_URL, modify_token(upstream)),
            ("POST", ISSUE_URL, modify_token(self._access_token)),
        ):
            assert self.ask(method, url, bad)[:2] == INVALID[:2], (method, url)
        return Used(self._user_pk, text, upstream, json.loads(body))


def modify_token(text: str) -> str:
    """Replace the fifth-last character of a token, because the last character can contain unused bits."""
    return text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]


def is_authentic(row: IssuedToken) -> bool:
    return (
        row_hmac.check(row_hmac.canonical_bytes(row), row.mac, conf.key_encryption_keys)
        is row_hmac.HmacStatus.AUTHENTIC
    )


def read_by_joserfc(text: str, signing: dict[str, Key]) -> Any:
    """Return the claims that joserfc reads from a token."""
    opener = joserfc_jwk.RSAKey.import_key(dict(ring.current_ring().encryption_key().private().reveal()))
    inner = joserfc_jwe.decrypt_compact(text, opener, algorithms=["RSA-OAEP", "A128CBC-HS256"]).plaintext.decode()
    verifier = joserfc_jwk.RSAKey.import_key(dict(signing[header_of(inner)["kid"]].public_jwk))
    return json.loads(joserfc_jws.deserialize_compact(inner, verifier, algorithms=["RS256"]).payload)


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
class TestConcurrentClients:
    USERS, EACH, HALF = 6, 2, 3

    @pytest.fixture
    def access_tokens(self, initial_keys: Any, make_access_token: Callable[..., Any]) -> list[Any]:
        """Return two access tokens for each user. Two parallel requests try to create the uuid of each user."""
        users = [get_user_model().objects.create_user(f"caller-{number}") for number in range(self.USERS)]
        return [make_access_token(user=user) for user in users for _ in range(self.EACH)]

    @pytest.fixture
    def used(self, access_tokens: list[Any], start: Callable[..., int]) -> list[list[Used]]:
        """Return the tokens of each client, in order.

        The signing key is rotated between the first and the second half. The workers reload keys for each request.
        """
        port = start(KEY_CACHE_SECONDS=0, THROTTLE_LIMIT=1_000_000)
        callers = [Caller(port, token.user_id, token.token) for token in access_tokens]
        done, rotated = threading.Semaphore(0), threading.Event()

        def work(caller: Caller) -> list[Used]:
            first = []
            for _ in range(self.HALF):
                first.append(caller.use())
                done.release()
            assert rotated.wait(PATIENCE)
            return first + [caller.use() for _ in range(self.HALF)]

        with ThreadPoolExecutor(len(callers)) as threads:
            working = [threads.submit(work, caller) for caller in callers]
            for _ in callers:
                if not done.acquire(timeout=PATIENCE):
                    break
            lifecycle.rotate(Key.Use.SIGNING, force=True)
            rotated.set()
            return [each.result() for each in working]

    def test_each_client_gets_its_own_tokens_and_each_token_has_an_audit_row(self, used):
        claims = {token: claims_of(token.text) for caller in used for token in caller}
        assert len(claims) == self.USERS * self.EACH * self.HALF * 2

        uuids = dict(UserIdentity.objects.values_list("user_id", "uuid"))
        for token, token_claims in claims.items():
            assert token.upstream == signed_inside(token.text)
            assert token_claims["sub"] == token.seen_as["uuid"] == str(uuids[token.user_pk])
            assert token_claims["debug_user_global_id"] == str(token.seen_as["id"]) == str(token.user_pk)

        rows = {str(row.jti): row for row in IssuedToken.objects.all()}
        assert sorted(rows) == sorted(token_claims["jti"] for token_claims in claims.values())
        for token, token_claims in claims.items():
            row = rows[token_claims["jti"]]
            assert (row.user_id, row.user_uuid) == (token.user_pk, token_claims["sub"])
            assert is_authentic(row)

        past, current = (
            Key.objects.get(use=Key.Use.SIGNING, status=status) for status in (Key.Status.PAST, Key.Status.CURRENT)
        )
        kids = {token: rows[token_claims["jti"]].signing_kid for token, token_claims in claims.items()}
        assert past.kid in {kids[token] for caller in used for token in caller[: self.HALF]}
        assert {kids[token] for caller in used for token in caller[self.HALF :]} == {current.kid}
        for token in [token for caller in used for token in (caller[0], caller[-1])]:
            assert read_by_joserfc(token.text, {past.kid: past, current.kid: current}) == claims[token]

    def test_threads_and_processes_share_one_bucket_of_the_throttle(self, initial_keys, access_token, start):
        # The bucket accepts a fourth request only after it has leaked for 90 s, so a slow machine does not change the
        # result.
        port = start(THROTTLE_LIMIT=500, THROTTLE_COST=200, THROTTLE_LEAK=1)
        caller = Caller(port, access_token.user_id, access_token.token)
        together = threading.Barrier(24)

        def work(_: int) -> int:
            together.wait(PATIENCE)
            return caller.issue()[0]

        with ThreadPoolExecutor(24) as threads:
            answers = list(threads.map(work, range(24)))

        assert sorted(answers) == [201] * 3 + [429] * 21
        assert IssuedToken.objects.count() == 3


class TestKeysThatThreadsShare:
    def test_each_thread_encodes_and_decodes_its_own_token(self, rsa_pool):
        signing, encryption = rsa_pool.take("sig"), rsa_pool.take("enc")
        together = threading.Barrier(8)

        def work(number: int) -> list[tuple[dict[str, int], dict[str, int]]]:
            together.wait(PATIENCE)
            pairs = []
            for turn in range(25):
                sent = {"thread": number, "turn": turn}
                signed = jose.sign(json.dumps(sent).encode(), PrivateKey(signing), kid="s")
                text = jose.encrypt(signed, encryption, kid="e", alg="RSA-OAEP", enc="A128CBC-HS256")
                inner, _ = jose.decrypt(text, {"e": PrivateKey(encryption)})
                pairs.append((sent, jose.verify(inner, {"s": signing})[0]))
            return pairs

        with ThreadPoolExecutor(8) as threads:
            for pairs in threads.map(work, range(8)):
                assert len(pairs) == 25
                assert all(sent == received for sent, received in pairs)


# The following tests run an event loop in the process of the tests.


async def free(request: HttpRequest) -> HttpResponse:
    """Return a response from the event loop, as an async view of a project does."""
    return HttpResponse(b"free")


async def careless(request: HttpRequest) -> HttpResponse:
    """Run code of the package in the event loop. An async view must not do this."""
    return web_answers.json_response({}, status=200)


urlpatterns = [path("free", free), path("careless", careless), *testprojects]

# These modules wait for I/O or compute, so they must not run in the thread of the event loop.
WORK = (
    *("instaccess", "testproject", "rest_framework", "oauth2_provider", "oauthlib", "jwcrypto", "cryptography"),
    *("django.db.backends", "django.db.models", "sqlite3", "psycopg", "MySQLdb"),
    *("django.core.cache", "redis", "requests", "urllib3", "http.client"),
)


def work_among(modules: set[str]) -> set[str]:
    return {name for name in modules if any(name == part or name.startswith(f"{part}.") for part in WORK)}


Request = tuple[str, str, str, int]
"""The method, the path and the bearer token of a request, and the status of the response."""


@pytest.fixture
def asgi(settings: Any, initial_keys: Any) -> Iterator[None]:
    """Load the URLs of this module, so that Django doesn't load the URLs in the event loop at the first request."""
    settings.ROOT_URLCONF = __name__
    settings.INSTACCESS = {"SERVICE_SECRETS": [SECRET]}
    resolve(ISSUE_URL)
    views.clear_caches()
    yield
    views.clear_caches()


@pytest.fixture
def requests_of(asgi: None, access_token: Any, user: Any) -> dict[str, Request]:
    """Return a valid request for each URL of the package and for a service. All caches are empty."""
    encrypted = issuing.issue(user=user, origin=ORIGIN, now=time.time())[1]
    signed = signed_inside(encrypted)
    ring.clear_cache()
    return {
        "issuer": ("POST", ISSUE_URL, access_token.token, 201),
        "other path of the issuer": ("POST", f"{ISSUE_URL}.json", access_token.token, 201),
        "gateway": ("GET", VERIFY_URL, encrypted, 204),
        "JWKS": ("GET", JWKS_URL, "", 200),
        "revocations": ("GET", REVOCATIONS_URL, SECRET, 200),
        "service": ("GET", SELF_URL, signed, 200),
        "live": ("GET", "/internal/health/live", "", 200),
        "ready": ("GET", "/internal/health/ready", "", 200),
        "metrics": ("GET", "/internal/metrics", "", 200),
    }


NAMES = ["issuer", "gateway", "JWKS", "revocations", "service"]


@pytest.mark.django_db(transaction=True)
class TestTheThreadOfTheEventLoop:
    DOES = {
        "issuer": {
            "instaccess.issuer.views",
            "instaccess.issuer.authentication",
            "instaccess.issuer.issuing",
            "instaccess.issuer.throttling",
            "instaccess.tokens.jose",
            "instaccess.audit.row_hmac",
            "django.core.cache.backends.locmem",
        },
        "gateway": {"instaccess.gateway.views", "instaccess.tokens.jose", "instaccess.trust.denylist"},
        "JWKS": {"instaccess.issuer.internal_views", "instaccess.keys.ring"},
        "revocations": {"instaccess.issuer.internal_views", "instaccess.trust.revocation_table"},
        "service": {"testproject.views", "instaccess.service.authentication", "instaccess.tokens.jose"},
    }

    @staticmethod
    def footprints(*requests: Request) -> Footprints:
        async def walk() -> Footprints:
            with Footprints() as footprints:
                for method, url, bearer, status in requests:
                    assert (await ask(method, url, bearer)).status == status
            return footprints

        return asyncio.run(walk())

    @pytest.mark.parametrize("name", NAMES)
    def test_valid_request_runs_no_blocking_code_in_the_event_loop(self, requests_of, throttled, name):
        footprints = self.footprints(requests_of[name])

        assert work_among(footprints.in_the_loop) == set()
        assert self.DOES[name] | {"django.db.backends.utils"} <= footprints.elsewhere

    @pytest.mark.parametrize("name", ["live", "ready", "metrics"])
    def test_monitoring_request_runs_no_blocking_code_in_the_event_loop(self, requests_of, name, monkeypatch):
        # Let the probe wait until its checks end. The checks are slow, because the test records the modules that run.
        monkeypatch.setattr(background, "ANSWER_SECONDS", servers.PATIENCE)
        footprints = self.footprints(requests_of[name])

        assert work_among(footprints.in_the_loop) == set()
        assert {"instaccess.monitoring.views"} <= footprints.elsewhere

    def test_refused_request_runs_no_blocking_code_in_the_event_loop(self, asgi, access_token):
        footprints = self.footprints(
            ("POST", ISSUE_URL, "unknown", 401),
            ("GET", VERIFY_URL, "a.b.c.d.e", 401),
            ("PUT", JWKS_URL, "", 405),
            ("GET", REVOCATIONS_URL, "unknown", 401),
            ("GET", SELF_URL, "a.b.c.d.e", 401),
        )

        assert work_among(footprints.in_the_loop) == set()
        assert {"instaccess.web.answers", "instaccess.web.refusals"} <= footprints.elsewhere

    def test_event_loop_fetches_neither_keys_nor_the_deny_list(self, requests_of, settings):
        jwks = json.dumps({"keys": ring.current_ring().published()}).encode()
        with servers.scripted_server(
            lambda handler: servers.reply(handler, 200, jwks if "jwks" in handler.path else b'{"revoked": []}')
        ) as script:
            settings.INSTACCESS |= {
                "VERIFICATION_KEYS": script.base_url + JWKS_URL,
                "DENY_LIST": script.base_url + REVOCATIONS_URL,
                "ALLOW_HTTP_URLS": True,
            }
            footprints = self.footprints(requests_of["gateway"])

        assert sorted(request.path for request in script.requests) == [JWKS_URL, REVOCATIONS_URL]
        assert work_among(footprints.in_the_loop) == set()
        assert {"instaccess.trust.fetch", "requests.sessions", "http.client"} <= footprints.elsewhere

    @pytest.mark.services
    def test_event_loop_does_not_call_redis(self, requests_of, throttled, settings):
        settings.CACHES = on_redis(DJANGOS, REDIS_URL)

        footprints = self.footprints(requests_of["issuer"])

        assert work_among(footprints.in_the_loop) == set()
        assert {"instaccess.issuer.throttling", "redis.connection"} <= footprints.elsewhere

    @pytest.mark.services
    def test_all_threads_share_one_connection_to_redis(self, requests_of, throttled, settings):
        tap = servers.WireTap(urlsplit(REDIS_URL).port or 6379)
        settings.CACHES = on_redis(DJANGOS, f"redis://{servers.HOST}:{tap.port}/9")
        settings.INSTACCESS |= {"THROTTLE_LIMIT": 1_000_000}
        try:
            self.footprints(*[requests_of["issuer"]] * 5)
            assert tap.connections == 1
        finally:
            tap.close()

    def test_event_loop_tests_detect_a_view_that_runs_code_of_the_package_in_the_event_loop(self, asgi):
        footprints = self.footprints(("GET", "/careless", "", 200))

        assert work_among(footprints.in_the_loop) == {"instaccess.web.answers"}

    def test_event_loop_tests_send_a_request_to_every_url_of_the_project(self, requests_of):
        paths = [url.removeprefix("/") for _, url, *_ in requests_of.values()]

        assert [pattern for pattern in urls.urlpatterns if not any(map(pattern.pattern.match, paths))] == []


@pytest.mark.django_db(transaction=True)
class TestABlockedRequest:
    @pytest.mark.parametrize(
        ("name", "step"),
        [
            ("issuer", "instaccess.issuer.authentication.AccessTokenAuthentication.authenticate"),
            ("issuer", "instaccess.issuer.throttling.charge"),
            ("issuer", "instaccess.tokens.sign"),
            ("issuer", "instaccess.audit.commit"),
            ("gateway", "instaccess.keys.ring.load"),
            ("gateway", "instaccess.tokens.decrypt"),
            ("gateway", "instaccess.trust.revocation_table.read"),
            ("JWKS", "instaccess.keys.ring.load"),
            ("revocations", "instaccess.trust.read_revocations"),
            ("service", "instaccess.tokens.verify"),
        ],
    )
    def test_event_loop_serves_other_requests_while_one_request_is_blocked(self, requests_of, name, step):
        method, url, bearer, status = requests_of[name]

        async def story() -> None:
            exchange = Exchange(method, url, bearer)
            await exchange.send()
            with held(step) as holding:
                await holding.reached()
                assert (await ask("GET", "/free")).body == b"free"
                assert holding.threads != [threading.get_ident()]
                assert not exchange.is_answered
            assert (await exchange.answer()).status == status

        asyncio.run(story())

    def test_concurrent_requests_run_in_separate_threads(self, asgi, make_access_token):
        bearers = [make_access_token().token for _ in range(8)]

        async def story() -> None:
            exchanges = [Exchange("POST", ISSUE_URL, bearer) for bearer in bearers]
            for exchange in exchanges:
                await exchange.send()
            with held("instaccess.tokens.sign") as holding:
                await holding.reached(len(exchanges))
                assert len(set(holding.threads)) == len(exchanges)
            answers = [await exchange.answer() for exchange in exchanges]
            assert [answer.status for answer in answers] == [201] * 8

        asyncio.run(story())
        assert IssuedToken.objects.count() == 8


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """Yield a list that collects the database connections that threads of requests open."""
    opened_connections: list[Any] = []
    test_thread = threading.get_ident()

    def record(connection: Any, **kwargs: Any) -> None:
        if threading.get_ident() != test_thread:
            opened_connections.append(connection)

    connection_created.connect(record)
    yield opened_connections
    connection_created.disconnect(record)


@pytest.mark.django_db(transaction=True)
class TestAClientThatDisconnects:
    @pytest.mark.parametrize(
        ("step", "after"),
        [
            ("instaccess.issuer.authentication.AccessTokenAuthentication.authenticate", False),
            ("instaccess.issuer.throttling.charge", True),
            ("instaccess.tokens.encrypt", True),
            ("instaccess.audit.commit", False),
            ("instaccess.audit.commit", True),
            ("instaccess.web.json_response", True),
        ],
    )
    def test_disconnected_client_leaves_a_complete_audit_row_and_no_open_database_connection(
        self, asgi, access_token, opened, step, after
    ):
        ended = []
        request_finished.connect(lambda **kwargs: ended.append(1), weak=False, dispatch_uid=__name__)

        async def story() -> None:
            exchange = Exchange("POST", ISSUE_URL, access_token.token)
            await exchange.send()
            with held(step, after=after) as holding:
                await holding.reached()
                await exchange.disconnect()
                # A running view can't be cancelled, so the request ends only after the view has returned.
                assert ended == []
            await exchange.wait(PATIENCE)
            assert not exchange.is_answered

        try:
            asyncio.run(story())
        finally:
            request_finished.disconnect(dispatch_uid=__name__)

        row = IssuedToken.objects.get()
        assert is_authentic(row)
        assert ended == [1]
        assert opened
        assert all(connection.connection is None for connection in opened)

    def test_client_that_disconnects_before_its_body_has_arrived_leaves_no_audit_row(
        self, asgi, access_token, opened
    ):
        async def story() -> None:
            exchange = Exchange("POST", ISSUE_URL, access_token.token)
            await exchange.send(b"as_user_", more=True)
            await exchange.disconnect()
            await exchange.wait(PATIENCE)
            assert not exchange.is_answered

        asyncio.run(story())

        assert not IssuedToken.objects.exists()
        assert opened == []

    @pytest.mark.parametrize("step", ["instaccess.keys.ring.load", "instaccess.trust.revocation_table.read"])
    def test_client_that_disconnects_while_the_gateway_reloads_does_not_affect_other_clients(self, requests_of, step):
        method, url, bearer, status = requests_of["gateway"]

        async def story() -> None:
            exchange = Exchange(method, url, bearer)
            await exchange.send()
            with held(step) as holding:
                await holding.reached()
                await exchange.disconnect()
            await exchange.wait(PATIENCE)
            assert (await ask(method, url, bearer)).status == status

        asyncio.run(story())


@pytest.mark.django_db(transaction=True)
class TestAResponseUnderASGI:
    def test_asgi_response_is_sent_after_its_audit_row_was_committed(self, asgi, access_token):
        row_counts = []

        def rows() -> int:
            try:
                return IssuedToken.objects.count()
            finally:
                connections.close_all()

        application = get_asgi_application()

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def count_and_send(message: dict[str, Any]) -> None:
                # Count the rows over a separate connection, before the server gets any part of the response.
                row_counts.append((message["type"], await asyncio.to_thread(rows)))
                await send(message)

            await application(scope, receive, count_and_send)

        async def story() -> None:
            exchange = Exchange("POST", ISSUE_URL, access_token.token, application=watched)
            await exchange.send()
            assert (await exchange.answer()).status == 201

        asyncio.run(story())

        assert row_counts == [("http.response.start", 1), ("http.response.body", 1)]
