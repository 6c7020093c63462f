"""Encoding of issued tokens as compact JWS and JWE (RFC 7515 §7.1, RFC 7516 §7.1) with the cryptography library.

This module doesn't use jwcrypto, because encoding a token with jwcrypto takes 1.5 times as long (see
docs/speed.md). The tests decode issued tokens with jwcrypto, joserfc, PyJWT and cryptography. The module `jose`
decrypts and verifies tokens with jwcrypto.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

_PKCS1 = PKCS1v15()
_SHA256 = SHA256()
_WRAPPING: Mapping[str, AsymmetricPadding] = {
    "RSA-OAEP": OAEP(MGF1(SHA1()), SHA1(), None),  # noqa: S303  (RFC 7518 §4.3; OAEP needs no collision resistance)
    "RSA-OAEP-256": OAEP(MGF1(SHA256()), SHA256(), None),
    "RSA1_5": _PKCS1,
}


def jws(payload: bytes, key: RSAPrivateKey, *, typ: str, kid: str) -> str:
    """Sign a payload with RS256 (RFC 7518 §3.3), and return the compact JWS.

    The header starts with `typ`, as in Canvas.
    """
    signed = _encode_header(("typ", typ), ("alg", "RS256"), ("kid", kid)) + b"." + _encode(payload)
    return (signed + b"." + _encode(key.sign(signed, _PKCS1, _SHA256))).decode("ascii")


def jwe(text: bytes, key: RSAPublicKey, *, alg: str, enc: str, kid: str) -> str:
    """Encrypt a JWT with a new content-encryption key, and return the compact JWE.

    Args:
        text: the JWT.
        key: the public key that encrypts the content-encryption key.

    Raises KeyError for an unknown `alg` or `enc`.
    """
    header = _encode_header(("alg", alg), ("enc", enc), ("cty", "JWT"), ("kid", kid))
    cek = os.urandom(32)
    segments = (header, _encode(key.encrypt(cek, _WRAPPING[alg])), *map(_encode, _CONTENT[enc](text, cek, header)))
    return b".".join(segments).decode("ascii")


def _a128cbc_hs256(text: bytes, cek: bytes, header: bytes) -> tuple[bytes, bytes, bytes]:
    """Encrypt bytes with A128CBC-HS256 (RFC 7518 §5.2.2.1). Returns the initialization vector, ciphertext and tag.

    Args:
        cek: the content-encryption key: 16 bytes for the HMAC, then 16 bytes for AES.
        header: the encoded protected header, which the tag covers.
    """
    iv = os.urandom(16)
    pad = 16 - len(text) % 16
    encryptor = Cipher(AES(cek[16:]), CBC(iv)).encryptor()
    ciphertext = encryptor.update(text + bytes([pad]) * pad) + encryptor.finalize()
    bits = (len(header) * 8).to_bytes(8, "big")
    return iv, ciphertext, hmac.digest(cek[:16], header + iv + ciphertext + bits, "sha256")[:16]


def _a256gcm(text: bytes, cek: bytes, header: bytes) -> tuple[bytes, bytes, bytes]:
    """Encrypt bytes with A256GCM (RFC 7518 §5.3). Returns the initialization vector, the ciphertext and the tag."""
    iv = os.urandom(12)
    ciphertext_and_tag = AESGCM(cek).encrypt(iv, text, header)
    return iv, ciphertext_and_tag[:-16], ciphertext_and_tag[-16:]


_CONTENT: Mapping[str, Callable[[bytes, bytes, bytes], tuple[bytes, bytes, bytes]]] = {
    "A128CBC-HS256": _a128cbc_hs256,
    "A256GCM": _a256gcm,
}


@lru_cache(maxsize=64)
def _encode_header(*members: tuple[str, str]) -> bytes:
    """Encode the members of a protected header as JSON and base64url.

    Results are cached, because all tokens of one key have the same header.
    """
    return _encode(json.dumps(dict(members), separators=(",", ":")).encode())


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
