"""What Canvas answers (contract §1): bodies, statuses and headers, literally. Clients compare them byte by byte."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse

from ..conf import conf
from ..exceptions import InstAccessError, Reason

THROTTLED = "429 Too Many Requests (Rate Limit Exceeded)"

# `json.dumps` makes an encoder for each call that wants other separators than its own.
_encode = json.JSONEncoder(separators=(",", ":")).encode

RETRY_AFTER = 10
"""Seconds after which a client may try again when we are not able to serve it (RFC 9110 §10.2.3)."""


class Refusal(InstAccessError):
    """An answer that is not a token, as an exception.

    Args:
        detail: the precise reason, for the log only.
        code: the same, machine-readable.
        user, client_id: who was refused, where that is known; for the log only.
        access_token_pk: of an access token that is good as such: its holder is told how full the bucket is.
    """

    status = 401
    body: Any = None
    challenge = False

    def __init__(
        self, detail: str = "", *, code: Reason, user: Any = None, client_id: str = "", access_token_pk: Any = None
    ) -> None:
        super().__init__(detail, code=code)
        self.user = user
        self.client_id = client_id
        self.access_token_pk = access_token_pk

    def to_response(self) -> HttpResponse:
        response = json_response(self.body, status=self.status)
        if self.challenge:
            # Its presence is what makes canvasapi tell "invalid token" from "not authorized".
            response["WWW-Authenticate"] = challenge()
        return response


def challenge() -> str:
    """The value of `WWW-Authenticate` (RFC 6750 §3). Raises ConfigError for a bad REALM."""
    return f'Bearer realm="{conf.realm}"'


def _message(text: str) -> dict[str, Any]:
    return {"errors": [{"message": text}]}


class Unauthenticated(Refusal):
    """No credentials at all."""

    body = {"status": "unauthenticated", **_message("user authorization required")}
    challenge = True


class InvalidAccessToken(Refusal):
    """Unknown, unusable, or not ours: one answer for all of it."""

    body = _message("Invalid access token.")
    challenge = True


class ExpiredAccessToken(Refusal):
    body = _message("Expired access token.")
    challenge = True


class InsufficientScope(Refusal):
    body = _message("Insufficient scopes on access token.")


class InvalidAsUserId(Refusal):
    body = {"errors": "Invalid as_user_id"}


class JWTFromJWT(Refusal):
    """The caller came with an InstAccess token: no token begets another."""

    status = 403
    body = {"error": "cannot generate a JWT when authorized by a JWT"}


class Throttled(Refusal):
    """The access token's bucket is full. Plain text, as Canvas has it; never JSON."""

    def __init__(self, *, retry_after: int, **who: Any) -> None:
        super().__init__(code=Reason.THROTTLED, **who)
        self.status = conf.throttle_status
        self.retry_after = retry_after

    def to_response(self) -> HttpResponse:
        response = HttpResponse(THROTTLED, status=self.status, content_type="text/plain; charset=utf-8")
        response["Retry-After"] = str(self.retry_after)
        return response


class MethodNotAllowed(Refusal):
    status = 405
    body = _message("Method not allowed.")


class BadRequest(Refusal):
    """The request is not one Django would take either, such as a Host that is not ours."""

    status = 400
    body = _message("Bad request.")


class Unavailable(Refusal):
    status = 503
    body = _message("The service is temporarily unavailable.")

    def to_response(self) -> HttpResponse:
        response = super().to_response()
        response["Retry-After"] = str(RETRY_AFTER)
        return response


def json_response(body: Any, *, status: int) -> HttpResponse:
    """JSON in Canvas's compact spelling, whatever a project has set for its own API."""
    return HttpResponse(_encode(body), status=status, content_type="application/json; charset=utf-8")
