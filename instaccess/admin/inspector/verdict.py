"""The verdict on an inspected token: whether gateways and services accept the token, and the reason.

The verdict comes from the code of the gateway and the service: `gateway.unwrap_with_settings` for an encrypted token,
and the steps of `service.InstAccessAuthentication` for a signed token. Afterwards, the token is parsed for display.
An `Inspection` never contains a token or a string that could be used as a token. The inspection writes nothing to the
database.
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
from ...opaque import Opaque
from ...service import InstAccessAuthentication
from ...tokens import Claims
from ...web import ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE, Explanation, Variant, explain
from . import pasted
from .layers import Item, Layer, Reading, describe_claims, read_encrypted, read_signed
from .records import AuditRecord, find_row, has_external_private_key

MAX_PASTED = 20_000
"""The maximum length of pasted text, in characters.

The maximum is higher than the length of the longest token (8,192 characters), because users may paste text around the
token.
"""


class Kind(Enum):
    """The kind of a string that a user pasted into the inspector."""

    ENCRYPTED = gettext_lazy("Encrypted InstAccess token, as the issuer returns it to clients")
    SIGNED = gettext_lazy("Signed InstAccess token, as the gateway forwards it to services")
    FOREIGN = gettext_lazy("Signed token of another issuer")
    OTHER = gettext_lazy("Not an InstAccess token")
    UNKNOWN = gettext_lazy("Not determined")


class Outcome(Enum):
    """The verdict of the inspector on a token."""

    ACCEPTED = gettext_lazy("Accepted")
    REFUSED = gettext_lazy("Refused")
    UNDECIDED = gettext_lazy("Can't be decided here")
    NOT_OURS = gettext_lazy("Not an InstAccess token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The result of the inspection of a token.

    Attributes:
        kind: the kind of the pasted text.
        outcome: the verdict on the token.
        code: the reason code that the log would contain, or an empty string if the token is accepted.
        detail: the error message, or an empty string if the token is accepted.
        explanation: the meaning of the reason, and the advice to the user.
        jti: the token id, or an empty string if the token is not authentic.
        layers: the layers of the token, the outer layer first.
        claims: the claims of the token. Trust the claims only if `authentic` is true.
        authentic: whether a known key verified the signature.
        audit: the audit row with the token id, or None if the token contains no token id.
        alarms: the warnings, which the user should investigate.
        notes: additional information for the user.
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
    audit: AuditRecord | None = None
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@sensitive_variables("text", "token")
def inspect(text: str, *, now: float) -> Inspection:
    """Inspect pasted text, and return the verdict that a gateway or a service would reach."""
    if len(text) > MAX_PASTED:
        return _without_details(Kind.OTHER, Outcome.REFUSED, InvalidToken(code=Reason.TOO_LONG))
    token = pasted.extract_token(text)
    notes = (
        []
        if token == text
        else [_("Whitespace, quotes or words around the token were removed before the inspection.")]
    )
    kind = Kind.UNKNOWN
    try:
        if token.count(".") == 4:
            kind = Kind.ENCRYPTED
            return _inspect_encrypted(token, now, notes)
        if InstAccessAuthentication().is_ours(token):
            kind = Kind.SIGNED
            return _inspect_signed(token, now, notes)
    except (DbError, InstAccessError) as error:
        return _without_details(kind, Outcome.UNDECIDED, error)
    return _without_details(*_describe_foreign_token(token))


def failed() -> Inspection:
    """Return the result of an inspection that raised an unexpected error.

    The result contains no part of the token.
    """
    return Inspection(
        kind=Kind.UNKNOWN, outcome=Outcome.UNDECIDED, code=Reason.FAULT, detail="", explanation=explain(Reason.FAULT)
    )


@sensitive_variables("token")
def _describe_foreign_token(token: str) -> tuple[Kind, Outcome, Exception]:
    if not token:
        return Kind.OTHER, Outcome.NOT_OURS, InvalidToken(code=Reason.NO_CREDENTIALS)
    issuer = tokens.peek_issuer(token) if token.count(".") == 2 else None
    if issuer is None:
        return Kind.OTHER, Outcome.NOT_OURS, InvalidToken(code=Reason.OTHER_BEARER)
    return Kind.FOREIGN, Outcome.NOT_OURS, ForeignToken(f"iss is {pasted.format_value(issuer)}")


def _without_details(kind: Kind, outcome: Outcome, error: Exception) -> Inspection:
    """Build an inspection that contains no part of the token."""
    code, detail = _get_reason(error)
    return Inspection(kind=kind, outcome=outcome, code=code, detail=detail, explanation=explain(code))


@sensitive_variables("token", "unwrapped")
def _inspect_encrypted(token: str, now: float, notes: list[str]) -> Inspection:
    refusal: Exception | None = None
    alarms = []
    try:
        unwrapped = gateway.unwrap_with_settings(Opaque(token), now=now)
    except (DbError, InstAccessError) as error:
        refusal = error
    else:
        service_refusal = _check_at_service(unwrapped.claims)
        if service_refusal is not None:
            alarms.append(f"{explain(service_refusal.code).meaning} ({service_refusal.code})")
    return _build_inspection(Kind.ENCRYPTED, refusal, read_encrypted(token), now, alarms=alarms, notes=notes)


@sensitive_variables("token")
def _inspect_signed(token: str, now: float, notes: list[str]) -> Inspection:
    refusal: Exception | None = None
    try:
        payload = InstAccessAuthentication().verify(token)
        claims = Claims.from_payload(payload, now=now, issuers=conf.accepted_issuers, leeway=conf.leeway)
        refusal = _check_at_service(claims)
    except (DbError, InstAccessError) as error:
        refusal = error
    notes = [*notes, str(explain(Reason.ALREADY_DECRYPTED).meaning)]
    return _build_inspection(Kind.SIGNED, refusal, read_signed(token), now, alarms=[], notes=notes)


def _check_at_service(claims: Claims) -> InvalidToken | None:
    """Return the error with which a service on this database would refuse the claims.

    Returns None if there is no error. If USER_HOOK is set, this function doesn't check the users in the claims.
    """
    if conf.account_uuid not in (None, claims.account_uuid):
        return InvalidToken(f"for account {claims.account_uuid!r}", code=Reason.WRONG_ACCOUNT)
    try:
        InstAccessAuthentication().check_client(claims)
    except InvalidToken as error:
        return error
    if conf.user_hook is not None:
        return None
    if claims.masquerading_user_uuid and users.active_user(claims.masquerading_user_uuid) is None:
        return InvalidToken(code=Reason.UNKNOWN_MASQUERADER)
    return None if users.active_user(claims.user_uuid) else InvalidToken(code=Reason.UNKNOWN_USER)


def _build_inspection(
    kind: Kind, refusal: Exception | None, read: Reading, now: float, *, alarms: list[str], notes: list[str]
) -> Inspection:
    code: Reason | Literal[""]
    kids = {layer.use: layer.key.kid for layer in read.layers if layer.authentic and layer.key}
    record = find_row(read.payload, authentic=read.authentic, kids=kids)
    if record is not None:
        alarms = [*alarms, *record.alarms]
    if refusal is None:
        code, detail = "", ""
        explanation = ACCEPTED_BY_GATEWAY if kind is Kind.ENCRYPTED else ACCEPTED_BY_SERVICE
        outcome = Outcome.ACCEPTED
        if record is not None and record.row is not None and record.row.revoked_at is not None:
            alarms.append(
                _(
                    "The token is revoked. Gateways refuse the token within five seconds. Services accept the token "
                    "until it expires."
                )
            )
    else:
        code, detail = _get_reason(refusal)
        variant = _get_variant(code, read)
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
        claims=describe_claims(read.payload, datetime.fromtimestamp(now, UTC)),
        authentic=read.authentic,
        audit=record,
        alarms=tuple(alarms),
        notes=tuple(notes),
    )


def _get_reason(error: Exception) -> tuple[Reason, str]:
    return (error.code, error.detail) if isinstance(error, InstAccessError) else (Reason.FAULT, type(error).__name__)


def _get_variant(code: Reason, read: Reading) -> Variant | None:
    """Return the variant of the explanation for the innermost layer's key. Returns None if no variant applies."""
    if not read.layers:
        return None
    innermost = read.layers[-1]
    if code is Reason.UNKNOWN_KID and innermost.key is not None:
        return innermost.key.unusable_reason
    if code is Reason.NO_KEY and innermost.is_encryption and has_external_private_key(innermost.key):
        return Variant.ELSEWHERE
    return None
