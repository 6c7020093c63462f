"""Signing, encryption, decryption and verification of compact JWS and JWE (RFC 7515, RFC 7516).

jwcrypto decrypts and verifies tokens. Because jwcrypto's parser is lenient, the module `compact` first parses each
token strictly. The caller decides which algorithms are accepted. A token whose header contains another algorithm is
refused.

Public keys are `jwcrypto.jwk.JWK` objects, and private keys are `PrivateKey` objects. The `use` member of each key
must be set. Reuse the objects, because loading a private key takes about as long as a hundred signatures.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from itertools import islice
from typing import Any, TypeVar

from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from ..exceptions import InvalidToken, Reason
from ..opaque import concealed
from . import minting
from .compact import json_object, parse_header, split_compact
from .private_key import PrivateKey

K = TypeVar("K", JWK, PrivateKey)

SIGNING_ALGORITHMS = ("RS256",)
KEY_ALGORITHMS = ("RSA-OAEP", "RSA-OAEP-256")
LEGACY_KEY_ALGORITHMS = ("RSA1_5",)
"""RSAES-PKCS1-v1_5, which the sample in Canvas's documentation uses. Accepted only if ENCRYPTION_ALG is RSA1_5."""
CONTENT_ALGORITHMS = ("A128CBC-HS256", "A256GCM")

MAX_PLAINTEXT_BYTES = 8192
MAX_KEY_ATTEMPTS = 3
"""The maximum number of keys that are tried for a token whose header has no `kid`. Canvas's tokens have no `kid`.

The number is limited, because each attempt is an RSA operation.
"""

# RFC 7518 §5.2.3 and §5.3 require these lengths of the initialization vector and the tag. `parse_encrypted` checks
# the lengths, because jwcrypto does not check the lengths for A256GCM.
_IV_BYTES, _TAG_BYTES = {"A128CBC-HS256": 16, "A256GCM": 12}, 16

_SAFE_KID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# Each JWS and JWE object is a copy of `_JWS` or `_JWE`. The copies share jwcrypto's header registry, which is never
# modified. Calling `JWS()` or `JWE()` for each token would copy the registry, which is slow: only the RSA operations
# take longer.
_JWS, _JWE = JWS(), JWE()
_JWS_MEMBERS = frozenset({"alg", "kid", "typ", "cty"})
_JWE_MEMBERS = frozenset({"alg", "enc", "kid", "typ", "cty"})


class ReloadableKeys(Mapping[str, JWK]):
    """A mapping from `kid` to key that can be reloaded.

    `verify` reloads the keys if a token has no `kid` and none of the tried keys verifies the signature.
    """

    @abstractmethod
    def reload(self) -> None:
        """Load the keys again, unless they were loaded recently."""


def sign(payload: bytes, key: PrivateKey, *, kid: str, typ: str = "JWT") -> str:
    """Sign a payload with RS256 (RFC 7518 §3.3) and return the compact JWS.

    Args:
        key: the signing key.
        typ: the type of the JWS (RFC 8725 §3.11). `verify` refuses a JWS of another type.
    """
    return minting.jws(payload, key.op_key("sign"), typ=typ, kid=kid)


def encrypt(jws: str, key: JWK, *, kid: str, alg: str, enc: str) -> str:
    """Encrypt a compact JWS for a public encryption key and return the compact JWE (nested JWT, RFC 7519 §5.2).

    Raises ValueError if `alg` or `enc` isn't allowed.
    """
    if alg not in KEY_ALGORITHMS + LEGACY_KEY_ALGORITHMS or enc not in CONTENT_ALGORITHMS:
        raise ValueError(f"not an allowed algorithm: {alg}, {enc}")
    return minting.jwe(jws.encode("ascii"), key.get_op_key("wrapKey"), alg=alg, enc=enc, kid=kid)


def decrypt(
    token: str,
    keys: Mapping[str, PrivateKey],
    *,
    key_algorithms: Collection[str] = KEY_ALGORITHMS,
    content_algorithms: Collection[str] = CONTENT_ALGORITHMS,
) -> tuple[str, str]:
    """Decrypt a compact JWE.

    Args:
        token: an untrusted string.
        keys: private encryption keys by `kid`, newest first. If the header contains a `kid`, only the key with this
            `kid` is tried. If the header contains no `kid`, the first `MAX_KEY_ATTEMPTS` keys are tried.
        key_algorithms, content_algorithms: the values of `alg` and `enc` that are accepted.

    Returns the plaintext and the `kid` of the key that decrypted the token.

    Raises InvalidToken for any problem with the token, and no other error.
    """
    segments, header = parse_encrypted(token, key_algorithms=key_algorithms, content_algorithms=content_algorithms)
    for kid, key in _candidates(header, keys):
        plaintext = _decrypt_with_key(segments, header, key)
        if plaintext is not None:
            return plaintext, kid
    raise InvalidToken("no key decrypts the token", code=Reason.DECRYPT_FAILED)


@concealed
def _decrypt_with_key(segments: list[bytes], header: Mapping[str, str], key: PrivateKey) -> str | None:
    """Decrypt a parsed JWE with one key. Returns the plaintext, or None if the key doesn't decrypt the JWE."""
    jwe = _new_jwe(segments, header["alg"], header["enc"])
    try:
        jwe.decrypt(key.reveal(), max_plaintext=MAX_PLAINTEXT_BYTES)
        return str(jwe.payload.decode("ascii"))
    # For malformed input, jwcrypto raises not only JWException, but also KeyError, TypeError and other errors.
    except (JWException, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return None


def parse_encrypted(
    token: str,
    *,
    key_algorithms: Collection[str] = KEY_ALGORITHMS,
    content_algorithms: Collection[str] = CONTENT_ALGORITHMS,
) -> tuple[list[bytes], Mapping[str, str]]:
    """Parse a compact JWE without a key, and return its decoded segments and its header. Raises InvalidToken."""
    segments = split_compact(token, 5)
    header = parse_header(segments[0], _JWE_MEMBERS)
    alg, enc = header.get("alg", ""), header.get("enc", "")
    if alg not in key_algorithms or enc not in content_algorithms:
        raise InvalidToken("the token is encrypted with an algorithm that is not accepted", code=Reason.WRONG_ALG)
    if header.get("cty", "JWT") != "JWT" or header.get("typ", "JWT") != "JWT":
        raise InvalidToken("the token is not a nested JWT", code=Reason.WRONG_TYPE)
    if (len(segments[2]), len(segments[4])) != (_IV_BYTES[enc], _TAG_BYTES):
        raise InvalidToken("the initialization vector or the tag has the wrong length", code=Reason.MALFORMED)
    return segments, header


def verify(token: str, keys: Mapping[str, JWK], *, typ: str = "JWT") -> tuple[dict[str, Any], str]:
    """Verify the RS256 signature of a compact JWS and parse its payload.

    This function doesn't check the times and the issuer. `Claims.from_payload` checks these claims.

    Args:
        token: an untrusted string.
        keys: public signing keys by `kid`, newest first. If the header contains a `kid`, only the key with this `kid`
            is tried. If the header contains no `kid`, the first `MAX_KEY_ATTEMPTS` keys are tried. If none of these
            keys verifies the token, `ReloadableKeys` are reloaded, and the new keys are tried.
        typ: the type that is accepted. A header without `typ` means "JWT".

    Returns the JSON object and the `kid` of the key that verified the signature.

    Raises InvalidToken for any problem with the token, and no other error.
    """
    segments = split_compact(token, 3)
    header = parse_header(segments[0], _JWS_MEMBERS)
    if header.get("alg") not in SIGNING_ALGORITHMS:
        raise InvalidToken("the token is signed with an algorithm that is not accepted", code=Reason.WRONG_ALG)
    if header.get("typ", "JWT") != typ or "cty" in header:
        raise InvalidToken(f"the type is not {typ}", code=Reason.WRONG_TYPE)
    tried = dict(_candidates(header, keys))
    kid = _find_verifying_kid(segments, tried)
    if kid is None and "kid" not in header and isinstance(keys, ReloadableKeys):
        # A new key may have signed the token, so the keys are reloaded. If the header contains a `kid`, looking up
        # this `kid` has already reloaded the keys.
        keys.reload()
        reloaded = dict(_candidates(header, keys))
        kid = _find_verifying_kid(segments, {kid: key for kid, key in reloaded.items() if tried.get(kid) != key})
    if kid is None:
        raise InvalidToken("no key verifies the signature", code=Reason.BAD_SIGNATURE)
    return json_object(segments[1], "claims"), kid


def _find_verifying_kid(segments: list[bytes], keys: Mapping[str, JWK]) -> str | None:
    """Return the `kid` of the first key that verifies the signature, or None."""
    for kid, key in keys.items():
        jws = _new_jws(segments)
        try:
            jws.verify(key)
        except (JWException, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            continue
        return kid
    return None


def _new_jws(segments: list[bytes]) -> JWS:
    """Build the same JWS as `JWS().deserialize`, but from segments that have already been parsed."""
    jws = copy(_JWS)
    jws.objects = _parts(("protected", "payload", "signature"), segments)
    jws.allowed_algs = list(SIGNING_ALGORITHMS)
    return jws


def _new_jwe(segments: list[bytes], *algs: str | None) -> JWE:
    """Build the same JWE as `JWE(algs=…).deserialize`, but from segments that have already been parsed."""
    jwe = copy(_JWE)
    jwe.objects = _parts(("protected", "encrypted_key", "iv", "ciphertext", "tag"), segments)
    jwe.allowed_algs = list(algs)
    return jwe


def _parts(names: tuple[str, ...], segments: list[bytes]) -> dict[str, Any]:
    parts: dict[str, Any] = dict(zip(names, segments, strict=True))
    parts["protected"] = parts["protected"].decode("utf-8")
    return parts


def _candidates(header: Mapping[str, str], keys: Mapping[str, K]) -> Iterable[tuple[str, K]]:
    # If the header contains a `kid`, try only the key with this `kid`. If other keys were tried too, an attacker
    # could cause several RSA operations per token.
    if "kid" not in header:
        if not keys:
            raise InvalidToken("there is no key to try", code=Reason.UNKNOWN_KID)
        return islice(keys.items(), MAX_KEY_ATTEMPTS)
    key = keys.get(header["kid"])
    if key is None:
        # The detail is logged, so it must not contain arbitrary text from an attacker.
        kid = header["kid"] if _SAFE_KID.fullmatch(header["kid"]) else "a kid with unusual characters, not logged"
        raise InvalidToken(f"the key is not available on this server: {kid}", code=Reason.UNKNOWN_KID)
    return [(header["kid"], key)]
