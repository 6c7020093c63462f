"""Tests of the gateway and the issuer without a proxy, with headers that the application server might handle itself.

See docs/wire-contract.md §3.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.proxies.helpers import CLOSE, HOST, HTTP_2_UPGRADE, INVALID, WEBSOCKET, authorization
from tests.support.proxies import Proxy, Site

pytestmark = pytest.mark.services

VERIFY = "GET /internal/gateway/verify HTTP/1.1"
GATEWAYS = ["gunicorn", "uvicorn", "uvicorn --ws none", "hypercorn"]
HEADERS = [
    WEBSOCKET,
    WEBSOCKET[:2],
    HTTP_2_UPGRADE,
    ("HTTP2-Settings: AAMAAABkAAQAAP__",),
    ("Connection: Upgrade", "Upgrade: foo"),
    ("Expect: 100-continue",),
    ("Expect: other",),
]

# The application server sends these responses before the gateway runs, as docs/proxies.md documents.
ANSWERED_BY_THE_SERVER = {
    ("gunicorn", ("Expect: other",)): 417,
    ("uvicorn", WEBSOCKET[:2]): 400,
    ("hypercorn", WEBSOCKET[:2]): 400,
}


@pytest.fixture(scope="module", params=GATEWAYS)
def server(request: pytest.FixtureRequest, the_site: Site) -> Iterator[Proxy]:
    """Start a server that runs the gateway, and check after the tests that its log contains no traceback."""
    process = the_site.start_server(f"direct-{request.param}", request.param)
    yield Proxy(request.param, process.port, the_site)
    text = process.log.read_text()
    process.kill()
    assert "Traceback" not in text


@pytest.fixture(scope="module")
def token(the_site: Site) -> str:
    return Proxy("none", the_site.service_process.port, the_site).token()


def final_status(stream: socket.socket, received: bytes) -> int:
    """Return the status of the response on a connection that has switched to HTTP/2.

    Args:
        received: the bytes that the server has already sent in HTTP/2.
    """
    from h2.connection import H2Connection
    from h2.events import ResponseReceived

    connection = H2Connection()
    connection.initiate_upgrade_connection()
    stream.sendall(connection.data_to_send())
    while True:
        for event in connection.receive_data(received):
            if isinstance(event, ResponseReceived):
                return int(dict(event.headers)[b":status"])
        received = stream.recv(65536)
        assert received, "the server closed the connection without a response"


class TestTheGatewayWithoutAProxy:
    @pytest.mark.parametrize("headers", HEADERS)
    @pytest.mark.parametrize(("good", "status"), [(True, 204), (False, 401)])
    def test_gateway_without_a_proxy_returns_only_204_or_401(self, server, token, headers, good, status):
        with server.connection(VERIFY, HOST, authorization(token if good else "a.b.c.d.e"), *headers) as (
            answer,
            stream,
        ):
            if answer.status == 101:
                assert (server.name, headers) == ("hypercorn", HTTP_2_UPGRADE)
                assert final_status(stream, answer.after) == status
            else:
                assert answer.status == ANSWERED_BY_THE_SERVER.get((server.name, headers), status)

    @pytest.mark.parametrize("headers", [WEBSOCKET, ("Expect: 100-continue",)])
    def test_gateway_without_a_proxy_refuses_a_request_with_upgrade_or_expect_and_without_a_token(
        self, server, headers
    ):
        answer = server.raw(VERIFY, HOST, *headers)

        assert (answer.status, answer.body) == (401, INVALID)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="canvas-lms"'

    def test_gateway_without_a_proxy_returns_the_signed_token_for_a_websocket_handshake(self, server, token):
        answer = server.raw(VERIFY, HOST, authorization(token), *WEBSOCKET)

        assert answer.status == 204
        assert answer.headers["Authorization"].count(".") == 2

    def test_gateway_without_a_proxy_returns_204_for_a_post_request_with_expect_100_continue(self, server, token):
        answer = server.raw(
            VERIFY.replace("GET", "POST"),
            HOST,
            authorization(token),
            "Expect: 100-continue",
            "Content-Length: 0",
            CLOSE,
        )

        assert answer.status == 204


class TestTheIssuerWithoutAProxy:
    def test_issuer_without_a_proxy_returns_405_for_a_websocket_handshake(self, server):
        answer = server.raw("GET /api/v1/inst_access_tokens HTTP/1.1", HOST, *WEBSOCKET)

        assert answer.status == 405
        assert answer.json == {"errors": [{"message": "Method not allowed."}]}
