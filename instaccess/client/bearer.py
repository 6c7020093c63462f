"""The Authorization header with a token. The functions keep the token out of error reports."""

from __future__ import annotations

from collections.abc import MutableMapping

from ..opaque import OpaqueText, concealed


@concealed
def add_token(headers: MutableMapping[str, str], token: OpaqueText) -> None:
    """Set the Authorization header to a token."""
    headers["Authorization"] = f"Bearer {token.reveal()}"


@concealed
def contains_token(headers: MutableMapping[str, str], token: OpaqueText) -> bool:
    """Return whether the Authorization header contains a token. A redirect to another host removes the header."""
    value = headers.get("Authorization") or ""
    return OpaqueText(value) == OpaqueText(f"Bearer {token.reveal()}")
