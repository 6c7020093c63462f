"""Tests for services that read their keys from a JWKS URL."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.core.checks import run_checks

from instaccess.conf import conf
from instaccess.service import TokenUser
from instaccess.trust import material, refreshed, remote_jwks
from tests.service.helpers import ask, good, is_left_to_next, jwks, now, refusal
from tests.support import servers
from tests.support.answers import INVALID, UNAVAILABLE
from tests.support.clocks import Clock
from tests.support.tokens import TokenFactory, b64, claims, signed_by_pyjwt


class TestAServiceWithAJWKSURL:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock(frozen=True)
        monkeypatch.setattr(refreshed, "time", clock)
        monkeypatch.setattr(remote_jwks, "time", clock)
        return clock

    @pytest.fixture
    def server(self, token_factory: TokenFactory, settings: Any, clock: Clock) -> Any:
        with servers.scripted_server(
            lambda handler: servers.reply(handler, 200, jwks(token_factory.signing))
        ) as server:
            settings.INSTACCESS = {
                "VERIFICATION_KEYS": f"{server.base_url}/{uuid.uuid4()}",
                "ALLOW_HTTP_URLS": True,
                "USER_HOOK": TokenUser,
            }
            yield server

    BAD = (
        (500, b"", {}),
        (200, b"", {}),
        (200, b'{"keys":[]}', {}),
        (200, b"<html>", {}),
        (200, b'{"keys":{}}', {}),
        (200, b" " * (10 * 1024 * 1024), {}),
        (302, b"", {"Location": "http://127.0.0.1:9/jwks"}),
    )

    @pytest.mark.parametrize(("status", "body", "headers"), BAD, ids=range(len(BAD)))
    def test_c3_service_returns_503_only_for_inst_access_tokens_if_the_jwks_url_is_faulty(
        self, server, token_factory, status, body, headers
    ):
        server.answer_with(status, body, **headers)

        response = ask(good(token_factory))

        assert refusal(response) == UNAVAILABLE
        assert response["Retry-After"] == "10"
        assert is_left_to_next("Bearer opaque")

    @pytest.mark.parametrize(("status", "body", "headers"), BAD, ids=range(len(BAD)))
    def test_c3_service_uses_the_last_good_keys_for_max_staleness_after_the_jwks_url_became_faulty(
        self, server, token_factory, clock, status, body, headers
    ):
        assert ask(good(token_factory)).status_code == 200
        server.answer_with(status, body, **headers)

        clock.now += remote_jwks.JWKS_SECONDS + conf.max_staleness - 1
        assert ask(good(token_factory)).status_code == 200

        clock.now += 2
        assert refusal(ask(good(token_factory))) == UNAVAILABLE

    def test_c3_service_returns_503_if_the_connection_to_the_jwks_url_is_refused(
        self, token_factory, settings, clock
    ):
        settings.INSTACCESS = {
            "VERIFICATION_KEYS": f"http://127.0.0.1:{servers.free_port()}/jwks",
            "ALLOW_HTTP_URLS": True,
            "USER_HOOK": TokenUser,
        }

        assert refusal(ask(good(token_factory))) == UNAVAILABLE

    def test_c4_service_fetches_the_jwks_at_most_once_per_30_seconds_for_invented_kids(
        self, server, token_factory, clock
    ):
        assert ask(good(token_factory)).status_code == 200
        _, payload, signature = token_factory.signed(claims(now())).split(".")
        for number in range(1000):
            header = b64(json.dumps({"typ": "JWT", "alg": "RS256", "kid": f"invented-{number}"}).encode())
            assert ask(f"Bearer {header}.{payload}.{signature}").status_code == 401

        assert len(server.requests) == 2

    def test_c4_service_fetches_the_jwks_for_a_token_that_is_signed_with_a_new_key(
        self, server, token_factory, clock, rsa_pool
    ):
        assert ask(good(token_factory)).status_code == 200
        successor = TokenFactory(rsa_pool.take("sig"), token_factory.encryption)
        server.answer_with(200, jwks(token_factory.signing, successor.signing))

        assert ask(good(successor)).status_code == 200

    def test_c14_service_fetches_the_jwks_for_a_token_without_a_kid_that_is_signed_with_a_new_key(
        self, server, token_factory, clock, rsa_pool
    ):
        assert ask(good(token_factory)).status_code == 200
        successor = rsa_pool.take("sig")
        server.answer_with(200, jwks(token_factory.signing, successor))

        for _ in range(3):
            assert ask("Bearer " + signed_by_pyjwt(claims(now()), successor)).status_code == 200
        assert len(server.requests) == 2

    def test_c14_service_fetches_the_jwks_at_most_once_per_30_seconds_for_forged_tokens_without_a_kid(
        self, server, token_factory, clock, rsa_pool
    ):
        assert ask(good(token_factory)).status_code == 200
        forger = rsa_pool.take("sig")
        for _ in range(20):
            assert refusal(ask("Bearer " + signed_by_pyjwt(claims(now()), forger))) == INVALID

        assert len(server.requests) == 2

    def test_c5_service_skips_invalid_members_of_the_jwks_and_generates_no_key(
        self, server, token_factory, monkeypatch
    ):
        monkeypatch.setattr(material.JWK, "generate", None)
        invalid: list[Any] = [
            {"generate": "RSA", "size": 2048, "kid": token_factory.signing_kid},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
            {"kty": "RSA"},
            {"kty": "oct", "k": "AAAA"},
            "a text",
            None,
        ]
        server.answer_with(
            200, json.dumps({"keys": [*invalid, *json.loads(jwks(token_factory.signing))["keys"]]}).encode()
        )

        assert ask(good(token_factory)).status_code == 200

    def test_c10_check_reports_a_jwks_url_with_http_unless_http_is_allowed(self, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": "http://canvas.example.edu/internal/services/jwks"}
        assert "instaccess.E034" in {message.id for message in run_checks()}

        settings.INSTACCESS["ALLOW_HTTP_URLS"] = True
        assert "instaccess.E034" not in {message.id for message in run_checks()}
