"""Tests of the REST framework authentication with signed tokens in services (`docs/wire-contract.md` §4)."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st
from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException
from rest_framework.test import APIRequestFactory

from instaccess.exceptions import InvalidToken
from instaccess.service import AcceptedClaims, InstAccessAuthentication, TokenUser
from instaccess.trust import material
from tests.service.helpers import (
    ADMIN,
    USER,
    AcceptAnyHeader,
    ask,
    good,
    is_left_to_next,
    issued,
    jwks,
    now,
    public,
    refusal,
)
from tests.support.answers import CHALLENGE, INVALID, UNAVAILABLE
from tests.support.tokens import (
    ISSUER,
    TokenFactory,
    b64,
    canvas_claims,
    claims,
    signed_by_pyjwt,
)


class TestAValidToken:
    def test_service_authenticates_the_user_of_a_valid_token(self, service):
        response = ask(good(service, sub=USER))

        assert response.status_code == 200
        assert response.seen.user.uuid == USER

    def test_request_auth_contains_the_claims_of_the_token(self, service):
        payload = claims(now(), sub=USER, region="eu", client_id="c", jti="the-id", canvas_shard_id=3, color="blue")

        auth = ask("Bearer " + service.signed(payload)).seen.auth

        assert (auth.user_uuid, auth.account_uuid, auth.canvas_domain) == (
            USER,
            payload["acct"],
            "canvas.example.edu",
        )
        assert (auth.region, auth.client_id, auth.jti, auth.shard_id) == ("eu", "c", "the-id", 3)
        assert (auth.masquerading_user_uuid, auth.real_user, auth.instructure_service) == (None, None, False)
        assert auth.extra == {"color": "blue"}

    def test_service_accepts_a_token_without_a_kid_because_canvas_sends_such_tokens(self, service):
        assert ask("Bearer " + service.signed(claims(now()), kid=...)).status_code == 200

    @pytest.mark.parametrize(("others", "status"), [(2, 200), (3, 401)])
    def test_service_tries_at_most_three_keys_for_a_token_without_a_kid(
        self, token_factory, rsa_pool, settings, others, status
    ):
        keys = [*(rsa_pool.take("sig") for _ in range(others)), token_factory.signing]
        settings.INSTACCESS = {"VERIFICATION_KEYS": [jwks(*keys).decode()], "USER_HOOK": TokenUser}

        assert ask("Bearer " + token_factory.signed(claims(now()), kid=...)).status_code == status

    @pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   ", " Bearer\t"])
    def test_service_accepts_the_bearer_scheme_in_any_case_and_with_white_space_around_the_scheme(
        self, service, scheme
    ):
        assert ask(scheme + service.signed(claims(now()))).status_code == 200

    def test_service_ignores_a_token_in_the_query_or_in_a_cookie(self, service):
        token = service.signed(claims(now()))

        response = ask(None, QUERY_STRING=f"access_token={token}", HTTP_COOKIE=f"access_token={token}")

        assert response.status_code == 401

    @pytest.mark.django_db
    def test_service_writes_nothing_to_the_database_during_authentication(self, initial_keys, user):
        token = issued(user)
        with CaptureQueriesContext(connection) as queries:
            assert ask(token).status_code == 200

        assert {query["sql"].split()[0] for query in queries} <= {"SELECT"}

    @pytest.mark.parametrize("form", ["pem", "jwk", "jwks"])
    @pytest.mark.parametrize("place", ["text", "file", "path"])
    def test_service_accepts_a_token_with_a_verification_key_from_a_string_or_a_file(
        self, token_factory, settings, tmp_path, form, place
    ):
        text = jwks(token_factory.signing).decode()
        if form != "jwks":
            text = material.to_text(token_factory.signing, file_format=form)
        file = tmp_path / "keys"
        file.write_text(text)
        key = {"text": text, "file": str(file), "path": file}[place]
        settings.INSTACCESS = {"VERIFICATION_KEYS": [key], "USER_HOOK": TokenUser}

        assert ask(good(token_factory)).status_code == 200


class TestATokenOfCanvas:
    @pytest.mark.parametrize("service_user", [True, False])
    def test_c12_service_accepts_a_token_that_the_gem_of_canvas_wrote(self, service, service_user):
        payload = canvas_claims(now(), sub=USER, instructure_service=service_user)

        auth = ask("Bearer " + signed_by_pyjwt(payload, service.signing)).seen.auth

        assert (auth.user_uuid, auth.client_id, auth.canvas_domain) == (USER, "10000000000107", None)
        assert (auth.user_global_id, auth.real_user_global_id) == ("10000000000001", "10000000000002")
        assert auth.instructure_service is service_user

    def test_c12_service_accepts_a_token_of_each_accepted_issuer(self, service, settings):
        settings.INSTACCESS["ACCEPTED_ISSUERS"] = [ISSUER, "https://canvas.example"]
        for issuer in (ISSUER, "https://canvas.example"):
            token = signed_by_pyjwt(claims(now(), iss=issuer), service.signing)
            assert ask(f"Bearer {token}").seen.auth.issuer == issuer

    def test_c12_service_refuses_an_expired_token_of_each_accepted_issuer(self, service, settings):
        token = "Bearer " + signed_by_pyjwt(claims(now() - 4000, iss="https://canvas.example"), service.signing)
        assert is_left_to_next(token)

        settings.INSTACCESS["ACCEPTED_ISSUERS"] = [ISSUER, "https://canvas.example"]
        assert not is_left_to_next(token)


class TestATokenWithAnInvalidSignature:
    def test_c1_service_refuses_a_token_whose_hmac_uses_the_public_key_as_the_secret(self, service):
        for secret in (public(service), public(service).strip(), service.signing["n"]):
            body = b64(json.dumps({"typ": "JWT", "alg": "HS256", "kid": service.signing_kid}).encode())
            body += "." + b64(json.dumps(claims(now())).encode())
            mac = b64(hmac.digest(secret.encode(), body.encode(), hashlib.sha256))

            assert refusal(ask(f"Bearer {body}.{mac}")) == INVALID

    def test_c1_service_refuses_a_token_whose_hmac_uses_a_symmetric_key_of_the_jwks(self, service, settings):
        secret = secrets.token_bytes(32)
        oct_member = {"kty": "oct", "k": b64(secret), "kid": "shared", "alg": "HS256"}
        document = {"keys": [oct_member, *json.loads(jwks(service.signing))["keys"]]}
        settings.INSTACCESS["VERIFICATION_KEYS"] = [json.dumps(document)]
        body = b64(b'{"typ":"JWT","alg":"HS256","kid":"shared"}') + "." + b64(json.dumps(claims(now())).encode())
        mac = b64(hmac.digest(secret, body.encode(), hashlib.sha256))

        assert refusal(ask(f"Bearer {body}.{mac}")) == INVALID

    @pytest.mark.parametrize("alg", ["none", "None", "rs256", "RS512"])
    def test_c1_service_refuses_a_token_with_an_algorithm_other_than_rs256_in_the_header(self, service, alg):
        _, payload, signature = service.signed(claims(now())).split(".")
        header = b64(json.dumps({"typ": "JWT", "alg": alg, "kid": service.signing_kid}).encode())

        assert refusal(ask(f"Bearer {header}.{payload}.{signature}")) == INVALID

    def test_c1_service_refuses_a_token_that_was_signed_with_an_unknown_key(self, service, rsa_pool):
        forger = TokenFactory(rsa_pool.take("sig"), service.encryption)

        assert refusal(ask(good(forger))) == INVALID
        assert refusal(ask("Bearer " + forger.signed(claims(now()), kid=service.signing_kid))) == INVALID

    @pytest.mark.parametrize("typ", ["at+jwt", "jwt", "JWE", "", 7])
    def test_c2_service_refuses_a_token_of_the_wrong_type(self, service, typ):
        assert refusal(ask("Bearer " + service.signed(claims(now()), typ=typ))) == INVALID

    @pytest.mark.parametrize("member", [{"crit": ["exp"]}, {"jku": "https://evil.example"}, {"zip": "DEF"}])
    def test_c2_service_refuses_a_token_with_unknown_header_members(self, service, member):
        _, payload, signature = service.signed(claims(now())).split(".")
        header = b64(json.dumps({"typ": "JWT", "alg": "RS256", "kid": service.signing_kid, **member}).encode())

        assert refusal(ask(f"Bearer {header}.{payload}.{signature}")) == INVALID

    def test_service_refuses_an_encrypted_token(self, service):
        assert refusal(ask("Bearer " + service.token(iat=now(), exp=now() + 60))) == INVALID


class TestATokenOfAnotherAccount:
    def test_c2_service_refuses_a_token_whose_account_differs_from_account_uuid(self, service, settings):
        settings.INSTACCESS["ACCOUNT_UUID"] = "our-account"

        assert refusal(ask(good(service, acct="their-account"))) == INVALID
        assert ask(good(service, acct="our-account")).status_code == 200

    def test_c2_service_refuses_a_token_whose_account_differs_from_the_account_of_the_host(self, service, settings):
        settings.INSTACCESS["ACCOUNT_HOOK"] = lambda host: f"account of {host}"
        token = good(service, acct="account of a.example.edu")

        assert ask(token, HTTP_HOST="a.example.edu").status_code == 200
        assert refusal(ask(token, HTTP_HOST="b.example.edu")) == INVALID

    def test_p25_account_hook_receives_the_name_of_the_host_without_the_port(self, service, settings):
        settings.INSTACCESS["ACCOUNT_HOOK"] = lambda host: f"account of {host}"

        assert ask(good(service, acct="account of a.example.edu"), HTTP_HOST="a.example.edu:31337").status_code == 200

    @pytest.mark.parametrize("answer", [None, "", 7, "x" * 256])
    def test_c2_service_returns_503_if_the_account_hook_returns_an_invalid_account(self, service, settings, answer):
        settings.INSTACCESS["ACCOUNT_HOOK"] = lambda host: answer

        assert refusal(ask(good(service, acct="their-account"))) == UNAVAILABLE

    def test_service_accepts_a_token_of_any_account_if_no_account_is_configured(self, service):
        assert ask(good(service, acct="any-account")).status_code == 200


class TestTheOrderOfAuthenticators:
    @pytest.mark.parametrize(
        "bearer",
        [
            "b5Q2opaque",
            "two.parts",
            "a.b.c",
            "abc.def.ghi",
            "..",
            "é",
            "a.b.c.d",
            "a.b.c.d.e.f",
            "a.e30.c",
            "a.bnVsbA.c",
        ],
    )
    def test_c7_service_leaves_an_opaque_bearer_token_to_the_next_authenticator(self, service, bearer):
        assert is_left_to_next(f"Bearer {bearer}")

    @pytest.mark.parametrize("issuer_", ["https://accounts.example.com", None, 7, [ISSUER], ISSUER.upper(), ...])
    def test_c2_service_leaves_a_jwt_of_another_issuer_to_the_next_authenticator(self, service, issuer_):
        assert is_left_to_next(good(service, iss=issuer_))

    def test_c2_service_ignores_an_iss_member_inside_another_claim(self, service):
        assert is_left_to_next(good(service, iss="them", act={"iss": ISSUER}))

    @pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer", "Bearer a b", "Token x", ""])
    def test_service_leaves_credentials_other_than_one_bearer_token_to_the_next_authenticator(
        self, service, authorization
    ):
        request = APIRequestFactory().get("/", HTTP_AUTHORIZATION=authorization)

        assert InstAccessAuthentication().get_bearer(request) is None

    def test_service_returns_401_with_the_challenge_for_a_request_without_credentials(self, service):
        response = ask(None)

        assert (response.status_code, response["WWW-Authenticate"]) == (401, CHALLENGE)

    @pytest.mark.parametrize(
        "changes",
        [{"exp": 1}, {"sub": ""}, {"iat": None}, {"exp": "soon"}, {"acct": 5}, {"nbf": 2**40}, {"exp": 2**50}],
    )
    def test_service_never_leaves_an_invalid_inst_access_token_to_the_next_authenticator(self, service, changes):
        assert not is_left_to_next(good(service, **changes))

    def test_service_never_leaves_an_inst_access_token_that_is_too_long_to_the_next_authenticator(self, service):
        assert not is_left_to_next(good(service, padding="x" * 8192))

    @given(st.text(max_size=60))
    def test_service_returns_no_server_error_for_an_arbitrary_authorization_header(self, text):
        with override_settings(INSTACCESS={"VERIFICATION_KEYS": ["unread"], "USER_HOOK": TokenUser}):
            assert ask(f"Bearer {text}", InstAccessAuthentication, AcceptAnyHeader).status_code in {200, 401}

    @pytest.mark.parametrize("first", [SessionAuthentication, AcceptAnyHeader])
    def test_service_refuses_with_401_and_the_challenge_if_another_authenticator_comes_first(self, service, first):
        class LeavesToNext(first):
            def authenticate(self, request: Any) -> None:
                return None

        assert refusal(ask(good(service, exp=1), LeavesToNext, InstAccessAuthentication)) == INVALID

    @pytest.mark.django_db
    def test_service_leaves_an_oauth2_access_token_to_the_oauth2_provider(self, initial_keys, access_token):
        response = ask(f"Bearer {access_token.token}", InstAccessAuthentication, OAuth2Authentication)

        assert response.seen.auth == access_token


class TestARefusalOfAService:
    def test_refusal_of_a_service_has_the_literal_body_of_canvas(self, service):
        assert refusal(ask(good(service, exp=now()))) == INVALID

    def test_challenge_of_a_service_contains_the_configured_realm(self, service, settings):
        settings.INSTACCESS["REALM"] = "our-lms"

        assert ask(good(service, exp=now()))["WWW-Authenticate"] == 'Bearer realm="our-lms"'

    @pytest.mark.parametrize("realm", ['a"b', "\xe9", 7])
    def test_service_refuses_with_401_even_if_the_configured_realm_is_invalid(self, service, settings, realm, caplog):
        settings.INSTACCESS["REALM"] = realm

        assert refusal(ask(good(service, exp=now()))) == (401, INVALID[1], "Bearer")
        assert (ask(None).status_code, ask(None)["WWW-Authenticate"]) == (401, "Bearer")
        assert "INSTACCESS['REALM'] must be" in caplog.text

    @pytest.mark.parametrize("settings_", [{"ISSUER": ""}, {"LEEWAY": "1"}, "no dictionary"])
    def test_service_returns_503_if_a_setting_other_than_realm_is_invalid(self, service, settings, settings_):
        settings.INSTACCESS = settings.INSTACCESS | settings_ if isinstance(settings_, dict) else settings_

        assert ask(good(service)).status_code == 503

    def test_exception_of_a_refusal_of_a_service_has_no_cause_and_no_context(self, service):
        request = APIRequestFactory().get("/", HTTP_AUTHORIZATION=good(service, exp=now()))
        with pytest.raises(APIException) as caught:
            InstAccessAuthentication().authenticate(request)

        assert (caught.value.__cause__, caught.value.__context__) == (None, None)

    def test_refusal_of_a_service_is_the_same_for_every_reason(self, service):
        changes: list[dict[str, Any]] = [{"exp": now()}, {"sub": ""}, {"jti": ...}, {"iat": now() + 3000}]

        assert {refusal(ask(good(service, **change))) for change in changes} == {INVALID}

    @pytest.mark.parametrize(
        ("changes", "reason"), [({"exp": 1}, "bad_lifetime"), ({"sub": 5}, "bad_claim"), ({}, "unknown_user")]
    )
    def test_log_of_a_service_contains_the_reason_for_a_refusal(self, service, settings, caplog, changes, reason):
        settings.INSTACCESS["USER_HOOK"] = lambda claims: None

        ask(good(service, **changes))

        (record,) = caplog.records
        assert (record.name, record.levelname) == ("instaccess.service", "WARNING")
        assert f"reason={reason}" in record.getMessage()
        assert re.search(r" jti='[0-9a-f-]{36}' ", record.getMessage())

    def test_log_of_a_service_contains_the_reason_for_the_refusal_of_an_encrypted_token(self, service, caplog):
        ask("Bearer " + service.token(iat=now(), exp=now() + 60))

        (record,) = caplog.records
        assert (record.reason, record.jti) == ("still_encrypted", "")

    def test_log_of_a_service_contains_the_reason_for_the_refusal_of_another_account(self, service, settings, caplog):
        settings.INSTACCESS["ACCOUNT_UUID"] = "our-account"

        ask(good(service, acct="their-account"))

        (record,) = caplog.records
        assert record.reason == "wrong_account"
        assert "our-account" in record.detail

    def test_c8_service_treats_identity_headers_without_a_token_as_no_credentials(self, service):
        response = ask(None, REMOTE_USER="ada", HTTP_X_REMOTE_USER="ada", HTTP_X_USER_ID=USER, HTTP_REMOTE_USER="ada")

        assert (response.status_code, response["WWW-Authenticate"]) == (401, CHALLENGE)


class TestTheLogOfAService:
    def test_log_of_a_service_contains_no_token(self, service, settings, caplog):
        caplog.set_level(logging.DEBUG)
        valid, expired = service.signed(claims(now())), service.signed(claims(now(), iat=1, exp=2))
        sent = [valid, expired, valid[:-4], service.encrypted(valid), "a.b.c"]

        for token in sent:
            ask(f"Bearer {token}")
        settings.INSTACCESS["ACCOUNT_UUID"] = "ours"
        ask(f"Bearer {valid}")
        settings.INSTACCESS["VERIFICATION_KEYS"] = ["/no/such/file"]
        ask(f"Bearer {valid}")

        assert len(caplog.records) >= 5
        parts = {part for token in sent for part in token.split(".") if len(part) > 1}
        for record in caplog.records:
            text = record.getMessage() + str(record.exc_text)
            assert not any(part in text for part in parts)

    def test_the_repr_of_request_auth_contains_no_token(self, service):
        authorization = good(service)

        auth = ask(authorization).seen.auth

        assert not any(part in repr(auth) for part in authorization.split(" ")[1].split("."))


class TestTheExpiryOfAToken:
    AT = 1_800_000_000

    @pytest.mark.parametrize(
        ("exp", "leeway", "status"),
        [
            (-1, 0, 401),
            (0, 0, 401),
            (1, 0, 200),
            (-6, 5, 401),
            (-5, 5, 401),
            (-4, 5, 200),
            (-1, 5, 200),
            (0, 5, 200),
            (1, 5, 200),
        ],
    )
    def test_c9_service_refuses_a_token_from_the_time_of_its_exp_plus_the_leeway(
        self, service, settings, exp, leeway, status
    ):
        settings.INSTACCESS["LEEWAY"] = leeway
        token = service.signed(claims(self.AT - 100, exp=self.AT + exp))

        with time_machine.travel(self.AT, tick=False):
            assert ask(f"Bearer {token}").status_code == status

    def test_c9_service_refuses_a_token_from_the_time_of_its_exp_by_default(self, service):
        token = service.signed(claims(self.AT - 3600))

        with time_machine.travel(self.AT - 0.001, tick=False):
            assert ask(f"Bearer {token}").status_code == 200
        with time_machine.travel(self.AT, tick=False):
            assert refusal(ask(f"Bearer {token}")) == INVALID


class TestASubclassOfTheAuthentication:
    def test_subclass_of_the_authentication_can_read_the_token_from_a_custom_header(self, service):
        class FromAHeader(InstAccessAuthentication):
            def get_bearer(self, request: Any) -> str | None:
                token: str | None = request.META.get("HTTP_X_TOKEN")
                return token

        assert ask(None, FromAHeader, HTTP_X_TOKEN=service.signed(claims(now()))).status_code == 200

    def test_subclass_of_the_authentication_can_replace_the_verification(self, service, rsa_pool):
        class WithoutVerification(InstAccessAuthentication):
            def verify(self, token: str) -> dict[str, Any]:
                return claims(now(), sub=ADMIN)

        forger = TokenFactory(rsa_pool.take("sig"), service.encryption)

        assert ask(good(forger), WithoutVerification).seen.user.uuid == ADMIN

    def test_subclass_of_the_authentication_can_refuse_a_token_because_of_its_claims(self, service):
        class OneRegion(InstAccessAuthentication):
            def get_claims(self, payload: dict[str, Any]) -> AcceptedClaims:
                claims = super().get_claims(payload)
                if claims.region != "eu":
                    raise InvalidToken(code="wrong_region")
                return claims

        assert ask(good(service, region="eu"), OneRegion).status_code == 200
        assert refusal(ask(good(service, region="us"), OneRegion)) == INVALID

    def test_subclass_of_the_authentication_can_look_up_users(self, service):
        class UnsavedUsers(InstAccessAuthentication):
            def get_user(self, claims: AcceptedClaims) -> Any:
                return get_user_model()(username=claims.user_uuid)

        assert ask(good(service, sub=USER), UnsavedUsers).seen.user.username == USER
