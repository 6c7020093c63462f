"""Functions that send requests to `/internal/gateway/verify` through WSGI and through ASGI."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.test import AsyncClient, Client

URL = "/internal/gateway/verify"


class ServerAnswer(dict[str, str]):
    """A response of the WSGI or ASGI application: a dictionary of headers, with attributes for status and body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        super().__init__(headers)
        self.status_code, self.content = status, body


def by_wsgi(method: str = "GET", headers: Any = (), body: bytes = b"", path: str = URL) -> ServerAnswer:
    """Send a request through WSGI. Returns the response."""
    extra: dict[str, Any] = {}
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        # Join repeated headers with a comma, as WSGI servers do.
        extra[key] = f"{extra[key]},{value}" if key in extra else value
    response = Client().generic(method, path, body, **extra)
    return ServerAnswer(response.status_code, response.headers.items(), response.content)


def by_asgi(method: str = "GET", headers: Any = (), body: bytes = b"", path: str = URL) -> ServerAnswer:
    """Send a request through ASGI in this thread, which has the test's transaction, and return the response."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]},{value}" if name in joined else value

    async def send() -> Any:
        return await AsyncClient().generic(method, path, body, headers=joined)

    response = async_to_sync(send)()
    return ServerAnswer(response.status_code, response.headers.items(), response.content)


def by_asgi_server(headers: list[tuple[str, str]]) -> ServerAnswer:
    """Call the ASGI application in separate threads, as a server does. Returns the response."""

    async def send() -> ServerAnswer:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": URL,
            "query_string": b"",
            "headers": [(b"host", b"testserver")] + [(n.lower().encode(), v.encode("latin-1")) for n, v in headers],
        }
        server = ApplicationCommunicator(get_asgi_application(), scope)
        await server.send_input({"type": "http.request", "body": b""})
        start = await server.receive_output(30)
        body = (await server.receive_output(30))["body"]
        await server.wait(30)
        return ServerAnswer(start["status"], [(n.decode(), v.decode()) for n, v in start["headers"]], body)

    return async_to_sync(send)()


def verify(bearer: str | None = None, **kwargs: Any) -> ServerAnswer:
    return by_wsgi(headers=[] if bearer is None else [("Authorization", f"Bearer {bearer}")], **kwargs)


def status(bearer: str) -> int:
    return verify(bearer).status_code
