"""The claims of an InstAccess token (docs/wire-contract.md §2).

This module doesn't read the clock or the settings. Callers pass in the current time and the issuer.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..exceptions import ClaimsTooLarge, ForeignToken, InvalidToken, Reason
from .claim_values import (
    MAX_LIFETIME,
    check_times,
    format_id,
    get_id,
    get_seconds,
    get_shard_id,
    get_string,
)
from .compact import MAX_DEPTH, nests_too_deep

MAX_PAYLOAD_BYTES = 2048
"""The maximum size of a payload, in bytes.

A token with a payload of this size and an RSA-4096 signature fits into nginx's 4 KiB buffer for response headers.
"""

# This mapping contains the name of the claim for each attribute of `Claims`, in the order of the payload.
_NAMES = {
    "issuer": "iss",
    "jti": "jti",
    "issued_at": "iat",
    "expires_at": "exp",
    "user_uuid": "sub",
    "account_uuid": "acct",
    "canvas_domain": "canvas_domain",
    "masquerading_user_uuid": "masq_sub",
    "masquerading_user_shard_id": "masq_shard",
    "user_global_id": "debug_user_global_id",
    "real_user_global_id": "debug_masq_global_id",
    "region": "region",
    "shard_id": "canvas_shard_id",
    "client_id": "client_id",
    "instructure_service": "instructure_service",
}
_REQUIRED = ("jti", "user_uuid", "account_uuid")
_OPTIONAL_STRINGS = ("canvas_domain", "masquerading_user_uuid", "region")
# Canvas writes some of these claims as integers. `Claims` contains all of these claims as strings.
_OPTIONAL_IDS = ("user_global_id", "real_user_global_id", "client_id")
_OPTIONAL_SHARD_IDS = ("masquerading_user_shard_id", "shard_id")

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

ATTRIBUTES = {name: attribute for attribute, name in _NAMES.items()}
"""A mapping from the name of each claim to the name of the attribute of `Claims` that contains the claim."""

RESERVED = frozenset(_NAMES.values()) | {"aud", "nbf"}
"""Claims that CLAIMS_HOOK can't set. The issuer never writes `aud` or `nbf`, but readers may check both claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of one token.

    Times are integer seconds since the epoch. An absent claim is None, or False for `instructure_service`.
    """

    issuer: str
    jti: str
    issued_at: int
    expires_at: int
    user_uuid: str
    account_uuid: str
    canvas_domain: str | None = None
    masquerading_user_uuid: str | None = None
    masquerading_user_shard_id: int | str | None = None
    user_global_id: str | None = None
    real_user_global_id: str | None = None
    region: str | None = None
    shard_id: int | str | None = None
    client_id: str | None = None
    instructure_service: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Drop reserved names from `extra`. If reserved names were kept, CLAIMS_HOOK could change the lifetime or the
        # user of a token.
        object.__setattr__(self, "extra", {name: value for name, value in self.extra.items() if name not in RESERVED})

    @classmethod
    def new(
        cls,
        *,
        now: float,
        issuer: str,
        user_uuid: str,
        account_uuid: str,
        canvas_domain: str,
        lifetime: int = MAX_LIFETIME,
        masquerading_user_uuid: str | None = None,
        masquerading_user_shard_id: int | str | None = None,
        user_global_id: str | None = None,
        real_user_global_id: str | None = None,
        region: str | None = None,
        shard_id: int | str | None = None,
        client_id: str | None = None,
        instructure_service: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> Self:
        """Create the claims of a new token, with a random `jti` (RFC 7519 §4.1.7).

        Args:
            now: the time of issue, in seconds since the epoch.
            lifetime: the lifetime of the token, from 1 to 3600 seconds.
            extra: additional claims, from CLAIMS_HOOK. Claims with reserved names are dropped.

        The other parameters are the fields of the class.

        Raises ValueError if the lifetime is out of range.
        """
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise ValueError(f"lifetime must be 1 to {MAX_LIFETIME} seconds, got {lifetime}")
        issued_at = int(now)
        return cls(
            issuer=issuer,
            jti=str(uuid.uuid4()),
            issued_at=issued_at,
            expires_at=issued_at + lifetime,
            user_uuid=user_uuid,
            account_uuid=account_uuid,
            canvas_domain=canvas_domain,
            masquerading_user_uuid=masquerading_user_uuid,
            masquerading_user_shard_id=masquerading_user_shard_id,
            user_global_id=user_global_id,
            real_user_global_id=real_user_global_id,
            region=region,
            shard_id=shard_id,
            client_id=client_id,
            instructure_service=instructure_service,
            extra=extra or {},
        )

    def to_payload(self) -> dict[str, Any]:
        """Build the JWT claims set. Absent claims are omitted, never null."""
        payload: dict[str, Any] = {}
        for attribute, name in _NAMES.items():
            value = getattr(self, attribute)
            if value is not None and value is not False:
                payload[name] = value
        payload.update(self.extra)
        return payload

    def to_json(self) -> bytes:
        """Encode the claims set as compact JSON in UTF-8.

        Raises ClaimsTooLarge if the result exceeds `MAX_PAYLOAD_BYTES` or nests deeper than `MAX_DEPTH`, or if an
        extra claim can't be encoded as JSON.
        """
        try:
            text = _encode(self.to_payload())
            encoded = text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ClaimsTooLarge(
                f"an extra claim is not JSON ({type(error).__name__}); change the function "
                "INSTACCESS['CLAIMS_HOOK'] to return only JSON values",
                code=Reason.CLAIMS_NOT_JSON,
            ) from None
        if len(encoded) > MAX_PAYLOAD_BYTES:
            raise ClaimsTooLarge(
                f"the claims are {len(encoded)} bytes, but at most {MAX_PAYLOAD_BYTES} fit into a gateway's response "
                "headers; change the function INSTACCESS['CLAIMS_HOOK'] to return fewer or shorter claims"
            )
        if nests_too_deep(text):
            raise ClaimsTooLarge(
                f"the claims nest deeper than {MAX_DEPTH} levels; change the function INSTACCESS['CLAIMS_HOOK'] to "
                "return flatter claims"
            )
        return encoded

    @classmethod
    def from_payload(
        cls,
        payload: Mapping[str, Any],
        *,
        now: float,
        issuers: Collection[str],
        leeway: int = 0,
        max_lifetime: int = MAX_LIFETIME,
    ) -> Self:
        """Validate a claims set whose signature has been verified.

        Types are checked exactly: `True`, `1.0` and `"1"` are not accepted as times.

        Args:
            payload: the JSON object of a JWS whose signature has been verified.
            now: the current time, in seconds since the epoch. A token whose `exp` equals `now` has expired (RFC 7519
                §4.1.4).
            issuers: the accepted values of `iss`.
            leeway: the time, in seconds past `exp`, for which a token is still accepted.
            max_lifetime: the largest accepted `exp - iat`, in seconds.

        Raises:
            ForeignToken: `iss` is missing or not in `issuers`.
            TokenExpired: the token is past its `exp` and the leeway.
            InvalidToken: the token has any other problem; `code` is the precise reason.
        """
        # Convert `issuers` to a tuple. If `issuers` were a string, `in` would search for a substring. If `issuers`
        # were a set, `in` would raise TypeError for an `iss` that is a list.
        if payload.get("iss") not in tuple(issuers):
            raise ForeignToken("the issuer (iss) of the token is not accepted")
        values: dict[str, Any] = {"issuer": payload["iss"]}
        for attribute in ("issued_at", "expires_at"):
            values[attribute] = get_seconds(payload, _NAMES[attribute])
        check_times(values["issued_at"], values["expires_at"], payload, now, leeway, max_lifetime)
        for attribute in _REQUIRED:
            values[attribute] = get_string(payload, _NAMES[attribute])
        for attribute in _OPTIONAL_STRINGS:
            if _NAMES[attribute] in payload:
                values[attribute] = get_string(payload, _NAMES[attribute])
        for attribute in _OPTIONAL_IDS:
            if _NAMES[attribute] in payload:
                values[attribute] = get_id(payload, _NAMES[attribute])
        for attribute in _OPTIONAL_SHARD_IDS:
            if _NAMES[attribute] in payload:
                values[attribute] = get_shard_id(payload, _NAMES[attribute])
        if "instructure_service" in payload:
            if not isinstance(payload["instructure_service"], bool):
                raise InvalidToken("instructure_service is neither true nor false", code=Reason.BAD_CLAIM)
            values["instructure_service"] = payload["instructure_service"]
        # As in Canvas, ignore the masquerade unless the token contains both `masq_sub` and `masq_shard`
        # (docs/wire-contract.md §2).
        if None in (values.get("masquerading_user_uuid"), values.get("masquerading_user_shard_id")):
            values["masquerading_user_uuid"] = values["masquerading_user_shard_id"] = None
        return cls(**values, extra=payload)


def identifiers(payload: Mapping[str, Any]) -> dict[str, str]:
    """Return `jti`, `user_uuid` and `client_id` of a verified claims set, for the log and the counts of refusals.

    The result maps the names of these attributes of `Claims` to strings. Missing and invalid claims are left out.
    """
    values = {attribute: payload.get(_NAMES[attribute]) for attribute in ("jti", "user_uuid")}
    values["client_id"] = format_id(payload.get(_NAMES["client_id"]))
    return {attribute: value for attribute, value in values.items() if isinstance(value, str)}


def is_canonical_uuid(text: str) -> bool:
    """Return whether a string is the canonical form of a UUID: lower case with hyphens (RFC 9562 §4)."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
