"""Lenient parsing of Authorization headers and unverified JWTs, to select the authenticator for a request.

The header and the JWT are parsed as leniently as other authenticators parse them. With a stricter parser, an
InstAccess token could remain undetected. A later authenticator, which may be lenient, could then accept a revoked
token.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ..tokens import nests_too_deep

_ASCII_WHITE = " \t\n\r\x0b\x0c"
_ASCII_SPACE = re.compile(rf"[{_ASCII_WHITE}]+")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)


@sensitive_variables("header", "splits")
def find_bearer(header: str) -> str | None:
    """Return the bearer token of an Authorization header, or None if the header contains no bearer token."""
    # Split the header in two ways, because some authenticators use `str.split` and others use `bytes.split`.
    # `str.split` splits at more kinds of white space. If both results contain a bearer token, the tokens differ only
    # in white space around the token, which `is_inst_access_token` ignores.
    splits = header.split(), _ASCII_SPACE.split(header.strip(_ASCII_WHITE))
    return next((words[1] for words in splits if len(words) == 2 and words[0].lower() == "bearer"), None)


@sensitive_variables("token")
def is_inst_access_token(token: str, issuers: Collection[str]) -> bool:
    """Return whether a bearer token is an InstAccess token, valid or not.

    Returns True for a token with five segments (the format of a JWE), and for a JWT whose `iss` is in `issuers`.
    """
    if token.count(".") != 2:
        return token.count(".") == 4
    found = find_issuers(token)
    return any(issuer in found for issuer in issuers)


@sensitive_variables("token", "segment", "raw", "text", "pairs")
def find_issuers(token: str) -> list[Any]:
    """Return every value of `iss` in an unverified JWT. The JWT is parsed as leniently as possible.

    A strict parser would not recognize a non-canonical encoding of an InstAccess token. DRF would then try the next
    authenticator, which may be lenient and accept a revoked token.
    """
    segment = _NOT_BASE64.sub("", token.split(".")[1].replace("+", "-").replace("/", "_"))
    try:
        raw = base64.urlsafe_b64decode(segment + "==")  # `urlsafe_b64decode` ignores surplus padding.
        text = raw.decode(json.detect_encoding(raw), "replace")
        pairs = None if nests_too_deep(text) else json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return []
    return [value for name, value in pairs if name == "iss"] if isinstance(pairs, tuple) else []
