"""Tests of encrypted tokens, with independent implementations.

The implementations decrypt this package's tokens, and this package decrypts a token from joserfc.
"""

from __future__ import annotations

import json
from itertools import product

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from instaccess.tokens import PrivateKey, jose
from tests.tokens.handmade import CONTENT_ALGORITHMS, PAYLOAD, header_text, unb64

KEY_ALGORITHMS = ("RSA-OAEP", "RSA-OAEP-256", "RSA1_5")
ALGORITHMS = list(product(KEY_ALGORITHMS, CONTENT_ALGORITHMS))


# Ignore joserfc's warning about RSA1_5, because these tests use RSA1_5 on purpose.
uses_rsa1_5 = pytest.mark.filterwarnings('ignore:JWE algorithm "RSA1_5" is deprecated')


def decrypt_by_hand(token: str, key: JWK) -> bytes:
    """Decrypt a compact JWE without a JOSE library (RFC 7516 §5.2; RFC 7518 §4.2, §4.3, §5)."""
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


@uses_rsa1_5
@pytest.mark.parametrize(("alg", "enc"), ALGORITHMS)
class TestAnEncryptedToken:
    @pytest.fixture
    def token(self, signed: str, encryption_key: JWK, alg: str, enc: str) -> str:
        public = JWK.from_json(encryption_key.export_public())
        return jose.encrypt(signed, public, kid="e1", alg=alg, enc=enc)

    def test_encrypted_token_has_the_header_members_in_the_order_of_the_wire_contract(self, token, alg, enc):
        assert header_text(token) == f'{{"alg":"{alg}","enc":"{enc}","cty":"JWT","kid":"e1"}}'

    def test_joserfc_decrypts_an_encrypted_token(self, token, signed, encryption_key, alg, enc):
        key = joserfc_jwk.RSAKey.import_key(encryption_key.export(as_dict=True))

        assert joserfc_jwe.decrypt_compact(token, key, algorithms=[alg, enc]).plaintext == signed.encode()

    def test_cryptography_decrypts_an_encrypted_token_and_pyjwt_verifies_the_inner_token(
        self, token, signing_key, encryption_key
    ):
        inner = decrypt_by_hand(token, encryption_key)

        assert jwt.decode(inner, signing_key.export_to_pem(), algorithms=["RS256"]) == json.loads(PAYLOAD)

    def test_jwcrypto_decrypts_an_encrypted_token(self, token, signed, encryption_key, alg, enc):
        jwe = JWE(algs=[alg, enc])
        jwe.deserialize(token)
        jwe.decrypt(encryption_key)

        assert jwe.payload == signed.encode()

    def test_this_package_decrypts_an_encrypted_token(self, token, signed, encryption_key, alg):
        assert jose.decrypt(token, {"e1": PrivateKey(encryption_key)}, key_algorithms=[alg]) == (signed, "e1")

    def test_encrypting_the_same_token_twice_gives_different_results(self, token, signed, encryption_key, alg, enc):
        again = jose.encrypt(signed, encryption_key, kid="e1", alg=alg, enc=enc)

        # The results share only the header, because all other segments depend on random values.
        assert [a == b for a, b in zip(token.split("."), again.split("."), strict=True)] == [True] + [False] * 4


class TestEncryptingWithAnUnknownAlgorithm:
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
    def test_encrypting_with_an_unknown_algorithm_raises_value_error(self, alg, enc, signed, encryption_key):
        with pytest.raises(ValueError, match="not an allowed algorithm"):
            jose.encrypt(signed, encryption_key, kid="e1", alg=alg, enc=enc)


@uses_rsa1_5
@pytest.mark.parametrize(("alg", "enc"), ALGORITHMS)
class TestATokenFromJoserfc:
    @pytest.mark.parametrize(
        ("inner_kid", "outer"),
        [
            pytest.param({}, {}, id="in-the-shape-canvas-sends"),
            pytest.param({"kid": "s1"}, {"kid": "e1"}, id="with-kid"),
            pytest.param({}, {"cty": "JWT"}, id="with-cty"),
            pytest.param({"kid": "s1"}, {"cty": "JWT", "kid": "e1", "typ": "JWT"}, id="with-everything"),
        ],
    )
    def test_g10_decrypt_and_verify_accept_a_token_from_joserfc(
        self, alg, enc, inner_kid, outer, signing_key, encryption_key
    ):
        signer = joserfc_jwk.RSAKey.import_key(signing_key.export(as_dict=True))
        recipient = joserfc_jwk.RSAKey.import_key(encryption_key.export_public(as_dict=True))
        inner = joserfc_jws.serialize_compact(
            {"typ": "JWT", "alg": "RS256"} | inner_kid, PAYLOAD, signer, algorithms=["RS256"]
        )
        token = joserfc_jwe.encrypt_compact({"alg": alg, "enc": enc} | outer, inner, recipient, algorithms=[alg, enc])

        decrypted, encryption_kid = jose.decrypt(token, {"e1": PrivateKey(encryption_key)}, key_algorithms=[alg])
        claims, signing_kid = jose.verify(decrypted, {"s1": signing_key})

        assert (claims, encryption_kid, signing_kid) == (json.loads(PAYLOAD), "e1", "s1")

    def test_g10_verify_accepts_an_inner_header_without_typ(self, alg, enc, signing_key, encryption_key):
        signer = joserfc_jwk.RSAKey.import_key(signing_key.export(as_dict=True))
        inner = joserfc_jws.serialize_compact({"alg": "RS256"}, PAYLOAD, signer, algorithms=["RS256"])
        token = jose.encrypt(inner, encryption_key, kid="e1", alg=alg, enc=enc)

        decrypted, _ = jose.decrypt(token, {"e1": PrivateKey(encryption_key)}, key_algorithms=[alg])

        assert jose.verify(decrypted, {"s1": signing_key})[0] == json.loads(PAYLOAD)
