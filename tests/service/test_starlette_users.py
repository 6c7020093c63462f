"""Tests of the backend for Starlette's AuthenticationMiddleware: its user, and its answers to refused requests."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthenticationError
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from instaccess.service import Verifier
from instaccess.service.starlette import InstAccessBackend
from tests.service.helpers import USER, good
from tests.service.test_starlette import ask, parts
from tests.support import servers
from tests.support.answers import INVALID


@pytest.fixture
def backend(server: servers.ScriptedServer) -> InstAccessBackend:
    return InstAccessBackend(Verifier(jwks_url=f"{server.base_url}/jwks", allow_http=True))


def application(backend: InstAccessBackend, **options: Any) -> Starlette:
    async def endpoint(request: Request) -> Response:
        user = request.user
        jti = user.claims.jti if user.is_authenticated else None
        identity = user.identity if user.is_authenticated else None
        return JSONResponse([user.is_authenticated, user.display_name, identity, jti, request.auth.scopes])

    return Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(AuthenticationMiddleware, backend=backend, **options)],
    )


class TestTheUserOfARequest:
    def test_user_of_a_token_is_authenticated_and_has_the_uuid_and_the_claims_of_the_token(
        self, backend, token_factory
    ):
        answer = ask(application(backend), good(token_factory, sub=USER, jti="the-id"))

        assert answer.json == [True, USER, USER, "the-id", ["authenticated"]]

    def test_user_of_a_request_without_an_inst_access_token_is_not_authenticated(self, backend):
        assert ask(application(backend), None).json == [False, "", None, None, []]


class TestARefusedRequest:
    def test_middleware_without_on_error_answers_400_with_the_message_of_the_refusal(self, backend, token_factory):
        answer = ask(application(backend), good(token_factory, exp=1))

        assert (answer.status, answer.body) == (400, b"Invalid access token.")

    def test_authentication_error_of_a_subclass_of_the_backend_is_answered_with_401_and_the_body_of_canvas(
        self, server
    ):
        class Strict(InstAccessBackend):
            async def authenticate(self, conn: Any) -> Any:
                raise AuthenticationError("closed today")

        backend = Strict(Verifier(jwks_url=f"{server.base_url}/jwks", allow_http=True))

        assert parts(ask(application(backend, on_error=backend.on_error), None)) == (401, INVALID[1], None)
