"""The exact responses of the issuing endpoint, and functions that read a response and the token in a response.

The responses are literals, so that a test fails if the code changes a response by accident.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from jwcrypto.common import base64url_decode

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
INSUFFICIENT_SCOPE = (401, b'{"errors":[{"message":"Insufficient scopes on access token."}]}', None)
INVALID_AS_USER_ID = (401, b'{"errors":"Invalid as_user_id"}', None)
UNAVAILABLE = (503, b'{"errors":[{"message":"The service is temporarily unavailable."}]}', None)
METHOD_NOT_ALLOWED = (405, b'{"errors":[{"message":"Method not allowed."}]}', None)
BAD_REQUEST = (400, b'{"errors":[{"message":"Bad request."}]}', None)


def expired(at: datetime) -> tuple[int, bytes, str]:
    """Return the response for an access token that expired at the given time and can't be refreshed."""
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    return 401, b'{"errors":[{"message":"Expired access token.","expired_at":"%b"}]}' % text, CHALLENGE


def answer(response: Any) -> tuple[int, bytes, str | None]:
    """Return the parts of a response on which Canvas clients depend: the status, the body and the challenge.

    Asserts that the response is JSON and has the header `Cache-Control: no-store`.
    """
    assert response["Content-Type"].partition(";")[0] == "application/json"
    assert response["Cache-Control"] == "no-store"
    return response.status_code, response.content, response.get("WWW-Authenticate")


def signed_inside(token: str) -> str:
    """Decrypt an issued token with the current keys. Returns the signed token that the issued token contains."""
    return jose.decrypt(token, ring.current_ring().decryption_keys())[0]


def unverified_parts(authorization: str) -> dict[str, Any]:
    """Decode the header and the claims of a signed token in an Authorization header, without any check."""
    header, payload, _ = authorization.removeprefix("Bearer ").split(".")
    parts: dict[str, Any] = json.loads(base64url_decode(header)) | json.loads(base64url_decode(payload))
    return parts


def unverified_jti(authorization: str) -> str:
    """Return the token id in an Authorization header with a signed token, without checking the signature."""
    return str(unverified_parts(authorization)["jti"])


def claims_of(token: str) -> dict[str, Any]:
    """Verify an encrypted or signed token with the current keys. Returns the claims set."""
    signed = signed_inside(token) if token.count(".") == 4 else token
    return jose.verify(signed, ring.current_ring().verification_keys())[0]
