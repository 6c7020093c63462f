"""Encryption of private keys at rest. To *seal* a private key means to encrypt its JWK with a key-encryption key.

A sealed key is a compact JWE (RFC 7517 §7). The protected header contains the id of the key (`kid`), the key's `use`,
and the id of the key-encryption key (`kek`). Unsealing checks all three members, so a sealed key that was copied to
another row is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jwcrypto.common import JWException, base64url_decode, base64url_encode
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from .. import tokens
from ..conf import KeyEncryptionKey, kek_id
from ..exceptions import InvalidToken, Reason, UnsealError
from ..opaque import concealed
from ..tokens import PrivateKey

_ALG, _ENC = "A256KW", "A256GCM"
_MAX_PRIVATE_JWK_BYTES = 16_384


@concealed
def seal(private: PrivateKey, *, kid: str, use: str, keks: Sequence[KeyEncryptionKey]) -> str:
    """Encrypt a private key with the first of the key-encryption keys, and return the compact JWE."""
    header = {
        "alg": _ALG,
        "enc": _ENC,
        "cty": "jwk+json",
        "kid": kid,
        "use": use,
        "kek": kek_id(keks[0]),
    }
    jwe = JWE(private.reveal().export_private(), json.dumps(header), algs=[_ALG, _ENC])
    jwe.add_recipient(_as_jwk(keks[0]))
    return str(jwe.serialize(compact=True))


@concealed
def unseal(sealed: str, *, kid: str, use: str, keks: Sequence[KeyEncryptionKey]) -> PrivateKey:
    """Decrypt a sealed key with the key-encryption key that sealed the key, and return the private key.

    Args:
        kid, use: the `kid` and `use` that the sealed key must contain.
        keks: the configured key-encryption keys.

    Raises:
        UnsealError: the required key-encryption key is not among `keks` (code `kek_missing`), or the sealed key was
            modified or belongs to another row (code `seal_broken`).
    """
    kek = {kek_id(key): key for key in keks}.get(sealed_under(sealed))
    if kek is None:
        raise UnsealError(
            f"key {kid} is sealed with a key-encryption key that is not configured: add that key-encryption key to "
            "INSTACCESS['KEY_ENCRYPTION_KEYS'] again. If the key-encryption key was derived from SECRET_KEY, the "
            'list must contain "SECRET_KEY". If SECRET_KEY was changed, also add the old SECRET_KEY to '
            "SECRET_KEY_FALLBACKS",
            code=Reason.KEK_MISSING,
        )
    jwe = JWE(algs=[_ALG, _ENC])
    try:
        tokens.split_compact(sealed, 5)  # This check refuses non-canonical encodings, which jwcrypto would accept.
        jwe.deserialize(sealed)
        jwe.decrypt(_as_jwk(kek), max_plaintext=_MAX_PRIVATE_JWK_BYTES)
        header = jwe.jose_header
        key = JWK.from_json(jwe.payload)
    except (InvalidToken, JWException, LookupError, TypeError, ValueError):
        key, header = None, {}
    if key is None or (header.get("kid"), header.get("use")) != (kid, use) or key.thumbprint() != kid:
        raise UnsealError(
            f"the sealed private key of key {kid} was modified or belongs to another key: restore the row from a "
            "backup, or revoke the key",
            code=Reason.SEAL_BROKEN,
        )
    return PrivateKey(key)


def sealed_under(sealed: str) -> str:
    """Return the id of the key-encryption key in the header of a sealed key, or "" if the header has no such id."""
    try:
        kek = json.loads(base64url_decode(sealed.split(".", 1)[0]))["kek"]
    except (LookupError, TypeError, ValueError, RecursionError):
        return ""
    return kek if isinstance(kek, str) else ""


def _as_jwk(kek: KeyEncryptionKey) -> JWK:
    return JWK(kty="oct", k=base64url_encode(kek.reveal()))
