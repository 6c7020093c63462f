"""System check of the health endpoints for `manage.py check --deploy`."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse


@register(deploy=True)
def check_redirects(**kwargs: Any) -> list[CheckMessage]:
    """Check that SECURE_SSL_REDIRECT does not redirect the probes of an issuer or a service.

    For a project with the URLs of a gateway, `instaccess.W010` reports the same setting.
    """
    paths = [_path("instaccess-ready-issuer"), _path("instaccess-ready-service")]
    redirected = [
        path
        for path in paths
        if path and not any(re.search(exempt, path) for exempt in settings.SECURE_REDIRECT_EXEMPT)
    ]
    if not settings.SECURE_SSL_REDIRECT or not redirected or _path("instaccess-ready-gateway"):
        return []
    return [
        Warning(
            "SECURE_SSL_REDIRECT redirects the probes of load balancers and Kubernetes to https. Kubernetes counts a "
            "redirect as success, so a process that can't answer requests would stay in use.",
            hint='Add r"^internal/" to the list SECURE_REDIRECT_EXEMPT. If the URLs of the probes have a prefix, '
            "write the prefix after `^`.",
            id="instaccess.W031",
        )
    ]


def _path(name: str) -> str:
    """Return the path of a named URL without the leading slash, or an empty string if no URL has this name."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return ""
    try:
        return reverse(name).lstrip("/")
    except (NoReverseMatch, ImproperlyConfigured):
        return ""
