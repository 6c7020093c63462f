"""Authentication of Starlette requests by InstAccess tokens (extra `starlette`).

Only Starlette and FastAPI projects import this module. The module needs no Django settings.
"""

# This module has no `from __future__ import annotations`, because some versions of FastAPI can't resolve annotations
# that are strings if the dependency is an object.

from collections.abc import Collection, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from ..exceptions import ForeignToken, InstAccessError, InvalidToken, NoToken, Reason
from ..tokens import Claims
from ..web import RETRY_AFTER, Fault, InvalidAccessToken, Unauthenticated, Unavailable
from .permissions import Condition, check_conditions, is_allowed
from .refusals import FORBIDDEN, describe_fault, log_fault, log_refusal
from .verifier import Verifier


class Refused(HTTPException):
    """The refusal of a request. After a call of `answer_refusals`, the application sends `body` to the client."""

    def __init__(self, status_code: int, body: Mapping[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(status_code, body["errors"][0]["message"], headers)
        self.body = body

    def to_response(self) -> Response:
        """Return the response, with the same bytes as the response of a Django service."""
        return JSONResponse(self.body, self.status_code, self.headers)


class TokenRequired:
    """A callable object that returns the claims of a request's token: `claims = await token_required(request)`.

    FastAPI accepts the object as a dependency. `instaccess.service.fastapi` contains a subclass with a security
    scheme for OpenAPI.

    Args:
        verifier: the verifier. Share one verifier in the whole application, because the verifier caches the keys.
        allow: conditions from `instaccess.service.permissions`, or other functions that get the claims. If a
            condition isn't fulfilled, the response is a 403.
    """

    def __init__(self, verifier: Verifier, *, allow: Collection[Condition] = ()) -> None:
        self._verifier = verifier
        self._conditions = check_conditions(allow)

    async def __call__(self, connection: HTTPConnection) -> Claims:
        """Return the claims. Raises Refused with the status 401, 403 or 503."""
        try:
            claims = await find_claims(connection, self._verifier)
        except NoToken:
            claims = None
        except ForeignToken:
            raise Refused(401, InvalidAccessToken.body, _challenge(self._verifier)) from None
        if claims is None:
            raise Refused(401, Unauthenticated.body, _challenge(self._verifier))
        if not is_allowed(claims, self._conditions):
            raise Refused(403, FORBIDDEN)
        return claims


class InstAccessUser(BaseUser):
    """The user of a token. `claims` contains the claims of the token."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.claims.user_uuid

    @property
    def identity(self) -> str:
        return self.claims.user_uuid


class _BackendRefused(AuthenticationError):
    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.detail)
        self.refused = refused


class InstAccessBackend(AuthenticationBackend):
    """A backend for Starlette's AuthenticationMiddleware, which sets `request.user` and `request.auth`.

    A request without an InstAccess token has an unauthenticated user. Pass `on_error=InstAccessBackend.on_error` to
    the middleware, so that a refused request gets Canvas's 401 or 503. Starlette's default is a 400.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        refused: Refused
        try:
            claims = await find_claims(conn, self._verifier)
            return AuthCredentials(["authenticated"]), InstAccessUser(claims)
        except (NoToken, ForeignToken):
            return None
        except Refused as error:
            refused = error
        raise _BackendRefused(refused)

    @staticmethod
    def on_error(conn: HTTPConnection, error: Exception) -> Response:
        """Return the response to a refused request."""
        if isinstance(error, _BackendRefused):
            return error.refused.to_response()
        return JSONResponse(InvalidAccessToken.body, 401)


async def find_claims(connection: HTTPConnection, verifier: Verifier) -> Claims:
    """Return the claims of a request's token.

    Raises:
        NoToken, ForeignToken: the request contains no InstAccess token of an accepted issuer.
        Refused: the token is invalid, or can't be checked.
    """
    fault: Fault | None = None
    reason = Reason.FAULT
    detail = ""
    known: dict[str, str] = {}
    refused: Refused
    try:
        # Join several Authorization headers with a comma, as the servers of Django do. The joined string is not a
        # valid header, so its tokens are not accepted.
        return await verifier.averify(",".join(connection.headers.getlist("authorization")))
    except (NoToken, ForeignToken):
        raise
    except InvalidToken as refusal:
        reason, detail = refusal.code, refusal.detail
        known = {name: getattr(refusal, name) for name in ("jti", "user_uuid", "client_id")}
        refused = Refused(401, InvalidAccessToken.body, _challenge(verifier))
    except InstAccessError as error:
        fault = describe_fault(error)
        refused = Refused(503, Unavailable.body, {"Retry-After": str(RETRY_AFTER)})
    # Log and raise `refused` after the `except` blocks. Within a block, a log handler or an error report could reach
    # the caught exception, whose frames contain the token.
    if fault is not None:
        log_fault(fault)
    else:
        log_refusal(reason, detail, known, connection.client.host if connection.client else None)
    raise refused


def _challenge(verifier: Verifier) -> dict[str, str]:
    return {"WWW-Authenticate": verifier.challenge()}


async def _send_refusal(connection: Any, refused: Any) -> Response | None:
    response: Response = refused.to_response()
    if not isinstance(connection, WebSocket):
        return response
    if "websocket.http.response" in connection.scope.get("extensions", {}):
        await connection.send_denial_response(response)
    else:
        await connection.close(1008)
    return None


def answer_refusals(app: Starlette) -> None:
    """Make an application send refusals with Canvas's bodies and headers.

    If the server can't send a response to a WebSocket handshake, the connection is closed with the code 1008.
    """
    app.add_exception_handler(Refused, _send_refusal)  # type: ignore[arg-type]
