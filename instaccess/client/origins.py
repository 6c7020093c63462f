"""The origins (scheme, host and port) to which a client may send a token."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from .errors import InvalidArgument

_DEFAULT_PORTS = {"https": 443, "http": 80}
# URL parsers disagree about these characters, so a token could be sent to a different host than the caller expects.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, scheme: str | None, host: str | None, port: int | None) -> Origin:
        """Return the normalized origin. The default port of the scheme replaces a port that is None."""
        scheme, host = (scheme or "").lower(), (host or "").lower().strip("[]")
        return cls(scheme, host, port or _DEFAULT_PORTS.get(scheme))

    @classmethod
    def of_url(cls, url: str) -> Origin:
        """Parse a URL as the library `requests` does. Returns an origin without a host if the URL is invalid."""
        try:
            parsed = parse_url(url)
        except LocationParseError:
            return cls("", "", None)
        return cls.of(parsed.scheme, parsed.host, parsed.port)

    @property
    def is_safe(self) -> bool:
        """Whether a token may be sent to the origin: over TLS, or without TLS if the origin is this machine."""
        return bool(self.host) and (self.scheme == "https" or (self.scheme == "http" and self._is_loopback))

    @property
    def _is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port in (None, _DEFAULT_PORTS.get(self.scheme))
        return f"{self.scheme}://{host}" if default else f"{self.scheme}://{host}:{self.port}"


def parse_base_url(url: str, name: str = "base_url") -> str:
    """Check the base URL of an API. Returns the URL without a slash at its end.

    Args:
        url: the URL.
        name: the name of the argument, for the error.

    Raises:
        InvalidArgument: the URL can't be used. The message doesn't contain the URL, which could contain a password.
    """
    try:
        parsed = parse_url("" if _AMBIGUOUS.search(url) else url)
    except LocationParseError:
        parsed = parse_url("")
    origin = Origin.of(parsed.scheme, parsed.host, parsed.port)
    if origin.scheme not in _DEFAULT_PORTS or not origin.host:
        raise InvalidArgument(f"{name} is not a URL with a host. Use a URL such as https://canvas.example.edu.")
    if parsed.auth is not None or parsed.query is not None or parsed.fragment is not None:
        raise InvalidArgument(
            f"{name} contains a user name, a query or a fragment. Leave these parts out, for example "
            "https://canvas.example.edu."
        )
    path = (parsed.path or "").rstrip("/")
    if "/api/v1/" in f"{path}/":
        raise InvalidArgument(
            f"{name} contains the path /api/v1. Pass only the part before this path, for example "
            "https://canvas.example.edu."
        )
    if not origin.is_safe:
        raise InvalidArgument(
            f"{name} has the scheme http, so other computers could read the tokens. Use https. Only addresses of "
            "this machine, such as http://127.0.0.1:8000, may have the scheme http."
        )
    if origin.scheme == "http" and select_proxy(str(origin), get_environ_proxies(str(origin))) is not None:
        raise InvalidArgument(
            f"{name} has the scheme http, and the environment variable HTTP_PROXY or ALL_PROXY contains a proxy, so "
            "the tokens would be sent to the proxy without TLS. "
            f"Add {origin.host} to the environment variable NO_PROXY."
        )
    return f"{origin}{path}"
