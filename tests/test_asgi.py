"""Tests of WebSocket handshakes with an ASGI application that is wrapped in `without_websockets`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from instaccess.asgi import without_websockets
from tests.support.answers import INVALID
from tests.support.asgi import PATIENCE, Exchange

HANDSHAKE = {
    "type": "websocket",
    "http_version": "1.1",
    "path": "/internal/gateway/verify",
    "query_string": b"",
    "headers": [(b"host", b"testserver"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade")],
    "extensions": {"websocket.http.response": {}},
}


def shake_hands(scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Start a WebSocket handshake, and return the messages that the application sends."""

    async def story() -> list[dict[str, Any]]:
        application = ApplicationCommunicator(without_websockets(get_asgi_application()), scope)
        await application.send_input({"type": "websocket.connect"})
        await application.wait(PATIENCE)
        return [application.output_queue.get_nowait() for _ in range(application.output_queue.qsize())]

    return asyncio.run(story())


@pytest.mark.django_db(transaction=True)
class TestAWebSocketHandshake:
    @pytest.mark.parametrize("scheme", [{}, {"scheme": "ws"}, {"scheme": "wss"}])
    def test_websocket_handshake_is_answered_like_a_get_request_to_the_same_path(self, scheme):
        start, body = shake_hands(HANDSHAKE | scheme)

        assert start["type"] == "websocket.http.response.start"
        assert body["type"] == "websocket.http.response.body"
        headers = {name.lower(): value.decode() for name, value in start["headers"]}
        assert (start["status"], body["body"], headers[b"www-authenticate"]) == INVALID

    def test_websocket_handshake_is_rejected_if_the_server_cannot_send_an_http_response(self):
        assert shake_hands(HANDSHAKE | {"extensions": {}}) == [{"type": "websocket.close"}]

    def test_websocket_handshake_for_an_unknown_path_gets_a_404(self):
        start, *_ = shake_hands(HANDSHAKE | {"path": "/unknown"})

        assert start["status"] == 404


@pytest.mark.django_db(transaction=True)
class TestAnHTTPRequest:
    def test_http_request_gets_the_same_response_with_and_without_the_websocket_wrapper(self):
        async def story() -> Any:
            application = without_websockets(get_asgi_application())
            exchange = Exchange("GET", "/internal/gateway/verify", application=application)
            await exchange.send()
            return await exchange.answer()

        answer = asyncio.run(story())

        assert (answer.status, answer.body) == INVALID[:2]
