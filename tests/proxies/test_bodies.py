"""Tests that each proxy forwards request bodies to the service, not to the gateway, and refuses invalid bodies."""

from __future__ import annotations

import socket
from contextlib import suppress
from http.client import HTTPConnection

import pytest

from tests.proxies.helpers import CLOSE, HOST, SELF, authorization
from tests.support import servers
from tests.support.proxies import ISSUE, read_answer

pytestmark = pytest.mark.services

TOO_LONG = 100 * 1024 * 1024 + 1
"""The length of a body, in bytes, that exceeds the limit for bodies in each example."""


class TestARequestBody:
    def test_g15_proxy_forwards_a_body_of_5_mb_to_the_service_and_not_to_the_gateway(self, proxy, site):
        body = b"0123456789abcdef" * (5 * 1024 * 1024 // 16)

        answer = proxy.call("POST", SELF, proxy.token(), body=body, Content_Type="application/octet-stream")

        assert (answer.status, answer.json) == (200, {"received": len(body)})
        assert len(site.gateway.requests) == len(site.service.requests) == 1
        assert b"0123456789abcdef" not in site.gateway.sent
        assert len(site.gateway.sent) < 16 * 1024
        assert site.gateway.headers("Content-Length") in ([], ["0"])
        assert site.gateway.headers("Transfer-Encoding") == []

    def test_g15_proxy_forwards_a_chunked_body_to_the_service_and_not_to_the_gateway(self, proxy, site, monkeypatch):
        # Check the body in the wire tap, because Django under WSGI reads no body without a Content-Length.
        monkeypatch.setattr(site.service, "may_answer", lambda sent: sent.count(b"~") == 1024 * 1024)
        connection = HTTPConnection(servers.HOST, proxy.port, timeout=servers.PATIENCE)
        connection.request(
            "POST",
            SELF,
            body=iter([b"~" * 16 * 1024] * 64),
            headers={"Authorization": f"Bearer {proxy.token()}", "Content-Type": "application/octet-stream"},
            encode_chunked=True,
        )
        response = connection.getresponse()
        response.read()
        connection.close()

        assert response.status == 200
        assert site.service.sent.count(b"~") == 1024 * 1024
        assert b"~" not in site.gateway.sent

    def test_g15_proxy_forwards_the_body_of_a_refused_request_neither_to_the_gateway_nor_to_the_service(
        self, proxy, site
    ):
        answer = proxy.call("POST", SELF, "a.b.c.d.e", body=b"0123456789abcdef" * 64)

        assert answer.status == 401
        assert site.service.requests == []
        assert b"0123456789abcdef" not in site.gateway.sent


class TestAnUnusualBody:
    @pytest.mark.parametrize("path", [SELF, ISSUE])
    def test_g29_proxy_returns_413_for_a_body_over_the_limit(self, proxy, site, path):
        answer = proxy.raw(
            f"POST {path} HTTP/1.1", HOST, authorization(proxy.token()), f"Content-Length: {TOO_LONG}", CLOSE
        )

        assert answer.status == 413
        assert isinstance(answer.json["errors"], list)
        assert answer.headers["Retry-After"] is None
        assert site.service.requests == site.issuer.requests == []

    def test_g29_proxy_except_envoy_returns_413_for_a_chunked_body_over_the_limit(self, proxy, site):
        lines = [f"POST {SELF} HTTP/1.1", HOST, authorization(proxy.token()), "Transfer-Encoding: chunked", CLOSE]
        chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        with socket.create_connection((servers.HOST, proxy.port), timeout=servers.PATIENCE) as stream:
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            # Ignore a closed connection, because a proxy can answer and close before the body is complete.
            with suppress(ConnectionError):
                for _ in range(TOO_LONG // 0x100000 + 1):
                    stream.sendall(chunk)
                stream.sendall(b"0\r\n\r\n")
            answer = read_answer(stream)

        # Envoy limits only a body with a Content-Length, as docs/proxies.md documents.
        assert answer.status == (200 if proxy.name == "envoy" else 413)
        assert answer.headers["Retry-After"] is None

    @pytest.mark.parametrize("path", [SELF, ISSUE])
    @pytest.mark.parametrize(
        "headers",
        [
            ("Transfer-Encoding: gzip",),
            ("Transfer-Encoding: gzip, chunked",),
            ("Transfer-Encoding: chunked, identity",),
            ("Transfer-Encoding: xchunked",),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
            ("Content-Length: 5", "Content-Length: 6"),
            ("Content-Length: -1",),
            ("Content-Length: 99999999999999999999999",),
        ],
    )
    def test_g29_proxy_refuses_a_request_with_an_invalid_content_length_or_transfer_encoding(
        self, proxy, site, path, headers
    ):
        answer = proxy.raw(f"POST {path} HTTP/1.1", HOST, authorization(proxy.token()), *headers, CLOSE)

        assert answer.status in (400, 413, 501)
        assert answer.headers["Retry-After"] is None
        assert site.service.requests == site.issuer.requests == []

    def test_g29_proxy_forwards_no_request_with_both_content_length_and_transfer_encoding(self, proxy, site):
        lines = ("Transfer-Encoding: chunked", "Content-Length: 2", CLOSE, "", "5", "hello", "0")
        answer = proxy.raw(f"POST {SELF} HTTP/1.1", HOST, authorization(proxy.token()), *lines)

        assert answer.status in (200, 400)
        assert not (site.service.headers("Content-Length") and site.service.headers("Transfer-Encoding"))
