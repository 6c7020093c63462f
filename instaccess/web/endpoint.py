"""A decorator that exempts this app's views from a setting and from middleware of the host project."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import resolve
from django.views.decorators.csrf import csrf_exempt


def isolated_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Exempt a view from ATOMIC_REQUESTS, LoginRequiredMiddleware, InstAccessMiddleware and the CSRF check.

    If ATOMIC_REQUESTS is on, an error after the audit row was written would roll back the row.
    LoginRequiredMiddleware would redirect clients to a login page. InstAccessMiddleware would refuse the encrypted
    tokens in requests to a gateway.
    """

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return view(request, *args, **kwargs)

    # The CSRF check isn't needed, because the views of this app don't accept cookies as credentials.
    wrapped = csrf_exempt(wrapped)
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(wrapped)
    wrapped.login_required = False  # type: ignore[attr-defined]
    wrapped.reads_own_credentials = True  # type: ignore[attr-defined]
    return wrapped


def reads_own_credentials(request: HttpRequest) -> bool:
    """Return whether the URL of a request refers to a view of this app, which reads the Authorization header."""
    # Ignore errors, because the URL may be unknown or the project's URLconf may be invalid.
    with suppress(Exception):
        match = request.resolver_match or resolve(request.path_info, getattr(request, "urlconf", None))
        return getattr(match.func, "reads_own_credentials", False) is True
    return False
