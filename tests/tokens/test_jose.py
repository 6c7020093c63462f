"""Signing, encrypting and the strict reading of what comes in, held against three independent readers and writers."""

from __future__ import annotations

import base64
import json
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from instaccess import compact, jose
from instaccess.exceptions import InvalidToken

KEY_ALGORITHMS = ("RSA-OAEP", "RSA-OAEP-256", "RSA1_5")
CONTENT_ALGORITHMS = ("A128CBC-HS256", "A256GCM")
ALGORITHMS = list(product(KEY_ALGORITHMS, CONTENT_ALGORITHMS))
PAYLOAD = b'{"iss":"instructure:inst_access","sub":"ada"}'

# The RSA keys are the same in every example, so a fixture made once a test is no harm. No deadline: a time limit
# would test the machine.
hostile = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[str, str], JWK]:
    """Keys that OpenSSL has checked already: that takes longer than most tests here."""
    return {}


@pytest.fixture
def signing_key(rsa_pool: Any, loaded: dict[tuple[str, str], JWK]) -> JWK:
    key = rsa_pool.take("sig")
    return loaded.setdefault((key.thumbprint(), "sig"), key)


@pytest.fixture
def encryption_key(rsa_pool: Any, loaded: dict[tuple[str, str], JWK]) -> JWK:
    key = rsa_pool.take("enc")
    return loaded.setdefault((key.thumbprint(), "enc"), key)


@pytest.fixture
def signed(signing_key: JWK) -> str:
    return jose.sign(PAYLOAD, signing_key, kid="s1")


@pytest.fixture
def encrypted(signed: str, encryption_key: JWK) -> str:
    return jose.encrypt(signed, encryption_key, kid="e1", alg="RSA-OAEP", enc="A128CBC-HS256")


class UntouchableKeys(Mapping[str, JWK]):
    """Keys that must not be looked at: whoever asks for one is about to spend an RSA operation."""

    def __getitem__(self, kid: str) -> JWK:
        raise AssertionError("a key was looked up")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the keys were walked through")

    def __len__(self) -> int:
        raise AssertionError("the keys were counted")


NO_KEYS = UntouchableKeys()

# joserfc says of RSA1_5 what `check --deploy` says; here it is read on purpose.
reads_rsa1_5 = pytest.mark.filterwarnings('ignore:JWE algorithm "RSA1_5" is deprecated')


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header_text(token: str) -> str:
    return unb64(token.split(".", maxsplit=1)[0]).decode()


def with_header(token: str, header: str | bytes) -> str:
    """The token with another text in place of its protected header."""
    raw = header.encode() if isinstance(header, str) else header
    return ".".join([b64(raw), *token.split(".")[1:]])


def encrypted_as(header: Mapping[str, Any], plaintext: str, key: JWK) -> str:
    """What anybody can make who has our public encryption key; jwcrypto writes whatever header it is given."""
    jwe = JWE(plaintext.encode(), json.dumps(header), algs=[header["alg"], header["enc"]])
    jwe.add_recipient(key)
    return str(jwe.serialize(compact=True))


def encrypted_with_lengths(plaintext: str, key: JWK, *, enc: str, iv_bytes: int, tag_bytes: int = 16) -> str:
    """Good to the last byte, but for an initialization vector or a tag of another length than RFC 7518 §5 has."""
    header = b64(json.dumps({"alg": "RSA-OAEP", "enc": enc, "kid": "e1"}).encode())
    public: Any = key.get_op_key("wrapKey")
    content_key, iv = b"k" * 32, b"i" * iv_bytes
    wrapped = public.encrypt(content_key, padding.OAEP(padding.MGF1(SHA1()), SHA1(), None))
    if enc == "A256GCM":
        sealed = AESGCM(content_key).encrypt(iv, plaintext.encode(), header.encode())
        ciphertext, tag = sealed[:-16], sealed[-16:]
    else:
        padder = PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(content_key[16:]), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(padder.update(plaintext.encode()) + padder.finalize()) + encryptor.finalize()
        mac = HMAC(content_key[:16], SHA256())
        mac.update(header.encode() + iv + ciphertext + (len(header) * 8).to_bytes(8, "big"))
        tag = mac.finalize()
    return ".".join([header, *map(b64, (wrapped, iv, ciphertext, tag[:tag_bytes]))])


def open_by_hand(token: str, key: JWK) -> bytes:
    """Decrypt a compact JWE with `cryptography` alone, by the letter of RFC 7516 §5.2 and RFC 7518 §4.2, §4.3, §5."""
    header, wrapped, iv, ciphertext, tag = token.split(".")
    names = json.loads(unb64(header))
    private = load_pem_private_key(key.export_to_pem(private_key=True, password=None), password=None)
    padding_of = {
        "RSA-OAEP": padding.OAEP(padding.MGF1(SHA1()), SHA1(), None),
        "RSA-OAEP-256": padding.OAEP(padding.MGF1(SHA256()), SHA256(), None),
        "RSA1_5": padding.PKCS1v15(),
    }
    content_key = private.decrypt(unb64(wrapped), padding_of[names["alg"]])
    associated = header.encode("ascii")
    assert len(content_key) == 32
    if names["enc"] == "A256GCM":
        assert len(unb64(iv)) == 12
        return AESGCM(content_key).decrypt(unb64(iv), unb64(ciphertext) + unb64(tag), associated)
    mac = HMAC(content_key[:16], SHA256())
    mac.update(associated + unb64(iv) + unb64(ciphertext) + (len(associated) * 8).to_bytes(8, "big"))
    assert mac.finalize()[:16] == unb64(tag)
    decryptor = Cipher(algorithms.AES(content_key[16:]), modes.CBC(unb64(iv))).decryptor()
    padded = decryptor.update(unb64(ciphertext)) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


class TestASignedToken:
    def test_has_the_header_of_the_contract_in_its_order(self, signed):
        assert header_text(signed) == '{"typ":"JWT","alg":"RS256","kid":"s1"}'

    def test_carries_the_payload_byte_for_byte(self, signed):
        assert unb64(signed.split(".")[1]) == PAYLOAD

    def test_is_read_by_joserfc(self, signed, signing_key):
        public = joserfc_jwk.RSAKey.import_key(signing_key.export_public(as_dict=True))

        assert joserfc_jws.deserialize_compact(signed, public, algorithms=["RS256"]).payload == PAYLOAD

    def test_is_read_by_pyjwt(self, signed, signing_key):
        claims = jwt.decode(signed, signing_key.export_to_pem(), algorithms=["RS256"])

        assert claims == json.loads(PAYLOAD)

    def test_is_read_by_jwcrypto(self, signed, signing_key):
        jws = JWS()
        jws.deserialize(signed)
        jws.verify(JWK.from_json(signing_key.export_public()))

        assert jws.payload == PAYLOAD

    def test_is_verified_by_us_with_the_public_half(self, signed, signing_key):
        public = JWK.from_json(signing_key.export_public())

        assert jose.verify(signed, {"s1": public}) == (json.loads(PAYLOAD), "s1")


@reads_rsa1_5
@pytest.mark.parametrize(("alg", "enc"), ALGORITHMS)
class TestAnEncryptedToken:
    @pytest.fixture
    def token(self, signed: str, encryption_key: JWK, alg: str, enc: str) -> str:
        public = JWK.from_json(encryption_key.export_public())
        return jose.encrypt(signed, public, kid="e1", alg=alg, enc=enc)

    def test_has_the_header_of_the_contract_in_its_order(self, token, alg, enc):
        assert header_text(token) == f'{{"alg":"{alg}","enc":"{enc}","cty":"JWT","kid":"e1"}}'

    def test_is_opened_by_joserfc(self, token, signed, encryption_key, alg, enc):
        key = joserfc_jwk.RSAKey.import_key(encryption_key.export(as_dict=True))

        assert joserfc_jwe.decrypt_compact(token, key, algorithms=[alg, enc]).plaintext == signed.encode()

    def test_is_opened_by_plain_cryptography_and_read_by_pyjwt(self, token, signing_key, encryption_key):
        inner = open_by_hand(token, encryption_key)

        assert jwt.decode(inner, signing_key.export_to_pem(), algorithms=["RS256"]) == json.loads(PAYLOAD)

    def test_is_opened_by_jwcrypto(self, token, signed, encryption_key, alg, enc):
        jwe = JWE(algs=[alg, enc])
        jwe.deserialize(token)
        jwe.decrypt(encryption_key)

        assert jwe.payload == signed.encode()

    def test_is_opened_by_us(self, token, signed, encryption_key, alg):
        assert jose.decrypt(token, {"e1": encryption_key}, key_algorithms=[alg]) == (signed, "e1")

    def test_is_never_the_same_twice(self, token, signed, encryption_key, alg, enc):
        again = jose.encrypt(signed, encryption_key, kid="e1", alg=alg, enc=enc)

        # The header is one; the wrapped content key, the IV, the ciphertext and the tag are fresh.
        assert [a == b for a, b in zip(token.split("."), again.split("."), strict=True)] == [True] + [False] * 4


class TestEncryptingWithAnAlgorithmOffTheLists:
    @pytest.mark.parametrize(
        ("alg", "enc"),
        [
            ("dir", "A256GCM"),
            ("RSA-OAEP-512", "A256GCM"),
            ("rsa-oaep", "A256GCM"),
            ("", "A256GCM"),
            ("RSA-OAEP", "A256CBC-HS512"),
            ("RSA-OAEP", "A128GCM"),
            ("RSA-OAEP", ""),
        ],
    )
    def test_is_a_mistake_of_the_caller(self, alg, enc, signed, encryption_key):
        with pytest.raises(ValueError, match="not an allowed algorithm"):
            jose.encrypt(signed, encryption_key, kid="e1", alg=alg, enc=enc)


@reads_rsa1_5
@pytest.mark.parametrize(("alg", "enc"), ALGORITHMS)
class TestATokenThatJoserfcMade:
    @pytest.mark.parametrize(
        ("inner_kid", "outer"),
        [
            pytest.param({}, {}, id="in-the-shape-canvas-sends"),
            pytest.param({"kid": "s1"}, {"kid": "e1"}, id="with-kid"),
            pytest.param({}, {"cty": "JWT"}, id="with-cty"),
            pytest.param({"kid": "s1"}, {"cty": "JWT", "kid": "e1", "typ": "JWT"}, id="with-everything"),
        ],
    )
    def test_g10_is_opened_and_verified(self, alg, enc, inner_kid, outer, signing_key, encryption_key):
        signer = joserfc_jwk.RSAKey.import_key(signing_key.export(as_dict=True))
        recipient = joserfc_jwk.RSAKey.import_key(encryption_key.export_public(as_dict=True))
        inner = joserfc_jws.serialize_compact(
            {"typ": "JWT", "alg": "RS256"} | inner_kid, PAYLOAD, signer, algorithms=["RS256"]
        )
        token = joserfc_jwe.encrypt_compact({"alg": alg, "enc": enc} | outer, inner, recipient, algorithms=[alg, enc])

        opened, encryption_kid = jose.decrypt(token, {"e1": encryption_key}, key_algorithms=[alg])
        claims, signing_kid = jose.verify(opened, {"s1": signing_key})

        assert (claims, encryption_kid, signing_kid) == (json.loads(PAYLOAD), "e1", "s1")

    def test_g10_may_leave_typ_out_of_the_inner_header(self, alg, enc, signing_key, encryption_key):
        signer = joserfc_jwk.RSAKey.import_key(signing_key.export(as_dict=True))
        inner = joserfc_jws.serialize_compact({"alg": "RS256"}, PAYLOAD, signer, algorithms=["RS256"])
        token = jose.encrypt(inner, encryption_key, kid="e1", alg=alg, enc=enc)

        opened, _ = jose.decrypt(token, {"e1": encryption_key}, key_algorithms=[alg])

        assert jose.verify(opened, {"s1": signing_key})[0] == json.loads(PAYLOAD)


class CountingKeys(dict[str, JWK]):
    """Keys that remember how many of them were handed out."""

    handed_out = 0

    def items(self) -> Iterator[tuple[str, JWK]]:  # type: ignore[override]
        for item in super().items():
            self.handed_out += 1
            yield item


class TestATokenWithoutKid:
    def test_g10_is_tried_with_three_keys_in_their_order(self, rsa_pool, signed):
        others = {f"k{n}": rsa_pool.take("enc") for n in (1, 2)}
        third = rsa_pool.take("enc")
        token = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM"}, signed, third)

        assert jose.decrypt(token, {**others, "k3": third}) == (signed, "k3")

    def test_g10_costs_no_more_than_three_decryptions(self, rsa_pool, signed):
        keys = CountingKeys({f"k{n}": rsa_pool.take("enc") for n in (1, 2, 3, 4)})
        token = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM"}, signed, keys["k4"])

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(token, keys)

        assert refusal.value.code == "decrypt_failed"
        assert keys.handed_out == 3

    def test_g10_costs_no_more_than_three_verifications(self, rsa_pool):
        keys = CountingKeys({f"k{n}": rsa_pool.take("sig") for n in (1, 2, 3, 4)})
        token = jwt.encode({"sub": "ada"}, keys["k4"].export_to_pem(True, None), "RS256")

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, keys)

        assert refusal.value.code == "bad_signature"
        assert keys.handed_out == 3

    def test_is_refused_where_there_is_no_key_at_all(self, rsa_pool, signed):
        encrypted = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM"}, signed, rsa_pool.take("enc"))
        bare = jwt.encode({"sub": "ada"}, rsa_pool.take("sig").export_to_pem(True, None), "RS256")

        for refused in (lambda: jose.decrypt(encrypted, {}), lambda: jose.verify(bare, {})):
            with pytest.raises(InvalidToken) as refusal:
                refused()
            assert refusal.value.code == "unknown_kid"


class TestATokenThatNamesItsKey:
    def test_is_not_tried_with_any_other(self, encrypted, signed, rsa_pool, signing_key, encryption_key):
        # The right keys are there, under other names: a kid is an order, not a hint.
        with pytest.raises(InvalidToken) as decryption:
            jose.decrypt(encrypted, {"other": encryption_key})
        with pytest.raises(InvalidToken) as verification:
            jose.verify(signed, {"other": signing_key})

        assert (decryption.value.code, verification.value.code) == ("unknown_kid", "unknown_kid")

    def test_g6_is_refused_under_somebody_elses_key(self, encrypted, signed, rsa_pool):
        rsa_pool.take(), rsa_pool.take()

        with pytest.raises(InvalidToken) as decryption:
            jose.decrypt(encrypted, {"e1": rsa_pool.take("enc")})
        with pytest.raises(InvalidToken) as verification:
            jose.verify(signed, {"s1": rsa_pool.take("sig")})

        assert (decryption.value.code, verification.value.code) == ("decrypt_failed", "bad_signature")

    def test_is_refused_under_a_key_made_for_the_other_use(self, encrypted, signed, signing_key, encryption_key):
        # One key, one purpose: an operator who mixes them up gets no token through, not a weaker one.
        with pytest.raises(InvalidToken):
            jose.decrypt(encrypted, {"e1": JWK(**{**encryption_key, "use": "sig"})})
        with pytest.raises(InvalidToken):
            jose.verify(signed, {"s1": JWK(**{**signing_key, "use": "enc"})})


class TestAnEncryptedTokenOfAnotherAlgorithm:
    @pytest.mark.parametrize(
        "alg",
        [
            "rsa-oaep",
            "RSA-oaep",
            "RSA_OAEP",
            "RSA-OAEP ",
            "RSA-OAEP-384",
            "RSA-OAEP-512",
            "rsa1_5",
            "dir",
            "A128KW",
            "A256GCMKW",
            "ECDH-ES",
            "ECDH-ES+A128KW",
            "PBES2-HS256+A128KW",
            "RS256",
            "none",
            "",
        ],
    )
    def test_g1_costs_no_rsa_operation(self, alg, encrypted):
        header = json.dumps({"alg": alg, "enc": "A128CBC-HS256", "kid": "e1"})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize(
        "enc", ["a128cbc-hs256", "A128CBC-hs256", "a256gcm", "A256CBC-HS512", "A192CBC-HS384", "A128GCM", "none", ""]
    )
    def test_g1_costs_no_rsa_operation_for_the_content_either(self, enc, encrypted):
        header = json.dumps({"alg": "RSA-OAEP", "enc": enc, "kid": "e1"})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize("header", ["{}", '{"alg":"RSA-OAEP"}', '{"enc":"A256GCM"}', '{"kid":"e1"}'])
    def test_g1_names_both_or_is_refused(self, header, encrypted):
        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    def test_g1_rsa1_5_is_refused_unless_asked_for(self, signed, encryption_key):
        token = jose.encrypt(signed, encryption_key, kid="e1", alg="RSA1_5", enc="A128CBC-HS256")

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(token, NO_KEYS)

        assert refusal.value.code == "wrong_alg"
        assert jose.decrypt(token, {"e1": encryption_key}, key_algorithms=["RSA1_5"]) == (signed, "e1")

    def test_g1_what_is_accepted_can_be_narrowed(self, encrypted):
        for narrowed in ({"key_algorithms": ["RSA-OAEP-256"]}, {"content_algorithms": ["A256GCM"]}):
            with pytest.raises(InvalidToken) as refusal:
                jose.decrypt(encrypted, NO_KEYS, **narrowed)
            assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize("member", ["alg", "enc"])
    @pytest.mark.parametrize("value", [None, 1, True, [], ["RSA-OAEP"], {}])
    def test_g1_names_it_as_text(self, member, value, encrypted):
        header = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "e1"} | {member: value}

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, json.dumps(header)), NO_KEYS)

        assert refusal.value.code == "bad_header"


class TestASignedTokenOfAnotherAlgorithm:
    @pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512"])
    def test_g7_is_refused_though_our_own_key_signed_it(self, alg, signing_key):
        token = jwt.encode({"sub": "ada"}, signing_key.export_to_pem(True, None), alg, headers={"kid": "s1"})

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize("secret_of", ["pem", "jwk", "modulus"])
    def test_g7_c1_hs256_with_our_public_key_as_its_secret_is_refused(self, secret_of, signing_key):
        secret = {
            "pem": signing_key.export_to_pem(),
            "jwk": signing_key.export_public().encode(),
            "modulus": unb64(signing_key["n"]),
        }[secret_of]
        first = b64(b'{"typ":"JWT","alg":"HS256","kid":"s1"}') + "." + b64(PAYLOAD)
        mac = HMAC(secret, SHA256())
        mac.update(first.encode())

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(f"{first}.{b64(mac.finalize())}", NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    def test_c1_a_symmetric_key_among_the_signing_keys_verifies_nothing(self, signed):
        oct_key = JWK.generate(kty="oct", size=256)

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(signed, {"s1": oct_key})

        assert refusal.value.code == "bad_signature"

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "rs256", "ES256", "EdDSA"])
    def test_g7_none_and_other_spellings_are_refused(self, alg, signed):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(with_header(signed, json.dumps({"alg": alg, "kid": "s1"})), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    def test_g7_none_without_a_signature_is_refused(self):
        token = jwt.encode({"sub": "ada"}, None, "none")

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, NO_KEYS)

        assert refusal.value.code == "malformed"

    def test_g7_a_still_encrypted_token_is_not_a_signed_one(self, encrypted):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(encrypted, NO_KEYS)

        assert refusal.value.code == "malformed"

    def test_g22_a_signed_token_is_not_an_encrypted_one(self, signed):
        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(signed, NO_KEYS)

        assert refusal.value.code == "malformed"


class TestAnInitializationVectorOrTagOfAnotherLength:
    @pytest.mark.parametrize(("enc", "iv_bytes"), [("A256GCM", 12), ("A128CBC-HS256", 16)])
    def test_is_what_keeps_it_from_being_opened(self, signed, encryption_key, enc, iv_bytes):
        token = encrypted_with_lengths(signed, encryption_key, enc=enc, iv_bytes=iv_bytes)

        assert jose.decrypt(token, {"e1": encryption_key}) == (signed, "e1")

    @pytest.mark.parametrize("iv_bytes", [8, 13, 16, 128])
    def test_is_refused_before_any_rsa_though_jwcrypto_takes_it(self, signed, encryption_key, iv_bytes):
        token = encrypted_with_lengths(signed, encryption_key, enc="A256GCM", iv_bytes=iv_bytes)

        with pytest.raises(InvalidToken) as caught:
            jose.decrypt(token, NO_KEYS)
        assert caught.value.code == "malformed"

    @pytest.mark.parametrize(("enc", "iv_bytes"), [("A256GCM", 12), ("A128CBC-HS256", 16)])
    @pytest.mark.parametrize("tag_bytes", [1, 12, 15, 32])
    def test_of_a_tag_is_refused_too(self, signed, encryption_key, enc, iv_bytes, tag_bytes):
        token = encrypted_with_lengths(signed, encryption_key, enc=enc, iv_bytes=iv_bytes, tag_bytes=tag_bytes)
        if tag_bytes == 32 and enc == "A256GCM":
            token += "A" * 22  # it has no more than sixteen of its own

        with pytest.raises(InvalidToken) as caught:
            jose.decrypt(token, NO_KEYS)
        assert caught.value.code == "malformed"


class TestACompressedToken:
    def test_g2_is_refused_before_it_is_opened(self, encryption_key):
        bomb = encrypted_as(
            {"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "e1", "zip": "DEF"}, "A" * 1_048_576, encryption_key
        )
        assert len(bomb) < compact.MAX_TOKEN_CHARS

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(bomb, NO_KEYS)

        assert refusal.value.code == "bad_header"


class TestTheJSONSerialization:
    @pytest.mark.parametrize("recipients", [1, 200])
    def test_g3_is_not_read(self, recipients, signed, encryption_key):
        jwe = JWE(signed.encode(), '{"enc":"A256GCM"}', algs=["RSA-OAEP", "A256GCM"])
        for _ in range(recipients):
            jwe.add_recipient(encryption_key, '{"alg":"RSA-OAEP"}')

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(jwe.serialize(), NO_KEYS)

        assert refusal.value.code in {"malformed", "too_long"}

    def test_g3_is_not_read_for_a_signed_token_either(self, signing_key):
        jws = JWS(PAYLOAD)
        jws.add_signature(signing_key, protected='{"alg":"RS256"}')

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(jws.serialize(), NO_KEYS)

        assert refusal.value.code == "malformed"


ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def respellings(token: str) -> Iterator[str]:
    """Texts that a lenient reader takes for the same token."""
    segments = token.split(".")
    for n, segment in enumerate(segments):

        def spelt(text: str, n: int = n) -> str:
            return ".".join([*segments[:n], text, *segments[n + 1 :]])

        yield spelt(segment + "=" * (-len(segment) % 4 or 4))
        yield spelt(segment + "=")
        yield spelt(segment[:3] + "\n" + segment[3:])
        yield spelt(segment[:3] + "!" + segment[3:])
        yield spelt(segment[:3] + "\u00ad" + segment[3:])
        last = ALPHABET.index(segment[-1])
        for loose_bits in range(1, 2 ** (len(segment) * 6 % 8)):
            yield spelt(segment[:-1] + ALPHABET[last ^ loose_bits])
        if "-" in segment or "_" in segment:
            yield spelt(segment.replace("-", "+").replace("_", "/"))
    yield from (f" {token}", f"{token} ", f"{token}\n", f"{token}.", f".{token}", f"{token}\x00")
    yield from (token.replace(".", ". "), token.replace(".", ".."))
    yield from (f'"{token}"', token + "." + segments[-1])


class TestATokenInAnotherSpelling:
    def test_g4_is_refused_and_no_key_spent_on_it(self, encrypted):
        for text in respellings(encrypted):
            assert text != encrypted
            with pytest.raises(InvalidToken):
                jose.decrypt(text, NO_KEYS)

    def test_g4_is_refused_when_only_signed(self, signed, signing_key):
        for text in respellings(signed):
            assert text != signed
            with pytest.raises(InvalidToken):
                jose.verify(text, NO_KEYS)

    @pytest.mark.parametrize("enc", CONTENT_ALGORITHMS)
    @pytest.mark.parametrize("moved", [1, 2, 3, 8, 12, 16, 32])
    def test_g4_no_byte_may_move_from_one_segment_to_the_next(self, enc, moved, signed, encryption_key):
        # The tag of CBC-HMAC covers IV and ciphertext as one string: only the IV's length tells where one ends.
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
                    jose.decrypt(".".join([header, *map(b64, raw)]), {"e1": encryption_key})

    def test_g4_zeros_before_the_signature_or_the_wrapped_key_are_refused(
        self, signed, encrypted, signing_key, encryption_key
    ):
        # As numbers they are the same.
        first, payload, signature = signed.split(".")
        with pytest.raises(InvalidToken):
            jose.verify(f"{first}.{payload}.{b64(bytes(3) + unb64(signature))}", {"s1": signing_key})
        header, wrapped, *rest = encrypted.split(".")
        with pytest.raises(InvalidToken):
            jose.decrypt(".".join([header, b64(bytes(3) + unb64(wrapped)), *rest]), {"e1": encryption_key})

    def test_g4_a_signature_increased_by_the_modulus_is_refused(self, signed, signing_key):
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


class TestAHeaderWithOddMembers:
    @pytest.mark.parametrize("member", ODD_MEMBERS.values(), ids=ODD_MEMBERS.keys())
    def test_g5_is_refused_before_any_key_is_touched(self, member, encrypted, signed):
        for refused, token, header in (
            (jose.decrypt, encrypted, JWE_HEADER),
            (jose.verify, signed, JWS_HEADER),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(with_header(token, f"{{{header},{member}}}"), NO_KEYS)
            assert refusal.value.code == "bad_header"

    @pytest.mark.parametrize("header", BROKEN_HEADERS.values(), ids=BROKEN_HEADERS.keys())
    def test_g5_is_refused_when_it_is_not_one_strict_json_object(self, header, encrypted, signed):
        for refused, token, members in (
            (jose.decrypt, encrypted, JWE_HEADER),
            (jose.verify, signed, JWS_HEADER),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(with_header(token, header.format(members)), NO_KEYS)
            assert refusal.value.code in {"malformed", "bad_header"}

    @pytest.mark.parametrize("raw", [b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"alg":"\xff"}', b"{\x00}"])
    def test_g5_is_refused_when_it_is_not_utf_8(self, raw, encrypted):
        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, raw), NO_KEYS)

        assert refusal.value.code == "malformed"

    @pytest.mark.parametrize("bits", [b"[", b'{"":', b'[{"a":'])
    def test_g5_deep_nesting_takes_no_process_down_in_a_thread_with_a_small_stack(self, bits):
        """Python 3.13's parser goes as deep as a whole stack of the usual size."""
        script = (
            "import threading\n"
            "from instaccess.compact import json_object\n"
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

        assert (done.returncode, done.stdout) == (0, "the claims nests too deep\n"), done.stderr

    @pytest.mark.parametrize("text", ["[" * 2000, '"' + "[" * 2000, '\\"[{' * 500, "[" * 40 + "\\" * 7])
    def test_brackets_in_a_text_nest_nothing(self, signing_key, text):
        payload = json.dumps({"x": text}).encode()

        assert jose.verify(jose.sign(payload, signing_key, kid="s1"), {"s1": signing_key})[0] == json.loads(payload)

    def test_g5_deep_nesting_that_fits_a_token_ends_as_a_refusal_too(self, signed, signing_key):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(with_header(signed, "[" * 3000), NO_KEYS)
        assert refusal.value.code == "bad_header"

        # Well signed by us, so the claims are read: the parser gives up, the process does not.
        nested = jose.sign(b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}", signing_key, kid="s1")
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(nested, {"s1": signing_key})
        assert refusal.value.code == "malformed"

    @pytest.mark.parametrize("member", ["typ", "cty"])
    @pytest.mark.parametrize("value", ["jwt", "JOSE", "jwk+json", "application/jwt", ""])
    def test_another_type_inside_is_refused(self, member, value, encrypted):
        header = json.dumps({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "e1", member: value})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_type"

    @pytest.mark.parametrize("odd", [{"typ": "at+jwt"}, {"typ": "jwt"}, {"typ": ""}, {"cty": "JWT"}])
    def test_c2_a_signed_token_of_another_type_is_refused(self, odd, signed):
        # RFC 8725 §3.11: an ID token or an RFC 9068 access token under the same key is not one of these. `cty` would
        # announce yet another token inside.
        header = json.dumps({"typ": "JWT", "alg": "RS256", "kid": "s1"} | odd)

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
    def test_g9_is_refused(self, kid, code, encrypted, signed, encryption_key, signing_key):
        for refused, token, keys, header in (
            (jose.decrypt, encrypted, {"e1": encryption_key}, {"alg": "RSA-OAEP", "enc": "A128CBC-HS256"}),
            (jose.verify, signed, {"s1": signing_key}, {"typ": "JWT", "alg": "RS256"}),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(with_header(token, json.dumps(header | {"kid": kid})), keys)
            assert refusal.value.code == code

    def test_g9_is_not_repeated_in_the_error(self, encrypted, encryption_key):
        header = json.dumps({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "<script>"})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), {"e1": encryption_key})

        assert "script" not in str(refusal.value)


class TestALongToken:
    @pytest.mark.parametrize("length", [8193, 1_000_000])
    def test_g19_is_not_even_parsed(self, length):
        text = "." * length

        for refused in (jose.decrypt, jose.verify):
            with pytest.raises(InvalidToken) as refusal:
                refused(text, NO_KEYS)
            assert refusal.value.code == "too_long"

    def test_g19_of_exactly_8_kib_is_read(self, signing_key):
        head = len(jose.sign(b"", signing_key, kid="s1"))
        claims = {"x": "x" * ((compact.MAX_TOKEN_CHARS - head) * 3 // 4 - 8)}
        token = jose.sign(json.dumps(claims, separators=(",", ":")).encode(), signing_key, kid="s1")
        assert compact.MAX_TOKEN_CHARS - 3 <= len(token) <= compact.MAX_TOKEN_CHARS

        assert jose.verify(token, {"s1": signing_key})[0] == claims

    def test_a_header_over_1_kib_is_refused(self, encrypted):
        header = json.dumps({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "e1"}) + " " * 1024

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "bad_header"


class TestWhatIsInside:
    @pytest.mark.parametrize("inside", ["é", "\u2028", "\U0001f511"])
    def test_is_ascii_or_refused(self, inside, encryption_key):
        token = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "e1"}, inside, encryption_key)

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(token, {"e1": encryption_key})

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
    def test_g8_well_signed_claims_must_be_one_strict_json_object(self, payload, signing_key):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(jose.sign(payload, signing_key, kid="s1"), {"s1": signing_key})

        assert refusal.value.code == "malformed"

    def test_an_unreadable_payload_under_a_bad_signature_is_a_bad_signature(self, rsa_pool):
        # Nothing of the claims is read before the signature holds.
        token = jose.sign(b"not json", rsa_pool.take("sig"), kid="s1")

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, {"s1": rsa_pool.take("sig")})

        assert refusal.value.code == "bad_signature"


class TestPeekingAtTheIssuer:
    def test_reads_it_without_any_key(self, signed):
        assert compact.peek_issuer(signed) == "instructure:inst_access"

    @pytest.mark.parametrize("payload", [b"{}", b'{"iss":null}', b'{"iss":["instructure:inst_access"]}', b"[]", b"x"])
    def test_finds_none_where_there_is_none(self, payload, signing_key):
        assert compact.peek_issuer(jose.sign(payload, signing_key, kid="s1")) is None

    def test_finds_none_in_an_encrypted_token_or_an_opaque_one(self, encrypted):
        assert compact.peek_issuer(encrypted) is None
        assert compact.peek_issuer("kQ3XjtXn6f8o0qg") is None
        assert compact.peek_issuer("") is None

    @hostile
    @given(st.text(max_size=200))
    def test_never_fails(self, text):
        assert compact.peek_issuer(text) is None


# What a reader gets that is nearly, but not quite, a token.
near_tokens = st.one_of(
    st.text(max_size=300),
    st.lists(st.text(alphabet=string.ascii_letters + string.digits + "-_", max_size=40), max_size=7).map(".".join),
    st.lists(st.binary(max_size=40).map(b64), min_size=3, max_size=5).map(".".join),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=10,
    ).map(lambda value: ".".join([b64(json.dumps(value).encode())] * 5)),
)


@st.composite
def mutations(draw: Any) -> Any:
    """A function that changes one to three places of a text: flips, inserts, deletes, doubles a stretch."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "insert", "delete", "double"]),
                st.floats(min_value=0, max_value=0.999),
                st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \n\x00é"),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def mutate(text: str) -> str:
        for kind, where, character in steps:
            at = int(len(text) * where)
            if kind == "flip":
                text = text[:at] + character + text[at + 1 :]
            elif kind == "insert":
                text = text[:at] + character + text[at:]
            elif kind == "delete":
                text = text[:at] + text[at + 1 :]
            else:
                text = text[:at] + text[at : at + 4] + text[at:]
        return text

    return mutate


class TestWhateverComesIn:
    @hostile
    @given(text=near_tokens)
    def test_is_refused_with_a_code_and_nothing_else(self, text, signing_key, encryption_key):
        for refused, keys in ((jose.decrypt, {"e1": encryption_key}), (jose.verify, {"s1": signing_key})):
            with pytest.raises(InvalidToken) as refusal:
                refused(text, keys)
            assert refusal.value.code not in {"", "invalid"}

    @hostile
    @given(header=st.dictionaries(
        st.sampled_from(["alg", "enc", "kid", "typ", "cty", "zip", "crit"]),
        st.sampled_from(["RSA-OAEP", "RS256", "A256GCM", "A128CBC-HS256", "JWT", "e1", "s1", "", "DEF", None, 1, []]),
    ))  # fmt: skip
    def test_is_refused_whatever_its_header_says(self, header, signed, encrypted, signing_key, encryption_key):
        # The tag and the signature cover the header as it was written.
        for refused, token, keys in (
            (jose.decrypt, encrypted, {"e1": encryption_key}),
            (jose.verify, signed, {"s1": signing_key}),
        ):
            with pytest.raises(InvalidToken):
                refused(with_header(token, json.dumps(header)), keys)

    @hostile
    @given(mutate=mutations())
    def test_g18_is_refused_unless_it_is_the_genuine_encrypted_token(self, mutate, encrypted, signed, encryption_key):
        text = mutate(encrypted)

        if text == encrypted:
            assert jose.decrypt(text, {"e1": encryption_key}) == (signed, "e1")
        else:
            with pytest.raises(InvalidToken) as refusal:
                jose.decrypt(text, {"e1": encryption_key})
            assert refusal.value.code not in {"", "invalid"}

    @hostile
    @given(mutate=mutations())
    def test_g18_is_refused_unless_it_is_the_genuine_signed_token(self, mutate, signed, signing_key):
        text = mutate(signed)

        if text == signed:
            assert jose.verify(text, {"s1": signing_key}) == (json.loads(PAYLOAD), "s1")
        else:
            with pytest.raises(InvalidToken) as refusal:
                jose.verify(text, {"s1": signing_key})
            assert refusal.value.code not in {"", "invalid"}

    @pytest.mark.parametrize("enc", CONTENT_ALGORITHMS)
    def test_g6_every_mix_of_two_genuine_tokens_is_refused(self, enc, signing_key, encryption_key):
        first, second = (
            jose.encrypt(jose.sign(payload, signing_key, kid="s1"), encryption_key, kid="e1", alg="RSA-OAEP", enc=enc)
            for payload in (b'{"sub":"ada"}', b'{"sub":"eve"}')
        )
        pairs = list(zip(first.split("."), second.split("."), strict=True))
        for mix in set(product(*pairs)) - {tuple(first.split(".")), tuple(second.split("."))}:
            with pytest.raises(InvalidToken):
                jose.decrypt(".".join(mix), {"e1": encryption_key})

    def test_every_mix_of_two_signed_tokens_is_refused(self, signing_key):
        first, second = (
            jose.sign(payload, signing_key, kid=kid).split(".")
            for payload, kid in ((b'{"sub":"ada"}', "s1"), (b'{"sub":"eve"}', "s2"))
        )
        for mix in set(product(*zip(first, second, strict=True))) - {tuple(first), tuple(second)}:
            with pytest.raises(InvalidToken):
                jose.verify(".".join(mix), {"s1": signing_key, "s2": signing_key})

    def test_no_part_of_a_token_stands_in_the_error(self, encrypted, signed, rsa_pool):
        # Errors are logged: one that repeats the token would put it there.
        rsa_pool.take(), rsa_pool.take()
        for refused, token, kid in ((jose.decrypt, encrypted, "e1"), (jose.verify, signed, "s1")):
            with pytest.raises(InvalidToken) as refusal:
                refused(token, {kid: rsa_pool.take()})
            text = repr(refusal.value) + str(refusal.value)
            assert not any(segment in text for segment in token.split("."))
