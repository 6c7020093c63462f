"""Functions that load the audit row and the keys of an inspected token. These functions write nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from ... import audit, keys, trust
from ...conf import conf
from ...exceptions import ConfigError, InstAccessError, KeyAltered
from ...models import IssuedToken, Key
from ...times import format_utc
from ...tokens import ATTRIBUTES, identifiers, is_canonical_uuid
from ...web import Variant
from .pasted import format_value

CONFIGURED = "configured"
UNKNOWN = "unknown"

_STATUSES = {
    Key.Status.FUTURE.value: pgettext_lazy("status of a key", "future"),
    Key.Status.CURRENT.value: pgettext_lazy("status of a key", "current"),
    Key.Status.PAST.value: pgettext_lazy("status of a key", "past"),
    Key.Status.REVOKED.value: pgettext_lazy("status of a key", "revoked"),
    CONFIGURED: gettext_lazy("accepted, because the settings or a JWKS contain this key"),
    UNKNOWN: gettext_lazy("unknown on this server"),
}


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The status of a key of an inspected token.

    Attributes:
        kid: the key id, formatted for display.
        status: a value of `Key.Status`, `configured` (from the settings or a JWKS) or `unknown`.
        since: the time when the status last changed; None if unknown.
        pk: the primary key of the key's row; None if the database has no such row.
        private_held: whether the row contains the private key.
        gone: whether the key retired so long ago that all its tokens have expired.
        altered: whether the row was modified, or inserted without this app. Such a key is not used.
        use: a value of `Key.Use`, for signing or for encryption.
    """

    kid: str
    status: str
    since: datetime | None = None
    pk: int | None = None
    private_held: bool = False
    gone: bool = False
    altered: bool = False
    use: str = ""

    @property
    def words(self) -> str:
        """A description of the key's status, with the time since which the key has this status."""
        if self.altered:
            return _("modified in the database, so not used")
        status = str(_STATUSES.get(self.status, self.status))
        if self.since is None:
            return status
        return _("%(status)s since %(time)s") % {"status": status, "time": format_utc(self.since)}

    @property
    def unusable_reason(self) -> Variant | None:
        """The reason why gateways and services treat this key as unknown; None if no reason is known."""
        if self.altered:
            return Variant.ALTERED
        if self.status == Key.Status.REVOKED:
            return Variant.REVOKED
        if self.gone:
            return Variant.GONE
        if self.pk is not None and self.use == Key.Use.ENCRYPTION and not self.private_held:
            return Variant.ELSEWHERE
        return None


@dataclass(frozen=True, slots=True)
class Difference:
    """A claim that differs from the audit row. `row` is the value in the audit row."""

    claim: str
    row: str


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """The audit row that has the token id of an inspected token.

    Attributes:
        row: the audit row, or None if there is no such row.
        evidence: the status of the row's HMACs, or None if the HMACs can't be checked.
        differences: the claims that differ from the row.
        alarms: the warnings for the user of the inspector.
    """

    row: IssuedToken | None
    evidence: audit.HmacStatus | None = None
    differences: tuple[Difference, ...] = ()
    alarms: tuple[str, ...] = ()

    @property
    def revoked(self) -> str:
        """The time of the token's revocation, or an empty string if the token is not revoked."""
        return format_utc(self.row.revoked_at) if self.row is not None and self.row.revoked_at is not None else ""


def key_status(kid: str, use: Key.Use) -> KeyStatus:
    """Return the status of the key with the id `kid` and this use."""
    stored, errors = keys.examine(keys.stored_keys().filter(use=use))
    row = next((row for row in stored if row.kid == kid), None)
    if row is None:
        return KeyStatus(format_value(kid), CONFIGURED if _is_configured(kid, use) else UNKNOWN, use=use)
    since: dict[str, datetime | None] = {
        Key.Status.FUTURE: row.created_at,
        Key.Status.CURRENT: row.activated_at,
        Key.Status.PAST: row.retired_at,
        Key.Status.REVOKED: row.revoked_at,
    }
    return KeyStatus(
        format_value(row.kid),
        row.status,
        since.get(row.status),
        row.pk,
        private_held=row.has_private,
        gone=keys.is_gone(row, now=keys.current_time(), times=keys.lifecycle_times()),
        altered=isinstance(errors.get(row.pk), KeyAltered),
        use=use,
    )


def _is_configured(kid: str, use: Key.Use) -> bool:
    try:
        if use == Key.Use.ENCRYPTION:
            return conf.decryption_keys is not None and kid in trust.decryption_keys()
        return conf.verification_keys is not None and kid in trust.verification_keys()
    except InstAccessError:
        return False


def has_external_private_key(key: KeyStatus | None) -> bool:
    """Return whether the private key that a token needs may be stored only at the gateway.

    Args:
        key: the status of the encryption key whose id the token contains. None if the token contains no key id. Any
            encryption key may then match.
    """
    if key is not None:
        return key.unusable_reason is Variant.ELSEWHERE
    return (
        keys.stored_keys()
        .filter(use=Key.Use.ENCRYPTION, sealed_private_jwk="")
        .exclude(status=Key.Status.REVOKED)
        .exists()
    )


def find_row(payload: Mapping[str, Any], *, authentic: bool, kids: Mapping[Key.Use, str]) -> AuditRecord | None:
    """Return the audit row of a token, with the differences between the row and the token.

    Args:
        payload: the claims of the token.
        authentic: whether a known key signed the token. An authentic token without a row causes a warning, because
            the issuer records every token.
        kids: the ids of the keys that decrypted and verified the token, by use.

    Returns None if the payload contains no token id.
    """
    jti = payload.get("jti")
    if not isinstance(jti, str):
        return None
    row = None
    if is_canonical_uuid(jti):
        row = audit.issued_tokens().select_related("user", "real_user", "application").filter(jti=jti).first()
    if row is None:
        return AuditRecord(None, alarms=(_explain_missing_row(),) if authentic else ())
    status = _check_hmac(row)
    differences = tuple(_find_differences(payload, row, kids))
    alarms = []
    if status is audit.HmacStatus.BROKEN:
        alarms.append(
            _("The HMAC of the audit row does not match, so the row was modified. Run `instaccess_tokens verify`.")
        )
    if differences and authentic:
        alarms.append(
            _(
                "The signed claims differ from the audit row. The token or the row does not come from the issuer. "
                "Run `instaccess_tokens verify`."
            )
        )
    return AuditRecord(row, status, differences, tuple(alarms))


def _explain_missing_row() -> str:
    if conf.verification_keys is not None:
        return _(
            "This database has no audit row for the token. Search the issuer's audit log. If that audit log has no "
            "row either, an attacker may have the signing key."
        )
    return _(
        "There is no audit row for the token, although the issuer records every token. Either the row was pruned or "
        "deleted, or an attacker has the signing key. If you have not pruned the row, revoke the signing key."
    )


def _check_hmac(row: IssuedToken) -> audit.HmacStatus | None:
    """Return the worse status of the two HMACs in an audit row. Returns None if the settings don't allow a check."""
    try:
        statuses = [check(row, conf.key_encryption_keys) for check in (audit.row_status, audit.names_status)]
    except (ConfigError, ValueError):
        return None
    return next(
        (status for status in (audit.HmacStatus.BROKEN, audit.HmacStatus.UNKNOWN) if status in statuses),
        audit.HmacStatus.AUTHENTIC,
    )


def _find_differences(payload: Mapping[str, Any], row: IssuedToken, kids: Mapping[Key.Use, str]) -> list[Difference]:
    claims = {ATTRIBUTES[name]: value for name, value in payload.items() if name in ATTRIBUTES}
    if None in (claims.get("masquerading_user_uuid"), claims.get("masquerading_user_shard_id")):
        # Ignore an incomplete pair of masquerade claims, as services do. If the pair were compared, the inspector
        # would report a difference from a row without a real user.
        claims.pop("masquerading_user_uuid", None)
    expected: dict[str, Any] = {
        "user_uuid": row.user_uuid,
        "account_uuid": row.account_uuid,
        "canvas_domain": row.canvas_domain or None,
        "issued_at": int(row.issued_at.timestamp()),
        "expires_at": int(row.expires_at.timestamp()),
        "masquerading_user_uuid": row.real_user_uuid or None,
    }
    if "client_id" in claims:  # Only tokens for a service user contain the client id.
        expected["client_id"] = row.client_id
        # Convert the client id, because a token can contain an integer, but the row contains a string.
        claims["client_id"] = identifiers(payload).get("client_id")
    names = {attribute: name for name, attribute in ATTRIBUTES.items()}
    differences = [
        Difference(names[attribute], "" if value is None else format_value(value))
        for attribute, value in expected.items()
        if claims.get(attribute) != value
    ]
    for use, kid in ((Key.Use.SIGNING, row.signing_kid), (Key.Use.ENCRYPTION, row.encryption_kid)):
        if kid and kids.get(use, kid) != kid:
            differences.append(Difference(str(use.label), kid))
    return differences
