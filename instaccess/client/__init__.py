"""A client of an issuer: gets an InstAccess token, caches and renews the token, and adds the token to requests.

The package works against Canvas and against this project, and needs neither Django nor settings. The package imports
`httpx` only when `HttpxAuth` is used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AccessTokenExpired,
    AccessTokenRefused,
    ClientError,
    EndpointNotFound,
    ForeignOrigin,
    InsufficientScope,
    InvalidArgument,
    InvalidAsUserID,
    IssuerUnavailable,
    RateLimited,
    UnexpectedResponse,
    UntrustedCertificate,
)
from .requests_auth import RequestsAuth
from .token_source import InstAccess

if TYPE_CHECKING:
    from .httpx_auth import HttpxAuth

__all__ = [
    "AccessTokenExpired",
    "AccessTokenRefused",
    "ClientError",
    "EndpointNotFound",
    "ForeignOrigin",
    "HttpxAuth",
    "InstAccess",
    "InsufficientScope",
    "InvalidArgument",
    "InvalidAsUserID",
    "IssuerUnavailable",
    "RateLimited",
    "RequestsAuth",
    "UnexpectedResponse",
    "UntrustedCertificate",
]


def __getattr__(name: str) -> Any:
    if name == "HttpxAuth":
        return import_module(".httpx_auth", __name__).HttpxAuth
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
