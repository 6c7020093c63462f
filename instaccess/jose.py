"""Sign, encrypt, decrypt, verify: JWS and JWE compact serialization (RFC 7515, 7516) over keys passed in.

jwcrypto does the cryptography. What it is lenient about is refused here first: a token has exactly one spelling, its
header exactly the members we know, its algorithms are ours to choose and not the token's. No Django, no settings.

Keys are `jwcrypto.jwk.JWK` objects whose `use` member is set; the caller holds on to them, because loading a private
key costs about as much as a hundred signatures.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import string
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from functools import lru_cache
from itertools import islice
from typing import Any

from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from . import minting
from .claims import nests_too_deep
from .exceptions import InvalidToken

SIGNING_ALGORITHMS = ("RS256",)
KEY_ALGORITHMS = ("RSA-OAEP", "RSA-OAEP-256")
LEGACY_KEY_ALGORITHMS = ("RSA1_5",)
"""RSAES-PKCS1-v1_5 is what Canvas's published sample uses; only ever accepted where a setting asks for it."""
CONTENT_ALGORITHMS = ("A128CBC-HS256", "A256GCM")

MAX_TOKEN_CHARS = 8192
MAX_HEADER_BYTES = 1024
MAX_PLAINTEXT_BYTES = 8192
MAX_KEY_ATTEMPTS = 3
"""RSA operations spent on a token that does not say which key it is under (Canvas sends no `kid`)."""

# RFC 7518 §5.2.3 and §5.3. jwcrypto takes other lengths for A256GCM.
_IV_BYTES, _TAG_BYTES = {"A128CBC-HS256": 16, "A256GCM": 12}, 16

_COMPACT = (string.ascii_letters + string.digits + "-_.").encode()
_KID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
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
    raise InvalidToken("no key opens it", code="decrypt_failed")


def parse_encrypted(
    token: str,
    *,
    key_algorithms: Collection[str] = KEY_ALGORITHMS,
    content_algorithms: Collection[str] = CONTENT_ALGORITHMS,
) -> tuple[list[bytes], Mapping[str, str]]:
    """What of a compact JWE is seen without a key: its segments and its header. Raises InvalidToken as `decrypt`."""
    segments = split_compact(token, 5)
    header = _header(segments[0], _JWE_MEMBERS)
    alg, enc = header.get("alg", ""), header.get("enc", "")
    if alg not in key_algorithms or enc not in content_algorithms:
        raise InvalidToken("encrypted with an algorithm we do not accept", code="wrong_alg")
    if header.get("cty", "JWT") != "JWT" or header.get("typ", "JWT") != "JWT":
        raise InvalidToken("not a nested JWT", code="wrong_type")
    if (len(segments[2]), len(segments[4])) != (_IV_BYTES[enc], _TAG_BYTES):
        raise InvalidToken("its initialization vector or its tag has another length", code="malformed")
    return segments, header


def verify(token: str, keys: Mapping[str, JWK], *, typ: str = "JWT") -> tuple[dict[str, Any], str]:
    """Check the RS256 signature of a compact JWS and read its claims set.

    `keys` are public signing keys by `kid`, best first, chosen as in `decrypt`; `typ` is what it must be, a JWT where
    its header does not say. Returns the JSON object and the `kid` of the key. Times and issuer are not looked at:
    see `Claims.from_payload`.

    Raises InvalidToken, and nothing else, for whatever is wrong with the token.
    """
    segments = split_compact(token, 3)
    header = _header(segments[0], _JWS_MEMBERS)
    if header.get("alg") not in SIGNING_ALGORITHMS:
        raise InvalidToken("signed with an algorithm we do not accept", code="wrong_alg")
    if header.get("typ", "JWT") != typ or "cty" in header:
        raise InvalidToken(f"not a {typ}", code="wrong_type")
    for kid, key in _candidates(header, keys):
        jws = _new_jws(segments)
        try:
            jws.verify(key)
        except (JWException, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            continue
        return _json_object(segments[1], "claims"), kid
    raise InvalidToken("no key verifies it", code="bad_signature")


def peek_issuer(token: str) -> str | None:
    """The `iss` that an *unverified* compact JWS names, or None where there is no reading it.

    Good for one thing: telling whether a three-part bearer means to be an InstAccess token.
    """
    try:
        issuer = _json_object(split_compact(token, 3)[1], "claims").get("iss")
    except InvalidToken:
        return None
    return issuer if isinstance(issuer, str) else None


def split_compact(token: str, parts: int) -> list[bytes]:
    """The decoded segments of a compact serialization, or InvalidToken.

    Each segment must be the one base64url spelling of its bytes (RFC 7515 §2): otherwise one token has many
    spellings, and a cache or a deny list keyed on the text would miss all but one.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidToken(f"longer than {MAX_TOKEN_CHARS} characters", code="too_long")
    texts = token.split(".")
    if len(texts) != parts or not all(texts) or not token.isascii() or token.encode().translate(None, _COMPACT):
        raise InvalidToken(f"not {parts} base64url segments", code="malformed")
    segments = []
    for text in texts:
        try:
            decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            raise InvalidToken("a segment is not base64url", code="malformed") from None
        # All but the last two or three characters can be spelled in one way only.
        tail = len(text) % 4
        if tail and base64.urlsafe_b64encode(decoded[1 - tail :])[:tail].decode() != text[-tail:]:
            raise InvalidToken("a segment is not in its canonical spelling", code="malformed")
        segments.append(decoded)
    return segments


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


@lru_cache(maxsize=64)
def _header(raw: bytes, members: frozenset[str]) -> Mapping[str, str]:
    # Remembered: tokens under one key have one header. A kibibyte each at the most.
    if len(raw) > MAX_HEADER_BYTES:
        raise InvalidToken("the header is too long", code="bad_header")
    header = _json_object(raw, "header")
    # `zip` inflates, `crit` asks for what we do not know, `jku`, `jwk` and `x5u` bring keys along: all refused.
    if not members.issuperset(header):
        raise InvalidToken("the header has members we do not accept", code="bad_header")
    if not all(isinstance(value, str) for value in header.values()):
        raise InvalidToken("a header member is not text", code="bad_header")
    if "kid" in header and not _KID.fullmatch(header["kid"]):
        raise InvalidToken("the kid is not one of ours", code="bad_header")
    return header


def _candidates(header: Mapping[str, str], keys: Mapping[str, JWK]) -> Iterable[tuple[str, JWK]]:
    if "kid" not in header:
        if not keys:
            raise InvalidToken("there is no key to try", code="unknown_kid")
        return islice(keys.items(), MAX_KEY_ATTEMPTS)
    key = keys.get(header["kid"])
    if key is None:
        named = header["kid"] if _LIKE_OURS.fullmatch(header["kid"]) else "its kid is not repeated here"
        raise InvalidToken(f"under a key we do not hold: {named}", code="unknown_kid")
    return [(header["kid"], key)]


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError):
        raise InvalidToken(f"the {what} is not one strict JSON object", code="malformed") from None
    if not isinstance(value, dict):
        raise InvalidToken(f"the {what} is not a JSON object", code="malformed")
    if nests_too_deep(value):
        raise InvalidToken(f"the {what} nests too deep", code="malformed")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two members of one name are read differently by different parsers (RFC 8725 §2.4).
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number beyond all bounds")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
