"""An ASGI wrapper for deployments without WebSocket endpoints: `without_websockets(get_asgi_application())`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

DENIAL_RESPONSE = "websocket.http.response"
"""The ASGI extension that allows an application to answer a WebSocket handshake with an HTTP response."""


def without_websockets(application: Application) -> Application:
    """Wrap an application, which then answers a WebSocket handshake like a GET request without an Upgrade header.

    Without the wrapper, Django's application raises an error for each handshake, because the application supports
    only HTTP. Any client could then cause a 500 response and a traceback in the log. The gateway must answer only
    204, 401 or 503 (docs/wire-contract.md §3).

    If the server lacks the extension "WebSocket Denial Response", as Daphne does, the client gets a 403.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await application(scope, receive, send)
        elif DENIAL_RESPONSE in scope.get("extensions", {}):
            await application(_as_http(scope), _receive_as_http(receive), _send_as_denial(send))
        else:
            await send({"type": "websocket.close"})

    return wrapped


def _as_http(scope: Scope) -> Scope:
    scheme = {"ws": "http", "wss": "https"}[scope.get("scheme", "ws")]
    return {**scope, "type": "http", "method": "GET", "scheme": scheme, "extensions": {}}


def _receive_as_http(receive: Receive) -> Receive:
    async def wrapped() -> Message:
        message = await receive()
        if message["type"] == "websocket.connect":
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    return wrapped


def _send_as_denial(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return wrapped
