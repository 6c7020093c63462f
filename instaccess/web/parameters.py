"""Removal of the query and the form from a request, because error reports would contain their secrets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.core.signals import got_request_exception
from django.dispatch import receiver
from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from django.urls import resolve
from django.utils.datastructures import MultiValueDict
from django.views.decorators.debug import sensitive_post_parameters


def takes_secrets(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Decorate a view whose query or form can contain a secret, such as a private key or a token.

    If the view fails, error reports contain neither the query, nor the form, nor the files of the request.

    Decorate the view that the URL refers to. For an admin page, decorate the result of `AdminSite.admin_view`,
    because the database queries of `admin_view` can fail too.
    """

    @functools.wraps(view)
    @sensitive_post_parameters()
    def decorated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        if response.status_code >= 500:
            # Django sends an error report for each 5xx response, even if the view raised no exception.
            forget_parameters(request)
        return response

    decorated.takes_secrets = True  # type: ignore[attr-defined]
    return decorated


def forget_parameters(request: HttpRequest) -> None:
    """Remove the query, the form and the files from a request. Later error reports then don't contain secrets."""
    request.GET = QueryDict()
    request.META["QUERY_STRING"] = ""
    request.POST = QueryDict()
    request._files = MultiValueDict()  # type: ignore[attr-defined]
    request._body = b""


@receiver(got_request_exception)
def _forget_after_failure(*, request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Remove the parameters of a failed request to a view that takes secrets, before Django reports the failure.

    The view's decorator `takes_secrets` isn't enough. If a database query of a middleware fails, the decorator has
    not run yet. If DEBUG is on, Django ignores `sensitive_post_parameters`.
    """
    if request is None:
        return
    # Ignore errors, because the URL may be unknown or the project's URLconf may be invalid.
    with suppress(Exception):
        match = request.resolver_match or resolve(request.path_info, getattr(request, "urlconf", None))
        if getattr(match.func, "takes_secrets", False):
            forget_parameters(request)
