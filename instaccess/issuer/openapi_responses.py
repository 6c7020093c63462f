"""The responses of the issuing endpoint and their headers, for drf-spectacular (see `openapi.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from .. import web
from ..conf import conf

_JSON, _TEXT = "application/json", "text/plain"
_UNAUTHENTICATED = (
    web.Unauthenticated,
    web.InvalidAccessToken,
    web.ExpiredAccessToken,
    web.InsufficientScope,
    web.InvalidAsUserId,
)
_EXPIRED_AT = datetime(2026, 11, 26, 18, 0, tzinfo=UTC)
_DESCRIPTIONS = {
    201: (
        "The token was issued and recorded. The token is encrypted, unless the client has requested an unencrypted "
        "token."
    ),
    400: "The server rejects the request, for example because the query has too many parameters.",
    401: (
        "The client gets no token. There are no credentials, or the access token is invalid, has expired or lacks "
        "the scope, or the caller is not allowed to masquerade as the user in `as_user_id`. After `Invalid access "
        "token.`, the client can refresh its access token. After `Expired access token.`, the client needs a new "
        "authorization."
    ),
    403: "The bearer token is an InstAccess token, which can't be exchanged for another InstAccess token.",
    503: "The service is temporarily unavailable. The client may retry the request.",
}
_THROTTLED = "The rate limit of the access token was exceeded."


def responses() -> dict[tuple[int, str], OpenApiResponse]:
    """Return the description of each response, by status and content type."""
    throttled = conf.throttle_status if conf.throttle_limit is not None else None
    described = {
        (201, _JSON): _json(201, [_object({"token": {"type": "string"}})], [("Token", {"token": "eyJhbGciOi…"})]),
        (400, _JSON): _json(400, [_errors("Bad request.")], [("Bad request", web.BadRequest.body)]),
        (401, _JSON): _json(401, list(_unauthenticated_schemas()), list(_unauthenticated_examples())),
        (403, _JSON): _json(
            403,
            [_object({"error": {"type": "string", "enum": [web.JWTFromJWT.body["error"]]}})],
            [("InstAccess token", web.JWTFromJWT.body)],
        ),
        (503, _JSON): _json(
            503, [_errors("The service is temporarily unavailable.")], [("Unavailable", web.Unavailable.body)]
        ),
    }
    if throttled is not None:
        schema = {"type": "string", "enum": [web.THROTTLED[throttled]]}
        described[throttled, _TEXT] = OpenApiResponse(schema, description=_THROTTLED)
    if throttled == 403:
        # drf-spectacular joins both responses with the status 403, and uses the description of the first response.
        described[403, _JSON].description += f" Or: {_THROTTLED}"
    return dict(sorted(described.items()))


def headers() -> Iterator[OpenApiParameter]:
    """Yield the headers of the responses, with the statuses of the responses that contain each header."""
    throttled = conf.throttle_status if conf.throttle_limit is not None else None
    statuses = sorted({*_DESCRIPTIONS, *filter(None, [throttled])})
    yield _header("Cache-Control", {"type": "string", "enum": ["no-store"]}, statuses, required=True)
    yield _header(
        "WWW-Authenticate",
        {"type": "string"},
        [401],
        f"`{web.challenge()}`. The header is absent if the scope is missing, and for an invalid `as_user_id`.",
    )
    cost = "The cost of the request, which was added to the level of the bucket of the access token."
    number = {"type": "integer", "minimum": 0}
    yield _header("X-Request-Cost", number, [s for s in statuses if s != throttled], cost, required=True)
    if throttled == 403:
        yield _header("X-Request-Cost", number, [403], f"{cost} The header is absent if the limit was exceeded.")
    if throttled is not None:
        yield _header(
            "X-Rate-Limit-Remaining",
            {"type": "number"},
            statuses,
            "The limit minus the level of the bucket, for an authenticated caller. If the cache is unavailable, the "
            "value is the limit.",
        )
    seconds = {"type": "integer", "minimum": 1}
    retrying = [503, *([429] if throttled == 429 else [])]
    yield _header("Retry-After", seconds, retrying, "The number of seconds to wait.", required=True)


def _header(
    name: str, schema: dict[str, Any], statuses: list[int], description: str = "", *, required: bool = False
) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        schema,
        OpenApiParameter.HEADER,
        description=description,
        required=required,
        response=statuses,
    )


def _json(status: int, schemas: list[dict[str, Any]], examples: list[tuple[str, Any]]) -> OpenApiResponse:
    return OpenApiResponse(
        schemas[0] if len(schemas) == 1 else {"oneOf": schemas},
        description=_DESCRIPTIONS[status],
        examples=[OpenApiExample(name, value, status_codes=[str(status)]) for name, value in examples],
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _errors(*messages: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of a body with one error object. `properties` are further members of the error object."""
    error = _object({"message": {"type": "string", "enum": list(messages)}, **properties})
    return _object({"errors": {"type": "array", "items": error, "minItems": 1, "maxItems": 1}})


def _unauthenticated_schemas() -> Iterator[dict[str, Any]]:
    message = web.Unauthenticated.body["errors"][0]["message"]
    with_status = _errors(message)
    status = {"type": "string", "enum": [web.Unauthenticated.body["status"]]}
    yield _object({"status": status, **with_status["properties"]})
    yield _errors(*(each.body["errors"][0]["message"] for each in (web.InvalidAccessToken, web.InsufficientScope)))
    yield _errors("Expired access token.", expired_at={"type": "string", "format": "date-time"})
    yield _object({"errors": {"type": "string", "enum": [web.InvalidAsUserId.body["errors"]]}})


def _unauthenticated_examples() -> Iterator[tuple[str, Any]]:
    yield "No credentials", web.Unauthenticated.body
    yield "Invalid access token", web.InvalidAccessToken.body
    yield "Expired access token", web.ExpiredAccessToken(expired_at=_EXPIRED_AT).body
    yield "Insufficient scope", web.InsufficientScope.body
    yield "Invalid as_user_id", web.InvalidAsUserId.body
