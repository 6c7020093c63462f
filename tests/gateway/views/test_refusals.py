"""Tests that all refusals of the gateway are identical, and that OTHER_BEARERS can let opaque tokens pass."""

from __future__ import annotations

import json
import logging
import time
import uuid

import pytest

from instaccess.models import IssuedToken
from tests.support.answers import INVALID, answer, signed_inside
from tests.support.tokens import TokenFactory, b64, canvas_claims, claims, non_canonical_forms, signed_by_pyjwt
from tests.support.verifying import by_asgi_server, by_wsgi, status, verify

pytestmark = pytest.mark.django_db


class TestEveryRefusalOfTheGateway:
    """Tests that clients get the same response for every reason, and that only the log line contains the reason."""

    @pytest.fixture
    def refused_tokens(self, make, issue, rsa_pool) -> dict[str, str]:
        now = int(time.time())
        forger = TokenFactory(rsa_pool.take("sig"), make.encryption)
        other_gateway = TokenFactory(make.signing, rsa_pool.take("enc"))
        denied_row, denied = issue()
        IssuedToken.objects.filter(pk=denied_row.pk).update(revoked_at=denied_row.issued_at)
        good = issue()[1]
        head, *rest, tag = good.split(".")
        changed_tag = ("A" if tag[0] != "A" else "B") + tag[1:]
        return {
            "nothing": "",
            "no token": "x",
            "opaque": "lSnFYWpzVjkRe3Z8kdQ9bY0rS7Xc2mTq",
            "uuid": str(uuid.uuid4()),
            "empty segments": "....",
            "wrong alg": make.encrypted(alg="RSA1_5"),
            "wrong key": other_gateway.encrypted(make.signed(claims(now)), kid=make.encryption_kid),
            "unknown kid": other_gateway.encrypted(make.signed(claims(now))),
            "changed tag": ".".join([head, *rest, changed_tag]),
            "non-canonical": good + "=",
            "compressed": make.encrypted(make.signed(claims(now)), zip="DEF"),
            "bad signature": forger.encrypted(forger.signed(claims(now), kid=make.signing_kid)),
            "unknown signing kid": forger.encrypted(forger.signed(claims(now))),
            "expired": make.encrypted(make.signed(claims(now - 4000))),
            "from the future": make.encrypted(make.signed(claims(now + 400))),
            "lives too long": make.encrypted(make.signed(claims(now, exp=now + 7200))),
            "exp null": make.encrypted(make.signed(claims(now, exp=None))),
            "another issuer": make.encrypted(make.signed(claims(now, iss="other"))),
            "no jti": make.encrypted(make.signed(claims(now, jti=...))),
            "revoked": denied,
            "already decrypted": make.signed(claims(now)),
            "too long": ".".join([head, *rest, tag + "A" * 9000]),
            "nested twice": make.encrypted(good),
        }

    def test_g6_every_refusal_of_the_gateway_has_the_same_bytes_and_headers(self, ask, refused_tokens):
        answers = {
            name: ask(headers=[("Authorization", f"Bearer {text}")] if text else [])
            for name, text in refused_tokens.items()
        }

        assert {name for name, response in answers.items() if response.status_code != 401} == set()
        assert {name: answer(response) for name, response in answers.items()} == dict.fromkeys(answers, INVALID)
        assert len({tuple(sorted(response.items())) for response in answers.values()}) == 1

    def test_g6_gateway_sends_the_same_refusal_if_a_token_is_sent_again(self, refused_tokens):
        for name, text in refused_tokens.items():
            assert answer(verify(text)) == answer(verify(text)) == INVALID, name

    def test_log_of_the_gateway_contains_the_reason_for_a_refusal_and_never_the_token(
        self, refused_tokens, caplog, issue
    ):
        caplog.set_level(logging.DEBUG)
        reasons = {}
        for name, text in refused_tokens.items():
            caplog.clear()
            verify(text)
            (line,) = [record.getMessage() for record in caplog.records if record.name == "instaccess.gateway"]
            reasons[name] = line.split("reason=")[1].split(" ")[0]
            for part in [text, *text.split(".")]:
                assert len(part) < 8 or part not in caplog.text, name

        assert reasons == {
            "nothing": "malformed_header",
            "no token": "other_bearer",
            "opaque": "other_bearer",
            "uuid": "other_bearer",
            "empty segments": "malformed",
            "wrong alg": "wrong_alg",
            "wrong key": "decrypt_failed",
            "unknown kid": "unknown_kid",
            "changed tag": "decrypt_failed",
            "non-canonical": "malformed",
            "compressed": "bad_header",
            "bad signature": "bad_signature",
            "unknown signing kid": "unknown_kid",
            "expired": "expired",
            "from the future": "not_yet",
            "lives too long": "bad_lifetime",
            "exp null": "bad_claim",
            "another issuer": "foreign_issuer",
            "no jti": "bad_claim",
            "revoked": "revoked",
            "already decrypted": "already_decrypted",
            "too long": "too_long",
            "nested twice": "malformed",
        }

    def test_log_of_the_gateway_contains_the_jti_of_a_revoked_token(self, issue, caplog):
        row, text = issue()
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)
        verify(text)

        assert f"jti='{row.jti}'" in caplog.text

    def test_jti_cannot_inject_a_line_into_the_log_of_the_gateway(self, make, caplog):
        now = int(time.time())
        for jti in (
            "a\nERROR forged line",
            "a\r\nforged",
            "a\x1b[2Jforged",
            "a\x00",
            "a\u2028forged",
            "a\u202eforged",
        ):
            verify(make.encrypted(make.signed(claims(now, jti=jti, sub=1))))

        lines = [r.getMessage() for r in caplog.records if r.name == "instaccess.gateway"]
        assert len(lines) == 6
        assert all(line.isprintable() for line in lines)

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])
    def test_gateway_refuses_with_the_same_response_for_every_method(self, ask, method):
        assert answer(ask(method)) == INVALID

    def test_g12_gateway_refuses_two_authorization_headers_even_if_the_headers_are_joined(self, token):
        good = ("Authorization", f"Bearer {token}")
        for headers in (
            [good, good],
            [good, ("Authorization", "Bearer other")],
            [("Authorization", ""), good],
            [good, ("Authorization", "")],
            [("Authorization", f"Bearer {token}, Bearer {token}")],
            [("Authorization", f"Bearer {token},")],
        ):
            assert answer(by_wsgi(headers=headers)) == INVALID, headers
            assert answer(by_asgi_server(headers)) == INVALID, headers

    @pytest.mark.parametrize(
        "header",
        [
            "{0}",
            "Bearer{0}",
            "Bearer\t{0}",
            "Bearer {0}\t",
            "Bearer {0} x",
            "Bearer {0};",
            'Bearer "{0}"',
            "Bearer token={0}",
            "Bearer Bearer {0}",
            "Basic {0}",
            "Token {0}",
            "DPoP {0}",
        ],
    )
    def test_gateway_refuses_a_header_that_is_not_exactly_one_bearer_token(self, token, header):
        assert answer(by_wsgi(headers=[("Authorization", header.format(token))])) == INVALID

    def test_gateway_refuses_a_cached_token_with_one_additional_character(self, token):
        assert status(token) == 204

        middle = len(token) // 2
        for place in (0, middle, token.index("."), len(token)):
            for character in map(chr, range(1, 256)):
                modified = token[:place] + character + token[place:]
                # A token between spaces is valid, because spaces around a header value don't count (RFC 9110 §5.5).
                expected = 204 if modified.strip(" ") == token else 401
                assert status(modified) == expected, (place, character)
        assert status(token) == 204

    def test_g4_gateway_refuses_every_non_canonical_encoding_of_a_valid_token(self, token):
        assert status(token) == 204
        for text in non_canonical_forms(token):
            # A token between spaces is valid, because spaces around a header value don't count (RFC 9110 §5.5).
            if text.strip(" ") != token:
                assert answer(verify(text)) == INVALID, text

    def test_g22_gateway_refuses_the_signed_token_inside_an_accepted_token(self, token):
        assert status(token) == 204
        assert answer(verify(signed_inside(token))) == INVALID

    def test_challenge_of_the_gateway_contains_the_configured_realm(self, settings):
        settings.INSTACCESS = {"REALM": "example-edu"}

        assert verify("x")["WWW-Authenticate"] == 'Bearer realm="example-edu"'


class TestOtherBearerTokensIfTheSettingLetsThemPass:
    @pytest.fixture(autouse=True)
    def passing(self, settings):
        settings.INSTACCESS = {"OTHER_BEARERS": "pass"}

    @pytest.mark.parametrize("bearer", ["opaque", "a.b", "1~x9Y", "a.b.c.d", "a.b.c.d.e.f", "x" * 5000, "a+b/c=="])
    def test_gateway_lets_an_opaque_bearer_token_pass_unchanged_if_other_bearers_is_pass(self, bearer):
        response = verify(bearer)

        assert (response.status_code, response["Authorization"]) == (204, f"Bearer {bearer}")

    def test_g19_gateway_refuses_an_opaque_bearer_token_over_8_kib_even_if_other_bearers_is_pass(self):
        assert (status("x" * 8192), answer(verify("x" * 8193))) == (204, INVALID)

    def test_gateway_lets_a_jwt_of_another_issuer_pass_unchanged_if_other_bearers_is_pass(self, make):
        foreign_jwt = make.signed(claims(iss="https://idp.example"))

        assert verify(foreign_jwt)["Authorization"] == f"Bearer {foreign_jwt}"

    def test_gateway_still_decrypts_an_encrypted_inst_access_token_if_other_bearers_is_pass(self, token):
        assert verify(token)["Authorization"] == f"Bearer {signed_inside(token)}"

    def test_gateway_still_refuses_an_invalid_encrypted_token_if_other_bearers_is_pass(self, make):
        for bearer in ("a.b.c.d.e", "....", make.encrypted(b"x"), make.encrypted(alg="RSA1_5")):
            assert answer(verify(bearer)) == INVALID

    def test_gateway_still_refuses_a_request_without_a_bearer_token_if_other_bearers_is_pass(self):
        assert answer(verify()) == answer(by_wsgi(headers=[("Authorization", "Basic YTpi")])) == INVALID

    def test_c12_gateway_refuses_a_signed_token_of_another_accepted_issuer_if_other_bearers_is_pass(
        self, make, settings
    ):
        signed = signed_by_pyjwt(canvas_claims(int(time.time()), iss="https://canvas.example"), make.signing)
        assert status(signed) == 204

        settings.INSTACCESS = {**settings.INSTACCESS, "ACCEPTED_ISSUERS": ["other", "https://canvas.example"]}
        assert status(signed) == 401

    def test_g22_gateway_refuses_a_signed_inst_access_token_in_every_encoding_if_other_bearers_is_pass(
        self, token, make
    ):
        signed = signed_inside(token)
        header, payload, signature = signed.split(".")
        spaced = b64(b" " + json.dumps(claims()).encode() + b" ")
        escaped = b64(json.dumps(claims()).replace("instructure", "\\u0069nstructure").encode())
        doubled = b64(b'{"iss":"other",' + json.dumps(claims()).encode()[1:])
        reversed_ = b64(json.dumps(claims()).encode()[:-1] + b',"iss":"other"}')
        listed = b64(json.dumps(claims(iss=["instructure:inst_access"])).encode())
        marked = b64(b"\xef\xbb\xbf" + json.dumps(claims()).encode())
        utf16 = b64(json.dumps(claims()).encode("utf-16"))
        others = (spaced, escaped, doubled, reversed_, listed, marked, utf16)
        for text in (
            signed,
            *non_canonical_forms(signed),
            f"{header}.{payload}=.{signature}",
            f"{header}.{payload}==.{signature}",
            f"{header}=.{payload}.{signature}",
            f"{header}.{payload}.{signature}==",
            f"{header}.{payload}.",
            f"{header}..{signature}",
            f".{payload}.{signature}",
            f"{header}.{payload}+.{signature}",
            f"{header}.{payload}/.{signature}",
            *(f"{header}.{other}.{signature}" for other in others),
            f"{header}.{b64(b'[]')}.{signature}",
            f"{header}.{payload}.{'A' * 9000}",
        ):
            response = verify(text)
            parts = text.strip(" ").split(".")
            # A JWT has exactly three parts. The gateway may let any other string pass, because no service can read
            # the string as a JWT.
            assert answer(response) == INVALID if len(parts) == 3 else response.status_code in (204, 401), text
