"""A decorator that makes this app's views independent of the host project's settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt


def isolated_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Exempt a view from ATOMIC_REQUESTS, LoginRequiredMiddleware and the CSRF check.

    With ATOMIC_REQUESTS, an error after the audit row was written would roll back the row. LoginRequiredMiddleware
    would redirect clients to a login page.
    """

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return view(request, *args, **kwargs)

    # The CSRF check isn't needed, because the views of this app don't accept cookies as credentials.
    wrapped = csrf_exempt(wrapped)
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(wrapped)
    wrapped.login_required = False  # type: ignore[attr-defined]
    return wrapped
