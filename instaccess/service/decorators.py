"""A decorator for Django views that require an InstAccess token, without Django REST framework."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ..exceptions import Reason
from ..web import InvalidAccessToken
from .identity import (
    forbidden_response,
    identify,
    needs_authentication,
    protect_from_caches,
    refusal_response,
    unauthenticated_response,
)
from .permissions import Condition, check_conditions, is_allowed
from .request_authentication import RequestAuthentication

View = Callable[..., Any]

_authentication = RequestAuthentication()


@overload
def token_required(view: View) -> View: ...
@overload
def token_required(
    *, allow: Collection[Condition] = (), authentication: RequestAuthentication | None = None
) -> Callable[[View], View]: ...
def token_required(
    view: View | None = None,
    *,
    allow: Collection[Condition] = (),
    authentication: RequestAuthentication | None = None,
) -> View | Callable[[View], View]:
    """Decorate a view that requires an InstAccess token.

    The view gets the claims in `request.instaccess` and the user in `request.user`. A request without a token or with
    an invalid token gets a 401. If a server-side error prevents the check of the token, the response is a 503. The
    session never authenticates a request to the view, so the view needs no CSRF check.

    The decorator works with and without `InstAccessMiddleware`, and with synchronous and asynchronous views.

    Args:
        view: the view, if the decorator is used without arguments.
        allow: conditions from `instaccess.service.permissions`, or other functions that get the claims. If a
            condition isn't fulfilled, the response is a 403.
        authentication: the object that authenticates requests to this view, even if InstAccessMiddleware has handled
            the request. By default, a request that the middleware has handled is not authenticated again.
    """
    conditions = check_conditions(allow)

    def decorate(view: View) -> View:
        def refuse(request: HttpRequest) -> HttpResponseBase | None:
            return _refuse(request, conditions, authentication)

        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                # Use a thread, because a database query for the keys or the user would block the event loop.
                refusal = await sync_to_async(refuse)(request)
                return protect_from_caches(request, refusal or await view(request, *args, **kwargs))
        else:

            @functools.wraps(view)
            def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return protect_from_caches(request, refuse(request) or view(request, *args, **kwargs))

        wrapped.csrf_exempt = True  # type: ignore[attr-defined]
        # Without this attribute, LoginRequiredMiddleware would redirect requests with a token to a login page.
        wrapped.login_required = False  # type: ignore[attr-defined]
        return wrapped

    return decorate if view is None else decorate(view)


def _refuse(
    request: HttpRequest, conditions: Collection[Condition], own: RequestAuthentication | None
) -> HttpResponseBase | None:
    """Return the response to a request that may not use the view, or None if the request may use the view.

    `own` is the object that authenticates requests to this view only, or None.
    """
    authentication = own or _authentication
    if needs_authentication(request, own) and (refusal := identify(request, authentication)) is not None:
        return refusal
    claims = getattr(request, "instaccess", None)
    if claims is None:
        if authentication.get_bearer(request) is not None:
            return refusal_response(InvalidAccessToken(code=Reason.FOREIGN_ISSUER))
        return unauthenticated_response()
    return None if is_allowed(claims, conditions) else forbidden_response()
