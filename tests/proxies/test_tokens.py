"""Tests of tokens behind each proxy: the issue, use and revocation of a token, refusals, and concurrent clients."""

from __future__ import annotations

import json
import re
import threading
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.proxies.helpers import INVALID, SELF, bearer
from tests.support import servers
from tests.support.answers import CHALLENGE, unverified_jti
from tests.support.proxies import ISSUE, USERS

pytestmark = pytest.mark.services


class TestATokenFromIssueToRevocation:
    def test_token_is_issued_decrypted_accepted_revoked_and_refused_behind_a_proxy(self, proxy, site):
        token = proxy.issue("ada")
        accepted = proxy.call("GET", SELF, token)
        jti = unverified_jti(site.service.headers("Authorization")[0])
        site.manage("instaccess_tokens", "revoke", "--jti", jti, "--reason", "laptop stolen")
        refused = servers.wait_until(lambda: proxy.call("GET", SELF, token), lambda answer: answer.status != 200)

        assert (accepted.status, accepted.json["login_id"]) == (200, "ada")
        assert (refused.status, refused.body, refused.headers["WWW-Authenticate"]) == (401, INVALID, CHALLENGE)

    def test_service_behind_a_proxy_receives_the_signed_token_and_never_the_encrypted_token(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())

        (authorization,) = site.service.headers("Authorization")
        assert bearer(authorization).count(".") == 2
        assert proxy.token().encode() not in site.service.sent

    def test_issuer_receives_the_access_token_of_the_client_for_every_form_of_the_issuing_path(self, proxy, site):
        for path in (ISSUE + ".json", ISSUE + "/", ISSUE + "?as_user_id="):
            answer = proxy.call("POST", path, "no-such-access-token")

            assert (answer.status, answer.body) == (401, INVALID), path
            assert answer.headers.get_all("WWW-Authenticate") == [CHALLENGE]
        assert site.gateway.requests == []

    def test_audit_log_contains_the_client_address_from_the_proxy_and_not_a_forged_address(self, proxy, site):
        answer = proxy.call("POST", ISSUE, site.access_tokens["boole"].pop(), X_Forwarded_For="203.0.113.9")
        proxy.call("GET", SELF, answer.json["token"])
        jti = unverified_jti(site.service.headers("Authorization")[0])

        rows = json.loads(site.manage("instaccess_tokens", "list", "--user", "boole", "--json"))
        (row,) = [row for row in rows if row["jti"] == jti]
        assert answer.status == 201
        assert row["ip_address"] == servers.HOST
        assert row["canvas_domain"] == f"{servers.HOST}:{proxy.port}"


class TestARefusalBehindAProxy:
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
    def test_proxy_sends_a_refusal_with_the_json_body_of_canvas_and_the_challenge(self, proxy, site, authorization):
        answer = proxy.call("GET", SELF, Authorization=authorization)

        assert (answer.status, answer.body) == (401, INVALID)
        assert answer.headers.get_all("WWW-Authenticate") == [CHALLENGE]
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        assert site.service.requests == []

    def test_proxy_refuses_a_request_without_an_authorization_header(self, proxy, site):
        answer = proxy.call("GET", SELF)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_g22_proxy_refuses_a_signed_token_from_a_client(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        signed = bearer(site.service.headers("Authorization")[0])
        site.service.clear()

        answer = proxy.call("GET", SELF, signed)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_proxy_refuses_an_invalid_token_of_the_maximum_length_and_an_oversized_token(self, proxy, site):
        long = ".".join(["x" * 1636] * 5)

        assert proxy.call("GET", SELF, long).status == 401
        assert site.gateway.headers("Authorization") == [f"Bearer {long}"]
        assert proxy.call("GET", SELF, "x" * 100_000).status in (400, 401, 431)
        assert site.service.requests == []

    def test_g12_proxy_refuses_two_authorization_headers(self, proxy, site):
        good = f"Authorization: Bearer {proxy.token()}"
        for lines in ([good, good], [good, "Authorization: Bearer other"], ["Authorization: Bearer other", good]):
            answer = proxy.raw(f"GET {SELF} HTTP/1.1", "Host: 127.0.0.1", *lines, "Connection: close")

            assert answer.status in (400, 401), lines
            assert isinstance(answer.json["errors"], list)
        assert site.service.requests == []

    def test_proxy_sends_a_refusal_of_the_service_to_the_client_unchanged(self, proxy):
        answer = proxy.call("DELETE", SELF, proxy.token())

        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, HEAD, OPTIONS")
        assert b"DELETE" in answer.body


class TestConcurrentClientsOfAProxy:
    def test_g16_client_never_receives_the_response_for_another_user(self, proxy):
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

    def test_g16_one_connection_to_the_proxy_can_carry_requests_of_different_users(self, proxy):
        connection = HTTPConnection(servers.HOST, proxy.port, timeout=servers.PATIENCE)
        seen = []
        for user in ("ada", None, "boole", "ada", None, "curry"):
            headers = {"Authorization": f"Bearer {proxy.token(user)}"} if user else {}
            connection.request("GET", SELF, headers=headers)
            response = connection.getresponse()
            seen.append(json.loads(response.read()).get("login_id"))
        connection.close()

        assert seen == ["ada", None, "boole", "ada", None, "curry"]


class TestTheLogFilesOfTheSite:
    def test_log_files_of_proxy_gateway_and_service_contain_no_token(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        proxy.call("GET", SELF, "a.b.c.d.e")
        signed = bearer(site.service.headers("Authorization")[0])

        for path in site.folder.rglob("*.log"):
            text = path.read_text()
            assert proxy.token() not in text
            assert signed not in text
            assert not re.search(r"eyJ[A-Za-z0-9_-]{20}", text), path
