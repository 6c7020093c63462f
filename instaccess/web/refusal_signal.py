"""The signal `token_refused`, which all roles send."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from .. import signals
from .origin import client_address_or_none


def announce_refusal(
    role: str,
    reason: str,
    *,
    status: int,
    request: HttpRequest,
    user_id: Any = None,
    user_uuid: str = "",
    client_id: str = "",
    jti: str = "",
) -> None:
    """Send the signal `token_refused` immediately. `signals.TokenRefused` describes the arguments.

    The signal doesn't wait for the commit of a transaction, for three reasons. A refusal changes no row. Some
    gateways have no database. If ATOMIC_REQUESTS is on, Django REST framework rolls back the transaction of a refused
    request, so a signal that waits for the commit would never be sent.

    Call this function outside of `except` blocks (see `FactSignal.announce`).
    """

    def build_facts() -> signals.TokenRefused:
        return {
            "role": role,
            "reason": str(reason),
            "status": status,
            "user_id": user_id,
            "user_uuid": user_uuid,
            "client_id": client_id,
            "jti": jti,
            "ip_address": client_address_or_none(request),
        }

    signals.token_refused.announce(None, build_facts)
