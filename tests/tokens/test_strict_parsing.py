"""Tests of strict parsing: the encoding, the header and the length before a key is used, and then the content."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwe import JWE
from jwcrypto.jws import JWS

from instaccess.exceptions import InvalidToken
from instaccess.tokens import PrivateKey, compact, jose
from tests.tokens.handmade import (
    CONTENT_ALGORITHMS,
    NO_KEYS,
    PAYLOAD,
    arbitrary_input,
    b64,
    encrypted_as,
    unb64,
    with_header,
)


class TestATokenInJSONSerialization:
    @pytest.mark.parametrize("recipients", [1, 200])
    def test_g3_decrypt_refuses_an_encrypted_token_in_json_serialization(self, recipients, signed, encryption_key):
        jwe = JWE(signed.encode(), '{"enc":"A256GCM"}', algs=["RSA-OAEP", "A256GCM"])
        for _ in range(recipients):
            jwe.add_recipient(encryption_key, '{"alg":"RSA-OAEP"}')

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(jwe.serialize(), NO_KEYS)

        assert refusal.value.code in {"malformed", "too_long"}

    def test_g3_verify_refuses_a_signed_token_in_json_serialization(self, signing_key):
        jws = JWS(PAYLOAD)
        jws.add_signature(signing_key, protected='{"alg":"RS256"}')

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(jws.serialize(), NO_KEYS)

        assert refusal.value.code == "malformed"


ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def non_canonical_forms(token: str) -> Iterator[str]:
    """Yield strings that differ from the token, but that a lenient parser would accept as the token."""
    segments = token.split(".")
    for n, segment in enumerate(segments):

        def replaced(text: str, n: int = n) -> str:
            return ".".join([*segments[:n], text, *segments[n + 1 :]])

        yield replaced(segment + "=" * (-len(segment) % 4 or 4))
        yield replaced(segment + "=")
        yield replaced(segment[:3] + "\n" + segment[3:])
        yield replaced(segment[:3] + "!" + segment[3:])
        yield replaced(segment[:3] + "\u00ad" + segment[3:])
        last = ALPHABET.index(segment[-1])
        for loose_bits in range(1, 2 ** (len(segment) * 6 % 8)):
            yield replaced(segment[:-1] + ALPHABET[last ^ loose_bits])
        if "-" in segment or "_" in segment:
            yield replaced(segment.replace("-", "+").replace("_", "/"))
    yield from (f" {token}", f"{token} ", f"{token}\n", f"{token}.", f".{token}", f"{token}\x00")
    yield from (token.replace(".", ". "), token.replace(".", ".."))
    yield from (f'"{token}"', token + "." + segments[-1])


class TestANonCanonicalToken:
    def test_g4_decrypt_refuses_a_non_canonical_encrypted_token_before_using_a_key(self, encrypted):
        for text in non_canonical_forms(encrypted):
            assert text != encrypted
            with pytest.raises(InvalidToken):
                jose.decrypt(text, NO_KEYS)

    def test_g4_verify_refuses_a_non_canonical_signed_token_before_using_a_key(self, signed, signing_key):
        for text in non_canonical_forms(signed):
            assert text != signed
            with pytest.raises(InvalidToken):
                jose.verify(text, NO_KEYS)

    @pytest.mark.parametrize("enc", CONTENT_ALGORITHMS)
    @pytest.mark.parametrize("moved", [1, 2, 3, 8, 12, 16, 32])
    def test_g4_decrypt_refuses_a_token_with_bytes_moved_from_one_segment_to_the_next(
        self, enc, moved, signed, encryption_key
    ):
        # If bytes move from the IV to the ciphertext, only the length of the IV reveals the change. The tag of
        # CBC-HMAC stays valid, because the tag covers the concatenated segments.
        token = jose.encrypt(signed, encryption_key, kid="e1", alg="RSA-OAEP", enc=enc)
        header, *parts = token.split(".")
        for left in range(3):
            for shift in (moved, -moved):
                raw = [unb64(part) for part in parts]
                joined, cut = raw[left] + raw[left + 1], len(raw[left]) + shift
                if not 0 < cut < len(joined):
                    continue
                raw[left], raw[left + 1] = joined[:cut], joined[cut:]
                with pytest.raises(InvalidToken):
                    jose.decrypt(".".join([header, *map(b64, raw)]), {"e1": PrivateKey(encryption_key)})

    def test_g4_decrypt_and_verify_refuse_zero_bytes_before_the_encrypted_key_or_the_signature(
        self, signed, encrypted, signing_key, encryption_key
    ):
        # A lenient parser would accept the token, because leading zero bytes don't change the integer.
        first, payload, signature = signed.split(".")
        with pytest.raises(InvalidToken):
            jose.verify(f"{first}.{payload}.{b64(bytes(3) + unb64(signature))}", {"s1": signing_key})
        header, wrapped, *rest = encrypted.split(".")
        with pytest.raises(InvalidToken):
            jose.decrypt(
                ".".join([header, b64(bytes(3) + unb64(wrapped)), *rest]), {"e1": PrivateKey(encryption_key)}
            )

    def test_g4_verify_refuses_a_signature_that_is_increased_by_the_modulus(self, signed, signing_key):
        first, payload, signature = signed.split(".")
        number = int.from_bytes(unb64(signature)) + int.from_bytes(unb64(signing_key["n"]))

        with pytest.raises(InvalidToken):
            jose.verify(f"{first}.{payload}.{b64(number.to_bytes(257))}", {"s1": signing_key})


JWE_HEADER = '"alg":"RSA-OAEP","enc":"A128CBC-HS256"'
JWS_HEADER = '"typ":"JWT","alg":"RS256"'

ODD_MEMBERS = {
    "crit": '"crit":["exp"]',
    "crit-empty": '"crit":[]',
    "crit-object": '"crit":{}',
    "jku": '"jku":"https://attacker.example/jwks"',
    "jwk": '"jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}',
    "x5u": '"x5u":"https://attacker.example/cert"',
    "x5c": '"x5c":["MIIB"]',
    "x5t": '"x5t":"AAAA"',
    "zip": '"zip":"DEF"',
    "zip-null": '"zip":null',
    "b64": '"b64":false',
    "apu": '"apu":"AAAA"',
    "p2c": '"p2c":100000000',
    "unknown": '"x":"y"',
    "empty-name": '"":"y"',
    "upper-case": '"ALG":"none"',
}

BROKEN_HEADERS = {
    "duplicate-alg": '{{{0},"alg":"none"}}',
    "duplicate-alg-escaped": '{{{0},"\\u0061lg":"none"}}',
    "duplicate-kid": '{{{0},"kid":"e1","kid":"e1"}}',
    "nan": '{{{0},"kid":NaN}}',
    "infinity": '{{{0},"kid":-Infinity}}',
    "not-json": "{{{0}",
    "trailing": "{{{0}}} {{}}",
    "trailing-comma": "{{{0},}}",
    "single-quotes": "{{'alg':'RSA-OAEP'}}",
    "comment": "{{{0}/* */}}",
    "list": "[{{{0}}}]",
    "text": '"alg"',
    "number": "1",
    "null": "null",
    "nested-lists": '{{{0},"kid":' + "[" * 450 + "]" * 450 + "}}",
    "long-number": '{{{0},"kid":' + "9" * 900 + "}}",
    "control-character": '{{{0},"kid":"a\nb"}}',
}


class TestAnInvalidTokenHeader:
    @pytest.mark.parametrize("member", ODD_MEMBERS.values(), ids=ODD_MEMBERS.keys())
    def test_g5_decrypt_and_verify_refuse_an_unknown_header_member_before_using_a_key(
        self, member, encrypted, signed
    ):
        for refused, token, header in (
            (jose.decrypt, encrypted, JWE_HEADER),
            (jose.verify, signed, JWS_HEADER),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(with_header(token, f"{{{header},{member}}}"), NO_KEYS)
            assert refusal.value.code == "bad_header"

    @pytest.mark.parametrize("header", BROKEN_HEADERS.values(), ids=BROKEN_HEADERS.keys())
    def test_g5_decrypt_and_verify_refuse_a_header_that_is_not_a_strict_json_object(self, header, encrypted, signed):
        for refused, token, members in (
            (jose.decrypt, encrypted, JWE_HEADER),
            (jose.verify, signed, JWS_HEADER),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(with_header(token, header.format(members)), NO_KEYS)
            assert refusal.value.code in {"malformed", "bad_header"}

    @pytest.mark.parametrize("raw", [b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"alg":"\xff"}', b"{\x00}"])
    def test_g5_decrypt_refuses_a_header_that_is_not_utf_8(self, raw, encrypted):
        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, raw), NO_KEYS)

        assert refusal.value.code == "malformed"

    @pytest.mark.parametrize("bits", [b"[", b'{"":', b'[{"a":'])
    def test_g5_deeply_nested_json_does_not_crash_a_thread_with_a_small_stack(self, bits):
        # Without the check of the nesting, the JSON parser of Python 3.13 would overflow a small stack and crash the
        # process, because the recursion limit of the parser assumes a stack of the default size.
        script = (
            "import threading\n"
            "from instaccess.tokens.compact import json_object\n"
            "from instaccess.exceptions import InvalidToken\n"
            "def read():\n"
            "    try: json_object(RAW, 'claims')\n"
            "    except InvalidToken as error: print(error.detail)\n"
            "threading.stack_size(256 * 1024)\n"
            "thread = threading.Thread(target=read); thread.start(); thread.join()"
        )
        raw = b'{"a":' + bits * (6000 // len(bits))
        done = subprocess.run(
            [sys.executable, "-c", script.replace("RAW", repr(raw))], capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout) == (0, "JSON is nested too deeply in the claims\n"), done.stderr

    @pytest.mark.parametrize("text", ["[" * 2000, '"' + "[" * 2000, '\\"[{' * 500, "[" * 40 + "\\" * 7])
    def test_brackets_in_a_json_string_do_not_count_as_nesting(self, signing_key, text):
        payload = json.dumps({"x": text}).encode()

        assert jose.verify(jose.sign(payload, PrivateKey(signing_key), kid="s1"), {"s1": signing_key})[
            0
        ] == json.loads(payload)

    def test_g5_verify_refuses_the_deepest_nesting_that_fits_into_a_token(self, signed, signing_key):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(with_header(signed, "[" * 3000), NO_KEYS)
        assert refusal.value.code == "bad_header"

        # A valid signature must not let deeply nested claims reach the JSON parser, which could crash the process.
        nested = jose.sign(b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}", PrivateKey(signing_key), kid="s1")
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(nested, {"s1": signing_key})
        assert refusal.value.code == "malformed"

    @pytest.mark.parametrize("member", ["typ", "cty"])
    @pytest.mark.parametrize("value", ["jwt", "JOSE", "jwk+json", "application/jwt", ""])
    def test_decrypt_refuses_an_encrypted_token_of_the_wrong_type(self, member, value, encrypted):
        header = json.dumps({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "e1", member: value})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_type"

    @pytest.mark.parametrize("changes", [{"typ": "at+jwt"}, {"typ": "jwt"}, {"typ": ""}, {"cty": "JWT"}])
    def test_c2_verify_refuses_a_signed_token_of_the_wrong_type(self, changes, signed):
        # An ID token or an RFC 9068 access token that was signed with the same key must be refused (RFC 8725 §3.11).
        # The member `cty` with the value `JWT` would mean that the payload is a token.
        header = json.dumps({"typ": "JWT", "alg": "RS256", "kid": "s1"} | changes)

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(with_header(signed, header), NO_KEYS)

        assert refusal.value.code == "wrong_type"


class TestAHostileKid:
    @pytest.mark.parametrize(
        ("kid", "code"),
        [
            pytest.param("' OR 1=1 --", "bad_header", id="sql"),
            pytest.param("'OR/**/1=1--", "unknown_kid", id="sql-without-spaces"),
            pytest.param("../../etc/passwd", "unknown_kid", id="path"),
            pytest.param("k" * 10_240, "too_long", id="10-kilobytes"),
            pytest.param("k" * 129, "bad_header", id="129-characters"),
            pytest.param("", "bad_header", id="empty"),
            pytest.param("e1\x00", "bad_header", id="nul"),
            pytest.param("e1\n", "bad_header", id="newline"),
            pytest.param("é", "bad_header", id="not-ascii"),
            pytest.param("\ud800", "bad_header", id="lone-surrogate"),
            pytest.param({"$ne": None}, "bad_header", id="object"),
            pytest.param(["e1"], "bad_header", id="list"),
            pytest.param(1, "bad_header", id="number"),
            pytest.param(True, "bad_header", id="true"),
            pytest.param(None, "bad_header", id="null"),
        ],
    )
    def test_g9_decrypt_and_verify_refuse_a_hostile_kid(
        self, kid, code, encrypted, signed, encryption_key, signing_key
    ):
        for refused, token, keys, header in (
            (
                jose.decrypt,
                encrypted,
                {"e1": PrivateKey(encryption_key)},
                {"alg": "RSA-OAEP", "enc": "A128CBC-HS256"},
            ),
            (jose.verify, signed, {"s1": signing_key}, {"typ": "JWT", "alg": "RS256"}),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(with_header(token, json.dumps(header | {"kid": kid})), keys)
            assert refusal.value.code == code

    def test_g9_error_of_decrypt_does_not_contain_a_hostile_kid(self, encrypted, encryption_key):
        header = json.dumps({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "<script>"})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), {"e1": PrivateKey(encryption_key)})

        assert "script" not in str(refusal.value)


class TestALongToken:
    @pytest.mark.parametrize("length", [8193, 1_000_000])
    def test_g19_decrypt_and_verify_refuse_a_token_over_8_kib_before_parsing_the_token(self, length):
        text = "." * length

        for refused in (jose.decrypt, jose.verify):
            with pytest.raises(InvalidToken) as refusal:
                refused(text, NO_KEYS)
            assert refusal.value.code == "too_long"

    def test_g19_verify_accepts_a_token_of_8_kib(self, signing_key):
        head = len(jose.sign(b"", PrivateKey(signing_key), kid="s1"))
        claims = {"x": "x" * ((compact.MAX_TOKEN_CHARS - head) * 3 // 4 - 8)}
        token = jose.sign(json.dumps(claims, separators=(",", ":")).encode(), PrivateKey(signing_key), kid="s1")
        assert compact.MAX_TOKEN_CHARS - 3 <= len(token) <= compact.MAX_TOKEN_CHARS

        assert jose.verify(token, {"s1": signing_key})[0] == claims

    def test_decrypt_refuses_a_header_over_1_kib(self, encrypted):
        header = json.dumps({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "e1"}) + " " * 1024

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "bad_header"


class TestTheContentOfAToken:
    @pytest.mark.parametrize("inside", ["é", "\u2028", "\U0001f511"])
    def test_decrypt_refuses_a_plaintext_that_is_not_ascii(self, inside, encryption_key):
        token = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "e1"}, inside, encryption_key)

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(token, {"e1": PrivateKey(encryption_key)})

        assert refusal.value.code == "decrypt_failed"

    @pytest.mark.parametrize(
        "payload",
        [
            b"[]",
            b"null",
            b"1",
            b'"text"',
            b"not json",
            b'{"sub":"ada","sub":"grace"}',
            b'{"exp":NaN}',
            b'{"exp":Infinity}',
            b'{"sub":"\xff"}',
            b'\xef\xbb\xbf{"sub":"ada"}',
            b'{"exp":' + b"9" * 5000 + b"}",
        ],
    )
    def test_g8_verify_refuses_signed_claims_that_are_not_a_strict_json_object(self, payload, signing_key):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(jose.sign(payload, PrivateKey(signing_key), kid="s1"), {"s1": signing_key})

        assert refusal.value.code == "malformed"

    @pytest.mark.parametrize("number", [0.5, -1.25, 1e-7, 1.5e300, 1e16])
    def test_verify_accepts_a_decimal_number_in_signed_claims(self, number, signing_key):
        token = jose.sign(json.dumps({"score": number}).encode(), PrivateKey(signing_key), kid="s1")

        assert jose.verify(token, {"s1": signing_key})[0] == {"score": number}

    def test_verify_checks_the_signature_before_it_parses_the_payload(self, rsa_pool):
        # Both the payload and the signature are invalid. The error must be about the signature, because unverified
        # claims must not be parsed.
        token = jose.sign(b"not json", PrivateKey(rsa_pool.take("sig")), kid="s1")

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, {"s1": rsa_pool.take("sig")})

        assert refusal.value.code == "bad_signature"


class TestPeekIssuer:
    def test_peek_issuer_reads_the_issuer_without_a_key(self, signed):
        assert compact.peek_issuer(signed) == "instructure:inst_access"

    @pytest.mark.parametrize("payload", [b"{}", b'{"iss":null}', b'{"iss":["instructure:inst_access"]}', b"[]", b"x"])
    def test_peek_issuer_returns_none_if_the_payload_contains_no_issuer(self, payload, signing_key):
        assert compact.peek_issuer(jose.sign(payload, PrivateKey(signing_key), kid="s1")) is None

    def test_peek_issuer_returns_none_for_encrypted_and_opaque_tokens(self, encrypted):
        assert compact.peek_issuer(encrypted) is None
        assert compact.peek_issuer("kQ3XjtXn6f8o0qg") is None
        assert compact.peek_issuer("") is None

    @arbitrary_input
    @given(st.text(max_size=200))
    def test_peek_issuer_returns_none_for_arbitrary_text(self, text):
        assert compact.peek_issuer(text) is None
