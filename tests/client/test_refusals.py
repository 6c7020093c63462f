"""Tests of the errors of the client: each error describes the fix, and no error contains a token."""

from __future__ import annotations

import socket
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaccess.client import (
    AccessTokenExpired,
    AccessTokenRefused,
    ClientError,
    EndpointNotFound,
    InsufficientScope,
    InvalidArgument,
    InvalidAsUserID,
    IssuerUnavailable,
    UnexpectedResponse,
    UntrustedCertificate,
)
from instaccess.client.issuing import MAX_BYTES
from tests.client.helpers import ACCESS_TOKEN, TOKENS, Clock, report, source
from tests.support import servers

ECHO = ACCESS_TOKEN.encode()
REFUSALS = [
    (401, b'{"errors":[{"message":"Invalid access token."}]}', AccessTokenRefused, "Get a new access token"),
    (
        401,
        b'{"status":"unauthenticated","errors":[{"message":"user authorization required"}]}',
        AccessTokenRefused,
        "Get a new access token",
    ),
    (
        401,
        b'{"errors":[{"message":"Expired access token.","expired_at":"2026-11-26T18:00:00Z"}]}',
        AccessTokenExpired,
        "authorize the application again",
    ),
    (
        401,
        b'{"errors":[{"message":"Insufficient scopes on access token."}]}',
        InsufficientScope,
        r"lacks the scope url:POST\|/api/v1/inst_access_tokens. Enable",
    ),
    (401, b'{"errors":"Invalid as_user_id"}', InvalidAsUserID, "may masquerade"),
    (
        403,
        b'{"error":"cannot generate a JWT when authorized by a JWT"}',
        AccessTokenRefused,
        "Pass an OAuth2 access token",
    ),
    (403, b"<h1>Forbidden " + ECHO, UnexpectedResponse, "firewall"),
    (401, b'{"errors":[{"message":"' + ECHO + b'"}]}', UnexpectedResponse, "not as an issuer does"),
    (404, b"not found " + ECHO, EndpointNotFound, "without /api/v1"),
    (405, b"", EndpointNotFound, "without /api/v1"),
    (400, b"", UnexpectedResponse, "Check that `base_url`"),
    (500, ECHO, IssuerUnavailable, "Try again later"),
    (200, b"<html>login</html>", UnexpectedResponse, "answered without a token"),
    (201, b'{"token":"two words"}', UnexpectedResponse, "answered without a token"),
    (201, b'{"token":null}', UnexpectedResponse, "answered without a token"),
    (201, b"[" * 60_000, UnexpectedResponse, "answered without a token"),
    (201, b" " * (MAX_BYTES + 1), UnexpectedResponse, "sent more than"),
]


class TestRefusals:
    @pytest.mark.parametrize(("status", "body", "error", "text"), REFUSALS)
    def test_error_about_a_refusal_describes_the_fix_and_contains_no_token(self, site, status, body, error, text):
        site.refusals = [(status, body, {})]

        with pytest.raises(ClientError, match=text) as caught:
            source(site.url).token()

        assert type(caught.value) is error
        assert ACCESS_TOKEN not in report(caught.value)

    def test_redirect_of_the_issuer_is_not_followed(self, site):
        with servers.scripted_server(lambda handler: servers.reply(handler, 200)) as other:
            site.refusals = [(307, b"", {"Location": f"{other.base_url}/?stolen"})]

            with pytest.raises(UnexpectedResponse, match=r"redirect \(307\), which is not followed"):
                source(site.url).token()

            assert other.requests == []

    def test_client_stops_waiting_for_a_server_that_sends_a_body_too_slowly(self, site):
        done = servers.threading.Event()

        def drip(handler) -> None:
            handler.send_response(201)
            handler.end_headers()
            for _ in range(1000):
                handler.wfile.write(b" ")
                if done.wait(0.01):
                    return

        with servers.scripted_server(drip) as server, pytest.raises(IssuerUnavailable, match="larger `timeout`"):
            source(server.base_url, timeout=0.1).token()
        done.set()

    def test_server_that_never_answers_causes_an_error_about_the_timeout(self):
        with socket.create_server((servers.HOST, 0)) as silent:
            url = f"http://{servers.HOST}:{silent.getsockname()[1]}"

            with pytest.raises(IssuerUnavailable, match=r"within 0.05 seconds. .*larger `timeout`") as caught:
                source(url, timeout=0.05).token()

        assert ACCESS_TOKEN not in report(caught.value)

    def test_server_that_refuses_connections_causes_an_error_about_the_base_url(self):
        with pytest.raises(
            IssuerUnavailable, match=r"can't be reached \(ConnectionError\). Check `base_url`"
        ) as caught:
            source(f"http://{servers.HOST}:{servers.free_port()}").token()

        assert ACCESS_TOKEN not in report(caught.value)

    def test_server_without_a_trusted_certificate_gets_no_access_token(self, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        received: list[bytes] = []
        with socket.create_server((servers.HOST, 0)) as listener:

            def serve() -> None:
                connection, _ = listener.accept()
                with (
                    connection,
                    pytest.raises(ssl.SSLError),
                    context.wrap_socket(connection, server_side=True) as stream,
                ):
                    received.append(stream.recv(100))

            thread = servers.threading.Thread(target=serve)
            thread.start()
            with pytest.raises(UntrustedCertificate, match="`ca_bundle`") as caught:
                source(f"https://{servers.HOST}:{listener.getsockname()[1]}").token()
            thread.join()

        assert received == []
        assert ACCESS_TOKEN not in report(caught.value)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
    @given(status=st.sampled_from([200, 201, 301, 400, 401, 403, 404, 418, 500, 503]), body=st.binary(max_size=200))
    def test_client_raises_a_client_error_for_any_response_without_a_token(self, site, status, body):
        site.refusals = [(status, body, {})]

        with pytest.raises(ClientError) as caught:
            source(site.url, Clock(), max_wait=0).token()

        assert str(caught.value).endswith(".")


class TestSecrets:
    def test_repr_of_the_objects_of_the_client_contains_no_token(self, site):
        from instaccess.client import HttpxAuth, RequestsAuth

        access = source(site.url)
        access.token()

        for each in (access, RequestsAuth(access), HttpxAuth(access), vars(access)):
            assert not any(secret in repr(each) for secret in (ACCESS_TOKEN, TOKENS[0]))

    @pytest.mark.parametrize(
        ("url", "access_token"),
        [("http://canvas.example.edu", ACCESS_TOKEN), ("https://canvas.example.edu", f"{ACCESS_TOKEN}\n")],
    )
    def test_error_of_an_invalid_argument_does_not_contain_the_access_token(self, url, access_token):
        with pytest.raises(InvalidArgument) as caught:
            source(url, access_token=access_token)

        assert ACCESS_TOKEN not in report(caught.value)
