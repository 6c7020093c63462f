"""Tests of RSA key material: accepted keys, refused keys with their reasons, and serialization."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from django.test import override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from instaccess.exceptions import KeyRefused
from instaccess.tokens import PrivateKey
from instaccess.trust import material, remote_jwks
from tests.support import key_texts

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi"}
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
# Keep the original function, because a fixture replaces `material.generate` in every test.
generate = material.generate


@pytest.fixture
def pair(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


def members(key: JWK, *, private: bool = True) -> dict[str, Any]:
    return dict(key.export_private(as_dict=True) if private else key.export_public(as_dict=True))


def private_pem(key: JWK) -> bytes:
    return bytes(key.export_to_pem(private_key=True, password=None))


def public_pem(key: JWK) -> bytes:
    return bytes(key.export_to_pem())


def unsigned(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def refusal(data: str | bytes) -> str:
    with pytest.raises(KeyRefused) as caught:
        key_texts.parse(data)
    return caught.value.detail


class TestParsingAKey:
    def test_key_parser_returns_a_private_key_for_a_private_pem(self, pair):
        assert key_texts.parse(private_pem(pair)).export_private() == JWK(**members(pair)).export_private()

    def test_key_parser_returns_a_public_key_for_a_public_pem(self, pair):
        key = key_texts.parse(public_pem(pair))

        assert not key.has_private
        assert key.thumbprint() == pair.thumbprint()

    def test_key_parser_accepts_a_pkcs1_pem(self, pair):
        private = pair.get_op_key("sign")
        pem = private.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())

        assert key_texts.parse(pem).thumbprint() == pair.thumbprint()

    def test_k6_key_parser_returns_the_public_key_of_a_certificate(self, pair):
        private, name = pair.get_op_key("sign"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(private, hashes.SHA256())
        )
        key = key_texts.parse(certificate.public_bytes(PEM))

        assert not key.has_private
        assert key.thumbprint() == pair.thumbprint()

    @pytest.mark.parametrize("private", [True, False])
    def test_key_parser_accepts_a_jwk_as_a_string_and_as_bytes(self, pair, private):
        text = json.dumps(members(pair, private=private))

        for data in (text, text.encode()):
            assert key_texts.parse(data).thumbprint() == pair.thumbprint()
            assert key_texts.parse(data).has_private is private

    def test_key_parser_ignores_white_space_around_a_pem(self, pair):
        pem = public_pem(pair).replace(b"\n", b"\r\n")

        assert key_texts.parse(b"\n  " + pem + b"\n\n").thumbprint() == pair.thumbprint()

    def test_key_parser_drops_all_members_of_a_public_jwk_except_kty_n_and_e(self, pair):
        """The parser must drop the other members, because the caller decides the use, the kid and the algorithm."""
        other_members = {"use": "enc", "kid": "mine", "alg": "RSA-OAEP", "x5u": "https://evil.example/", "x": "y"}
        key = key_texts.parse(json.dumps(members(pair, private=False) | other_members))

        assert set(key) == {"kty", "n", "e"}


class TestRefusedKeys:
    def test_k6_key_parser_refuses_a_key_of_1024_bits(self):
        weak = JWK.generate(kty="RSA", size=1024)
        for data in (private_pem(weak), public_pem(weak), json.dumps(members(weak))):
            assert refusal(data) == "the key has 1024 bits; 2048 to 4096 are accepted"

    def test_k6_key_parser_refuses_a_key_of_8192_bits(self):
        huge = json.dumps({"kty": "RSA", "n": unsigned((1 << 8191) | 1), "e": "AQAB"})

        assert refusal(huge) == "the key has 8192 bits; 2048 to 4096 are accepted"

    @pytest.mark.parametrize("exponent", [1, 2, 65536])
    def test_k6_key_parser_refuses_an_exponent_that_is_insecure_or_invalid(self, pair, exponent):
        weak = members(pair, private=False) | {"e": unsigned(exponent)}

        assert refusal(json.dumps(weak)) == "the RSA key can't be used (ValueError)"

    @pytest.mark.parametrize("exponent", [3, 17, 65535])
    def test_k6_key_parser_refuses_a_small_exponent(self, pair, exponent):
        weak = members(pair, private=False) | {"e": unsigned(exponent)}

        assert refusal(json.dumps(weak)) == f"the public exponent is {exponent}; at least 65537 is accepted"

    def test_k6_key_parser_refuses_a_public_key_with_an_even_modulus(self, pair):
        numbers = pair.get_op_key("verify").public_numbers()
        even = rsa.RSAPublicNumbers(numbers.e, numbers.n - 1)
        pem = even.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

        for data in (pem, json.dumps(members(pair, private=False) | {"n": unsigned(even.n)})):
            assert refusal(data).startswith("the modulus is even")

    def test_k6_jwks_member_with_an_even_modulus_is_skipped_and_logged(self, rsa_pool, caplog):
        good, other = rsa_pool.take(), rsa_pool.take()
        modulus = other.get_op_key("verify").public_numbers().n
        even = members(other, private=False) | {"n": unsigned(modulus - 1)}

        keys = remote_jwks.read_jwks({"keys": [even, members(good, private=False)]})

        assert list(keys) == [good.thumbprint()]
        assert "the modulus is even" in caplog.text

    def test_k6_key_parser_refuses_a_private_key_with_an_even_modulus(self, pair):
        weak = members(pair) | {"n": unsigned(pair.get_op_key("verify").public_numbers().n - 1)}

        assert refusal(json.dumps(weak)) == "the RSA key can't be used (ValueError)"

    def test_k6_key_parser_refuses_a_private_key_with_exponent_3(self):
        weak = JWK.generate(kty="RSA", size=2048, public_exponent=3)

        assert refusal(private_pem(weak)) == "the public exponent is 3; at least 65537 is accepted"

    def test_k6_key_parser_refuses_an_elliptic_curve_key(self):
        key = ec.generate_private_key(ec.SECP256R1())

        assert refusal(key.private_bytes(PEM, PKCS8, serialization.NoEncryption())) == (
            "the key type is EC; only RSA is accepted"
        )
        assert (
            refusal(JWK.generate(kty="EC", crv="P-256").export_public()) == "the key type is EC; only RSA is accepted"
        )

    def test_k6_key_parser_refuses_an_edwards_curve_key(self):
        key = ed25519.Ed25519PrivateKey.generate()

        assert refusal(key.private_bytes(PEM, PKCS8, serialization.NoEncryption())) == (
            "the key type is OKP; only RSA is accepted"
        )

    def test_k6_key_parser_refuses_a_symmetric_key(self):
        assert refusal(JWK.generate(kty="oct", size=256).export()) == "the key type is oct; only RSA is accepted"

    def test_k6_key_parser_refuses_a_jwk_with_a_generate_member(self):
        """The parser must refuse the JWK, because jwcrypto would generate a new key instead of parsing the JWK."""
        assert refusal('{"generate": "RSA", "size": 2048}') == "a JWK with a `generate` member is not a key"

    def test_k6_key_parser_refuses_an_encrypted_pem(self, pair):
        encrypted = pair.get_op_key("sign").private_bytes(
            PEM, PKCS8, serialization.BestAvailableEncryption(b"secret")
        )

        assert refusal(encrypted).startswith("this is neither an unencrypted PEM key nor a JWK")

    def test_k6_key_parser_error_for_an_unsupported_common_format_contains_a_hint(self, pair):
        key: Any = pair.get_op_key("sign")
        no_password = serialization.NoEncryption()
        der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, no_password)
        openssh = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, no_password)
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        encrypted = [
            key.private_bytes(serialization.Encoding.PEM, each, serialization.BestAvailableEncryption(b"x"))
            for each in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)
        ]

        assert "openssl pkey -inform DER" in refusal(der)
        assert "ssh-keygen -p -m PEM" in refusal(openssh)
        assert "ssh-keygen -e -m PKCS8" in refusal(line)
        assert all("openssl pkey -in FILE" in refusal(each) for each in encrypted)
        assert "copy the JWK that you need" in refusal(json.dumps({"keys": [json.loads(pair.export_public())]}))

    def test_k6_key_parser_refuses_a_private_key_that_does_not_match_its_public_key(self, rsa_pool):
        mixed = members(rsa_pool.take()) | {"n": rsa_pool.take()["n"]}

        assert refusal(json.dumps(mixed)).startswith("the RSA key can't be used")

    @pytest.mark.parametrize("dropped", [{"p", "q", "dp", "dq", "qi"}, {"dp"}, {"q"}])
    def test_k6_key_parser_refuses_a_private_key_with_missing_members(self, pair, dropped):
        partial = {name: value for name, value in members(pair).items() if name not in dropped}

        assert refusal(json.dumps(partial)).startswith("the RSA key can't be used")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x00\xff\xfe",
            "kein Schlüssel",
            "{",
            "{}",
            "[]",
            "null",
            '{"kty": "RSA"}',
            '{"kty": "RSA", "n": 5, "e": 3}',
            '{"kty": ["RSA"], "n": "AQ", "e": "AQAB"}',
            '{"kty": "RSA", "n": "\\ud800", "e": "AQAB"}',
            '{"kty": "RSA", "n": "", "e": ""}',
            '{"self": 1, "kty": "RSA"}',
            '{"keys": []}',
            '{"a":' * 100_000,
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "\ud800",
        ],
        ids=str,
    )
    def test_k6_key_parser_refuses_malformed_data(self, data):
        assert refusal(data)

    @given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200)))
    @hypothesis_settings(max_examples=200)
    def test_k6_key_parser_refuses_arbitrary_bytes_and_strings(self, data):
        assert refusal(data)

    @given(
        name=st.sampled_from(["kty", "n", "e", "d", "p", "q", "dp", "dq", "qi"]),
        value=st.one_of(st.none(), st.integers(), st.text(max_size=20), st.lists(st.text(max_size=3), max_size=2)),
    )
    @hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_k6_key_parser_refuses_a_jwk_in_which_an_arbitrary_value_replaces_a_member(self, rsa_pool, name, value):
        rsa_pool.rewind()

        assert refusal(json.dumps(members(rsa_pool.take()) | {name: value}))

    def test_k6_key_parser_error_contains_no_key_material(self, pair):
        broken = members(pair) | {"p": "not-a-prime"}
        text = refusal(json.dumps(broken)) + refusal(private_pem(pair)[:-40])

        for value in (*members(pair).values(), "not-a-prime"):
            assert value == "RSA" or value not in text


class TestSerializingAKey:
    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    @pytest.mark.parametrize("private", [True, False])
    def test_serialized_key_can_be_parsed_as_the_same_key(self, pair, file_format, private):
        text = (key_texts.private_text if private else material.to_text)(pair, file_format=file_format)
        parsed = key_texts.parse(text)

        assert parsed.has_private is private
        assert parsed.thumbprint() == pair.thumbprint()
        assert text.endswith("\n")

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_to_text_serializes_only_the_public_key_of_a_key_pair(self, pair, file_format):
        text = material.to_text(pair, file_format=file_format)

        assert "PRIVATE" not in text
        for name in PRIVATE_MEMBERS:
            assert pair[name] not in text

    def test_a_serialized_jwk_contains_its_use_and_its_kid(self, pair):
        key = JWK(**material.public_members(pair, use="sig"))

        assert json.loads(material.to_text(key, file_format="jwk")) == {
            "kty": "RSA",
            "n": pair["n"],
            "e": pair["e"],
            "use": "sig",
            "kid": pair.thumbprint(),
        }


class TestMembersOfAKey:
    def test_public_members_of_a_key_are_kty_n_e_use_and_kid(self, pair):
        assert set(material.public_members(pair, use="enc")) == {"kty", "n", "e", "use", "kid"}

    def test_kid_of_a_key_is_the_thumbprint_even_if_the_jwk_has_another_kid(self, pair):
        renamed = JWK(**members(pair) | {"kid": "chosen-by-the-owner"})

        assert material.public_members(renamed, use="sig")["kid"] == pair.thumbprint()

    def test_private_jwk_contains_the_public_and_the_private_members(self, pair):
        private = members(material.for_use(PrivateKey(pair), use="enc").reveal())

        assert set(private) == {"kty", "n", "e", "use", "kid"} | PRIVATE_MEMBERS


class TestGeneratingAKey:
    @pytest.mark.parametrize("bits", [2048, 3072])
    def test_a_generated_key_has_the_configured_size_and_is_accepted(self, bits):
        with override_settings(INSTACCESS={"KEY_SIZE": bits}):
            key = generate("sig").reveal()

        assert key.get_op_key("sign").key_size == bits
        assert key_texts.parse(private_pem(key)).thumbprint() == key.thumbprint()
