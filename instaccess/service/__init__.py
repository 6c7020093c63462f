"""The service role: authentication of requests that contain a signed token.

Django imports this package during the setup of `INSTALLED_APPS`, before Django REST framework can be imported. The
file `authentication.py` imports the framework. This package therefore imports that file only when a name from the
file is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .local_tables import use
from .token_user import TokenUser

if TYPE_CHECKING:
    from .authentication import AcceptedClaims, InstAccessAuthentication

__all__ = ["AcceptedClaims", "InstAccessAuthentication", "TokenUser", "use"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(".authentication", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
