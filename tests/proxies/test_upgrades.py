"""Tests that each proxy allows WebSocket handshakes with a valid token, and no tunnels past the gateway."""

from __future__ import annotations

import socket

import pytest

from tests.proxies.helpers import CLOSE, HOST, HTTP_2_UPGRADE, INVALID, SELF, WEBSOCKET, authorization, bearer
from tests.support import servers
from tests.support.proxies import ISSUE, Proxy

pytestmark = pytest.mark.services

LIVE = "/api/v1/live"
"""The WebSocket endpoint of tests/support/websockets.py."""


def echo(stream: socket.socket, text: str) -> str:
    """Send a WebSocket message and return the message that the service sends back."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import TextMessage

    websocket = Connection(ConnectionType.CLIENT)
    stream.sendall(websocket.send(TextMessage(text)))
    while True:
        received = stream.recv(65536)
        assert received, "the service closed the connection without a message"
        websocket.receive_data(received)
        for event in websocket.events():
            if isinstance(event, TextMessage):
                return event.data


def status_over_http_2(port: int, path: str) -> int | None:
    """Send a GET request over HTTP/2 without TLS, and return the status or None if the proxy refuses HTTP/2."""
    from h2.connection import H2Connection
    from h2.events import ResponseReceived

    connection = H2Connection()
    connection.initiate_connection()
    fields = {":method": "GET", ":scheme": "http", ":authority": "127.0.0.1", ":path": path}
    connection.send_headers(1, list(fields.items()), end_stream=True)
    with socket.create_connection((servers.HOST, port), timeout=servers.PATIENCE) as stream:
        stream.sendall(connection.data_to_send())
        while data := stream.recv(65536):
            if data.startswith(b"HTTP/1"):
                return None
            for event in connection.receive_data(data):
                if isinstance(event, ResponseReceived):
                    return int(dict(event.headers)[b":status"])
    return None


class TestAnUpgradeToHTTP2:
    """Tests of an upgrade to HTTP/2 in clear text, which would open a tunnel past the gateway if forwarded (G23)."""

    def test_service_without_a_proxy_accepts_an_upgrade_to_http_2(self, site):
        direct = Proxy("none", site.service_process.port, site)

        assert direct.raw(f"GET {SELF} HTTP/1.1", HOST, *HTTP_2_UPGRADE).status == 101

    @pytest.mark.parametrize(
        "headers",
        [
            HTTP_2_UPGRADE,
            ("Connection: Upgrade", "Upgrade: h2c"),
            ("Connection: Upgrade", "Upgrade: H2C"),
            ("Connection: Upgrade", "Upgrade: h2c, websocket"),
            ("Connection: Upgrade", "Upgrade: websocket, h2c"),
            ("Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"),
            ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
            ("Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c"),
            ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ],
    )
    @pytest.mark.parametrize("request_line", [f"GET {ISSUE}", f"POST {ISSUE}", f"GET {SELF}", f"OPTIONS {SELF}"])
    def test_g23_proxy_opens_no_tunnel_for_a_client_without_credentials(self, proxy, site, request_line, headers):
        answer = proxy.raw(f"{request_line} HTTP/1.1", HOST, "Content-Length: 0", *headers)

        # Envoy answers 400 if its configuration doesn't allow an upgrade for the path. nginx and Caddy ignore the
        # `Upgrade` header, so the client gets the usual 401 or 405.
        assert answer.status in (400, 401, 405)
        assert isinstance(answer.json["errors"], list)
        for tap in (site.gateway, site.service, site.issuer):
            assert tap.headers("Upgrade") == []
            assert tap.headers("HTTP2-Settings") == []

    def test_g23_proxy_opens_no_tunnel_for_a_client_with_a_token(self, proxy, site):
        answer = proxy.raw(f"GET {SELF} HTTP/1.1", HOST, authorization(proxy.token()), *HTTP_2_UPGRADE)

        assert (answer.status, answer.json["login_id"]) == (200, "ada")
        assert site.service.headers("Upgrade") == site.service.headers("HTTP2-Settings") == []

    @pytest.mark.parametrize("path", ["/internal/services/jwks", "/admin/login/", "/"])
    def test_g23_proxy_opens_no_tunnel_for_a_path_that_is_not_public(self, proxy, site, path):
        answer = proxy.raw(f"GET {path} HTTP/1.1", HOST, *HTTP_2_UPGRADE)

        assert answer.status == 404
        assert site.service.sent == site.issuer.sent == b""

    @pytest.mark.parametrize(
        ("path", "status"), [(SELF, 401), ("/internal/services/jwks", 404), ("/admin/login/", 404)]
    )
    def test_g23_client_without_a_token_reaches_neither_service_nor_issuer_over_http_2(
        self, proxy, site, path, status
    ):
        assert status_over_http_2(site.service_process.port, path) is not None
        site.clear()

        # Envoy checks each request of an HTTP/2 connection. nginx and Caddy accept HTTP/2 only with TLS.
        assert status_over_http_2(proxy.port, path) == (status if proxy.name == "envoy" else None)
        assert site.service.requests == site.issuer.requests == []

    def test_g23_proxy_opens_no_tunnel_for_a_connect_request(self, proxy, site):
        answer = proxy.raw(f"CONNECT 127.0.0.1:{site.service_process.port} HTTP/1.1", HOST, CLOSE)

        assert 400 <= answer.status < 500
        assert site.service.sent == site.issuer.sent == b""


class TestAWebSocketHandshake:
    def test_g24_a_client_with_a_valid_token_opens_a_websocket_to_the_service(self, proxy, site):
        lines = (f"GET {LIVE} HTTP/1.1", HOST, authorization(proxy.token()), *WEBSOCKET)
        with proxy.connection(*lines) as (answer, stream):
            assert answer.status == 101
            assert echo(stream, "hello") == "hello"

        (header,) = site.service.headers("Authorization")
        assert bearer(header).count(".") == 2
        assert site.service.headers("Upgrade") == ["websocket"]

    @pytest.mark.parametrize("token", ["", "opaque", "a.b.c.d.e"])
    def test_g24_proxy_refuses_a_websocket_handshake_without_a_valid_token(self, proxy, site, token):
        answer = proxy.raw(f"GET {LIVE} HTTP/1.1", HOST, *([authorization(token)] if token else []), *WEBSOCKET)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_g24_proxy_sends_no_websocket_handshake_to_the_gateway(self, proxy, site):
        for token in ("a.b.c.d.e", proxy.token()):
            proxy.raw(f"GET {LIVE} HTTP/1.1", HOST, authorization(token), *WEBSOCKET)

        assert len(site.gateway.requests) == 2
        for name in ("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
            assert {value.lower() for value in site.gateway.headers(name)} <= {"keep-alive"}, name
        assert "Traceback" not in site.gateway_process.log.read_text()

    def test_g24_proxy_ignores_an_upgrade_that_is_neither_websocket_nor_http_2(self, proxy, site):
        for token, status in ((proxy.token(), 200), ("a.b.c.d.e", 401)):
            for value in ("foo", "TLS/1.3", "websockets"):
                answer = proxy.raw(
                    f"GET {SELF} HTTP/1.1", HOST, authorization(token), "Connection: Upgrade", f"Upgrade: {value}"
                )

                assert answer.status == status
        assert site.service.headers("Upgrade") == site.gateway.headers("Upgrade") == []

    def test_g23_g24_proxy_sends_no_websocket_handshake_to_the_issuer(self, proxy, site):
        proxy.raw(f"GET {ISSUE} HTTP/1.1", HOST, *WEBSOCKET)

        assert site.issuer.headers("Upgrade") == []
