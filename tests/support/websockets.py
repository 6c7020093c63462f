"""An ASGI application with the test project and with a WebSocket endpoint that echoes messages.

The endpoint accepts a handshake only if the token in the Authorization header has the three segments of a signed
token.
"""

from __future__ import annotations

from typing import Any

from testproject.asgi import application as test_project

LIVE = "/api/v1/live"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "websocket" or scope["path"] != LIVE:
        await test_project(scope, receive, send)
        return
    await receive()
    authorization = dict(scope["headers"]).get(b"authorization", b"")
    if authorization.count(b".") != 2:
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
