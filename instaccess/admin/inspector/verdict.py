"""What somebody who asks "why is this refused?" is told of a token. Looks, and writes nothing.

The verdict is that of the code that gives it on the wire: `gateway.unwrap_here` for an encrypted token, the steps of
`consumer.InstAccessAuthentication` for a signed one. Only then is the token taken apart, to be shown. No token, and
nothing that could be used as one, is in what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Literal

from django.db import Error as DbError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ... import gateway, tokens, users
from ...conf import conf
from ...exceptions import ForeignToken, InstAccessError, InvalidToken, Reason
from ...service import InstAccessAuthentication
from ...tokens import Claims
from ...web import ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE, Explanation, Variant, explain
from . import pasted
from .layers import Item, Layer, Reading, in_words, read_encrypted, read_signed
from .records import AuditFinding, find_row, under_key_held_elsewhere

MAX_PASTED = 20_000
"""Characters that are looked at. The longest token has 8,192; the rest is what copying adds."""


class Kind(Enum):
    """What was pasted."""

    ENCRYPTED = gettext_lazy("An encrypted InstAccess token, as clients hold it")
    SIGNED = gettext_lazy("A signed InstAccess token, as the gateway hands it on")
    FOREIGN = gettext_lazy("A signed token of another issuer")
    OTHER = gettext_lazy("No InstAccess token")
    UNKNOWN = gettext_lazy("Not looked at")


class Outcome(Enum):
    """The verdict in a word."""

    ACCEPTED = gettext_lazy("Accepted")
    REFUSED = gettext_lazy("Refused")
    UNDECIDED = gettext_lazy("Can't be decided here")
    NOT_OURS = gettext_lazy("Not an InstAccess token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found.

    Attributes:
        code: the reason, as the log has it; empty if the token is accepted.
        detail: the error's own words.
        jti: the token's id, where it is authentic.
        layers: from the outside in.
        claims: what the token says; to be believed only where `authentic`.
        audit: what the audit says of it; None where the token names no id.
        alarms: what somebody should look into. notes: what else there is to say.
    """

    kind: Kind
    outcome: Outcome
    code: Reason | Literal[""]
    detail: str
    explanation: Explanation
    jti: str = ""
    layers: tuple[Layer, ...] = ()
    claims: tuple[Item, ...] = ()
    authentic: bool = False
    audit: AuditFinding | None = None
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@sensitive_variables("text", "token")
def inspect(text: str, *, now: float) -> Inspection:
    """What `text` is, and what a gateway or a service would say of it.

    Args:
        text: what was pasted, with whatever stands around the token.
        now: seconds since the epoch.

    A fault of ours (no key, no deny list, a bad setting) is a finding too, and no exception.
    """
    if len(text) > MAX_PASTED:
        return _undissected(Kind.OTHER, Outcome.REFUSED, InvalidToken(code=Reason.TOO_LONG))
    token = pasted.extract_token(text)
    notes = [] if token == text else [_("Blanks, quotes or words around the token were taken away first.")]
    kind = Kind.UNKNOWN
    try:
        if token.count(".") == 4:
            kind = Kind.ENCRYPTED
            return _encrypted(token, now, notes)
        if InstAccessAuthentication().is_ours(token):
            kind = Kind.SIGNED
            return _signed(token, now, notes)
    except (DbError, InstAccessError) as error:
        return _undissected(kind, Outcome.UNDECIDED, error)
    return _undissected(*_stranger(token))


def failed() -> Inspection:
    """For whoever meets an error that nobody expected: a fault of ours, and nothing said of the token."""
    return Inspection(
        kind=Kind.UNKNOWN, outcome=Outcome.UNDECIDED, code=Reason.FAULT, detail="", explanation=explain(Reason.FAULT)
    )


@sensitive_variables("token")
def _stranger(token: str) -> tuple[Kind, Outcome, Exception]:
    if not token:
        return Kind.OTHER, Outcome.NOT_OURS, InvalidToken(code=Reason.NO_CREDENTIALS)
    issuer = tokens.peek_issuer(token) if token.count(".") == 2 else None
    if issuer is None:
        return Kind.OTHER, Outcome.NOT_OURS, InvalidToken(code=Reason.OTHER_BEARER)
    return Kind.FOREIGN, Outcome.NOT_OURS, ForeignToken(f"iss is {pasted.format_value(issuer)}")


def _undissected(kind: Kind, outcome: Outcome, error: Exception) -> Inspection:
    """Something of which nothing is shown."""
    code, detail = _reason(error)
    return Inspection(kind=kind, outcome=outcome, code=code, detail=detail, explanation=explain(code))


@sensitive_variables("token", "opened")
def _encrypted(token: str, now: float, notes: list[str]) -> Inspection:
    refusal: Exception | None = None
    alarms = []
    try:
        opened = gateway.unwrap_with_settings(token, now=now)
    except (DbError, InstAccessError) as error:
        refusal = error
    else:
        later = _at_service(opened.claims)
        if later is not None:
            alarms.append(f"{explain(later.code).meaning} ({later.code})")
    return _finding(Kind.ENCRYPTED, refusal, read_encrypted(token), now, alarms=alarms, notes=notes)


@sensitive_variables("token")
def _signed(token: str, now: float, notes: list[str]) -> Inspection:
    refusal: Exception | None = None
    try:
        payload = InstAccessAuthentication().verify(token)
        refusal = _at_service(Claims.from_payload(payload, now=now, issuer=conf.issuer, leeway=conf.leeway))
    except (DbError, InstAccessError) as error:
        refusal = error
    notes = [*notes, str(explain(Reason.ALREADY_DECRYPTED).meaning)]
    return _finding(Kind.SIGNED, refusal, read_signed(token), now, alarms=[], notes=notes)


def _at_service(claims: Claims) -> InvalidToken | None:
    """Why a service that takes its users from this database refuses a token that is good so far; None where it does
    not, and where a hook of the project decides: it may make users, and is not called for a look."""
    if conf.account_uuid not in (None, claims.account_uuid):
        return InvalidToken(f"for account {claims.account_uuid!r}", code=Reason.WRONG_ACCOUNT)
    if conf.user_hook is not None:
        return None
    if claims.masquerading_user_uuid and users.active_user(claims.masquerading_user_uuid) is None:
        return InvalidToken(code=Reason.UNKNOWN_MASQUERADER)
    return None if users.active_user(claims.user_uuid) else InvalidToken(code=Reason.UNKNOWN_USER)


def _finding(
    kind: Kind, refusal: Exception | None, read: Reading, now: float, *, alarms: list[str], notes: list[str]
) -> Inspection:
    code: Reason | Literal[""]
    kids = {layer.use: layer.key.kid for layer in read.layers if layer.authentic and layer.key}
    audit = find_row(read.payload, authentic=read.authentic, kids=kids)
    if audit is not None:
        alarms = [*alarms, *audit.alarms]
    if refusal is None:
        code, detail = "", ""
        explanation = ACCEPTED_BY_GATEWAY if kind is Kind.ENCRYPTED else ACCEPTED_BY_SERVICE
        outcome = Outcome.ACCEPTED
        if audit is not None and audit.row is not None and audit.row.revoked_at is not None:
            alarms.append(
                _("It is revoked: gateways refuse it within five seconds. Services accept it until it has expired.")
            )
    else:
        code, detail = _reason(refusal)
        variant = _variant(code, read)
        explanation = explain(code, variant)
        decided = isinstance(refusal, InvalidToken) and variant is not Variant.ELSEWHERE
        outcome = Outcome.REFUSED if decided else Outcome.UNDECIDED
    jti = read.payload.get("jti") if read.authentic else None
    return Inspection(
        kind=kind,
        outcome=outcome,
        code=code,
        detail=detail,
        explanation=explanation,
        jti=pasted.format_value(jti) if isinstance(jti, str) else "",
        layers=read.layers,
        claims=in_words(read.payload, datetime.fromtimestamp(now, UTC)),
        authentic=read.authentic,
        audit=audit,
        alarms=tuple(alarms),
        notes=tuple(notes),
    )


def _reason(error: Exception) -> tuple[Reason, str]:
    return (error.code, error.detail) if isinstance(error, InstAccessError) else (Reason.FAULT, type(error).__name__)


def _variant(code: Reason, read: Reading) -> Variant | None:
    """What is known beyond the code of a refusal: where the key is that was not found."""
    if not read.layers:
        return None
    innermost = read.layers[-1]
    if code is Reason.UNKNOWN_KID and innermost.key is not None:
        return innermost.key.why_unusable
    if code is Reason.NO_KEY and innermost.is_encryption and under_key_held_elsewhere(innermost.key):
        return Variant.ELSEWHERE
    return None
