"""Expected responses, parts of requests, and spellings of header names, for the tests behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support import readme

SELF = "/api/v1/users/self"
INVALID = b'{"errors":[{"message":"Invalid access token."}]}'
UNAVAILABLE = b'{"errors":[{"message":"The service is temporarily unavailable."}]}'
HOST = "Host: 127.0.0.1"
CLOSE = "Connection: close"
HTTP_2_UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
)
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

PROTECTED_HEADERS = [
    name
    for row in readme.tables(readme.section("Headers that only a proxy may set", readme.page("proxies.md")))[0]
    for name in readme.code(row[0])
]
"""The headers that no example may forward from a client, as listed in docs/proxies.md."""


def bearer(text: str) -> str:
    scheme, _, token = text.partition(" ")
    assert scheme == "Bearer"
    return token


def authorization(token: str) -> str:
    return f"Authorization: Bearer {token}"


def spellings() -> Iterator[list[str]]:
    """Yield the protected headers in each spelling that an application could read as the same names."""
    for change in (str, str.lower, str.upper, str.swapcase):
        yield [change(name) for name in PROTECTED_HEADERS]
    for separator in "_.~+!#$%&'*^`|":
        yield [name.replace("-", separator) for name in PROTECTED_HEADERS if "-" in name]
    for separator in "_.":
        yield [name.replace("-", separator, 1) for name in PROTECTED_HEADERS if name.count("-") > 1]
        yield [separator.join(name.rsplit("-", 1)) for name in PROTECTED_HEADERS if name.count("-") > 1]
