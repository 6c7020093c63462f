"""Tests of the gateway's response to a valid token, byte for byte."""

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
from tests.support.tokens import TokenFactory, claims
from tests.support.verifying import URL, by_wsgi, status, verify

pytestmark = pytest.mark.django_db


class TestAValidToken:
    def test_gateway_returns_204_with_the_signed_token_for_a_valid_token(self, ask, token):
        response = ask(headers=[("Authorization", f"Bearer {token}")])

        assert (response.status_code, response.content, response["Content-Type"]) == (204, b"", "text/plain")
        assert response["Authorization"] == f"Bearer {signed_inside(token)}"
        assert response["Cache-Control"] == "no-store"
        assert "WWW-Authenticate" not in response

    @pytest.mark.parametrize(
        "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE"]
    )
    def test_gateway_accepts_a_valid_token_with_every_method(self, ask, token, method):
        assert ask(method, [("Authorization", f"Bearer {token}")]).status_code == 204

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer ", "Bearer      "])
    def test_gateway_accepts_the_bearer_scheme_in_any_case_and_with_more_spaces(self, token, scheme):
        assert by_wsgi(headers=[("Authorization", f"{scheme} {token}")]).status_code == 204

    def test_gateway_accepts_a_token_with_a_decimal_number_in_an_extra_claim(self, issue, settings):
        settings.INSTACCESS = {"CLAIMS_HOOK": lambda user, application: {"score": 0.5}}

        assert status(issue()[1]) == 204

    def test_gateway_accepts_a_valid_token_repeatedly(self, token):
        assert [status(token) for _ in range(3)] == [204] * 3

    def test_gateway_accepts_a_valid_token_without_a_query_if_keys_and_deny_list_are_cached(
        self, token, django_assert_num_queries
    ):
        verify(token)

        with django_assert_num_queries(0):
            assert status(token) == 204

    def test_gateway_ignores_the_body_of_a_request(self, ask, token):
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]

        assert ask("POST", headers, b'{"access_token":' * 100).status_code == 204

    def test_g20_gateway_ignores_all_other_headers_and_the_query(self, ask, token):
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

    def test_g17_response_of_the_gateway_with_the_longest_claims_fits_into_4_kib_of_headers(self, settings, make):
        large = JWK.generate(kty="RSA", size=4096)
        settings.INSTACCESS = {"VERIFICATION_KEYS": [large.export_public()]}
        large_make = TokenFactory(large, make.encryption)
        payload = claims(int(time.time()))
        payload["pad"] = "x" * (tokens_claims.MAX_PAYLOAD_BYTES - len(json.dumps(payload)) - 9 - 2)

        response = verify(large_make.encrypted(large_make.signed(payload)))

        assert response.status_code == 204
        lines = ["HTTP/1.1 204 No Content"] + [f"{name}: {value}" for name, value in response.items()]
        # The limit is reduced by 200 bytes, because the server adds the headers Date, Server and Connection.
        assert 3400 < sum(len(line) + 2 for line in lines) + 2 < 4096 - 200


class TestATokenEncryptedWithRSA15:
    def test_g1_gateway_accepts_a_token_encrypted_with_rsa1_5_only_if_rsa1_5_is_the_encryption_alg(
        self, issue, settings
    ):
        settings.INSTACCESS = {"ENCRYPTION_ALG": "RSA1_5"}
        token = issue()[1]
        assert status(token) == 204
        views.clear_caches()
        settings.INSTACCESS = {}

        assert answer(verify(token)) == INVALID

    def test_gateway_accepts_a_token_encrypted_with_rsa_oaep_if_rsa1_5_is_the_encryption_alg(self, token, settings):
        settings.INSTACCESS = {"ENCRYPTION_ALG": "RSA1_5"}

        assert status(token) == 204


class TestTheURLOfTheGateway:
    def test_login_required_middleware_of_the_host_project_does_not_apply_to_the_gateway(self, settings, token):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]

        assert status(token) == 204
        assert answer(verify("x")) == INVALID

    def test_gateway_requires_no_csrf_token(self, token):
        response = Client(enforce_csrf_checks=True).post(URL, headers={"Authorization": f"Bearer {token}"})

        assert response.status_code == 204

    def test_challenge_of_the_gateway_is_the_challenge_of_the_wire_contract(self):
        assert verify()["WWW-Authenticate"] == CHALLENGE


class TestTheTokenCacheOfTheGateway:
    def test_remembered_tokens_setting_limits_the_number_of_cached_tokens(self, issue, settings):
        settings.INSTACCESS = {"REMEMBERED_TOKENS": 3}
        for _ in range(5):
            verify(issue()[1])

        assert len(views._token_cache._tokens) == 3

    def test_gateway_caches_no_token_if_remembered_tokens_is_0(self, token, settings):
        settings.INSTACCESS = {"REMEMBERED_TOKENS": 0}

        assert [status(token), status(token)] == [204, 204]
        assert not views._token_cache._tokens

    def test_clear_caches_clears_the_cached_tokens_and_the_deny_list(self, token):
        verify(token)
        views.clear_caches()

        assert not views._token_cache._tokens
        assert denylist._database._held.value is None
