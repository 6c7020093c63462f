"""Compact serialization (RFC 7515 §7.1, RFC 7516 §7.1) parsed strictly: a token has exactly one spelling, its header
exactly the members we know, its JSON one meaning. No keys here, no Django."""

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
"""Lists and objects in each other, in what we issue and in what we read."""

_TEXT, _BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL), re.compile(r"[\[\]{}]")


def peek_issuer(token: str) -> str | None:
    """The `iss` that an *unverified* compact JWS names, or None where there is no reading it.

    Good for one thing: telling whether a three-part bearer means to be an InstAccess token.
    """
    try:
        issuer = json_object(split_compact(token, 3)[1], "claims").get("iss")
    except InvalidToken:
        return None
    return issuer if isinstance(issuer, str) else None


def split_compact(token: str, parts: int) -> list[bytes]:
    """The decoded segments of a compact serialization, or InvalidToken.

    Each segment must be the one base64url spelling of its bytes (RFC 7515 §2): otherwise one token has many
    spellings, and a cache or a deny list keyed on the text would miss all but one.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidToken(f"longer than {MAX_TOKEN_CHARS} characters", code=Reason.TOO_LONG)
    texts = token.split(".")
    if len(texts) != parts or not all(texts) or not token.isascii() or token.encode().translate(None, _COMPACT):
        raise InvalidToken(f"not {parts} base64url segments", code=Reason.MALFORMED)
    segments = []
    for text in texts:
        try:
            decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            raise InvalidToken("a segment is not base64url", code=Reason.MALFORMED) from None
        # All but the last two or three characters can be spelled in one way only.
        tail = len(text) % 4
        if tail and base64.urlsafe_b64encode(decoded[1 - tail :])[:tail].decode() != text[-tail:]:
            raise InvalidToken("a segment is not in its canonical spelling", code=Reason.MALFORMED)
        segments.append(decoded)
    return segments


@lru_cache(maxsize=64)
def header_of(raw: bytes, members: frozenset[str]) -> Mapping[str, str]:
    # Remembered: tokens under one key have one header. A kibibyte each at the most.
    if len(raw) > MAX_HEADER_BYTES:
        raise InvalidToken("the header is too long", code=Reason.BAD_HEADER)
    header = json_object(raw, "header")
    # `zip` inflates, `crit` asks for what we do not know, `jku`, `jwk` and `x5u` bring keys along: all refused.
    if not members.issuperset(header):
        raise InvalidToken("the header has members we do not accept", code=Reason.BAD_HEADER)
    if not all(isinstance(value, str) for value in header.values()):
        raise InvalidToken("a header member is not text", code=Reason.BAD_HEADER)
    if "kid" in header and not _KID.fullmatch(header["kid"]):
        raise InvalidToken("the kid is not one of ours", code=Reason.BAD_HEADER)
    return header


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
        if nests_too_deep(text):
            raise InvalidToken(f"the {what} nests too deep", code=Reason.MALFORMED)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise InvalidToken(f"the {what} is not one strict JSON object", code=Reason.MALFORMED) from None
    if not isinstance(value, dict):
        raise InvalidToken(f"the {what} is not a JSON object", code=Reason.MALFORMED)
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


def nests_too_deep(text: str) -> bool:
    """Whether brackets stand in each other more than `MAX_DEPTH` deep, in JSON or what passes for it.

    Asked of what comes in before it is parsed: how deep parsers go depends on the version of Python, and that of 3.13
    takes the whole process down where a thread's stack is small.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
