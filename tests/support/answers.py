"""What the issuing endpoint answers, byte for byte: written out a second time, so that a slip in the code shows."""

from __future__ import annotations

from typing import Any

from instaccess.keys import ring
from instaccess.tokens import jose

CHALLENGE = 'Bearer realm="canvas-lms"'

JWT_FROM_JWT = (403, b'{"error":"cannot generate a JWT when authorized by a JWT"}', None)
UNAUTHENTICATED = (
    401,
    b'{"status":"unauthenticated","errors":[{"message":"user authorization required"}]}',
    CHALLENGE,
)
INVALID = (401, b'{"errors":[{"message":"Invalid access token."}]}', CHALLENGE)
EXPIRED = (401, b'{"errors":[{"message":"Expired access token."}]}', CHALLENGE)
INSUFFICIENT_SCOPE = (401, b'{"errors":[{"message":"Insufficient scopes on access token."}]}', None)
INVALID_AS_USER_ID = (401, b'{"errors":"Invalid as_user_id"}', None)
UNAVAILABLE = (503, b'{"errors":[{"message":"The service is temporarily unavailable."}]}', None)
METHOD_NOT_ALLOWED = (405, b'{"errors":[{"message":"Method not allowed."}]}', None)
BAD_REQUEST = (400, b'{"errors":[{"message":"Bad request."}]}', None)


def answer(response: Any) -> tuple[int, bytes, str | None]:
    """What a client of Canvas branches on: the status, the body, and whether there is a challenge.

    Every answer is JSON that nobody may keep.
    """
    assert response["Content-Type"].partition(";")[0] == "application/json"
    assert response["Cache-Control"] == "no-store"
    return response.status_code, response.content, response.get("WWW-Authenticate")


def signed_inside(token: str) -> str:
    """The JWS in an issued token."""
    return jose.decrypt(token, ring.current_ring().decryption_keys())[0]


def claims_of(token: str) -> dict[str, Any]:
    """The claims set of an issued token, encrypted or not, its signature checked."""
    signed = signed_inside(token) if token.count(".") == 4 else token
    return jose.verify(signed, ring.current_ring().verification_keys())[0]
