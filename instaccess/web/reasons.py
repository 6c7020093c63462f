"""Explanations of refusals and accepted tokens, for operators, with more detail than the reason codes give.

Clients never receive the explanations, only a uniform response. The module `explanations` contains one
explanation per reason code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from django.utils.translation import gettext_lazy as _

from ..exceptions import Reason
from .explanations import EXPLANATIONS, Explanation


class Variant(StrEnum):
    """The state of the key whose id a refused token contains.

    `ALTERED`: the row of the key was modified. `REVOKED`: the key was revoked. `GONE`: the key was retired so long
    ago that its tokens have expired. `ELSEWHERE`: the private key is stored on another server.
    """

    ALTERED = "altered"
    REVOKED = "revoked"
    GONE = "gone"
    ELSEWHERE = "elsewhere"


DETAILED: Mapping[tuple[Reason, Variant], Explanation] = {
    (Reason.UNKNOWN_KID, Variant.ALTERED): Explanation(
        _("The row of the token's key was modified or inserted without this app. All tokens of the key are refused."),
        _(
            "Run `python manage.py check --database default`, which reports the row and the command that fixes the "
            "problem. Find out who modified the database."
        ),
    ),
    (Reason.UNKNOWN_KID, Variant.REVOKED): Explanation(
        _(
            "The key of the token was revoked. All tokens of this key are refused. Do not trust the content of the "
            "token."
        ),
        _("Make the client get a new token. An attacker who has stolen the key can create tokens with any content."),
    ),
    (Reason.UNKNOWN_KID, Variant.GONE): Explanation(
        _("The key of the token was retired so long ago that all tokens of this key have expired."),
        _("Make the client get a new token at least once per hour, because the client keeps its token for too long."),
    ),
    (Reason.UNKNOWN_KID, Variant.ELSEWHERE): Explanation(
        _("Only the public key is stored on this server, so only the gateway can decrypt the token."),
        _("Inspect the token on the gateway's server, or paste the signed token that services receive."),
    ),
    (Reason.NO_KEY, Variant.ELSEWHERE): Explanation(
        _("No private encryption key is stored on this server, so only the gateway can decrypt the token."),
        _("Inspect the token on the gateway's server, or paste the signed token that services receive."),
    ),
}

ACCEPTED_BY_GATEWAY = Explanation(
    _("The gateway accepts this token and forwards the signed token inside this token to the service."),
    _("If requests with this token still fail, check the log of the service for the reason."),
)
ACCEPTED_BY_SERVICE = Explanation(
    _("A service accepts this signed token. The gateway forwards such tokens; services don't query the deny list."),
    _(
        "Only the gateway and the services should receive the token. If the token appeared anywhere else, revoke the "
        "token and find out how the token leaked."
    ),
)


def explain(reason: Reason, variant: Variant | None = None) -> Explanation:
    """Return the explanation of a reason code.

    For a hook's own code, which isn't in `Reason`, returns the explanation of `Reason.INVALID`.

    Args:
        variant: the state of the token's key, or None. If there is a more detailed explanation for the code and this
            state, the more detailed explanation is returned.
    """
    if variant is not None and (detailed := DETAILED.get((reason, variant))):
        return detailed
    return EXPLANATIONS.get(reason, EXPLANATIONS[Reason.INVALID])
