"""What every view of this app needs to be left alone by the project around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt


def isolated_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A view that a host project's settings leave alone.

    ATOMIC_REQUESTS, on whichever database, would take the audit row back with a later error; LoginRequiredMiddleware
    would send a bearer of a token to a login page.
    """

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return view(request, *args, **kwargs)

    # No view of ours takes cookies for credentials, so there is nothing to forge across sites.
    wrapped = csrf_exempt(wrapped)
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(wrapped)
    wrapped.login_required = False  # type: ignore[attr-defined]
    return wrapped
