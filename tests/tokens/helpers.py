"""Functions that build and read claims for the tests."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.exceptions import InvalidToken
from instaccess.tokens import Claims

ISSUER = "instructure:inst_access"
NOW = 1_800_000_000


def payload(**changes: Any) -> dict[str, Any]:
    """Return claims that are valid at the time NOW, with the given changes. The value `...` removes a claim."""
    members = {
        "iss": ISSUER,
        "jti": "2c3d",
        "iat": NOW,
        "exp": NOW + 3600,
        "sub": "ada",
        "acct": "acme",
        "canvas_domain": "canvas.example.edu",
    } | changes
    return {name: value for name, value in members.items() if value is not ...}


def read(members: dict[str, Any], *, now: float = NOW, issuer: str = ISSUER, **options: Any) -> Claims:
    return Claims.from_payload(members, now=now, issuers=[issuer], **options)


def refusal(members: dict[str, Any], **options: Any) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        read(members, **options)
    return caught.value
