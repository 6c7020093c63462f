"""Tests that tokens with unknown algorithms, wrong lengths or compression are refused."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from jwcrypto.jwk import JWK

from instaccess.exceptions import InvalidToken
from instaccess.tokens import PrivateKey, compact, jose
from tests.tokens.handmade import NO_KEYS, PAYLOAD, b64, encrypted_as, unb64, with_header


def encrypted_with_lengths(plaintext: str, key: JWK, *, enc: str, iv_bytes: int, tag_bytes: int = 16) -> str:
    """Return an encrypted token (RFC 7518 §5). Its IV has `iv_bytes` bytes. Its tag has at most `tag_bytes` bytes."""
    header = b64(json.dumps({"alg": "RSA-OAEP", "enc": enc, "kid": "e1"}).encode())
    public: Any = key.get_op_key("wrapKey")
    content_key, iv = b"k" * 32, b"i" * iv_bytes
    wrapped = public.encrypt(content_key, padding.OAEP(padding.MGF1(SHA1()), SHA1(), None))
    if enc == "A256GCM":
        encrypted = AESGCM(content_key).encrypt(iv, plaintext.encode(), header.encode())
        ciphertext, tag = encrypted[:-16], encrypted[-16:]
    else:
        padder = PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(content_key[16:]), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(padder.update(plaintext.encode()) + padder.finalize()) + encryptor.finalize()
        mac = HMAC(content_key[:16], SHA256())
        mac.update(header.encode() + iv + ciphertext + (len(header) * 8).to_bytes(8, "big"))
        tag = mac.finalize()
    return ".".join([header, *map(b64, (wrapped, iv, ciphertext, tag[:tag_bytes]))])


class TestTheAlgorithmsOfAnEncryptedToken:
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
    def test_g1_decrypt_refuses_an_unknown_key_algorithm_before_any_rsa_operation(self, alg, encrypted):
        header = json.dumps({"alg": alg, "enc": "A128CBC-HS256", "kid": "e1"})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize(
        "enc", ["a128cbc-hs256", "A128CBC-hs256", "a256gcm", "A256CBC-HS512", "A192CBC-HS384", "A128GCM", "none", ""]
    )
    def test_g1_decrypt_refuses_an_unknown_content_algorithm_before_any_rsa_operation(self, enc, encrypted):
        header = json.dumps({"alg": "RSA-OAEP", "enc": enc, "kid": "e1"})

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize("header", ["{}", '{"alg":"RSA-OAEP"}', '{"enc":"A256GCM"}', '{"kid":"e1"}'])
    def test_g1_decrypt_refuses_a_header_that_omits_an_algorithm(self, header, encrypted):
        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, header), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    def test_g1_decrypt_refuses_rsa1_5_unless_the_caller_allows_rsa1_5(self, signed, encryption_key):
        token = jose.encrypt(signed, encryption_key, kid="e1", alg="RSA1_5", enc="A128CBC-HS256")

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(token, NO_KEYS)

        assert refusal.value.code == "wrong_alg"
        assert jose.decrypt(token, {"e1": PrivateKey(encryption_key)}, key_algorithms=["RSA1_5"]) == (signed, "e1")

    def test_g1_decrypt_accepts_only_the_algorithms_that_the_caller_allows(self, encrypted):
        for narrowed in ({"key_algorithms": ["RSA-OAEP-256"]}, {"content_algorithms": ["A256GCM"]}):
            with pytest.raises(InvalidToken) as refusal:
                jose.decrypt(encrypted, NO_KEYS, **narrowed)
            assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize("member", ["alg", "enc"])
    @pytest.mark.parametrize("value", [None, 1, True, [], ["RSA-OAEP"], {}])
    def test_g1_decrypt_refuses_an_algorithm_that_is_not_a_string(self, member, value, encrypted):
        header = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": "e1"} | {member: value}

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(with_header(encrypted, json.dumps(header)), NO_KEYS)

        assert refusal.value.code == "bad_header"


class TestTheAlgorithmOfASignedToken:
    @pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512"])
    def test_g7_verify_refuses_an_rsa_algorithm_other_than_rs256_even_for_the_right_key(self, alg, signing_key):
        token = jwt.encode({"sub": "ada"}, signing_key.export_to_pem(True, None), alg, headers={"kid": "s1"})

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    @pytest.mark.parametrize("secret_of", ["pem", "jwk", "modulus"])
    def test_g7_c1_verify_refuses_a_token_that_is_signed_with_hs256_and_the_public_key(self, secret_of, signing_key):
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

    def test_c1_verify_refuses_every_token_if_the_key_is_symmetric(self, signed):
        oct_key = JWK.generate(kty="oct", size=256)

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(signed, {"s1": oct_key})

        assert refusal.value.code == "bad_signature"

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "rs256", "ES256", "EdDSA"])
    def test_g7_verify_refuses_the_algorithm_none_and_unknown_algorithms(self, alg, signed):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(with_header(signed, json.dumps({"alg": alg, "kid": "s1"})), NO_KEYS)

        assert refusal.value.code == "wrong_alg"

    def test_g7_verify_refuses_a_token_without_a_signature(self):
        token = jwt.encode({"sub": "ada"}, None, "none")

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, NO_KEYS)

        assert refusal.value.code == "malformed"

    def test_g7_verify_refuses_an_encrypted_token(self, encrypted):
        with pytest.raises(InvalidToken) as refusal:
            jose.verify(encrypted, NO_KEYS)

        assert refusal.value.code == "malformed"

    def test_g22_decrypt_refuses_a_signed_token(self, signed):
        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(signed, NO_KEYS)

        assert refusal.value.code == "malformed"


class TestTheLengthsOfTheInitializationVectorAndTheTag:
    @pytest.mark.parametrize(("enc", "iv_bytes"), [("A256GCM", 12), ("A128CBC-HS256", 16)])
    def test_decrypt_accepts_a_handmade_token_with_the_right_lengths(self, signed, encryption_key, enc, iv_bytes):
        token = encrypted_with_lengths(signed, encryption_key, enc=enc, iv_bytes=iv_bytes)

        assert jose.decrypt(token, {"e1": PrivateKey(encryption_key)}) == (signed, "e1")

    @pytest.mark.parametrize("iv_bytes", [8, 13, 16, 128])
    def test_decrypt_refuses_an_initialization_vector_of_the_wrong_length_before_any_rsa_operation(
        self, signed, encryption_key, iv_bytes
    ):
        token = encrypted_with_lengths(signed, encryption_key, enc="A256GCM", iv_bytes=iv_bytes)

        with pytest.raises(InvalidToken) as caught:
            jose.decrypt(token, NO_KEYS)
        assert caught.value.code == "malformed"

    @pytest.mark.parametrize(("enc", "iv_bytes"), [("A256GCM", 12), ("A128CBC-HS256", 16)])
    @pytest.mark.parametrize("tag_bytes", [1, 12, 15, 32])
    def test_decrypt_refuses_a_tag_of_the_wrong_length_before_any_rsa_operation(
        self, signed, encryption_key, enc, iv_bytes, tag_bytes
    ):
        token = encrypted_with_lengths(signed, encryption_key, enc=enc, iv_bytes=iv_bytes, tag_bytes=tag_bytes)
        if tag_bytes == 32 and enc == "A256GCM":
            token += "A" * 22  # Extend the tag to 32 bytes, because AESGCM returns only 16 bytes.

        with pytest.raises(InvalidToken) as caught:
            jose.decrypt(token, NO_KEYS)
        assert caught.value.code == "malformed"


class TestACompressedToken:
    def test_g2_decrypt_refuses_a_compressed_token_before_decrypting_the_token(self, encryption_key):
        bomb = encrypted_as(
            {"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "e1", "zip": "DEF"}, "A" * 1_048_576, encryption_key
        )
        assert len(bomb) < compact.MAX_TOKEN_CHARS

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(bomb, NO_KEYS)

        assert refusal.value.code == "bad_header"
