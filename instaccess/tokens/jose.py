"""Sign, encrypt, decrypt, verify: JWS and JWE compact serialization (RFC 7515, 7516) over keys passed in.

jwcrypto does the cryptography. What it is lenient about is refused here first: a token has exactly one spelling, its
header exactly the members we know, its algorithms are ours to choose and not the token's. No Django, no settings.

Keys are `jwcrypto.jwk.JWK` objects whose `use` member is set; the caller holds on to them, because loading a private
key costs about as much as a hundred signatures.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from itertools import islice
from typing import Any

from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from ..exceptions import InvalidToken, Reason
from . import minting
from .compact import header_of, json_object, split_compact

SIGNING_ALGORITHMS = ("RS256",)
KEY_ALGORITHMS = ("RSA-OAEP", "RSA-OAEP-256")
LEGACY_KEY_ALGORITHMS = ("RSA1_5",)
"""RSAES-PKCS1-v1_5 is what Canvas's published sample uses; only ever accepted where a setting asks for it."""
CONTENT_ALGORITHMS = ("A128CBC-HS256", "A256GCM")

MAX_PLAINTEXT_BYTES = 8192
MAX_KEY_ATTEMPTS = 3
"""RSA operations spent on a token that does not say which key it is under (Canvas sends no `kid`)."""

# RFC 7518 §5.2.3 and §5.3. jwcrypto takes other lengths for A256GCM.
_IV_BYTES, _TAG_BYTES = {"A128CBC-HS256": 16, "A256GCM": 12}, 16

_LIKE_OURS = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# jwcrypto copies its registry of headers for each object, which takes longer than all of the object's other work but
# RSA. Copies of these share one; nothing writes to it.
_JWS, _JWE = JWS(), JWE()
_JWS_MEMBERS = frozenset({"alg", "kid", "typ", "cty"})
_JWE_MEMBERS = frozenset({"alg", "enc", "kid", "typ", "cty"})


def sign(payload: bytes, key: JWK, *, kid: str, typ: str = "JWT") -> str:
    """A compact JWS over `payload` with RS256 (RFC 7518 §3.3) under a private signing key.

    `typ` says what it is (RFC 8725 §3.11): what is signed for one purpose passes for no other.
    """
    return minting.jws(payload, key.get_op_key("sign"), typ=typ, kid=kid)


def encrypt(jws: str, key: JWK, *, kid: str, alg: str, enc: str) -> str:
    """A compact JWE around a compact JWS (nested JWT, RFC 7519 §5.2) under a public encryption key.

    Raises ValueError for an algorithm that is not on the lists above.
    """
    if alg not in KEY_ALGORITHMS + LEGACY_KEY_ALGORITHMS or enc not in CONTENT_ALGORITHMS:
        raise ValueError(f"not an allowed algorithm: {alg}, {enc}")
    return minting.jwe(jws.encode("ascii"), key.get_op_key("wrapKey"), alg=alg, enc=enc, kid=kid)


def decrypt(
    token: str,
    keys: Mapping[str, JWK],
    *,
    key_algorithms: Collection[str] = KEY_ALGORITHMS,
    content_algorithms: Collection[str] = CONTENT_ALGORITHMS,
) -> tuple[str, str]:
    """Open a compact JWE.

    Args:
        token: what came in; never trusted.
        keys: private encryption keys by `kid`, best first. The one the header names is tried, or the first
            `MAX_KEY_ATTEMPTS` when it names none.
        key_algorithms, content_algorithms: the only `alg` and `enc` accepted.

    Returns the text inside and the `kid` of the key that opened it.

    Raises InvalidToken, and nothing else, for whatever is wrong with the token.
    """
    segments, header = parse_encrypted(token, key_algorithms=key_algorithms, content_algorithms=content_algorithms)
    for kid, key in _candidates(header, keys):
        jwe = _new_jwe(segments, header["alg"], header["enc"])
        try:
            jwe.decrypt(key, max_plaintext=MAX_PLAINTEXT_BYTES)
            return jwe.payload.decode("ascii"), kid
        # jwcrypto lets out KeyError, TypeError, RecursionError and more for odd input; all of them mean "no".
        except (JWException, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            continue
    raise InvalidToken("no key opens it", code=Reason.DECRYPT_FAILED)


def parse_encrypted(
    token: str,
    *,
    key_algorithms: Collection[str] = KEY_ALGORITHMS,
    content_algorithms: Collection[str] = CONTENT_ALGORITHMS,
) -> tuple[list[bytes], Mapping[str, str]]:
    """What of a compact JWE is seen without a key: its segments and its header. Raises InvalidToken as `decrypt`."""
    segments = split_compact(token, 5)
    header = header_of(segments[0], _JWE_MEMBERS)
    alg, enc = header.get("alg", ""), header.get("enc", "")
    if alg not in key_algorithms or enc not in content_algorithms:
        raise InvalidToken("encrypted with an algorithm we do not accept", code=Reason.WRONG_ALG)
    if header.get("cty", "JWT") != "JWT" or header.get("typ", "JWT") != "JWT":
        raise InvalidToken("not a nested JWT", code=Reason.WRONG_TYPE)
    if (len(segments[2]), len(segments[4])) != (_IV_BYTES[enc], _TAG_BYTES):
        raise InvalidToken("its initialization vector or its tag has another length", code=Reason.MALFORMED)
    return segments, header


def verify(token: str, keys: Mapping[str, JWK], *, typ: str = "JWT") -> tuple[dict[str, Any], str]:
    """Check the RS256 signature of a compact JWS and read its claims set.

    `keys` are public signing keys by `kid`, best first, chosen as in `decrypt`; `typ` is what it must be, a JWT where
    its header does not say. Returns the JSON object and the `kid` of the key. Times and issuer are not looked at:
    see `Claims.from_payload`.

    Raises InvalidToken, and nothing else, for whatever is wrong with the token.
    """
    segments = split_compact(token, 3)
    header = header_of(segments[0], _JWS_MEMBERS)
    if header.get("alg") not in SIGNING_ALGORITHMS:
        raise InvalidToken("signed with an algorithm we do not accept", code=Reason.WRONG_ALG)
    if header.get("typ", "JWT") != typ or "cty" in header:
        raise InvalidToken(f"not a {typ}", code=Reason.WRONG_TYPE)
    for kid, key in _candidates(header, keys):
        jws = _new_jws(segments)
        try:
            jws.verify(key)
        except (JWException, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            continue
        return json_object(segments[1], "claims"), kid
    raise InvalidToken("no key verifies it", code=Reason.BAD_SIGNATURE)


def _new_jws(segments: list[bytes]) -> JWS:
    """What `JWS().deserialize(…)` would read, once more, from a text that was split; it takes our algorithms and no
    other."""
    jws = copy(_JWS)
    jws.objects = _parts(("protected", "payload", "signature"), segments)
    jws.allowed_algs = list(SIGNING_ALGORITHMS)
    return jws


def _new_jwe(segments: list[bytes], *algs: str | None) -> JWE:
    """The same of `JWE(algs=list(algs))`."""
    jwe = copy(_JWE)
    jwe.objects = _parts(("protected", "encrypted_key", "iv", "ciphertext", "tag"), segments)
    jwe.allowed_algs = list(algs)
    return jwe


def _parts(names: tuple[str, ...], segments: list[bytes]) -> dict[str, Any]:
    parts: dict[str, Any] = dict(zip(names, segments, strict=True))
    parts["protected"] = parts["protected"].decode("utf-8")
    return parts


def _candidates(header: Mapping[str, str], keys: Mapping[str, JWK]) -> Iterable[tuple[str, JWK]]:
    if "kid" not in header:
        if not keys:
            raise InvalidToken("there is no key to try", code=Reason.UNKNOWN_KID)
        return islice(keys.items(), MAX_KEY_ATTEMPTS)
    key = keys.get(header["kid"])
    if key is None:
        named = header["kid"] if _LIKE_OURS.fullmatch(header["kid"]) else "its kid is not repeated here"
        raise InvalidToken(f"under a key we do not hold: {named}", code=Reason.UNKNOWN_KID)
    return [(header["kid"], key)]
