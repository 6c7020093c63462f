"""The work that remains in other deployments after the revocation of a key."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy

from ..models import Key

RELOAD_JWKS = gettext_lazy(
    "Services in other deployments that read the JWKS accept tokens of this key for up to JWKS_MAX_AGE (300 "
    "seconds by default). Restart these services, or put these services behind a gateway."
)
REMOVE_PUBLIC_KEY = gettext_lazy(
    "If gateways or services list the key in VERIFICATION_KEYS, remove the key there, and restart "
    "these gateways and services."
)
REPLACE_PRIVATE_KEY = gettext_lazy(
    "If gateways in other deployments list the private key in DECRYPTION_KEYS, replace the private key there with "
    "the private key of the current encryption key, and restart these gateways."
)


def remaining_work(use: str) -> list[Any]:
    """Return the instructions for the work that remains after the revocation of a key with this use.

    The command and the admin show these instructions. The instructions are translated when they are converted to
    strings.
    """
    return [RELOAD_JWKS, REMOVE_PUBLIC_KEY] if use == Key.Use.SIGNING else [REPLACE_PRIVATE_KEY]
