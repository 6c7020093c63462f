"""Authentication of the operations of django-ninja by InstAccess tokens (extra `ninja`).

Only projects with django-ninja import this module.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError
from ninja.security import HttpBearer

from ..web import Refusal
from .identity import (
    forbidden_response,
    needs_authentication,
    refusal_response,
    set_identity,
    unauthenticated_response,
)
from .lenient_parsing import find_bearer
from .permissions import Condition, check_conditions, is_allowed
from .request_authentication import AcceptedClaims, RequestAuthentication


class _Authentication(RequestAuthentication):
    def get_bearer(self, request: Any) -> str | None:
        # Read the header from `request.headers`, which ignores case. django-ninja's test client stores the header in
        # META as `HTTP_Authorization`, so a look-up of `HTTP_AUTHORIZATION` would find nothing.
        header: str = request.headers.get("Authorization", "")
        return find_bearer(header)


_authentication = _Authentication()


class Refused(HttpError):
    """The refusal of a request. After a call of `answer_refusals`, the API sends `response` to the client."""

    def __init__(self, response: HttpResponse, message: str) -> None:
        super().__init__(response.status_code, message)
        self.response = response


class InstAccessBearer(HttpBearer):
    """An authenticator for the argument `auth` of an API, a router or an operation.

    The operation gets the claims in `request.auth` and `request.instaccess`, and the user in `request.user`. If a
    request contains no InstAccess token, django-ninja tries the next authenticator in the list `auth`. If a request
    contains an invalid InstAccess token, the request is refused, and no other authenticator is tried. Call
    `answer_refusals` with the API, so that refusals have Canvas's bodies and headers.

    Args:
        allow: conditions from `instaccess.service.permissions`, or other functions that get the claims. If a
            condition isn't fulfilled, the response is a 403.
        authentication: the object that authenticates requests to the operation, even if InstAccessMiddleware has
            handled the request. By default, a request that the middleware has handled is not authenticated again.
    """

    openapi_bearerFormat: str = "JWT"  # django-ninja writes this value to the OpenAPI schema.

    def __init__(
        self, *, allow: Collection[Condition] = (), authentication: RequestAuthentication | None = None
    ) -> None:
        super().__init__()
        self._conditions = check_conditions(allow)
        self._own = authentication

    def __call__(self, request: HttpRequest) -> AcceptedClaims | None:
        claims: AcceptedClaims | None = (
            self._authenticate(request)
            if needs_authentication(request, self._own)
            else getattr(request, "instaccess", None)
        )
        if claims is None:
            return None
        if not is_allowed(claims, self._conditions):
            raise Refused(forbidden_response(), "The access token does not allow this request.")
        return claims

    def authenticate(self, request: HttpRequest, token: str) -> AcceptedClaims | None:
        """Authenticate a request. `token` is ignored, because the token is read from the request."""
        return self(request)

    def _authenticate(self, request: HttpRequest) -> AcceptedClaims | None:
        refused: Refused
        try:
            found = (self._own or _authentication).authenticate_request(request)
        except Refusal as refusal:
            refused = Refused(refusal_response(refusal), refusal.body["errors"][0]["message"])
        else:
            if found is None:
                return None
            set_identity(request, *found)
            return found[1]
        raise refused


def answer_refusals(api: NinjaAPI) -> None:
    """Make an API send refusals with Canvas's bodies and headers.

    A request that no authenticator accepts gets Canvas's 401 for a request without credentials.
    """

    def answer(request: HttpRequest, error: Any) -> HttpResponse:
        return error.response if isinstance(error, Refused) else unauthenticated_response()

    api.add_exception_handler(Refused, answer)
    api.add_exception_handler(AuthenticationError, answer)
