"""The identity of a Django request.

The user and the claims of its InstAccess token replace the user and the data of the session.

A request with a valid token is authenticated by the token alone. An attacker's page can make a browser send the
cookies of a user, but can't make the browser send a token that the page doesn't have. A request with a valid token
therefore needs no CSRF check.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from ..exceptions import Reason
from ..web import InvalidAccessToken, Refusal, Unauthenticated, Unavailable, json_response
from .refusals import FORBIDDEN
from .request_authentication import AcceptedClaims, RequestAuthentication, challenge_or_bearer
from .token_user import NoUser

ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)


def identify(request: HttpRequest, authentication: RequestAuthentication) -> HttpResponse | None:
    """Set `request.instaccess` and `request.user`. Returns the response if the token is refused, otherwise None.

    If the request contains no InstAccess token, `request.instaccess` is None, and `request.user` is set only if no
    other middleware has set the user (see `set_no_identity`).
    """
    try:
        found = authentication.authenticate_request(request)
    except (InvalidAccessToken, Unavailable) as refusal:
        return refusal_response(refusal)
    if found is None:
        set_no_identity(request)
    else:
        set_identity(request, *found)
    return None


def needs_authentication(request: HttpRequest, own: RequestAuthentication | None) -> bool:
    """Return whether a view must authenticate a request.

    InstAccessMiddleware authenticates a request for all views without their own authentication. A subclass of the
    middleware may have stricter rules, or may read the token from another header. Views without their own
    authentication therefore use the result of the middleware.

    Args:
        own: the object that authenticates requests to this view only, or None.
    """
    return own is not None or not hasattr(request, "instaccess")


def set_identity(request: HttpRequest, user: Any, claims: AcceptedClaims) -> None:
    """Set the user and the claims of a request, and replace the session of the request with an empty session."""

    async def auser() -> Any:
        return user

    # Set these attributes with `setattr`, because HttpRequest doesn't declare all of them.
    attributes: dict[str, Any] = {"instaccess": claims, "user": user, "auser": auser}
    # This attribute turns off the checks of CsrfViewMiddleware. Django's test client sets this attribute too.
    attributes["_dont_enforce_csrf_checks"] = True
    # Replace these attributes and the session, because Django's `get_user` and other code would otherwise find the
    # user of the session.
    attributes["_cached_user"] = attributes["_acached_user"] = user
    if hasattr(request, "session"):
        attributes["session"] = import_module(settings.SESSION_ENGINE).SessionStore()
    for name, value in attributes.items():
        setattr(request, name, value)
    # Remove the session cookie from the request. Because the session above is empty, SessionMiddleware would
    # otherwise tell the browser to delete the cookie. If SessionMiddleware runs later, it loads no session.
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)


def set_no_identity(request: HttpRequest) -> None:
    """Mark a request as a request without an InstAccess token.

    If no other middleware has set `request.user`, the user is a NoUser.
    """
    attributes: dict[str, Any] = {"instaccess": None}
    if not hasattr(request, "user"):
        user = NoUser()

        async def auser() -> Any:
            return user

        attributes |= {"user": user, "auser": auser}
    for name, value in attributes.items():
        setattr(request, name, value)


def protect_from_caches(request: HttpRequest, response: ResponseT) -> ResponseT:
    """Add `Vary: Authorization` to a response, and `Cache-Control: private` if the request has a valid token.

    Without these headers, a cache could send the response of one user to another user. A cache could also send the
    response again after the token has expired or was revoked. Returns the response.
    """
    patch_vary_headers(response, ("Authorization",))
    if getattr(request, "instaccess", None) is not None:
        patch_cache_control(response, private=True)
    return response


def unauthenticated_response() -> HttpResponse:
    """Return the 401 for a request without a token."""
    return refusal_response(Unauthenticated(code=Reason.NO_CREDENTIALS))


def forbidden_response() -> HttpResponse:
    """Return the 403 for a valid token that doesn't fulfill the conditions of a view."""
    return json_response(FORBIDDEN, status=403)


def refusal_response(refusal: Refusal) -> HttpResponse:
    """Return the response to a refused request, with the same bytes as the response of Django REST framework."""
    if not refusal.challenge:
        return refusal.to_response()
    response = json_response(refusal.body, status=refusal.status)
    response["WWW-Authenticate"] = challenge_or_bearer()
    return response
