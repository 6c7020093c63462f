"""Tests of the middleware and the decorator for Django projects without Django REST framework."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory

from instaccess import signals
from instaccess.service import InstAccessMiddleware, RequestAuthentication, TokenUser, token_required
from tests.service.helpers import ADMIN, USER, ask, good, issued, now, refusal
from tests.service.plain_urls import OneRegion
from tests.support.answers import INVALID, UNAUTHENTICATED, UNAVAILABLE
from tests.support.receiving import received

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"
LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"
OURS = "instaccess.service.InstAccessMiddleware"
UPDATE_CACHE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH_FROM_CACHE = "django.middleware.cache.FetchFromCacheMiddleware"

VIEWS = ["/sync/", "/async/"]
TOKEN_VIEWS = ["/token/sync/", "/token/async/", "/token/class/"]
FORBIDDEN = (403, b'{"errors":[{"message":"The access token does not allow this request."}]}', None)


@pytest.fixture
def project(settings: Any, service: Any) -> Any:
    """Configure a project with sessions, the CSRF check, users and the middleware, in the usual order."""
    settings.ROOT_URLCONF = "tests.service.plain_urls"
    settings.MIDDLEWARE = [SESSIONS, CSRF, USERS, OURS]
    return settings


@pytest.fixture
def browser(user: Any) -> Client:
    """Return a test client with the session of a signed-in user, and with the CSRF check enabled."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    session = client.session
    session["note"] = "of the session"
    session.save()
    return client


class AsgiClient:
    """A test client for the ASGI handler. The method `post` is synchronous, so that tests can use either client."""

    def __init__(self) -> None:
        self._client = AsyncClient(enforce_csrf_checks=True)

    def post(self, path: str, **kwargs: Any) -> Any:
        # Use `async_to_sync`, because the view then uses the database connection of the test.
        return async_to_sync(self._client.post)(path, **kwargs)


def bearer(authorization: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": authorization}}


@pytest.fixture(params=[lambda: Client(enforce_csrf_checks=True), AsgiClient], ids=["WSGI", "ASGI"])
def client(request: pytest.FixtureRequest) -> Any:
    """Return a test client for WSGI or for ASGI, without cookies and with the CSRF check enabled."""
    return request.param()


class TestARequestWithAToken:
    @pytest.mark.parametrize("path", [*VIEWS, *TOKEN_VIEWS, "/protected/"])
    def test_post_with_a_token_and_without_cookies_needs_no_csrf_token(self, project, service, client, path):
        response = client.post(path, **bearer(good(service, sub=USER, jti="the-id")))

        assert response.status_code == 200
        assert response.json() == {"user": USER, "authenticated": True, "jti": "the-id", "note": None}

    @pytest.mark.parametrize("path", TOKEN_VIEWS)
    @pytest.mark.parametrize("middleware", [[], [CSRF], [SESSIONS, CSRF, USERS, LOGIN]])
    def test_decorator_authenticates_a_request_without_the_middleware(
        self, project, service, client, path, middleware
    ):
        project.MIDDLEWARE = middleware

        assert client.post(path, **bearer(good(service, sub=USER))).json()["user"] == USER

    @pytest.mark.parametrize(
        "middleware", [[SESSIONS, CSRF, USERS, OURS, LOGIN], [SESSIONS, CSRF, USERS, LOGIN, OURS]]
    )
    def test_login_required_middleware_accepts_a_token(self, project, service, client, middleware):
        project.MIDDLEWARE = middleware

        assert client.post("/sync/", **bearer(good(service, sub=USER))).json()["user"] == USER

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("path", [*VIEWS, *TOKEN_VIEWS])
    def test_user_of_a_token_is_the_local_user_if_the_issuers_app_is_installed(
        self, project, initial_keys, user, client, path
    ):
        project.INSTACCESS = {}

        assert client.post(path, **bearer(issued(user))).json()["user"] == str(user)

    def test_subclass_of_the_middleware_can_refuse_a_token_because_of_its_claims(self, project, service):
        class Middleware(InstAccessMiddleware):
            authentication = OneRegion()

        handler = Middleware(lambda request: request)
        request = RequestFactory().get("/", **bearer(good(service, region="us")))

        assert refusal(handler(request)) == INVALID

    def test_decorator_refuses_a_token_that_a_subclass_of_the_middleware_did_not_check(self, project, service):
        """Use a middleware that reads tokens from another header, and therefore ignores the Authorization header."""

        class FromAHeader(RequestAuthentication):
            def get_bearer(self, request: Any) -> str | None:
                token: str | None = request.META.get("HTTP_X_TOKEN")
                return token

        class Middleware(InstAccessMiddleware):
            authentication = FromAHeader()

        handler = Middleware(token_required(lambda request: HttpResponse(str(request.user))))
        valid = good(service, sub=USER)

        accepted = handler(RequestFactory().get("/", headers={"X-Token": valid.split()[1]}))
        assert accepted.content.decode() == USER
        assert handler(RequestFactory().get("/", **bearer(valid))).status_code == 401

    def test_subclass_of_the_middleware_reads_another_header_in_a_thread_and_not_in_the_event_loop(
        self, project, service
    ):
        threads: list[threading.Thread] = []

        class FromAHeader(RequestAuthentication):
            def get_bearer(self, request: Any) -> str | None:
                threads.append(threading.current_thread())
                return None

        class Middleware(InstAccessMiddleware):
            authentication = FromAHeader()

        async def view(request: Any) -> HttpResponse:
            return HttpResponse(str(threading.get_ident()))

        async def main() -> HttpResponse:
            return await Middleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc, no-any-return]

        response = asyncio.run(main())

        assert [str(thread.ident) for thread in threads] != [response.content.decode()]
        assert len(threads) == 1

    @pytest.mark.parametrize("middleware", [[], [OURS]])
    def test_view_with_its_own_authentication_refuses_a_token_that_the_middleware_accepts(
        self, project, service, client, middleware
    ):
        project.MIDDLEWARE = middleware

        assert refusal(client.post("/token/region/", **bearer(good(service, region="us")))) == INVALID
        assert client.post("/token/region/", **bearer(good(service, sub=USER, region="eu"))).json()["user"] == USER


@pytest.mark.django_db(transaction=True)
class TestARequestWithASession:
    """Tests that the middleware changes nothing for a request that a session authenticates."""

    @pytest.mark.parametrize("path", [*VIEWS, "/protected/"])
    def test_post_with_a_session_and_without_a_csrf_token_is_refused(self, project, browser, path):
        assert browser.post(path).status_code == 403

    @pytest.mark.parametrize("path", [*VIEWS, "/protected/"])
    def test_post_with_a_session_and_a_csrf_token_is_accepted(self, project, browser, user, path):
        request = RequestFactory().get("/")
        token = get_token(request)
        browser.cookies["csrftoken"] = request.META["CSRF_COOKIE"]

        response = browser.post(path, headers={"X-CSRFToken": token})

        assert (response.json()["user"], response.json()["jti"]) == (str(user), None)

    @pytest.mark.parametrize("other", ["Bearer opaque", "Bearer a.b.c", "Basic YTpi", "Bearer", "x"])
    def test_authorization_header_without_an_inst_access_token_does_not_turn_off_the_csrf_check(
        self, project, browser, other
    ):
        assert browser.post("/sync/", **bearer(other)).status_code == 403

    def test_session_is_used_if_the_authorization_header_contains_no_inst_access_token(self, project, browser, user):
        assert browser.get("/sync/", **bearer("Bearer opaque")).json()["user"] == str(user)

    @pytest.mark.parametrize("path", TOKEN_VIEWS)
    def test_session_never_authenticates_a_request_to_a_view_that_requires_a_token(self, project, browser, path):
        assert refusal(browser.post(path)) == UNAUTHENTICATED


ORDERS = [[SESSIONS, CSRF, USERS, OURS], [OURS, SESSIONS, CSRF, USERS], [SESSIONS, OURS, USERS, CSRF]]


@pytest.mark.django_db(transaction=True)
class TestARequestWithASessionAndAToken:
    @pytest.mark.parametrize("middleware", ORDERS, ids=["usual", "first", "between"])
    @pytest.mark.parametrize("path", [*VIEWS, *TOKEN_VIEWS])
    def test_token_replaces_the_user_and_hides_the_data_of_the_session(
        self, project, service, browser, path, middleware
    ):
        project.MIDDLEWARE = middleware

        response = browser.post(path, **bearer(good(service, sub=USER, jti="the-id")))

        assert response.json() == {"user": USER, "authenticated": True, "jti": "the-id", "note": None}

    @pytest.mark.parametrize("middleware", ORDERS, ids=["usual", "first", "between"])
    @pytest.mark.parametrize("path", ["/sync/", "/async/", "/token/sync/"])
    @pytest.mark.parametrize("changes", [{"exp": 1}, {"sub": ""}, {"acct": 5}])
    def test_invalid_token_is_refused_and_the_session_is_not_used_instead(
        self, project, service, browser, path, middleware, changes
    ):
        project.MIDDLEWARE = middleware

        for method in (browser.get, browser.post):
            assert refusal(method(path, **bearer(good(service, **changes)))) == INVALID

    def test_session_continues_after_a_request_with_a_token(self, project, service, browser, user):
        response = browser.post("/sync/", **bearer(good(service)))

        assert "sessionid" not in response.cookies
        after = browser.get("/sync/").json()
        assert (after["user"], after["note"]) == (str(user), "of the session")


class TestARefusal:
    def refused(self, client: Any, service: Any) -> list[str]:
        return [
            good(service, exp=now(), iat=now() - 60),
            good(service, sub=""),
            good(service)[:-8] + "AAAAAAAA",
            "Bearer " + service.token(iat=now(), exp=now() + 60),
        ]

    @pytest.mark.parametrize("path", [*VIEWS, *TOKEN_VIEWS])
    def test_refusal_of_a_django_view_has_the_same_bytes_as_the_refusal_of_django_rest_framework(
        self, project, service, client, path
    ):
        for authorization in self.refused(client, service):
            response = client.post(path, **bearer(authorization))

            expected = ask(authorization)
            assert refusal(response) == refusal(expected) == INVALID
            assert response["Content-Type"].partition(";")[0] == expected["Content-Type"]

    @pytest.mark.parametrize("path", [*VIEWS, *TOKEN_VIEWS])
    def test_django_view_answers_503_with_retry_after_if_the_token_cannot_be_checked(
        self, project, service, client, path
    ):
        project.INSTACCESS = {"VERIFICATION_KEYS": ["/no/such/file"], "USER_HOOK": TokenUser}

        response = client.post(path, **bearer(good(service)))

        assert refusal(response) == refusal(ask(good(service))) == UNAVAILABLE
        assert response["Retry-After"] == ask(good(service))["Retry-After"] == "10"

    @pytest.mark.parametrize("path", TOKEN_VIEWS)
    def test_view_that_requires_a_token_refuses_requests_without_a_token_with_the_challenge(
        self, project, client, path
    ):
        assert refusal(client.post(path)) == UNAUTHENTICATED
        assert refusal(client.post(path, **bearer("Basic YTpi"))) == UNAUTHENTICATED
        assert refusal(client.post(path, **bearer("Bearer opaque"))) == INVALID

    def test_log_of_a_django_view_contains_the_reason_of_a_refusal_but_not_the_token(
        self, project, service, client, caplog
    ):
        project.INSTACCESS["ACCOUNT_UUID"] = "ours"
        authorization = good(service, jti="the-id")

        client.post("/sync/", **bearer(authorization))

        [record] = [record for record in caplog.records if record.name == "instaccess.service"]
        assert (record.reason, record.jti) == ("wrong_account", "the-id")
        assert authorization.rpartition(".")[2] not in caplog.text

    @pytest.mark.parametrize("path", ["/sync/", "/async/", "/token/async/"])
    def test_refusal_of_a_django_view_sends_one_signal_with_the_reason(self, project, service, client, path):
        project.INSTACCESS["ACCOUNT_UUID"] = "ours"

        with received(signals.token_refused) as facts:
            client.post(path, **bearer(good(service, jti="the-id")))

        [sent] = facts
        assert (sent["role"], sent["reason"], sent["status"]) == ("service", "wrong_account", 401)
        assert (sent["jti"], sent["ip_address"]) == ("the-id", "127.0.0.1")

    def test_challenge_of_a_django_view_has_no_realm_if_the_configured_realm_is_invalid(
        self, project, service, client
    ):
        project.INSTACCESS["REALM"] = 7

        assert client.post("/sync/", **bearer(good(service, exp=1)))["WWW-Authenticate"] == "Bearer"


async def asynchronous_condition(claims: Any) -> bool:
    return True


class TestConditions:
    @pytest.mark.parametrize(
        ("path", "changes", "is_allowed"),
        [
            ("/allow/human/", {}, True),
            ("/allow/human/", {"masq_sub": ADMIN, "masq_shard": 1}, False),
            ("/allow/human/", {"masq_sub": ADMIN}, True),
            ("/allow/service/", {"instructure_service": True}, True),
            ("/allow/service/", {"instructure_service": False}, False),
            ("/allow/service/", {}, False),
            ("/allow/application/", {"client_id": "portal"}, True),
            ("/allow/application/", {"client_id": "por"}, False),
            ("/allow/application/", {}, False),
            ("/allow/both/", {"instructure_service": True}, True),
            ("/allow/both/", {"instructure_service": True, "masq_sub": ADMIN, "masq_shard": 1}, False),
            ("/allow/truthy/", {}, False),
        ],
    )
    def test_django_view_is_called_only_if_the_claims_fulfil_all_conditions(
        self, project, service, client, path, changes, is_allowed
    ):
        response = client.post(path, **bearer(good(service, **changes)))

        assert response.status_code == 200 if is_allowed else refusal(response) == FORBIDDEN

    def test_request_without_a_token_gets_a_401_before_any_condition_is_checked(self, project, client):
        assert refusal(client.post("/allow/human/")) == UNAUTHENTICATED

    @pytest.mark.parametrize(
        "allow", [lambda claims: True, "not_masquerading", ["not_masquerading"], None, [asynchronous_condition]]
    )
    def test_decorator_refuses_invalid_conditions(self, allow):
        with pytest.raises(TypeError, match="condition"):
            token_required(allow=allow)

    def test_condition_for_applications_needs_a_client_id(self):
        from instaccess.service import from_application

        with pytest.raises(ValueError, match="client ids"):
            from_application()


class TestAProjectWithAllRoles:
    @pytest.mark.django_db(transaction=True)
    def test_middleware_leaves_the_encrypted_tokens_of_a_gateway_to_the_gateway(
        self, project, initial_keys, user, client, access_token
    ):
        project.INSTACCESS = {}
        issued_token = client.post("/api/v1/inst_access_tokens", **bearer(f"Bearer {access_token.token}"))
        encrypted = issued_token.json()["token"]

        decided = client.post("/internal/gateway/verify", **bearer(f"Bearer {encrypted}"))

        assert decided.status_code == 204
        assert client.post("/sync/", **bearer(decided["Authorization"])).json()["user"] == str(user)
        assert refusal(client.post("/sync/", **bearer(f"Bearer {encrypted}"))) == INVALID

    @pytest.mark.django_db(transaction=True)
    def test_issuer_and_not_the_middleware_refuses_to_exchange_an_inst_access_token(
        self, project, initial_keys, user, client
    ):
        project.INSTACCESS = {}

        assert client.post("/api/v1/inst_access_tokens", **bearer(issued(user))).status_code == 403


class TestAResponse:
    def test_page_in_the_cache_is_not_sent_to_another_user(self, project, service):
        cache.clear()
        client, tokens = Client(), [good(service, sub=USER), good(service, sub=ADMIN)]
        project.MIDDLEWARE = [UPDATE_CACHE, OURS, FETCH_FROM_CACHE]

        users = [client.get("/sync/", **bearer(token)).json()["user"] for token in (*tokens, *tokens)]

        assert users == [USER, ADMIN, USER, ADMIN]
        assert client.get("/sync/").json()["user"] == "NoUser"
        cache.clear()

    @pytest.mark.parametrize("path", ["/token/cached/", "/cached/token/"])
    def test_page_of_a_view_that_requires_a_token_is_not_sent_from_the_cache_to_another_user(
        self, project, service, path
    ):
        cache.clear()
        project.MIDDLEWARE = []
        client, tokens = Client(), [good(service, sub=USER), good(service, sub=ADMIN)]

        users = [client.get(path, **bearer(token)).json()["user"] for token in (*tokens, *tokens)]

        assert users == [USER, ADMIN, USER, ADMIN]
        assert refusal(client.get(path)) == UNAUTHENTICATED
        cache.clear()

    def test_middleware_does_not_send_the_page_of_a_cached_view_to_another_user(self, project, service):
        cache.clear()
        project.MIDDLEWARE = [OURS]
        client, tokens = Client(), [good(service, sub=USER), good(service, sub=ADMIN)]

        users = [client.get("/cached/", **bearer(token)).json()["user"] for token in (*tokens, *tokens)]

        assert users == [USER, ADMIN, USER, ADMIN]
        cache.clear()

    @pytest.mark.parametrize(
        ("path", "middleware"),
        [
            ("/sync/", [UPDATE_CACHE, FETCH_FROM_CACHE, OURS]),
            ("/sync/", [UPDATE_CACHE, OURS, FETCH_FROM_CACHE]),
            ("/cached/", [OURS]),
            ("/token/cached/", []),
            ("/token/cached/", [UPDATE_CACHE, FETCH_FROM_CACHE]),
            ("/cached/token/", []),
        ],
    )
    def test_cache_sends_no_page_for_a_token_that_has_become_invalid(self, project, service, path, middleware):
        cache.clear()
        project.MIDDLEWARE = middleware
        client, token = Client(), good(service, sub=USER)

        assert client.get(path, **bearer(token)).json()["user"] == USER
        project.INSTACCESS |= {"ACCOUNT_UUID": "another account"}
        assert refusal(client.get(path, **bearer(token))) == INVALID
        cache.clear()

    def test_response_varies_with_the_authorization_header(self, project, service, client):
        for headers in ({}, bearer(good(service)), bearer(good(service, exp=1))):
            response = client.post("/token/sync/", **headers)
            assert re.search(r"\bAuthorization\b", response["Vary"])


class TestAServiceWithoutContribAuth:
    @pytest.mark.parametrize("path", VIEWS)
    def test_c17_view_of_a_service_without_contrib_auth_gets_a_user_who_is_not_authenticated(
        self, project, client, path
    ):
        project.MIDDLEWARE = [OURS]

        response = client.post(path)

        assert response.json() == {"user": "NoUser", "authenticated": False, "jti": None, "note": None}

    def test_user_without_credentials_has_no_permissions(self):
        from instaccess.service.token_user import NoUser

        user = NoUser()
        assert (user.is_anonymous, user.is_authenticated, user.is_active, user.pk) == (True, False, False, None)
        assert not user.has_perm("a.b")
        assert user == NoUser()
        assert not isinstance(user, get_user_model())
