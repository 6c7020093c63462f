"""Validation of the claims in a verified payload: the types of the values, and the times of the token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..exceptions import InvalidToken, Reason, TokenExpired

MAX_LIFETIME = 3600
"""The maximum lifetime of a token, in seconds.

Canvas's tokens are valid for one hour. A token with a longer lifetime is refused, even if its signature is valid.
"""

CLOCK_SKEW = 60
"""The maximum time, in seconds, by which the clock of an issuer may be ahead of the clock of a reader.

A token is refused if its `iat` is ahead of the reader's clock by more than this time and by more than LEEWAY.
"""

MAX_LEEWAY = 300
"""The largest value of LEEWAY, in seconds. LEEWAY is the time past `exp` for which a token is still accepted."""

AFTERLIFE = MAX_LEEWAY + CLOCK_SKEW
"""The time, in seconds past `exp`, after which every gateway refuses a token, even with the largest LEEWAY and clock
skew."""


def check_times(
    issued_at: int,
    expires_at: int,
    payload: Mapping[str, Any],
    now: float,
    leeway: int,
    max_lifetime: int,
) -> None:
    """Check the lifetime, `exp`, `iat` and `nbf` of a token, all in seconds.

    Args:
        payload: the verified payload, which may contain `nbf`.
        now: the current time, in seconds since the epoch.
        leeway: the time, in seconds past `exp`, for which a token is still accepted.
        max_lifetime: the largest accepted `exp - iat`, in seconds.

    Raises:
        TokenExpired: the token is past its `exp` and the leeway.
        InvalidToken: the lifetime, `iat` or `nbf` is not accepted; `code` is the precise reason.
    """
    if not 0 < expires_at - issued_at <= max_lifetime:
        raise InvalidToken(f"the lifetime (exp - iat) is not 1 to {max_lifetime} seconds", code=Reason.BAD_LIFETIME)
    if now >= expires_at + leeway:
        raise TokenExpired("the token has expired")
    if issued_at > now + max(CLOCK_SKEW, leeway):
        raise InvalidToken("the time of issue (iat) of the token is in the future", code=Reason.NOT_YET)
    if "nbf" in payload and get_seconds(payload, "nbf") > now + leeway:
        raise InvalidToken("the token is not valid yet", code=Reason.NOT_YET)


def get_seconds(payload: Mapping[str, Any], name: str) -> int:
    """Return a claim that must be an integer number of seconds since the epoch. Raises InvalidToken."""
    value = payload.get(name)
    # `isinstance` would accept True, because bool is a subclass of int. Numbers from 2**53 on are refused, because
    # some JSON parsers round such numbers.
    if type(value) is not int or not 0 <= value < 2**53:
        raise InvalidToken(f"{name} is not an integer from 0 to 2**53 - 1", code=Reason.BAD_CLAIM)
    return value


def get_string(payload: Mapping[str, Any], name: str) -> str:
    """Return a claim that must be a string with at least one character. Raises InvalidToken."""
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"{name} is not a non-empty string", code=Reason.BAD_CLAIM)
    return value


def get_id(payload: Mapping[str, Any], name: str) -> str:
    """Return a claim that must be a string or an integer. An integer is returned as a string. Raises InvalidToken."""
    value = format_id(payload.get(name))
    if not value:
        raise InvalidToken(
            f"{name} is neither a non-empty string nor an integer from 0 to 2**63 - 1", code=Reason.BAD_CLAIM
        )
    return value


def format_id(value: Any) -> str | None:
    """Return the value of an id claim as a string. An integer is formatted in decimal.

    Returns None for a value that is neither a string nor an integer from 0 to 2**63 - 1. Canvas's ids are signed
    64-bit integers.
    """
    if type(value) is int and 0 <= value < 2**63:
        return str(value)
    return value if isinstance(value, str) else None


def get_shard_id(payload: Mapping[str, Any], name: str) -> int | str:
    """Return the unchanged value of a claim that must be an integer or a non-empty string. Raises InvalidToken."""
    value = payload.get(name)
    if type(value) is int or (isinstance(value, str) and value):
        return value
    raise InvalidToken(f"{name} is neither an integer nor a non-empty string", code=Reason.BAD_CLAIM)
