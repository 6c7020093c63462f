"""Shared by the views of all roles. Never touches the database."""

from .answers import (
    BadRequest,
    ExpiredAccessToken,
    InsufficientScope,
    InvalidAccessToken,
    InvalidAsUserId,
    JWTFromJWT,
    MethodNotAllowed,
    Refusal,
    Throttled,
    Unauthenticated,
    Unavailable,
    json_response,
)
from .endpoint import isolated_view
from .origin import account_uuid, client_address, request_domain
from .reasons import Explanation, explain
from .refusals import count as count_refusal
from .refusals import rows, start
from .tally import Kind

__all__ = [
    "BadRequest",
    "ExpiredAccessToken",
    "Explanation",
    "InsufficientScope",
    "InvalidAccessToken",
    "InvalidAsUserId",
    "JWTFromJWT",
    "Kind",
    "MethodNotAllowed",
    "Refusal",
    "Throttled",
    "Unauthenticated",
    "Unavailable",
    "account_uuid",
    "client_address",
    "count_refusal",
    "explain",
    "isolated_view",
    "json_response",
    "request_domain",
    "rows",
    "start",
]
