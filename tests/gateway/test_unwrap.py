"""Tests of unwrapping a token: strict parsing, decryption, signature, claims and deny list."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from instaccess import trust
from instaccess.exceptions import ForeignToken, InvalidToken
from instaccess.tokens import compact
from tests.service.helpers import jwks
from tests.support import servers
from tests.support.tokens import (
    ISSUER,
    NOW,
    TokenFactory,
    b64,
    canvas_claims,
    claims,
    denying,
    encrypted_by_joserfc,
    header_of,
    non_canonical_forms,
    signed_by_pyjwt,
    with_header,
)


class UntouchedKeys(dict[str, Any]):
    """A key mapping that fails on every access."""

    def _touched(self, *args: Any) -> Any:
        raise AssertionError("the keys were accessed")

    __getitem__ = get = items = values = keys = __iter__ = __contains__ = _touched


@pytest.fixture
def refused(unwrap_):
    """Return a function that returns the reason code with which `unwrap` refuses a token."""

    def refuse(token: str, **changes: Any) -> str:
        with pytest.raises(InvalidToken) as caught:
            unwrap_(token, **changes)
        return caught.value.code

    return refuse


class TestAValidToken:
    def test_unwrap_returns_the_signed_token_its_claims_and_its_kids(self, make, unwrap_):
        signed = make.signed()

        unwrapped = unwrap_(make.encrypted(signed))

        assert unwrapped.signed == signed
        assert unwrapped.claims.user_uuid == claims()["sub"]
        assert (unwrapped.encryption_kid, unwrapped.signing_kid) == (make.encryption_kid, make.signing_kid)

    def test_repr_of_an_unwrapped_token_does_not_contain_the_signed_token(self, make, unwrap_):
        unwrapped = unwrap_(make.encrypted())

        assert unwrapped.claims.jti in repr(unwrapped)
        assert unwrapped.signed not in repr(unwrapped)

    @pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA-OAEP-256"])
    @pytest.mark.parametrize("enc", ["A128CBC-HS256", "A256GCM"])
    def test_unwrap_accepts_each_allowed_encryption_algorithm(self, make, unwrap_, alg, enc):
        assert unwrap_(make.encrypted(alg=alg, enc=enc))

    def test_unwrap_refuses_rsa1_5_unless_the_caller_allows_rsa1_5(self, make, unwrap_, refused):
        token = make.encrypted(alg="RSA1_5")

        assert refused(token) == "wrong_alg"
        assert unwrap_(token, key_algorithms=["RSA1_5"])

    def test_g10_unwrap_accepts_a_token_without_kid_and_cty_because_canvas_sends_such_tokens(self, make, unwrap_):
        assert unwrap_(make.encrypted(make.signed(kid=...), kid=..., cty=...))

    def test_g10_unwrap_tries_at_most_three_decryption_keys_for_a_token_without_a_kid(
        self, make, unwrap_, rsa_pool, refused
    ):
        others = {str(n): rsa_pool.take_private("enc") for n in range(2)}
        token = make.encrypted(make.signed(kid=...), kid=...)

        assert unwrap_(token, decryption_keys=others | make.decryption_keys).encryption_kid == make.encryption_kid
        assert refused(token, decryption_keys=others | {"2": others["0"]} | make.decryption_keys) == "decrypt_failed"

    def test_g10_unwrap_tries_at_most_three_verification_keys_for_a_token_without_a_kid(
        self, make, unwrap_, rsa_pool, refused
    ):
        others = {str(n): rsa_pool.take("sig") for n in range(2)}
        token = make.encrypted(make.signed(kid=...))

        assert unwrap_(token, verification_keys=others | make.verification_keys).signing_kid == make.signing_kid
        four = others | {"2": others["0"]} | make.verification_keys
        assert refused(token, verification_keys=four) == "bad_signature"


class TestATokenOfCanvas:
    @pytest.mark.parametrize("service_user", [True, False])
    def test_c12_unwrap_accepts_a_token_that_the_gem_of_canvas_wrote(self, make, unwrap_, service_user):
        signed = signed_by_pyjwt(canvas_claims(instructure_service=service_user), make.signing)

        unwrapped = unwrap_(encrypted_by_joserfc(signed, make.encryption))

        assert unwrapped.signed == signed
        assert (unwrapped.claims.client_id, unwrapped.claims.canvas_domain) == ("10000000000107", None)

    def test_c12_unwrap_accepts_a_token_of_each_accepted_issuer(self, make, unwrap_, refused):
        token = encrypted_by_joserfc(
            signed_by_pyjwt(canvas_claims(iss="https://canvas.example"), make.signing), make.encryption
        )

        assert unwrap_(token, issuers=[ISSUER, "https://canvas.example"]).claims.issuer == "https://canvas.example"
        assert refused(token) == "foreign_issuer"

    def test_c12_refusal_of_an_expired_token_contains_an_integer_client_id_as_a_string(self, make, unwrap_):
        expired = signed_by_pyjwt(canvas_claims(NOW - 4000), make.signing)

        with pytest.raises(InvalidToken) as caught:
            unwrap_(encrypted_by_joserfc(expired, make.encryption))
        assert (caught.value.code, caught.value.client_id) == ("expired", "10000000000107")

    def test_c14_unwrap_accepts_a_token_without_a_kid_that_is_signed_with_a_new_key_after_one_fetch(
        self, make, unwrap_, rsa_pool, settings
    ):
        old, token = (
            rsa_pool.take("sig"),
            encrypted_by_joserfc(signed_by_pyjwt(canvas_claims(), make.signing), make.encryption),
        )
        with servers.scripted_server(lambda handler: servers.reply(handler, 200, jwks(old))) as server:
            settings.INSTACCESS = {"VERIFICATION_KEYS": f"{server.base_url}/jwks", "ALLOW_HTTP_URLS": True}
            keys = trust.verification_keys()
            server.answer_with(200, jwks(make.signing, old))

            assert unwrap_(token, verification_keys=keys).signing_kid == make.signing_kid
            assert len(server.requests) == 2


def with_members(token: str, members: dict[str, Any]) -> str:
    return with_header(token, header_of(token) | members)


class TestRefusalsWithoutRSA:
    """Tests of refusals for which `unwrap` needs no key."""

    @pytest.fixture
    def refused_without_keys(self, refused):
        return lambda token: refused(token, decryption_keys=UntouchedKeys(), verification_keys=UntouchedKeys())

    @pytest.mark.parametrize(
        "alg",
        [
            "RSA1_5",
            "rsa-oaep",
            "RSA-OAEP ",
            "RSA-OAEP-384",
            "RSA-OAEP-512",
            "dir",
            "A128KW",
            "ECDH-ES",
            "PBES2-HS256+A128KW",
            "none",
            "",
        ],
    )
    def test_g1_unwrap_refuses_an_unknown_alg_or_an_alg_in_the_wrong_case(self, make, refused_without_keys, alg):
        assert (
            refused_without_keys(with_header(make.encrypted(), header_of(make.encrypted()) | {"alg": alg}))
            == "wrong_alg"
        )

    @pytest.mark.parametrize("enc", ["a128cbc-hs256", "A128GCM", "A256CBC-HS512", "A192CBC-HS384", "none", ""])
    def test_g1_unwrap_refuses_an_unknown_enc_or_an_enc_in_the_wrong_case(self, make, refused_without_keys, enc):
        assert (
            refused_without_keys(with_header(make.encrypted(), header_of(make.encrypted()) | {"enc": enc}))
            == "wrong_alg"
        )

    def test_g2_unwrap_refuses_a_compressed_token(self, make, refused_without_keys):
        assert refused_without_keys(make.encrypted(zip="DEF")) == "bad_header"

    def test_g3_unwrap_refuses_a_token_in_json_serialization(self, make, refused_without_keys):
        segments = make.encrypted().split(".")
        names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        flat = dict(zip(names, segments, strict=True))
        general = {
            "protected": flat["protected"],
            "iv": flat["iv"],
            "ciphertext": flat["ciphertext"],
            "tag": flat["tag"],
            "recipients": [{"encrypted_key": flat["encrypted_key"]}] * 200,
        }
        for document in (flat, general):
            assert refused_without_keys(json.dumps(document)[: compact.MAX_TOKEN_CHARS]) in {"malformed", "too_long"}
        assert refused_without_keys(json.dumps(general)) == "too_long"

    @pytest.mark.parametrize(
        "member",
        [
            {"crit": ["exp"]},
            {"jku": "https://evil.example/jwks"},
            {"jwk": {"kty": "RSA"}},
            {"x5u": "https://evil.example/cert"},
            {"x5c": ["MII"]},
            {"b64": False},
            {"p2c": 10_000_000},
            {"apu": "x"},
            {"alg ": "RSA-OAEP"},
            {"typ": ["JWT"]},
            {"cty": None},
            {"kid": 1},
        ],
    )
    def test_g5_unwrap_refuses_unknown_header_members_and_members_of_the_wrong_type(
        self, make, refused_without_keys, member
    ):
        assert refused_without_keys(with_members(make.encrypted(), member)) == "bad_header"

    @pytest.mark.parametrize(
        "header",
        [
            '{"alg":"RSA-OAEP","alg":"RSA-OAEP","enc":"A128CBC-HS256"}',
            '{"alg":"dir","enc":"A128CBC-HS256","alg":"RSA-OAEP"}',
            '{"alg":NaN,"enc":"A128CBC-HS256"}',
            '{"alg":Infinity}',
            "[" * 1000,
            '{"alg":' * 140,
            "[]",
            "null",
            '"RSA-OAEP"',
            "",
            "{",
            "{} {}",
            b"\xff\xfe{}",
            b"\xef\xbb\xbf{}",
            '{"alg":"RSA-OAEP\ud800"}'.encode("utf-8", "surrogatepass"),
        ],
    )
    def test_g5_unwrap_refuses_a_header_that_is_not_one_strict_json_object(self, make, refused_without_keys, header):
        assert refused_without_keys(with_header(make.encrypted(), header)) in {"malformed", "bad_header", "wrong_alg"}

    @pytest.mark.parametrize(
        "kid", ["", "k" * 129, "k" * 700, "a\x00b", "a b", "a\nb", "é", {"a": 1}, ["a"], 7, None, True]
    )
    def test_g9_unwrap_refuses_a_malformed_kid(self, make, refused_without_keys, kid):
        assert (
            refused_without_keys(with_header(make.encrypted(), header_of(make.encrypted()) | {"kid": kid}))
            == "bad_header"
        )

    def test_g9_unwrap_refuses_a_kid_of_10_kb(self, make, refused_without_keys):
        header = header_of(make.encrypted()) | {"kid": "k" * 10_240}

        assert refused_without_keys(with_header(make.encrypted(), header)) == "too_long"

    @pytest.mark.parametrize(
        "text", ["", ".", "....", "a.b.c.d.e", "x", "é.é.é.é.é", "\x00", "a.b.c.d.e.f", "a..b.c.d"]
    )
    def test_unwrap_refuses_text_that_is_not_a_token(self, refused_without_keys, text):
        assert refused_without_keys(text) in {"malformed", "bad_header"}

    def test_g19_unwrap_refuses_a_token_over_8_kib_without_parsing_the_token(self, make, refused_without_keys):
        segments = make.encrypted().split(".")
        segments[3] += "A" * (compact.MAX_TOKEN_CHARS + 4 - sum(map(len, segments)) - 4 + 1)

        assert refused_without_keys(".".join(segments)) == "too_long"

    def test_g19_unwrap_refuses_a_token_of_ten_megabytes_without_parsing_the_token(self, refused_without_keys):
        assert refused_without_keys("." * 10_000_000) == "too_long"


class TestRefusalsAfterParsing:
    @pytest.mark.parametrize("kid", ["' OR 1=1 --", "..", "../../etc/passwd", "unknown", "*"])
    def test_g9_unwrap_refuses_an_unknown_kid(self, make, refused, kid):
        token = make.encrypted(kid=kid.replace(" ", "+"))

        assert refused(token) == "unknown_kid"

    def test_g2_unwrap_does_not_decompress_a_compression_bomb(self, make, refused):
        packed = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packed.compress(b"A" * 50_000_000) + packed.flush()
        bomb = bomb[:4000]
        segments = make.encrypted(bomb, cty=...).split(".")
        token = with_header(".".join(segments), header_of(make.encrypted()) | {"zip": "DEF"})
        tracemalloc.start()
        try:
            assert refused(token) in {"bad_header", "too_long"}
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("place", range(1, 5), ids=["encrypted key", "iv", "ciphertext", "tag"])
    def test_g6_unwrap_refuses_a_token_with_one_changed_byte_in_an_encrypted_part(self, make, refused, place):
        segments = make.encrypted().split(".")
        raw = bytearray(base64.urlsafe_b64decode(segments[place] + "=" * (-len(segments[place]) % 4)))
        raw[len(raw) // 2] ^= 1
        segments[place] = b64(bytes(raw))

        assert refused(".".join(segments)) == "decrypt_failed"

    def test_g6_unwrap_refuses_a_token_whose_protected_header_was_replaced(self, make, refused):
        token = with_header(make.encrypted(), header_of(make.encrypted()) | {"typ": "JWT"})

        assert refused(token) == "decrypt_failed"

    def test_g6_unwrap_refuses_a_token_that_was_encrypted_for_another_key(self, make, refused, rsa_pool):
        other = TokenFactory(make.signing, rsa_pool.take("enc"))

        assert refused(other.encrypted(kid=make.encryption_kid)) == "decrypt_failed"
        assert refused(other.encrypted()) == "unknown_kid"

    def test_g6_unwrap_refuses_a_token_that_was_signed_with_another_key(self, make, refused, rsa_pool):
        forger = TokenFactory(rsa_pool.take("sig"), make.encryption)

        assert refused(forger.encrypted(forger.signed(kid=make.signing_kid))) == "bad_signature"
        assert refused(forger.encrypted(forger.signed(kid=...))) == "bad_signature"
        assert refused(forger.encrypted()) == "unknown_kid"

    def test_unwrap_refuses_every_token_if_there_are_no_keys(self, make, refused):
        assert refused(make.encrypted(), decryption_keys={}) == "unknown_kid"
        assert refused(make.encrypted(kid=...), decryption_keys={}) == "unknown_kid"
        assert refused(make.encrypted(), verification_keys={}) == "unknown_kid"


class TestTheSignedTokenInsideAnEncryptedToken:
    def test_g7_unwrap_refuses_an_unsigned_token(self, make, refused):
        payload = b64(json.dumps(claims()).encode())
        for alg in ("none", "None", "NONE", ""):
            inner = b64(json.dumps({"alg": alg, "typ": "JWT"}).encode()) + f".{payload}."
            assert refused(make.encrypted(inner)) in {"malformed", "wrong_alg"}
            assert refused(make.encrypted(inner + "AA")) == "wrong_alg"

    def test_g7_unwrap_refuses_a_token_signed_with_hs256_and_the_public_key_as_the_secret(self, make, refused):
        pem = make.signing.export_to_pem()
        for secret in (pem, pem.strip(), make.signing.export_public().encode()):
            forged = JWS(json.dumps(claims()).encode())
            forged.add_signature(
                JWK(kty="oct", k=b64(secret)), protected=json.dumps({"alg": "HS256", "kid": make.signing_kid})
            )
            assert refused(make.encrypted(forged.serialize(compact=True))) == "wrong_alg"

    @pytest.mark.parametrize("alg", ["PS256", "RS384", "RS512"])
    def test_g7_unwrap_refuses_an_rsa_signature_algorithm_other_than_rs256(self, make, refused, alg):
        assert refused(make.encrypted(make.signed(alg=alg))) == "wrong_alg"

    def test_g7_unwrap_refuses_an_encrypted_token_inside_an_encrypted_token(self, make, refused):
        assert refused(make.encrypted(make.encrypted(make.signed(claims(acct="a"))))) == "malformed"

    @pytest.mark.parametrize("inner", [b"", b"hello", b"\xff\xfe", b"a.b.c", b'{"iss":"x"}', b"\x00" * 100])
    def test_g7_unwrap_refuses_encrypted_content_that_is_not_a_signed_token(self, make, refused, inner):
        assert refused(make.encrypted(inner)) in {"malformed", "decrypt_failed"}

    def test_unwrap_refuses_a_signed_token_whose_header_contains_a_key(self, make, refused, rsa_pool):
        forger = TokenFactory(rsa_pool.take("sig"), make.encryption)
        inner = forger.signed(jwk=forger.signing.export_public(as_dict=True), kid=make.signing_kid)

        assert refused(forger.encrypted(inner)) == "bad_header"

    @pytest.mark.parametrize(
        "changes",
        [{"exp": value} for value in (None, "1", True, 1.5, [NOW + 1], {}, -1, 10**400, 2**53, ...)]
        + [{"iat": value} for value in (None, "1", True, 1.5, -1, 10**400, ...)],
        ids=str,
    )
    def test_g8_unwrap_refuses_a_token_with_an_iat_or_exp_that_is_not_an_integer_in_range(
        self, make, refused, changes
    ):
        assert refused(make.token(**changes)) == "bad_claim"

    @pytest.mark.parametrize("text", ["Infinity", "-Infinity", "NaN", "1e400", "9" * 400, "9" * 5000])
    def test_g8_unwrap_refuses_a_token_with_an_exp_that_is_infinite_or_too_large(self, make, refused, text):
        payload = json.dumps(claims(exp="here")).replace('"here"', text).encode()

        assert refused(make.encrypted(make.signed(payload))) in {"malformed", "bad_claim", "too_long"}

    def test_g8_unwrap_refuses_a_token_with_a_lifetime_of_more_than_an_hour(self, make, unwrap_, refused):
        assert unwrap_(make.token(exp=NOW + 3600))
        assert refused(make.token(exp=NOW + 3601)) == "bad_lifetime"
        assert refused(make.token(iat=NOW - 3599, exp=NOW + 2)) == "bad_lifetime"
        assert refused(make.token(exp=NOW)) == "bad_lifetime"

    def test_g6_unwrap_refuses_a_token_as_soon_as_exp_plus_the_leeway_is_reached(self, make, unwrap_, refused):
        token = make.token()

        assert unwrap_(token, now=NOW + 3599.9)
        assert refused(token, now=NOW + 3600) == "expired"
        assert unwrap_(token, now=NOW + 3604.9, leeway=5)
        assert refused(token, now=NOW + 3605, leeway=5) == "expired"

    def test_unwrap_refuses_a_token_that_was_issued_more_than_60_seconds_in_the_future(self, make, unwrap_, refused):
        assert unwrap_(make.token(), now=NOW - 60)
        assert refused(make.token(), now=NOW - 61) == "not_yet"

    def test_unwrap_refuses_a_token_of_another_issuer(self, make, unwrap_):
        with pytest.raises(ForeignToken):
            unwrap_(make.token(iss="https://elsewhere.example"))

    @pytest.mark.parametrize("name", ["jti", "sub", "acct"])
    @pytest.mark.parametrize("value", [..., None, "", 1, []])
    def test_unwrap_refuses_a_required_claim_that_is_missing_or_invalid(self, make, refused, name, value):
        assert refused(make.token(**{name: value})) == "bad_claim"

    def test_unwrap_refuses_a_token_with_duplicate_claims(self, make, refused):
        payload = json.dumps(claims())[:-1] + ',"sub":"another user"}'

        assert refused(make.encrypted(make.signed(payload.encode()))) == "malformed"


class TestTheDenyListOfUnwrap:
    def test_g11_unwrap_refuses_a_jti_on_the_deny_list(self, make, unwrap_, refused):
        token = make.token(jti="4b1c3f2e-7d0c-4f7a-9a5e-1a2b3c4d5e6f")

        assert unwrap_(token, denied=denying("another"))
        assert refused(token, denied=denying("4b1c3f2e-7d0c-4f7a-9a5e-1a2b3c4d5e6f")) == "revoked"

    def test_g4_unwrap_refuses_every_non_canonical_encoding_of_a_revoked_token(self, make, refused):
        token = make.token(jti="gone")
        for text in non_canonical_forms(token):
            assert refused(text, denied=denying("gone")) in {"malformed", "too_long"}, text
            assert refused(text) in {"malformed", "too_long"}, text

    def test_refusal_of_unwrap_contains_the_jti_only_if_the_signature_was_verified(self, make, unwrap_, rsa_pool):
        forger = TokenFactory(rsa_pool.take("sig"), make.encryption)
        jtis = {}
        for name, token, changes in (
            ("revoked", make.token(jti="mine"), {"denied": denying("mine")}),
            ("expired", make.token(jti="mine"), {"now": NOW + 4000}),
            ("bad claim", make.token(jti="mine", sub=1), {}),
            ("jti of another type", make.token(jti=["mine"]), {}),
            ("long jti", make.token(jti="j" * 1000, sub=1), {}),
            ("forged", forger.token(jti="theirs"), {}),
        ):
            with pytest.raises(InvalidToken) as caught:
                unwrap_(token, **changes)
            jtis[name] = caught.value.jti

        assert jtis == {
            "revoked": "mine",
            "expired": "mine",
            "bad claim": "mine",
            "jti of another type": "",
            "long jti": "j" * 64,
            "forged": "",
        }

    def test_refusal_of_unwrap_does_not_contain_the_token(self, make, unwrap_):
        for token, changes in ((make.token(), {"now": NOW + 4000}), (make.encrypted(b"x"), {}), ("a.b.c.d.e", {})):
            with pytest.raises(InvalidToken) as caught:
                unwrap_(token, **changes)
            assert token not in f"{caught.value!r} {caught.value} {caught.value.args}"
