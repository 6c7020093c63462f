"""Token encoding and decoding with the low-level primitives of cryptography, for comparison with the package.

An encoder in Python can hardly be faster. Do not use this code in other programs, because the code omits checks that
every reader of tokens must perform.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
_PKCS1 = padding.PKCS1v15()
_SHA256 = hashes.SHA256()


class Encoder:
    """An encoder of tokens with RS256, RSA-OAEP and A128CBC-HS256, for keys that are already loaded."""

    def __init__(
        self, signing: RSAPrivateKey, signing_kid: str, encryption: RSAPublicKey, encryption_kid: str
    ) -> None:
        self._signing, self._encryption = signing, encryption
        self._jws_header = _header({"typ": "JWT", "alg": "RS256", "kid": signing_kid})
        self._jwe_header = _header(
            {"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "cty": "JWT", "kid": encryption_kid},
        )

    def encode(self, payload: bytes) -> str:
        """Sign and encrypt a claims set, given as JSON. Returns the token."""
        return self.encrypt(self.sign(payload)).decode()

    def sign(self, payload: bytes) -> bytes:
        signed = self._jws_header + b"." + _encode(payload)
        return signed + b"." + _encode(self._signing.sign(signed, _PKCS1, _SHA256))

    def encrypt(self, text: bytes) -> bytes:
        cek, iv = os.urandom(32), os.urandom(16)
        pad = 16 - len(text) % 16
        encryptor = Cipher(algorithms.AES(cek[16:]), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(text + bytes([pad]) * pad) + encryptor.finalize()
        tag = _tag(cek, self._jwe_header, iv, ciphertext)
        wrapped = self._encryption.encrypt(cek, _OAEP)
        return b".".join([self._jwe_header, _encode(wrapped), _encode(iv), _encode(ciphertext), _encode(tag)])


@dataclass(frozen=True)
class Decoder:
    """A decoder for tokens that an `Encoder` has encoded."""

    decryption: RSAPrivateKey
    verification: RSAPublicKey

    def decode(self, token: str) -> dict[str, Any]:
        """Return the claims of a token. Raises ValueError or InvalidSignature if the token is invalid."""
        return self.verify(self.decrypt(token.encode()))

    def decrypt(self, token: bytes) -> bytes:
        header, *segments = token.split(b".")
        wrapped, iv, ciphertext, tag = map(_decode, segments)
        cek = self.decryption.decrypt(wrapped, _OAEP)
        if not hmac.compare_digest(_tag(cek, header, iv, ciphertext), tag):
            raise ValueError("wrong tag")
        decryptor = Cipher(algorithms.AES(cek[16:]), modes.CBC(iv)).decryptor()
        text = decryptor.update(ciphertext) + decryptor.finalize()
        return text[: -text[-1]]

    def verify(self, token: bytes) -> dict[str, Any]:
        signed, _, signature = token.rpartition(b".")
        self.verification.verify(_decode(signature), signed, _PKCS1, _SHA256)
        claims: dict[str, Any] = json.loads(_decode(signed.partition(b".")[2]))
        return claims


def _tag(cek: bytes, header: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    # RFC 7518 §5.2.2: the first half of the content-encryption key is the HMAC key, the second half the AES key.
    length = (len(header) * 8).to_bytes(8, "big")
    return hmac.digest(cek[:16], header + iv + ciphertext + length, "sha256")[:16]


def _header(members: dict[str, str]) -> bytes:
    return _encode(json.dumps(members, separators=(",", ":")).encode())


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
