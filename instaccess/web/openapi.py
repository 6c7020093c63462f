"""The descriptions of views and authentication classes for drf-spectacular, which generates OpenAPI schemas."""

from __future__ import annotations

import sys
from importlib import import_module


def load_openapi(module: str) -> None:
    """Import a module with extensions for drf-spectacular, if the project uses drf-spectacular.

    drf-spectacular finds an extension as soon as the extension is imported. The module of a view or an authentication
    class calls this function. A project therefore doesn't need to import anything, or to list this app in
    INSTALLED_APPS. Django imports all packages in INSTALLED_APPS before a view is imported, so drf-spectacular is
    already imported if the project uses it. In other projects, nothing is imported, because the import would make the
    start of every worker slower.
    """
    if sys.modules.get("drf_spectacular") is not None:
        import_module(module)
