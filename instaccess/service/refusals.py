"""The log line, the metric and the responses of a refusal, for all frameworks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..exceptions import Reason
from ..logs import get_logger
from ..web import Fault, metrics

logger = get_logger("instaccess.service")

FORBIDDEN: Mapping[str, Any] = {"errors": [{"message": "The access token does not allow this request."}]}
"""The body of the 403 for a valid token that doesn't fulfill the conditions of a view."""

_MAX_ID_CHARS = 64


def known_ids(ids: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of a token (`tokens.identifiers`), shortened for the log and for signals."""
    return {name: value[:_MAX_ID_CHARS] for name, value in ids.items()}


def log_refusal(reason: Reason, detail: str, known: Mapping[str, str], ip_address: str | None) -> None:
    """Log and count the refusal of a token. Call this function after the `except` block.

    Args:
        reason, detail: the attributes `code` and `detail` of the InvalidToken.
        known: the `known_ids` of the token, if the signature of the token has been verified.
        ip_address: the address of the client, or None if the address is unknown or invalid.
    """
    logger.warning(
        "refused reason=%(reason)s jti=%(jti)r detail=%(detail)r",
        reason=reason,
        jti=known.get("jti", ""),
        detail=detail,
        user_uuid=known.get("user_uuid", ""),
        client_id=known.get("client_id", ""),
        ip_address=ip_address,
    )
    metrics.refused("service", reason)


def describe_fault(error: Exception) -> Fault:
    """Describe a server-side error. Call this function in the `except` block, and `log_fault` after this block."""
    return Fault.of("the service could not check the token", error)


def log_fault(fault: Fault) -> None:
    """Log and count a server-side error that prevented the check of a token."""
    fault.log(logger)
    metrics.refused("service", Reason.FAULT)
