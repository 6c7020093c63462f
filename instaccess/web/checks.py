"""System check of the middleware of a gateway or a service. This module imports no models.

The number in the check id continues the numbers in `instaccess/audit/checks.py`.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def check_middleware(**kwargs: Any) -> list[CheckMessage]:
    """Check that the middleware of `django.contrib.auth` is used only if `django.contrib.auth` is installed.

    `startproject` lists the middleware. If a project removes `django.contrib.auth` but keeps the middleware, the
    server can't start. Django's error is about the model ContentType, and doesn't name the setting MIDDLEWARE.
    """
    middleware = [name for name in settings.MIDDLEWARE if name.startswith("django.contrib.auth.")]
    if not middleware or apps.is_installed("django.contrib.auth"):
        return []
    return [
        Error(
            f"The server can't start, because {', '.join(map(repr, middleware))} in MIDDLEWARE needs "
            "'django.contrib.auth', which is not in INSTALLED_APPS.",
            hint="Remove the middleware from MIDDLEWARE, because gateways and services need no sessions and no "
            "login. If other views of the project need the middleware, add 'django.contrib.auth' and "
            "'django.contrib.contenttypes' to INSTALLED_APPS.",
            id="instaccess.E063",
        )
    ]
