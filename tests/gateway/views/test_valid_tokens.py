"""`/internal/gateway/verify` with a valid token: what a reverse proxy is told, byte for byte."""

from __future__ import annotations

import json
import time

import pytest
from django.test import Client
from jwcrypto.jwk import JWK

from instaccess.gateway import views
from instaccess.tokens import claims as tokens_claims
from instaccess.trust import denylist
from tests.support.answers import CHALLENGE, INVALID, answer, signed_inside
from tests.support.tokens import Makes, claims
from tests.support.verifying import URL, by_wsgi, status, verify

pytestmark = pytest.mark.django_db


class TestAValidToken:
    def test_is_answered_with_204_and_the_signed_token_for_upstream(self, ask, token):
        response = ask(headers=[("Authorization", f"Bearer {token}")])

        assert (response.status_code, response.content) == (204, b"")
        assert response["Authorization"] == f"Bearer {signed_inside(token)}"
        assert response["Cache-Control"] == "no-store"
        assert "WWW-Authenticate" not in response

    @pytest.mark.parametrize(
        "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE"]
    )
    def test_passes_with_any_method(self, ask, token, method):
        assert ask(method, [("Authorization", f"Bearer {token}")]).status_code == 204

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer ", "Bearer      "])
    def test_passes_however_the_scheme_is_written(self, token, scheme):
        assert by_wsgi(headers=[("Authorization", f"{scheme} {token}")]).status_code == 204

    def test_passes_again_and_again(self, token):
        assert [status(token) for _ in range(3)] == [204] * 3

    def test_passes_without_a_query_to_the_database_once_keys_and_deny_list_are_read(
        self, token, django_assert_num_queries
    ):
        verify(token)

        with django_assert_num_queries(0):
            assert status(token) == 204

    def test_needs_no_body_and_is_not_disturbed_by_one(self, ask, token):
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]

        assert ask("POST", headers, b'{"access_token":' * 100).status_code == 204

    def test_g20_is_decided_alike_whatever_else_the_request_says(self, ask, token):
        forged = [
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "gopher"),
            ("X-Forwarded-Method", "BREW"),
            ("X-Forwarded-Uri", "/internal/%00"),
            ("X-Original-URI", "/login"),
            ("X-Original-Method", "GET"),
            ("X-Remote-User", "admin"),
            ("X-Authorization", "Bearer good"),
            ("Proxy-Authorization", "Bearer good"),
            ("Cookie", "sessionid=admin; Authorization=Bearer"),
            ("Accept", "text/html"),
        ]
        good = ask(headers=[("Authorization", f"Bearer {token}"), *forged])
        bad = ask(headers=[("Authorization", "Bearer a.b.c.d.e"), *forged])
        none = ask(headers=forged, path=f"{URL}?access_token={token}")

        assert good["Authorization"] == f"Bearer {signed_inside(token)}"
        assert answer(bad) == answer(none) == INVALID

    def test_g17_with_rsa_4096_and_the_longest_claims_fits_into_4_kib_of_headers(self, settings, make):
        large = JWK.generate(kty="RSA", size=4096)
        settings.INSTACCESS = {"VERIFICATION_KEYS": [large.export_public()]}
        large_make = Makes(large, make.encryption)
        payload = claims(int(time.time()))
        payload["pad"] = "x" * (tokens_claims.MAX_PAYLOAD_BYTES - len(json.dumps(payload)) - 9 - 2)

        response = verify(large_make.encrypted(large_make.signed(payload)))

        assert response.status_code == 204
        lines = ["HTTP/1.1 204 No Content"] + [f"{name}: {value}" for name, value in response.items()]
        assert 3400 < sum(len(line) + 2 for line in lines) + 2 < 4096 - 200  # a server adds Date, Server, Connection


class TestTheUrl:
    def test_is_left_alone_by_the_host_projects_middleware(self, settings, token):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]

        assert status(token) == 204
        assert answer(verify("x")) == INVALID

    def test_asks_for_no_csrf_token(self, token):
        response = Client(enforce_csrf_checks=True).post(URL, headers={"Authorization": f"Bearer {token}"})

        assert response.status_code == 204

    def test_challenge_is_the_contracts(self):
        assert verify()["WWW-Authenticate"] == CHALLENGE


class TestRememberedTokens:
    def test_are_as_many_as_the_setting_says(self, issue, settings):
        settings.INSTACCESS = {"REMEMBERED_TOKENS": 3}
        for _ in range(5):
            verify(issue()[1])

        assert len(views._token_cache._tokens) == 3

    def test_are_none_where_the_setting_is_0(self, token, settings):
        settings.INSTACCESS = {"REMEMBERED_TOKENS": 0}

        assert [status(token), status(token)] == [204, 204]
        assert not views._token_cache._tokens

    def test_go_with_the_deny_list_when_all_is_forgotten(self, token):
        verify(token)
        views.clear_caches()

        assert not views._token_cache._tokens
        assert denylist._database._value is None
