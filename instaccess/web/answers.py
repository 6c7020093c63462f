"""Canvas's error responses (docs/wire-contract.md §1).

Bodies, statuses and headers are exactly as in Canvas, because clients may compare a response byte by byte.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.http import HttpResponse

from ..conf import Conf, conf
from ..exceptions import InstAccessError, Reason
from ..times import format_rfc3339

# The newline is part of each body, because some clients compare the whole body, including the newline.
THROTTLED = {
    429: "429 Too Many Requests (Rate Limit Exceeded)\n",
    403: "403 Forbidden (Rate Limit Exceeded)\n",
}
"""A mapping from HTTP status to the response body of a throttled request."""

# One encoder is shared, because `json.dumps` with separators would create a new encoder for each call.
_encode = json.JSONEncoder(separators=(",", ":")).encode

RETRY_AFTER = 10
"""The time, in seconds, after which a client may retry a request that got a 503 (RFC 9110 §10.2.3)."""


class Refusal(InstAccessError):
    """The base class of the exceptions that become error responses.

    Args:
        detail: the precise reason, for the log only.
        code: the machine-readable reason, for the log only.
        user, client_id: the user and client that were refused, if known. The log, the refusal counts and the signal
            `token_refused` contain them, but the response doesn't.
        access_token_pk: the primary key of a valid access token. If given, the response contains the level of the
            access token's throttling bucket.
        cost: the amount by which the request raised the level of the bucket, for the header `X-Request-Cost`.
    """

    status = 401
    body: Any = None
    challenge = False

    def __init__(
        self,
        detail: str = "",
        *,
        code: Reason,
        user: Any = None,
        client_id: str = "",
        access_token_pk: Any = None,
        cost: int = 0,
    ) -> None:
        super().__init__(detail, code=code)
        self.user = user
        self.client_id = client_id
        self.access_token_pk = access_token_pk
        self.cost = cost

    def to_response(self) -> HttpResponse:
        """Build the HTTP response."""
        response = json_response(self.body, status=self.status)
        if self.challenge:
            # canvasapi uses this header to distinguish an invalid token from a missing permission.
            response["WWW-Authenticate"] = challenge()
        return response


def challenge(values: Conf = conf) -> str:
    """Return the value of `WWW-Authenticate` (RFC 6750 §3). Raises ConfigError if REALM is invalid."""
    return f'Bearer realm="{values.realm}"'


def _message(text: str) -> dict[str, Any]:
    return {"errors": [{"message": text}]}


class Unauthenticated(Refusal):
    """The refusal of a request without credentials."""

    body = {"status": "unauthenticated", **_message("user authorization required")}
    challenge = True


class InvalidAccessToken(Refusal):
    """The refusal of a token. The response is the same for every reason, so that clients can't learn the reason."""

    body = _message("Invalid access token.")
    challenge = True


class ExpiredAccessToken(Refusal):
    """The refusal of an access token that expired at `expired_at` and can't be refreshed.

    A client that gets this response must ask its user for a new authorization.
    """

    challenge = True

    def __init__(self, *, expired_at: datetime, **refused: Any) -> None:
        super().__init__(code=Reason.EXPIRED, **refused)
        self.body = {"errors": [{"message": "Expired access token.", "expired_at": format_rfc3339(expired_at)}]}


class InsufficientScope(Refusal):
    """The refusal of an access token that lacks the scope that the issuing endpoint requires."""

    body = _message("Insufficient scopes on access token.")


class InvalidAsUserId(Refusal):
    """The refusal of an `as_user_id` that is unknown, malformed or not allowed."""

    body = {"errors": "Invalid as_user_id"}


class JWTFromJWT(Refusal):
    """The refusal of an InstAccess token, which can't be exchanged for another InstAccess token."""

    status = 403
    body = {"error": "cannot generate a JWT when authorized by a JWT"}


class Throttled(Refusal):
    """The refusal of a request because the throttling bucket of the access token is full.

    As in Canvas, the response is plain text and not JSON.
    """

    def __init__(self, *, retry_after: int, **refused: Any) -> None:
        super().__init__(code=Reason.THROTTLED, **refused)
        self.status = conf.throttle_status
        self.retry_after = retry_after

    def to_response(self) -> HttpResponse:
        body = THROTTLED[self.status]
        response = HttpResponse(body, status=self.status, content_type="text/plain; charset=utf-8")
        if self.status == 429:
            response["Retry-After"] = str(self.retry_after)
        return response


class MethodNotAllowed(Refusal):
    """The refusal of a request whose HTTP method the endpoint does not accept."""

    status = 405
    body = _message("Method not allowed.")


class BadRequest(Refusal):
    """The refusal of a request that Django rejects, for example because ALLOWED_HOSTS doesn't contain the host."""

    status = 400
    body = _message("Bad request.")


class Unavailable(Refusal):
    """The response to a request that can't be accepted or refused because of a server-side error."""

    status = 503
    body = _message("The service is temporarily unavailable.")

    def to_response(self) -> HttpResponse:
        response = super().to_response()
        response["Retry-After"] = str(RETRY_AFTER)
        return response


def json_response(body: Any, *, status: int) -> HttpResponse:
    """Build a response with compact JSON, as in Canvas. The settings of Django REST framework have no effect."""
    return HttpResponse(_encode(body), status=status, content_type="application/json; charset=utf-8")
