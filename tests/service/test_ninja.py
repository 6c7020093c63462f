"""Tests of the authenticator for django-ninja."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.test import Client
from ninja.testing import TestAsyncClient, TestClient

from instaccess.service import TokenUser
from instaccess.service.ninja import InstAccessBearer
from tests.service import ninja_urls
from tests.service.helpers import USER, good, now, refusal
from tests.service.test_plain_django import CSRF, FORBIDDEN, OURS, SESSIONS, USERS, bearer
from tests.support.answers import INVALID, UNAUTHENTICATED, UNAVAILABLE

OPERATIONS = ["/api/sync/", "/api/async/"]


@pytest.fixture
def project(settings: Any, service: Any) -> Any:
    settings.ROOT_URLCONF = "tests.service.ninja_urls"
    settings.MIDDLEWARE = [SESSIONS, CSRF, USERS]
    return settings


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


class TestAValidToken:
    @pytest.mark.parametrize("middleware", [[], [SESSIONS, CSRF, USERS], [SESSIONS, CSRF, USERS, OURS]])
    @pytest.mark.parametrize("path", [*OPERATIONS, "/api/session/", "/api/next/"])
    def test_ninja_operation_gets_the_claims_and_the_user_without_a_csrf_token(
        self, project, service, client, path, middleware
    ):
        project.MIDDLEWARE = middleware

        response = client.post(path, **bearer(good(service, sub=USER, jti="the-id")))

        assert response.json() == {"auth": "the-id", "jti": "the-id", "user": USER, "note": None}

    @pytest.mark.parametrize("middleware", [[], [OURS]])
    def test_ninja_operation_with_its_own_authentication_refuses_a_token_that_the_middleware_accepts(
        self, project, service, client, middleware
    ):
        project.MIDDLEWARE = middleware

        assert client.post("/api/region/", **bearer(good(service, region="us"))).status_code == 401
        assert client.post("/api/region/", **bearer(good(service, sub=USER, region="eu"))).json()["user"] == USER

    def test_test_client_of_django_ninja_can_send_a_token(self, project, service):
        client = TestClient(ninja_urls.api)

        assert client.post("/sync/", **bearer(good(service, sub=USER))).json()["user"] == USER
        assert client.post("/sync/", **bearer(good(service, exp=1))).status_code == 401

    def test_asynchronous_test_client_of_django_ninja_can_send_a_token(self, project, service):
        async def main() -> Any:
            return await TestAsyncClient(ninja_urls.api).post("/async/", **bearer(good(service, sub=USER)))

        assert asyncio.run(main()).json()["user"] == USER

    def test_openapi_document_of_django_ninja_describes_the_bearer_token(self, project):
        schemes = ninja_urls.api.get_openapi_schema()["components"]["securitySchemes"]

        assert schemes["InstAccessBearer"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


class TestARefusal:
    @pytest.mark.parametrize("path", [*OPERATIONS, "/api/session/", "/api/next/"])
    def test_ninja_operation_answers_an_invalid_token_with_the_uniform_401_and_tries_no_other_authenticator(
        self, project, service, client, path
    ):
        for authorization in (
            good(service, exp=now(), iat=now() - 60),
            good(service)[:-8] + "AAAAAAAA",
            "Bearer " + service.token(iat=now(), exp=now() + 60),
        ):
            assert refusal(client.post(path, **bearer(authorization))) == INVALID

    @pytest.mark.parametrize("path", OPERATIONS)
    def test_ninja_operation_answers_a_request_without_an_inst_access_token_with_401_and_the_challenge(
        self, project, client, path
    ):
        assert refusal(client.post(path)) == UNAUTHENTICATED
        assert refusal(client.post(path, **bearer("Bearer opaque"))) == UNAUTHENTICATED

    @pytest.mark.parametrize("path", OPERATIONS)
    def test_ninja_operation_answers_503_with_retry_after_if_the_token_cannot_be_checked(
        self, project, service, client, path
    ):
        project.INSTACCESS = {"VERIFICATION_KEYS": ["/no/such/file"], "USER_HOOK": TokenUser}

        response = client.post(path, **bearer(good(service)))

        assert (refusal(response), response["Retry-After"]) == (UNAVAILABLE, "10")

    def test_ninja_operation_answers_403_if_the_token_does_not_fulfil_a_condition(self, project, service, client):
        assert client.post("/api/service/", **bearer(good(service, instructure_service=True))).status_code == 200
        assert refusal(client.post("/api/service/", **bearer(good(service)))) == FORBIDDEN

    @pytest.mark.parametrize("operation", ["sync", "async"])
    def test_ninja_operation_answers_with_the_same_status_if_the_api_has_no_handler_for_refusals(
        self, project, service, client, operation
    ):
        invalid = client.post(f"/plain/{operation}/", **bearer(good(service, exp=1)))
        project.INSTACCESS = {"VERIFICATION_KEYS": ["/no/such/file"], "USER_HOOK": TokenUser}
        unavailable = client.post(f"/plain/{operation}/", **bearer(good(service)))

        assert (invalid.status_code, invalid.json()) == (401, {"detail": "Invalid access token."})
        assert unavailable.status_code == 503

    @pytest.mark.parametrize("allow", [["not_masquerading"], "x", None])
    def test_ninja_authenticator_cannot_be_created_with_invalid_conditions(self, allow):
        with pytest.raises(TypeError, match="condition"):
            InstAccessBearer(allow=allow)


class TestOtherAuthenticators:
    def test_next_ninja_authenticator_gets_an_opaque_bearer_token(self, project, client):
        assert client.post("/api/next/", **bearer("Bearer opaque")).json()["auth"] == "another"

    @pytest.mark.django_db
    @pytest.mark.parametrize("middleware", [[SESSIONS, CSRF, USERS], [SESSIONS, CSRF, USERS, OURS]])
    def test_ninja_operation_needs_a_csrf_token_for_a_session_and_ignores_the_session_if_there_is_a_token(
        self, project, service, client, user, middleware
    ):
        project.MIDDLEWARE = middleware
        client.force_login(user)
        session = client.session
        session["note"] = "of the session"
        session.save()

        assert client.post("/api/session/").status_code == 403
        assert client.post("/api/session/", **bearer("Bearer opaque")).status_code == 403
        with_token = client.post("/api/session/", **bearer(good(service, sub=USER, jti="the-id")))
        assert with_token.json() == {"auth": "the-id", "jti": "the-id", "user": USER, "note": None}
        assert "sessionid" not in with_token.cookies
