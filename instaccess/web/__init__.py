"""Code that the views of all roles share. This package imports no models."""

from .answers import (
    RETRY_AFTER,
    THROTTLED,
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
    challenge,
    json_response,
)
from .endpoint import isolated_view, reads_own_credentials
from .explanations import Explanation
from .faults import Fault, skip_request_log
from .faults import outages as outage_log
from .openapi import load_openapi
from .origin import account_uuid, client_address, client_address_or_none, request_domain
from .parameters import forget_parameters, takes_secrets
from .reasons import ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE, Variant, explain
from .recorder import Recorder, metrics
from .refusal_signal import announce_refusal
from .refusals import counter as refusal_counter
from .tally import Kind
from .unexpected import describe_unexpected

__all__ = [
    "ACCEPTED_BY_GATEWAY",
    "ACCEPTED_BY_SERVICE",
    "RETRY_AFTER",
    "THROTTLED",
    "BadRequest",
    "ExpiredAccessToken",
    "Explanation",
    "Fault",
    "InsufficientScope",
    "InvalidAccessToken",
    "InvalidAsUserId",
    "JWTFromJWT",
    "Kind",
    "MethodNotAllowed",
    "Recorder",
    "Refusal",
    "Throttled",
    "Unauthenticated",
    "Unavailable",
    "Variant",
    "account_uuid",
    "announce_refusal",
    "challenge",
    "client_address",
    "client_address_or_none",
    "describe_unexpected",
    "explain",
    "forget_parameters",
    "isolated_view",
    "json_response",
    "load_openapi",
    "metrics",
    "outage_log",
    "reads_own_credentials",
    "refusal_counter",
    "request_domain",
    "skip_request_log",
    "takes_secrets",
]
