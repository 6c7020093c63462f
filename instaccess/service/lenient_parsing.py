"""Lenient parsing of unverified JWTs, only to decide which authenticator verifies a token."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ..tokens import nests_too_deep

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)


@sensitive_variables("token", "segment", "raw", "text", "pairs")
def find_issuers(token: str) -> list[Any]:
    """Return every value of `iss` in an unverified JWT. The JWT is parsed as leniently as possible.

    A strict parser would not recognize a non-canonical encoding of an InstAccess token. DRF would then try the next
    authenticator, which may be lenient and accept a revoked token.
    """
    segment = _NOT_BASE64.sub("", token.split(".")[1].replace("+", "-").replace("/", "_"))
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        text = raw.decode(json.detect_encoding(raw), "replace")
        pairs = None if nests_too_deep(text) else json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return []
    return [value for name, value in pairs if name == "iss"] if isinstance(pairs, tuple) else []
