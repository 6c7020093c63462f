"""Django REST framework authentication of the signed token (`docs/wire-contract.md` §4)."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from ..web import RETRY_AFTER, InvalidAccessToken, Unavailable, load_openapi
from .request_authentication import AcceptedClaims, RequestAuthentication, challenge_or_bearer


class _Refused(APIException):
    """The refusal of a token: a 401 response with Canvas's body, identical for every reason.

    DRF's AuthenticationFailed is not used, because DRF would send the challenge of the view's first authenticator, or
    a 403 if the first authenticator has no challenge.
    """

    status_code = 401

    def __init__(self) -> None:
        # DRF's constructor, which sets only `detail`, is not called, because the constructor would convert the
        # strings of the body.
        detail: Any = InvalidAccessToken.body
        self.detail = detail
        self.auth_header = challenge_or_bearer()


class _Unavailable(APIException):
    status_code = 503
    wait = RETRY_AFTER

    def __init__(self) -> None:
        detail: Any = Unavailable.body
        self.detail = detail


class InstAccessAuthentication(RequestAuthentication, BaseAuthentication):
    """Authentication that sets `request.user` and `request.auth` from an InstAccess token.

    For an opaque bearer token or a JWT of another issuer, DRF tries the next authenticator. An InstAccess token that
    is malformed, expired or still encrypted is refused, and no other authenticator is tried. A subclass can override
    each of the four steps: `get_bearer`, `verify`, `get_claims`, `get_user`.
    """

    def authenticate(self, request: Request) -> tuple[Any, AcceptedClaims] | None:
        """Return the user and the claims, or None if the request contains no InstAccess token.

        Raises:
            APIException: the response is 401 if the token is refused, or 503 after a server-side error.
        """
        answer: type[APIException]
        try:
            return self.authenticate_request(request)
        except InvalidAccessToken:
            answer = _Refused
        except Unavailable:
            answer = _Unavailable
        # Raise after the `except` blocks. Within these blocks, the caught exception would become the `__context__` of
        # the new exception, so error reporters would print the frames of both exceptions.
        raise answer

    def authenticate_header(self, request: Request) -> str:
        """Return the value of WWW-Authenticate. Without this value, DRF would answer 403 instead of 401."""
        return challenge_or_bearer()


load_openapi("instaccess.service.openapi")
