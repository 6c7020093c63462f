"""A real nginx and a real Caddy with the example configurations, in front of the test project.

Only addresses in the configurations are replaced. Wire taps in front of the gateway and the service record every byte
that a proxy sends.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.answers import CHALLENGE
from tests.support.demos import SetUp
from tests.support.proxies import ISSUE, USERS, Proxy, ScriptedGateway, Site, start_caddy, start_nginx

pytestmark = pytest.mark.services

SELF = "/api/v1/users/self"
INVALID = b'{"errors":[{"message":"Invalid access token."}]}'
UNAVAILABLE = b'{"errors":[{"message":"The service is temporarily unavailable."}]}'


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Don't use pytest's temporary directory, which only its owner can enter. If root starts nginx, the workers run as
    # another user.
    with tempfile.TemporaryDirectory(prefix="instaccess-proxies-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def site(folder: Path, set_up_once: SetUp) -> Iterator[Site]:
    site = Site(folder, set_up_once)
    yield site
    site.close()


@pytest.fixture(scope="module", params=[start_nginx, start_caddy], ids=["nginx", "caddy"])
def _proxy(request: pytest.FixtureRequest, site: Site) -> Iterator[Proxy]:
    port = servers.free_port()
    process = request.param(site, port)
    proxy = Proxy(request.param.__name__.removeprefix("start_"), port, site)
    yield proxy
    process.kill()


@pytest.fixture
def proxy(_proxy: Proxy, site: Site) -> Proxy:
    _proxy.token()
    site.gateway.clear()
    site.service.clear()
    return _proxy


def bearer(text: str) -> str:
    scheme, _, token = text.partition(" ")
    assert scheme == "Bearer"
    return token


class TestATokenFromIssueToRevocation:
    def test_a_token_is_issued_decrypted_accepted_revoked_and_refused(self, proxy, site):
        token = proxy.issue("ada")
        accepted = proxy.call("GET", SELF, token)
        row = json.loads(site.manage("instaccess_tokens", "list", "--user", "ada", "--limit", "1", "--json"))[0]
        site.manage("instaccess_tokens", "revoke", "--jti", row["jti"], "--reason", "laptop stolen")
        refused = servers.wait_until(lambda: proxy.call("GET", SELF, token), lambda answer: answer.status != 200)

        assert (accepted.status, accepted.json["login_id"]) == (200, "ada")
        assert (refused.status, refused.body, refused.headers["WWW-Authenticate"]) == (401, INVALID, CHALLENGE)

    def test_the_service_receives_the_signed_token_and_never_the_encrypted_token(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())

        (authorization,) = site.service.headers("Authorization")
        assert bearer(authorization).count(".") == 2
        assert proxy.token().encode() not in site.service.sent

    def test_the_issuer_receives_the_clients_access_token_for_every_form_of_its_path(self, proxy, site):
        for path in (ISSUE + ".json", ISSUE + "/", ISSUE + "?as_user_id="):
            answer = proxy.call("POST", path, "no-such-access-token")

            assert (answer.status, answer.body) == (401, INVALID), path
            assert answer.headers.get_all("WWW-Authenticate") == [CHALLENGE]
        assert site.gateway.requests == []

    def test_the_audit_log_contains_the_client_address_that_the_proxy_saw(self, proxy, site):
        answer = proxy.call("POST", ISSUE, site.access_tokens["boole"].pop(), X_Forwarded_For="203.0.113.9")

        row = json.loads(site.manage("instaccess_tokens", "list", "--user", "boole", "--limit", "1", "--json"))[0]
        assert answer.status == 201
        assert row["ip_address"] == servers.HOST
        assert row["canvas_domain"] == f"{servers.HOST}:{proxy.port}"


class TestARefusal:
    @pytest.mark.parametrize(
        "authorization",
        [
            "",
            "Bearer ",
            "Basic YWRhOmFkYQ==",
            "Bearer opaque",
            "Bearer a.b.c",
            "Bearer a.b.c.d.e",
            "Bearer x, Bearer y",
        ],
    )
    def test_a_refusal_has_canvass_json_body_and_the_challenge(self, proxy, site, authorization):
        answer = proxy.call("GET", SELF, Authorization=authorization)

        assert (answer.status, answer.body) == (401, INVALID)
        assert answer.headers.get_all("WWW-Authenticate") == [CHALLENGE]
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        assert site.service.requests == []

    def test_a_request_without_authorization_is_refused(self, proxy, site):
        answer = proxy.call("GET", SELF)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_g22_a_signed_token_from_a_client_is_refused(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        signed = bearer(site.service.headers("Authorization")[0])
        site.service.clear()

        answer = proxy.call("GET", SELF, signed)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_an_invalid_token_of_the_maximum_length_and_an_oversized_token_are_refused(self, proxy, site):
        long = ".".join(["x" * 1636] * 5)

        assert proxy.call("GET", SELF, long).status == 401
        assert site.gateway.headers("Authorization") == [f"Bearer {long}"]
        assert proxy.call("GET", SELF, "x" * 100_000).status in (400, 401, 431)
        assert site.service.requests == []

    def test_g12_two_authorization_headers_are_refused(self, proxy, site):
        good = f"Authorization: Bearer {proxy.token()}"
        for lines in ([good, good], [good, "Authorization: Bearer other"], ["Authorization: Bearer other", good]):
            answer = proxy.raw(f"GET {SELF} HTTP/1.1", "Host: 127.0.0.1", *lines, "Connection: close")

            assert answer.status in (400, 401), lines
            assert isinstance(answer.json["errors"], list)
        assert site.service.requests == []

    def test_a_refusal_of_the_service_reaches_the_client_unchanged(self, proxy):
        answer = proxy.call("DELETE", SELF, proxy.token())

        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, HEAD, OPTIONS")
        assert b"DELETE" in answer.body


class TestPathsThatAreNotPublic:
    @pytest.mark.parametrize(
        "path",
        [
            "/internal/gateway/verify",
            "/internal/services/jwks",
            "/internal/services/revocations",
            "//internal/gateway/verify",
            "/./internal/gateway/verify",
            "/%69nternal/gateway/verify",
            "/api/v1/../../internal/gateway/verify",
            "/api/v1/%2e%2e/%2e%2e/internal/gateway/verify",
            "/api/v1/..%2f..%2finternal/services/jwks",
            "/api/v1/inst_access_tokens/../../../internal/services/jwks",
            "/_gateway",
            "/_unavailable",
            "/admin/",
            "/",
        ],
    )
    def test_a_path_that_is_not_public_gets_a_json_404(self, proxy, site, path):
        answer = proxy.raw(f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close")

        assert answer.status in (401, 404)
        assert isinstance(answer.json["errors"], list)
        assert site.service.requests == []

    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/users/../inst_access_tokens",
            "/api/v1/users/self/../../inst_access_tokens",
            "/API/V1/USERS/SELF",
            "/api//v1/users/self",
            "/internal/../api/v1/users/self",
        ],
    )
    def test_a_non_canonical_path_does_not_bypass_the_gateway(self, proxy, site, path):
        opaque = site.access_tokens["ada"][0]  # Without the gateway, the service would accept this token.

        answer = proxy.raw(
            f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {opaque}", "Connection: close"
        )

        assert answer.status in (401, 404, 405)
        assert site.service.requests == []


FORGED = {
    "Remote-User": "admin",
    "X-Remote-User": "admin",
    "X-Forwarded-User": "admin",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.example",
    "X-Original-URI": "/evil",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;host=evil.example",
    "Proxy": "http://evil.example",
}


class TestForgedHeaders:
    def test_g13_forged_identity_and_origin_headers_do_not_reach_the_service(self, proxy, site):
        for change_name in (str, lambda name: name.replace("-", "_"), str.upper):
            lines = [f"{change_name(name)}: {value}" for name, value in FORGED.items()]
            site.service.clear()
            answer = proxy.raw(
                f"GET {SELF} HTTP/1.1",
                "Host: 127.0.0.1",
                f"Authorization: Bearer {proxy.token()}",
                *lines,
                "Connection: close",
            )

            assert (answer.status, answer.json["login_id"]) == (200, "ada")
            for name, value in FORGED.items():
                assert value not in site.service.headers(name), name
            assert site.service.headers("X-Forwarded-For") == [servers.HOST]
            assert site.service.headers("X-Forwarded-Proto") == ["http"]

    @pytest.mark.parametrize(
        "headers",
        [
            "Connection: authorization, close",
            "Connection: close, Authorization, x-forwarded-for",
            "Connection: keep-alive\r\nConnection: authorization, close",
            "Proxy-Connection: authorization\r\nConnection: close",
            "Keep-Alive: authorization\r\nConnection: close",
            "Trailer: Authorization\r\nConnection: close",
            "TE: trailers, authorization\r\nConnection: close",
            "Authorization : Bearer forged\r\nConnection: close",
            "authorization_: Bearer forged\r\nConnection: close",
            "X-Forged: a\r\n Authorization: Bearer forged\r\nConnection: close",
        ],
    )
    def test_g13_header_tricks_cannot_replace_the_authorization_header_of_the_gateway(self, proxy, site, headers):
        proxy.call("GET", SELF, proxy.token())
        (good,) = site.service.headers("Authorization")
        site.service.clear()

        answer = proxy.raw(
            f"GET {SELF} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {proxy.token()}",
            *headers.split("\r\n"),
        )

        assert answer.status in (200, 400, 401)
        assert set(site.service.headers("Authorization")) <= {good}
        assert not re.search(rb"(?mi)^authorization[^\r\n]*forged", site.service.sent)

    def test_g20_forged_headers_do_not_change_the_decision(self, proxy, site):
        for token, status in ((proxy.token(), 200), ("a.b.c.d.e", 401)):
            answer = proxy.call(
                "GET", SELF, token, **{name.replace("-", "_"): value for name, value in FORGED.items()}
            )

            assert answer.status == status

    def test_a_forged_host_header_does_not_reach_the_gateway(self, proxy, site):
        answer = proxy.raw(f"GET {SELF} HTTP/1.1", "Host: evil.example", "Connection: close")

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.gateway.headers("Host") == [servers.HOST]


class TestAFaultyGateway:
    """G14: the client gets 503 within the time-out, and the request does not reach the service."""

    def assert_unavailable(self, proxy: Proxy, site: Site) -> None:
        answer = proxy.call("POST", SELF, proxy.token(), body=b"x" * 1000)

        assert (answer.status, answer.body) == (503, UNAVAILABLE)
        assert answer.headers["Retry-After"] == "10"
        assert answer.headers["Content-Type"].startswith("application/json")
        assert site.service.requests == []

    def test_g14_proxy_returns_503_if_the_gateway_stalls(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        site.service.clear()
        site.gateway_process.suspend()
        try:
            self.assert_unavailable(proxy, site)
            self.assert_unavailable(proxy, site)
        finally:
            site.gateway_process.resume()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    def test_g14_proxy_returns_503_if_the_gateway_was_killed(self, proxy, site):
        site.gateway_process.kill()
        try:
            self.assert_unavailable(proxy, site)
        finally:
            site.restart_gateway()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    def test_g14_proxy_returns_503_if_the_gateway_resets_the_connection(self, proxy, site):
        site.gateway_process.kill()  # This also ends the kept-alive connections.
        site.gateway.resets = True
        try:
            self.assert_unavailable(proxy, site)
        finally:
            site.gateway.resets = False
            site.restart_gateway()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    @pytest.mark.parametrize("status", [200, 201, 202, 206, 302, 400, 403, 404, 429, 500, 502, 503])
    def test_g14_every_status_that_a_gateway_never_sends_is_refused(self, proxy, site, status):
        script = f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nContent-Type: text/html\r\nConnection: close\r\n\r\nhi"
        with ScriptedGateway(site, script):
            answer = proxy.call("GET", SELF, proxy.token())

        if 200 <= status < 300 and proxy.name == "nginx":
            # After every 2xx, nginx forwards the request without an Authorization header, so the service answers 401.
            assert answer.status == 401
            assert site.service.headers("Authorization") == []
        else:
            assert (answer.status, answer.body) == (503, UNAVAILABLE)
            assert site.service.requests == []


class TestTheAuthorizationHeaderOfTheGateway:
    def test_g17_an_authorization_header_of_4_kib_reaches_the_service_complete(self, proxy, site):
        longest = "Bearer " + "x" * 3900
        script = f"HTTP/1.1 204 No Content\r\nAuthorization: {longest}\r\nConnection: close\r\n\r\n"
        with ScriptedGateway(site, script):
            proxy.call("GET", SELF, proxy.token())

        assert site.service.headers("Authorization") == [longest]

    def test_an_answer_without_an_authorization_header_leaves_the_service_without_one(self, proxy, site):
        with ScriptedGateway(site, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"):
            answer = proxy.call("GET", SELF, proxy.token())

        assert answer.status in (401, 503)
        assert site.service.headers("Authorization") == []


class TestARequestBody:
    def test_g15_a_body_of_5_mb_reaches_the_service_and_not_the_gateway(self, proxy, site):
        body = b"0123456789abcdef" * (5 * 1024 * 1024 // 16)

        answer = proxy.call("POST", SELF, proxy.token(), body=body, Content_Type="application/octet-stream")

        assert (answer.status, answer.json) == (200, {"received": len(body)})
        assert len(site.gateway.requests) == len(site.service.requests) == 1
        assert b"0123456789abcdef" not in site.gateway.sent
        assert len(site.gateway.sent) < 16 * 1024
        assert site.gateway.headers("Content-Length") in ([], ["0"])
        assert site.gateway.headers("Transfer-Encoding") == []

    def test_g15_a_chunked_body_reaches_the_service_and_not_the_gateway(self, proxy, site, monkeypatch):
        # The wire tap checks the body: Django under WSGI reads no body without a Content-Length, and Caddy adds none.
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

    def test_g15_the_body_of_a_refused_request_reaches_neither_gateway_nor_service(self, proxy, site):
        answer = proxy.call("POST", SELF, "a.b.c.d.e", body=b"0123456789abcdef" * 64)

        assert answer.status == 401
        assert site.service.requests == []
        assert b"0123456789abcdef" not in site.gateway.sent


class TestTheSubrequest:
    def test_the_subrequest_uses_the_fixed_path_without_the_clients_query(self, proxy, site):
        proxy.call("GET", SELF + "?access_token=hidden&%GG", proxy.token())

        ((method, path, _),) = [line.split(" ") for line in site.gateway.requests]
        assert method == "GET"
        assert path == "/internal/gateway/verify"
        assert b"hidden" not in site.gateway.sent

    def test_the_subrequest_ignores_the_clients_upgrade_header(self, proxy, site):
        answer = proxy.raw(
            f"GET {SELF} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket", "X-A: b"
        )

        assert answer.status == 401
        assert site.service.requests == []


class TestConcurrentClients:
    def test_g16_no_client_receives_the_answer_for_another_user(self, proxy):
        tokens = {user: proxy.token(user) for user in USERS}
        mixed_up: list[Any] = []

        def ask(user: str) -> None:
            for number in range(40):
                answer = proxy.call("GET", f"{SELF}?n={number % 3}", tokens[user])
                if (answer.status, answer.json.get("login_id")) != (200, user):
                    mixed_up.append((user, answer))
                if number % 10 == 0 and proxy.call("GET", SELF).status != 401:
                    mixed_up.append((user, "accepted without a token"))

        threads = [threading.Thread(target=ask, args=(user,)) for user in USERS * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert mixed_up == []

    def test_g16_one_connection_can_carry_requests_of_different_users(self, proxy):
        connection = HTTPConnection(servers.HOST, proxy.port, timeout=servers.PATIENCE)
        seen = []
        for user in ("ada", None, "boole", "ada", None, "curry"):
            headers = {"Authorization": f"Bearer {proxy.token(user)}"} if user else {}
            connection.request("GET", SELF, headers=headers)
            response = connection.getresponse()
            seen.append(json.loads(response.read()).get("login_id"))
        connection.close()

        assert seen == ["ada", None, "boole", "ada", None, "curry"]


class TestTheLogFiles:
    def test_the_log_files_contain_no_token(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        proxy.call("GET", SELF, "a.b.c.d.e")
        signed = bearer(site.service.headers("Authorization")[0])

        for path in [*site.folder.glob("*.log"), *site.folder.glob("nginx/*.log")]:
            text = path.read_text()
            assert proxy.token() not in text
            assert signed not in text
            assert not re.search(r"eyJ[A-Za-z0-9_-]{20}", text), path
