"""RSA keys as material: what is taken in, what is refused and why, what is written out."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from django.test import override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from instaccess.exceptions import KeyRefused
from instaccess.trust import material

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi"}
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
generate_jwk = material.generate_jwk  # the real one: the tests of other modules get ready-made keys


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
        material.parse(data)
    return caught.value.detail


class TestReading:
    def test_a_private_pem_gives_both_halves(self, pair):
        assert material.parse(private_pem(pair)).export_private() == JWK(**members(pair)).export_private()

    def test_a_public_pem_gives_one(self, pair):
        key = material.parse(public_pem(pair))

        assert not key.has_private
        assert key.thumbprint() == pair.thumbprint()

    def test_the_older_pem_of_rsa_keys_is_read_too(self, pair):
        private = pair.get_op_key("sign")
        pem = private.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())

        assert material.parse(pem).thumbprint() == pair.thumbprint()

    def test_k6_a_certificate_gives_its_public_key(self, pair):
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
        key = material.parse(certificate.public_bytes(PEM))

        assert not key.has_private
        assert key.thumbprint() == pair.thumbprint()

    @pytest.mark.parametrize("private", [True, False])
    def test_a_jwk_is_read_as_text_and_as_bytes(self, pair, private):
        text = json.dumps(members(pair, private=private))

        for data in (text, text.encode()):
            assert material.parse(data).thumbprint() == pair.thumbprint()
            assert material.parse(data).has_private is private

    def test_white_space_around_it_does_not_matter(self, pair):
        pem = public_pem(pair).replace(b"\n", b"\r\n")

        assert material.parse(b"\n  " + pem + b"\n\n").thumbprint() == pair.thumbprint()

    def test_what_else_a_jwk_says_stays_behind(self, pair):
        """Its use, its kid and its algorithm are its owner's; ours are said here."""
        theirs = {"use": "enc", "kid": "mine", "alg": "RSA-OAEP", "x5u": "https://evil.example/", "x": "y"}
        key = material.parse(json.dumps(members(pair, private=False) | theirs))

        assert set(key) == {"kty", "n", "e"}


class TestK6RefusesWithAReason:
    def test_k6_a_key_of_1024_bits(self):
        weak = JWK.generate(kty="RSA", size=1024)
        for data in (private_pem(weak), public_pem(weak), json.dumps(members(weak))):
            assert refusal(data) == "the key has 1024 bits; 2048 to 4096 are accepted"

    def test_k6_a_key_so_large_that_every_token_would_take_its_time(self):
        huge = json.dumps({"kty": "RSA", "n": unsigned((1 << 8191) | 1), "e": "AQAB"})

        assert refusal(huge) == "the key has 8192 bits; 2048 to 4096 are accepted"

    @pytest.mark.parametrize("exponent", [1, 2, 65536])
    def test_k6_an_exponent_with_which_nothing_is_secret_or_nothing_works(self, pair, exponent):
        weak = members(pair, private=False) | {"e": unsigned(exponent)}

        assert refusal(json.dumps(weak)) == "the RSA key can't be used (ValueError)"

    @pytest.mark.parametrize("exponent", [3, 17, 65535])
    def test_k6_a_small_exponent(self, pair, exponent):
        weak = members(pair, private=False) | {"e": unsigned(exponent)}

        assert refusal(json.dumps(weak)) == f"the public exponent is {exponent}; at least 65537 is accepted"

    def test_k6_a_private_key_with_exponent_3(self):
        weak = JWK.generate(kty="RSA", size=2048, public_exponent=3)

        assert refusal(private_pem(weak)) == "the public exponent is 3; at least 65537 is accepted"

    def test_k6_an_elliptic_curve_key(self):
        key = ec.generate_private_key(ec.SECP256R1())

        assert refusal(key.private_bytes(PEM, PKCS8, serialization.NoEncryption())) == (
            "the key type is EC; only RSA is accepted"
        )
        assert (
            refusal(JWK.generate(kty="EC", crv="P-256").export_public()) == "the key type is EC; only RSA is accepted"
        )

    def test_k6_an_edwards_curve_key(self):
        key = ed25519.Ed25519PrivateKey.generate()

        assert refusal(key.private_bytes(PEM, PKCS8, serialization.NoEncryption())) == (
            "the key type is OKP; only RSA is accepted"
        )

    def test_k6_a_symmetric_key(self):
        assert refusal(JWK.generate(kty="oct", size=256).export()) == "the key type is oct; only RSA is accepted"

    def test_k6_an_order_to_generate_a_key(self):
        """jwcrypto would make one up and hand it back as if it had been read."""
        assert refusal('{"generate": "RSA", "size": 2048}') == "a JWK with a `generate` member is not a key"

    def test_k6_an_encrypted_pem(self, pair):
        sealed = pair.get_op_key("sign").private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))

        assert refusal(sealed).startswith("this is neither an unencrypted PEM key nor a JWK")

    def test_k6_what_people_try_first_says_which_command_makes_a_key_of_it(self, pair):
        key: Any = pair.get_op_key("sign")
        no_password = serialization.NoEncryption()
        der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, no_password)
        openssh = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, no_password)
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        sealed = [
            key.private_bytes(serialization.Encoding.PEM, each, serialization.BestAvailableEncryption(b"x"))
            for each in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)
        ]

        assert "openssl pkey -inform DER" in refusal(der)
        assert "ssh-keygen -p -m PEM" in refusal(openssh)
        assert "ssh-keygen -e -m PKCS8" in refusal(line)
        assert all("openssl pkey -in FILE" in refusal(each) for each in sealed)
        assert "copy the JWK that you need" in refusal(json.dumps({"keys": [json.loads(pair.export_public())]}))

    def test_k6_halves_that_do_not_belong_together(self, rsa_pool):
        mixed = members(rsa_pool.take()) | {"n": rsa_pool.take()["n"]}

        assert refusal(json.dumps(mixed)).startswith("the RSA key can't be used")

    @pytest.mark.parametrize("dropped", [{"p", "q", "dp", "dq", "qi"}, {"dp"}, {"q"}])
    def test_k6_a_private_half_with_parts_missing(self, pair, dropped):
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
    def test_k6_garbage(self, data):
        assert refusal(data)

    @given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200)))
    @hypothesis_settings(max_examples=200, deadline=None)
    def test_k6_garbage_of_any_kind(self, data):
        assert refusal(data)

    @given(
        name=st.sampled_from(["kty", "n", "e", "d", "p", "q", "dp", "dq", "qi"]),
        value=st.one_of(st.none(), st.integers(), st.text(max_size=20), st.lists(st.text(max_size=3), max_size=2)),
    )
    @hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_k6_a_jwk_with_one_member_made_up(self, rsa_pool, name, value):
        rsa_pool.rewind()

        assert refusal(json.dumps(members(rsa_pool.take()) | {name: value}))

    def test_k6_no_reason_quotes_what_was_given(self, pair):
        broken = members(pair) | {"p": "not-a-prime"}
        text = refusal(json.dumps(broken)) + refusal(private_pem(pair)[:-40])

        for value in (*members(pair).values(), "not-a-prime"):
            assert value == "RSA" or value not in text


class TestWriting:
    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    @pytest.mark.parametrize("private", [True, False])
    def test_what_is_written_reads_as_the_same_key(self, pair, file_format, private):
        text = material.to_text(pair, file_format=file_format, private=private)
        again = material.parse(text)

        assert again.has_private is private
        assert again.thumbprint() == pair.thumbprint()
        assert text.endswith("\n")

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_the_public_half_is_all_there_is_unless_both_are_asked_for(self, pair, file_format):
        text = material.to_text(pair, file_format=file_format, private=False)

        assert "PRIVATE" not in text
        for name in PRIVATE_MEMBERS:
            assert pair[name] not in text

    def test_a_jwk_says_what_it_is_for_and_which_it_is(self, pair):
        key = JWK(**material.public_members(pair, use="sig"))

        assert json.loads(material.to_text(key, file_format="jwk", private=False)) == {
            "kty": "RSA",
            "n": pair["n"],
            "e": pair["e"],
            "use": "sig",
            "kid": pair.thumbprint(),
        }


class TestTheHalves:
    def test_the_public_one_has_five_members(self, pair):
        assert set(material.public_members(pair, use="enc")) == {"kty", "n", "e", "use", "kid"}

    def test_the_kid_is_the_thumbprint_whatever_the_key_calls_itself(self, pair):
        renamed = JWK(**members(pair) | {"kid": "chosen-by-somebody"})

        assert material.public_members(renamed, use="sig")["kid"] == pair.thumbprint()

    def test_the_private_one_holds_both(self, pair):
        private = members(material.private_jwk(pair, use="enc"))

        assert set(private) == {"kty", "n", "e", "use", "kid"} | PRIVATE_MEMBERS


class TestAGeneratedKey:
    @pytest.mark.parametrize("bits", [2048, 3072])
    def test_has_the_size_of_the_setting_and_would_be_taken_in(self, bits):
        with override_settings(INSTACCESS={"KEY_SIZE": bits}):
            key = generate_jwk("sig")

        assert key.get_op_key("sign").key_size == bits
        assert material.parse(private_pem(key)).thumbprint() == key.thumbprint()
