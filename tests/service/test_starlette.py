"""Tests of the functions for Starlette and FastAPI."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

import pytest
from asgiref.testing import ApplicationCommunicator
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from instaccess import signals
from instaccess.service import Verifier, from_application
from instaccess.service.fastapi import InstAccessBearer
from instaccess.service.starlette import InstAccessBackend, TokenRequired, answer_refusals
from instaccess.tokens import Claims
from tests.service.helpers import USER, SlowFetch, good, now
from tests.support import asgi, servers
from tests.support.answers import CHALLENGE, INVALID, UNAUTHENTICATED, UNAVAILABLE
from tests.support.error_reports import CaughtExceptions
from tests.support.receiving import received
from tests.support.tokens import claims

ACCOUNT = claims()["acct"]


@pytest.fixture
def verifier(server: servers.ScriptedServer) -> Verifier:
    return Verifier(jwks_url=f"{server.base_url}/jwks", account=ACCOUNT, allow_http=True)


def starlette(verifier: Verifier) -> Any:
    """Return a Starlette application that calls `TokenRequired`."""
    token_required = TokenRequired(verifier)

    async def endpoint(request: Request) -> Response:
        return JSONResponse((await token_required(request)).user_uuid)

    async def websocket(connection: WebSocket) -> None:
        found = await token_required(connection)
        await connection.accept()
        await connection.send_text(found.user_uuid)
        await connection.close()

    app = Starlette(routes=[Route("/", endpoint), WebSocketRoute("/", websocket)])
    answer_refusals(app)
    return app


def fastapi(verifier: Verifier) -> Any:
    """Return a FastAPI application with endpoints that depend on `InstAccessBearer`."""
    app = FastAPI()
    answer_refusals(app)
    dependency = Depends(InstAccessBearer(verifier))

    async def endpoint(found: Annotated[Claims, dependency]) -> str:
        return found.user_uuid

    async def websocket(connection: WebSocket, found: Annotated[Claims, dependency]) -> None:
        await connection.accept()
        await connection.send_text(found.user_uuid)
        await connection.close()

    # In this module, annotations are strings. FastAPI can't evaluate this string, because `dependency` is a local
    # variable, so replace the string with its value.
    for function in (endpoint, websocket):
        function.__annotations__ |= {"found": Annotated[Claims, dependency]}
    app.get("/")(endpoint)
    app.websocket("/")(websocket)
    return app


def backend(verifier: Verifier) -> Any:
    """Return a Starlette application with the backend, which sets `request.user`."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse(request.user.display_name)

    found = InstAccessBackend(verifier)
    return Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(AuthenticationMiddleware, backend=found, on_error=found.on_error)],
    )


@pytest.fixture(params=[starlette, fastapi, backend])
def app(request: pytest.FixtureRequest, verifier: Verifier) -> Any:
    return request.param(verifier)


@pytest.fixture(params=[starlette, fastapi])
def strict_app(request: pytest.FixtureRequest, verifier: Verifier) -> Any:
    """Return a Starlette or a FastAPI application. The endpoints of both applications require a token."""
    return request.param(verifier)


def ask(app: Any, authorization: str | None) -> asgi.Answer:
    async def main() -> asgi.Answer:
        exchange = asgi.Exchange("GET", "/", application=app)
        if authorization is not None:
            exchange.scope["headers"].append((b"authorization", authorization.encode()))
        await exchange.send()
        return await exchange.answer()

    return asyncio.run(main())


def parts(answer: asgi.Answer) -> tuple[int, bytes, str | None]:
    assert answer.headers["content-type"] == "application/json"
    return answer.status, answer.body, answer.headers.get("www-authenticate")


class TestAnApplication:
    def test_asgi_endpoint_gets_the_claims_of_a_valid_token(self, app, token_factory):
        answer = ask(app, good(token_factory, sub=USER))

        assert (answer.status, answer.json) == (200, USER)

    def test_asgi_endpoint_answers_an_invalid_token_with_the_uniform_401(self, app, token_factory):
        for authorization in (
            good(token_factory, exp=now(), iat=now() - 60),
            good(token_factory, acct="theirs"),
            good(token_factory)[:-8] + "AAAAAAAA",
            "Bearer " + token_factory.token(iat=now(), exp=now() + 60),
        ):
            assert parts(ask(app, authorization)) == INVALID

    def test_c3_asgi_endpoint_answers_503_with_retry_after_if_the_keys_are_unavailable(
        self, app, server, token_factory
    ):
        server.answer_with(500)

        answer = ask(app, good(token_factory))

        assert (parts(answer), answer.headers["retry-after"]) == (UNAVAILABLE, "10")

    def test_asgi_endpoint_answers_a_request_without_an_inst_access_token_with_401_and_the_challenge(
        self, strict_app
    ):
        assert parts(ask(strict_app, None)) == UNAUTHENTICATED
        assert parts(ask(strict_app, "Basic YTpi")) == UNAUTHENTICATED
        assert parts(ask(strict_app, "Bearer opaque")) == INVALID

    def test_starlette_backend_leaves_a_request_without_an_inst_access_token_unauthenticated(self, verifier):
        for authorization in (None, "Basic YTpi", "Bearer opaque"):
            assert ask(backend(verifier), authorization).json == ""

    def test_two_authorization_headers_count_as_no_credentials(self, strict_app, token_factory):
        async def main() -> asgi.Answer:
            exchange = asgi.Exchange("GET", "/", application=strict_app)
            exchange.scope["headers"] += [(b"authorization", good(token_factory).encode())] * 2
            await exchange.send()
            return await exchange.answer()

        assert parts(asyncio.run(main())) == UNAUTHENTICATED

    def test_refusal_of_an_asgi_endpoint_sends_no_signal(self, app, token_factory):
        with received(signals.token_refused) as facts:
            answer = ask(app, good(token_factory, acct="theirs"))

        assert (answer.status, facts) == (401, [])

    def test_asgi_endpoint_logs_the_reason_and_the_client_address_of_a_refusal_but_not_the_token(
        self, app, token_factory, caplog
    ):
        authorization = good(token_factory, acct="theirs", jti="the-id")

        ask(app, authorization)

        [record] = [record for record in caplog.records if record.name == "instaccess.service"]
        assert (record.reason, record.jti, record.ip_address) == ("wrong_account", "the-id", "192.0.2.7")
        assert authorization.rpartition(".")[2] not in caplog.text

    def test_log_handler_of_an_asgi_endpoint_cannot_reach_the_error_that_refuses_a_token(
        self, app, token_factory, monkeypatch
    ):
        handler = CaughtExceptions()
        monkeypatch.setattr(logging.getLogger("instaccess.service"), "handlers", [handler])

        ask(app, good(token_factory, acct="theirs"))

        assert handler.found == [None]

    def test_log_of_a_server_side_error_contains_no_token(self, app, server, token_factory, caplog):
        server.answer_with(500)
        authorization = good(token_factory)

        ask(app, authorization)

        assert "answered 500" in caplog.text
        assert authorization.rpartition(".")[2] not in caplog.text

    @pytest.mark.usefixtures("load_in_background")
    def test_application_answers_other_requests_while_the_keys_are_fetched(self, strict_app, server, token_factory):
        fetch = SlowFetch(server, token_factory.signing)

        async def other_request() -> int:
            await fetch.begun()
            exchange = asgi.Exchange("GET", "/", "opaque", application=strict_app)
            await exchange.send()
            status = (await exchange.answer()).status
            fetch.let_go()
            return status

        async def main() -> list[int]:
            exchange = asgi.Exchange("GET", "/", good(token_factory).removeprefix("Bearer "), application=strict_app)
            await exchange.send()
            async with asyncio.timeout(asgi.PATIENCE):
                first, other = await asyncio.gather(exchange.answer(), other_request())
            return [first.status, other]

        assert asyncio.run(main()) == [200, 401]


class TestConditions:
    @pytest.mark.parametrize("kind", [TokenRequired, InstAccessBearer])
    def test_asgi_endpoint_answers_403_if_the_token_does_not_fulfil_a_condition(self, verifier, token_factory, kind):
        dependency = kind(verifier, allow=[from_application("lms")])

        async def endpoint(request: Request) -> Response:
            return JSONResponse((await dependency(request)).client_id)

        app = Starlette(routes=[Route("/", endpoint)])
        answer_refusals(app)

        assert ask(app, good(token_factory, client_id="lms")).json == "lms"
        refused = ask(app, good(token_factory, client_id="other"))
        body = b'{"errors":[{"message":"The access token does not allow this request."}]}'
        assert parts(refused) == (403, body, None)

    @pytest.mark.parametrize("kind", [TokenRequired, InstAccessBearer])
    def test_asgi_dependency_cannot_be_created_with_invalid_conditions(self, verifier, kind):
        with pytest.raises(TypeError, match="condition"):
            kind(verifier, allow="not_masquerading")

    def test_asgi_endpoint_answers_with_the_same_status_and_challenge_if_the_application_has_no_handler(
        self, verifier
    ):
        token_required = TokenRequired(verifier)

        async def endpoint(request: Request) -> Response:
            await token_required(request)
            return Response()

        answer = ask(Starlette(routes=[Route("/", endpoint)]), None)

        assert (answer.status, answer.headers["www-authenticate"]) == (401, CHALLENGE)


class TestAWebSocket:
    def handshake(self, app: Any, authorization: str, *, extensions: Any) -> list[Any]:
        scope = {
            "type": "websocket",
            "path": "/",
            "query_string": b"",
            "headers": [(b"authorization", authorization.encode())],
            "client": ("192.0.2.7", 4711),
            "subprotocols": [],
            "extensions": extensions,
        }

        async def main() -> list[Any]:
            communicator = ApplicationCommunicator(app, scope)
            await communicator.send_input({"type": "websocket.connect"})
            await communicator.wait(asgi.PATIENCE)
            return [communicator.output_queue.get_nowait() for _ in range(communicator.output_queue.qsize())]

        return asyncio.run(main())

    def test_websocket_handshake_with_a_valid_token_is_accepted(self, strict_app, token_factory):
        accepted, message, _ = self.handshake(strict_app, good(token_factory, sub=USER), extensions={})

        assert (accepted["type"], message["text"]) == ("websocket.accept", USER)

    def test_websocket_handshake_with_an_invalid_token_is_refused_with_401_or_with_the_close_code_1008(
        self, strict_app, token_factory
    ):
        authorization = good(token_factory, exp=1)
        start, body = self.handshake(strict_app, authorization, extensions={"websocket.http.response": {}})
        [closed] = self.handshake(strict_app, authorization, extensions={})

        assert (start["status"], body["body"]) == INVALID[:2]
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


def test_openapi_document_of_fastapi_describes_the_token(verifier):
    document = fastapi(verifier).openapi()

    assert document["paths"]["/"]["get"]["security"] == [{"InstAccess": []}]
    scheme = document["components"]["securitySchemes"]["InstAccess"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert scheme["description"] == "An InstAccess token, signed, from the gateway."
