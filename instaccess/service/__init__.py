"""The service role: authentication of requests that contain a signed token.

Django imports this package during the setup of `INSTALLED_APPS`, before Django REST framework can be imported.
Services with other frameworks need neither Django REST framework nor Django's settings. This package therefore
imports the file that defines a name only when the name is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .authentication import InstAccessAuthentication
    from .decorators import token_required
    from .local_tables import use
    from .middleware import InstAccessMiddleware
    from .permissions import from_application, is_service_user, not_masquerading
    from .request_authentication import AcceptedClaims, RequestAuthentication
    from .token_user import TokenUser
    from .verifier import Verifier

__all__ = [
    "AcceptedClaims",
    "InstAccessAuthentication",
    "InstAccessMiddleware",
    "RequestAuthentication",
    "TokenUser",
    "Verifier",
    "from_application",
    "is_service_user",
    "not_masquerading",
    "token_required",
    "use",
]

_FILES = {
    "AcceptedClaims": "request_authentication",
    "InstAccessAuthentication": "authentication",
    "InstAccessMiddleware": "middleware",
    "RequestAuthentication": "request_authentication",
    "TokenUser": "token_user",
    "Verifier": "verifier",
    "from_application": "permissions",
    "is_service_user": "permissions",
    "not_masquerading": "permissions",
    "token_required": "decorators",
    "use": "local_tables",
}
"""A mapping from each public name to the file that defines the name."""


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
