"""Strict parsing of the compact serialization (RFC 7515 §7.1, RFC 7516 §7.1), without keys.

The parser accepts only the canonical encoding of a token, only known header members, and only JSON that all parsers
read in the same way.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import string
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..exceptions import InvalidToken, Reason

MAX_TOKEN_CHARS = 8192
MAX_HEADER_BYTES = 1024

_COMPACT = (string.ascii_letters + string.digits + "-_.").encode()
_KID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)

MAX_DEPTH = 32
"""The largest nesting depth of JSON lists and objects, in issued tokens and in parsed tokens."""

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def peek_issuer(token: str) -> str | None:
    """Return the `iss` of an *unverified* compact JWS.

    Returns None if the JWS can't be parsed, or if the `iss` is missing or isn't a string.

    Use the result only to distinguish InstAccess tokens from other bearer tokens with three segments.
    """
    try:
        issuer = json_object(split_compact(token, 3)[1], "claims").get("iss")
    except InvalidToken:
        return None
    return issuer if isinstance(issuer, str) else None


def split_compact(token: str, parts: int) -> list[bytes]:
    """Split a compact serialization into its decoded segments.

    Each segment must be in the canonical base64url encoding (RFC 7515 §2). If other encodings were accepted, a client
    could send one token as many different strings, and a cache of token strings would not find the token.

    Args:
        parts: the required number of segments: 3 for a JWS, 5 for a JWE.

    Raises InvalidToken.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidToken(f"the token is longer than {MAX_TOKEN_CHARS} characters", code=Reason.TOO_LONG)
    encoded_segments = token.split(".")
    well_formed = len(encoded_segments) == parts and all(encoded_segments)
    if not well_formed or not token.isascii() or token.encode().translate(None, _COMPACT):
        raise InvalidToken(f"the token does not consist of {parts} base64url segments", code=Reason.MALFORMED)
    segments = []
    for encoded in encoded_segments:
        try:
            decoded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except (binascii.Error, ValueError):
            raise InvalidToken("a segment is not base64url", code=Reason.MALFORMED) from None
        # Compare only the last two or three characters, because a non-canonical encoding differs only in these
        # characters.
        tail = len(encoded) % 4
        if tail and base64.urlsafe_b64encode(decoded[1 - tail :])[:tail].decode() != encoded[-tail:]:
            raise InvalidToken("a segment is not in its canonical encoding", code=Reason.MALFORMED)
        segments.append(decoded)
    return segments


@lru_cache(maxsize=64)
def parse_header(raw: bytes, members: frozenset[str]) -> Mapping[str, str]:
    """Parse a protected header. Raises InvalidToken.

    Results are cached, because all tokens of one key have the same header. A cached header is at most 1 KiB.

    Args:
        raw: the decoded first segment of a token.
        members: the names that a member of the header may have.
    """
    if len(raw) > MAX_HEADER_BYTES:
        raise InvalidToken("the header is too long", code=Reason.BAD_HEADER)
    header = json_object(raw, "header")
    # Members that are not in `members` can be dangerous. `zip` allows decompression bombs, and `crit` changes how a
    # token must be processed. `jku`, `jwk` and `x5u` supply the attacker's key.
    if not members.issuperset(header):
        raise InvalidToken("the header has a member that is not accepted", code=Reason.BAD_HEADER)
    if not all(isinstance(value, str) for value in header.values()):
        raise InvalidToken("a header member is not a string", code=Reason.BAD_HEADER)
    if "kid" in header and not _KID.fullmatch(header["kid"]):
        raise InvalidToken("the kid is not 1 to 128 printable ASCII characters", code=Reason.BAD_HEADER)
    return header


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly. Raises InvalidToken.

    Duplicate members, NaN, infinite numbers and nesting deeper than `MAX_DEPTH` are refused.

    Args:
        what: the name of the object in error messages: `header` or `claims`.
    """
    try:
        text = raw.decode("utf-8")
        if nests_too_deep(text):
            raise InvalidToken(f"JSON is nested too deeply in the {what}", code=Reason.MALFORMED)
        value = json.loads(
            text, object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant, parse_float=_parse_finite
        )
    except (ValueError, RecursionError):
        raise InvalidToken(f"strict JSON parsing of the {what} failed", code=Reason.MALFORMED) from None
    if not isinstance(value, dict):
        raise InvalidToken(f"the segment of the {what} is not a JSON object", code=Reason.MALFORMED)
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Duplicate names are rejected, because parsers differ in which member they use (RFC 7515 §10.12).
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _parse_finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    return number


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def nests_too_deep(text: str) -> bool:
    """Return whether lists and objects in a JSON string are nested deeper than `MAX_DEPTH`.

    Call this function before you parse untrusted JSON; the string may be invalid JSON. The nesting limit of the
    `json` module depends on the version of Python. On Python 3.13, deep nesting crashes the process if the stack of
    the thread is small.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_JSON_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
