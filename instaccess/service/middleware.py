"""Authentication of all requests to a Django project by InstAccess tokens, without Django REST framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ..web import reads_own_credentials
from .identity import identify, protect_from_caches, set_no_identity
from .request_authentication import RequestAuthentication


class InstAccessMiddleware:
    """Set `request.user` and `request.instaccess` from the InstAccess token of each request.

    `request.instaccess` contains the claims, or None if the request contains no InstAccess token. For a request
    without an InstAccess token, the session or another middleware sets `request.user`, and the CSRF check applies. A
    request with an invalid InstAccess token gets a 401. If a server-side error prevents the check of the token, the
    response is a 503. Both responses are sent without calling the view. A request with a valid token needs no CSRF
    token, because the session of the request is not used.

    The issuer, the gateway and the other views of this app read the Authorization header themselves, so the
    middleware doesn't check a token in a request to these views. Synchronous and asynchronous views are supported.

    To change the authentication, write a subclass that sets `authentication` to its own `RequestAuthentication`
    object.
    """

    sync_capable = True
    async_capable = True

    authentication = RequestAuthentication()

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._call_asynchronously(request)
        refusal = self._identify(request)
        return protect_from_caches(request, refusal or self.get_response(request))

    async def _call_asynchronously(self, request: HttpRequest) -> HttpResponseBase:
        if request.META.get("HTTP_AUTHORIZATION") or type(self.authentication) is not RequestAuthentication:
            # Use a thread, because a database query for the keys or the user would block the event loop. A subclass
            # may read the token from another header.
            refusal = await sync_to_async(self._identify)(request)
        else:
            refusal = self._identify(request)
        return protect_from_caches(request, refusal or await self.get_response(request))

    def _identify(self, request: HttpRequest) -> HttpResponse | None:
        if request.META.get("HTTP_AUTHORIZATION") and reads_own_credentials(request):
            set_no_identity(request)
            return None
        return identify(request, self.authentication)
