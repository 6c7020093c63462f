"""The real nginx and the real Caddy, with the example configurations as they stand, before the real test project.

Only addresses are put in. Wire taps stand before the gateway and before the service and keep every byte that a proxy
sends there.
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
    # Not pytest's, which only its owner may enter: nginx, started by root, works as somebody else.
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
    site.gateway.forget()
    site.service.forget()
    return _proxy


def bearer(text: str) -> str:
    scheme, _, token = text.partition(" ")
    assert scheme == "Bearer"
    return token


class TestTheStory:
    def test_a_token_is_issued_opened_at_the_edge_accepted_revoked_and_refused(self, proxy, site):
        token = proxy.issue("ada")
        let_in = proxy.call("GET", SELF, token)
        row = json.loads(site.manage("instaccess_tokens", "list", "--user", "ada", "--limit", "1", "--json"))[0]
        site.manage("instaccess_tokens", "revoke", "--jti", row["jti"], "--reason", "laptop stolen")
        refused = servers.until(lambda: proxy.call("GET", SELF, token), lambda answer: answer.status != 200)

        assert (let_in.status, let_in.json["login_id"]) == (200, "ada")
        assert (refused.status, refused.body, refused.headers["WWW-Authenticate"]) == (401, INVALID, CHALLENGE)

    def test_the_service_gets_the_signed_token_and_no_encrypted_one(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())

        (authorization,) = site.service.headers("Authorization")
        assert bearer(authorization).count(".") == 2
        assert proxy.token().encode() not in site.service.sent

    def test_the_issuer_gets_the_clients_own_access_token_whatever_the_spelling_of_its_path(self, proxy, site):
        for path in (ISSUE + ".json", ISSUE + "/", ISSUE + "?as_user_id="):
            answer = proxy.call("POST", path, "no-such-access-token")

            assert (answer.status, answer.body) == (401, INVALID), path
            assert answer.headers.get_all("WWW-Authenticate") == [CHALLENGE]
        assert site.gateway.requests == []

    def test_the_audit_has_the_address_that_the_proxy_saw(self, proxy, site):
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
    def test_is_json_in_canvass_shape_with_the_challenge(self, proxy, site, authorization):
        answer = proxy.call("GET", SELF, Authorization=authorization)

        assert (answer.status, answer.body) == (401, INVALID)
        assert answer.headers.get_all("WWW-Authenticate") == [CHALLENGE]
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        assert site.service.requests == []

    def test_meets_a_request_without_any_authorization(self, proxy, site):
        answer = proxy.call("GET", SELF)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_g22_meets_a_token_that_is_already_decrypted(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        signed = bearer(site.service.headers("Authorization")[0])
        site.service.forget()

        answer = proxy.call("GET", SELF, signed)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_meets_a_token_as_long_as_tokens_may_be_and_one_beyond_all_bounds(self, proxy, site):
        long = ".".join(["x" * 1636] * 5)

        assert proxy.call("GET", SELF, long).status == 401
        assert site.gateway.headers("Authorization") == [f"Bearer {long}"]
        assert proxy.call("GET", SELF, "x" * 100_000).status in (400, 401, 431)
        assert site.service.requests == []

    def test_g12_meets_two_authorization_headers(self, proxy, site):
        good = f"Authorization: Bearer {proxy.token()}"
        for lines in ([good, good], [good, "Authorization: Bearer other"], ["Authorization: Bearer other", good]):
            answer = proxy.raw(f"GET {SELF} HTTP/1.1", "Host: 127.0.0.1", *lines, "Connection: close")

            assert answer.status in (400, 401), lines
            assert isinstance(answer.json["errors"], list)
        assert site.service.requests == []

    def test_of_the_service_itself_arrives_as_the_service_gave_it(self, proxy):
        answer = proxy.call("DELETE", SELF, proxy.token())

        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, HEAD, OPTIONS")
        assert b"DELETE" in answer.body


class TestWhatIsNotPublic:
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
    def test_is_a_json_404(self, proxy, site, path):
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
    def test_is_no_protected_endpoint_reached_past_the_gateway(self, proxy, site, path):
        opaque = site.access_tokens["ada"][0]  # good for the service, were it asked

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
    def test_g13_that_say_who_it_is_go_no_further(self, proxy, site):
        for spell in (str, lambda name: name.replace("-", "_"), str.upper):
            lines = [f"{spell(name)}: {value}" for name, value in FORGED.items()]
            site.service.forget()
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
        "trick",
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
    def test_g13_no_trick_gets_another_authorization_to_the_service_than_the_gateways(self, proxy, site, trick):
        proxy.call("GET", SELF, proxy.token())
        (good,) = site.service.headers("Authorization")
        site.service.forget()

        answer = proxy.raw(
            f"GET {SELF} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {proxy.token()}", *trick.split("\r\n")
        )

        assert answer.status in (200, 400, 401)
        assert set(site.service.headers("Authorization")) <= {good}
        assert not re.search(rb"(?mi)^authorization[^\r\n]*forged", site.service.sent)

    def test_g20_do_not_change_the_decision(self, proxy, site):
        for token, status in ((proxy.token(), 200), ("a.b.c.d.e", 401)):
            answer = proxy.call(
                "GET", SELF, token, **{name.replace("-", "_"): value for name, value in FORGED.items()}
            )

            assert answer.status == status

    def test_a_forged_host_is_not_asked_for_at_the_gateway(self, proxy, site):
        answer = proxy.raw(f"GET {SELF} HTTP/1.1", "Host: evil.example", "Connection: close")

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.gateway.headers("Host") == [servers.HOST]


class TestAGatewayInTrouble:
    """G14: 503 to the client, within the timeout, and the service never hears of it."""

    def refused(self, proxy: Proxy, site: Site) -> None:
        answer = proxy.call("POST", SELF, proxy.token(), body=b"x" * 1000)

        assert (answer.status, answer.body) == (503, UNAVAILABLE)
        assert answer.headers["Retry-After"] == "10"
        assert answer.headers["Content-Type"].startswith("application/json")
        assert site.service.requests == []

    def test_g14_that_hangs(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        site.service.forget()
        site.gateway_process.freeze()
        try:
            self.refused(proxy, site)
            self.refused(proxy, site)
        finally:
            site.gateway_process.thaw()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    def test_g14_that_was_killed(self, proxy, site):
        site.gateway_process.kill()
        try:
            self.refused(proxy, site)
        finally:
            site.restart_gateway()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    def test_g14_that_resets_the_connection(self, proxy, site):
        site.gateway_process.kill()  # connections that are kept alive end, too
        site.gateway.resets = True
        try:
            self.refused(proxy, site)
        finally:
            site.gateway.resets = False
            site.restart_gateway()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    @pytest.mark.parametrize("status", [200, 201, 202, 206, 302, 400, 403, 404, 429, 500, 502, 503])
    def test_g14_that_answers_what_a_gateway_never_answers_or_503(self, proxy, site, status):
        script = f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nContent-Type: text/html\r\nConnection: close\r\n\r\nhi"
        with ScriptedGateway(site, script):
            answer = proxy.call("GET", SELF, proxy.token())

        if 200 <= status < 300 and proxy.name == "nginx":
            # nginx lets every 2xx pass. Nothing is lost: the service gets no Authorization, and refuses.
            assert answer.status == 401
            assert site.service.headers("Authorization") == []
        else:
            assert (answer.status, answer.body) == (503, UNAVAILABLE)
            assert site.service.requests == []


class TestAnAnswerOfTheGateway:
    def test_g17_of_4_kib_reaches_the_service_whole(self, proxy, site):
        longest = "Bearer " + "x" * 3900
        script = f"HTTP/1.1 204 No Content\r\nAuthorization: {longest}\r\nConnection: close\r\n\r\n"
        with ScriptedGateway(site, script):
            proxy.call("GET", SELF, proxy.token())

        assert site.service.headers("Authorization") == [longest]

    def test_without_an_authorization_leaves_the_service_without_one(self, proxy, site):
        with ScriptedGateway(site, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"):
            answer = proxy.call("GET", SELF, proxy.token())

        assert answer.status in (401, 503)
        assert site.service.headers("Authorization") == []


class TestABody:
    def test_g15_of_5_mb_goes_to_the_service_and_not_to_the_gateway(self, proxy, site):
        body = b"0123456789abcdef" * (5 * 1024 * 1024 // 16)

        answer = proxy.call("POST", SELF, proxy.token(), body=body, Content_Type="application/octet-stream")

        assert (answer.status, answer.json) == (200, {"received": len(body)})
        assert len(site.gateway.requests) == len(site.service.requests) == 1
        assert b"0123456789abcdef" not in site.gateway.sent
        assert len(site.gateway.sent) < 16 * 1024
        assert site.gateway.headers("Content-Length") in ([], ["0"])
        assert site.gateway.headers("Transfer-Encoding") == []

    def test_g15_in_chunks_does_the_same(self, proxy, site, monkeypatch):
        # On the wire: Django under WSGI reads no body without a Content-Length, which nginx adds and Caddy does not.
        monkeypatch.setattr(site.service, "has_heard", lambda sent: sent.count(b"~") == 1024 * 1024)
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

    def test_g15_of_a_refused_request_reaches_nobody(self, proxy, site):
        answer = proxy.call("POST", SELF, "a.b.c.d.e", body=b"0123456789abcdef" * 64)

        assert answer.status == 401
        assert site.service.requests == []
        assert b"0123456789abcdef" not in site.gateway.sent


class TestTheSubrequest:
    def test_asks_for_the_one_path_without_the_clients_query(self, proxy, site):
        proxy.call("GET", SELF + "?access_token=hidden&%GG", proxy.token())

        ((method, path, _),) = [line.split(" ") for line in site.gateway.requests]
        assert method == "GET"
        assert path == "/internal/gateway/verify"
        assert b"hidden" not in site.gateway.sent

    def test_does_not_follow_the_clients_wish_to_switch_protocols(self, proxy, site):
        answer = proxy.raw(
            f"GET {SELF} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket", "X-A: b"
        )

        assert answer.status == 401
        assert site.service.requests == []


class TestManyAtOnce:
    def test_g16_users_are_never_swapped(self, proxy):
        tokens = {user: proxy.token(user) for user in USERS}
        wrong: list[Any] = []

        def ask(user: str) -> None:
            for number in range(40):
                answer = proxy.call("GET", f"{SELF}?n={number % 3}", tokens[user])
                if (answer.status, answer.json.get("login_id")) != (200, user):
                    wrong.append((user, answer))
                if number % 10 == 0 and proxy.call("GET", SELF).status != 401:
                    wrong.append((user, "let in without a token"))

        threads = [threading.Thread(target=ask, args=(user,)) for user in USERS * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert wrong == []

    def test_g16_one_connection_that_carries_one_user_after_another(self, proxy):
        connection = HTTPConnection(servers.HOST, proxy.port, timeout=servers.PATIENCE)
        seen = []
        for user in ("ada", None, "boole", "ada", None, "curry"):
            headers = {"Authorization": f"Bearer {proxy.token(user)}"} if user else {}
            connection.request("GET", SELF, headers=headers)
            response = connection.getresponse()
            seen.append(json.loads(response.read()).get("login_id"))
        connection.close()

        assert seen == ["ada", None, "boole", "ada", None, "curry"]


class TestTheLogs:
    def test_hold_no_token(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        proxy.call("GET", SELF, "a.b.c.d.e")
        signed = bearer(site.service.headers("Authorization")[0])

        for path in [*site.folder.glob("*.log"), *site.folder.glob("nginx/*.log")]:
            text = path.read_text()
            assert proxy.token() not in text
            assert signed not in text
            assert not re.search(r"eyJ[A-Za-z0-9_-]{20}", text), path
