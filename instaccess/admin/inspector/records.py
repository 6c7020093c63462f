"""What our tables say of a token that is inspected: its audit row, and where its keys stand. Reads only."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ... import audit, keys, trust
from ...conf import conf
from ...exceptions import ConfigError, InstAccessError
from ...models import IssuedToken, Key
from ...times import format_utc
from ...tokens import ATTRIBUTES
from ...web import Variant
from .pasted import format_value

CONFIGURED = "configured"
UNKNOWN = "unknown"

_STATUSES = {
    Key.Status.FUTURE.value: gettext_lazy("future"),
    Key.Status.CURRENT.value: gettext_lazy("current"),
    Key.Status.PAST.value: gettext_lazy("past"),
    Key.Status.REVOKED.value: gettext_lazy("revoked"),
    CONFIGURED: gettext_lazy("in use, from the settings or a JWKS"),
    UNKNOWN: gettext_lazy("unknown here"),
}


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """Where a key stands.

    Attributes:
        kid: as far as it may be shown.
        status: one of `Key.Status`, `configured` (from the settings or a JWKS) or `unknown`.
        since: since when it has that status.
        pk: of its row, None where it has none.
        private_held: whether a row of ours holds the private half.
        gone: retired for so long that no token under it can be alive.
    """

    kid: str
    status: str
    since: datetime | None = None
    pk: int | None = None
    private_held: bool = False
    gone: bool = False
    use: str = ""

    @property
    def words(self) -> str:
        """The status and since when, as one reads it."""
        status = str(_STATUSES.get(self.status, self.status))
        if self.since is None:
            return status
        return _("%(status)s since %(time)s") % {"status": status, "time": format_utc(self.since)}

    @property
    def why_unusable(self) -> Variant | None:
        """Why a token under it is refused as under a key we do not hold; None where that is all there is to say."""
        if self.status == Key.Status.REVOKED:
            return Variant.REVOKED
        if self.gone:
            return Variant.GONE
        if self.pk is not None and self.use == Key.Use.ENCRYPTION and not self.private_held:
            return Variant.ELSEWHERE
        return None


@dataclass(frozen=True, slots=True)
class Difference:
    """A claim that is not what the audit row says."""

    claim: str
    row: str


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """The audit row that a token's `jti` names.

    Attributes:
        row: None where there is none.
        evidence: what the row's HMAC says of it; None where that can't be asked.
        differences: names of claims, with what the row has instead.
        alarms: in words, what is wrong with all this.
    """

    row: IssuedToken | None
    evidence: audit.HmacStatus | None = None
    differences: tuple[Difference, ...] = ()
    alarms: tuple[str, ...] = ()

    @property
    def revoked(self) -> str:
        """When it was revoked, as text; empty where it was not."""
        return format_utc(self.row.revoked_at) if self.row is not None and self.row.revoked_at is not None else ""


def key_status(kid: str, use: Key.Use) -> KeyStatus:
    """Where the key with this id stands."""
    row = next((row for row in keys.stored_keys().filter(use=use) if row.kid == kid), None)
    if row is None:
        return KeyStatus(format_value(kid), CONFIGURED if _configured(kid, use) else UNKNOWN, use=use)
    since: dict[str, datetime | None] = {
        Key.Status.FUTURE: row.created_at,
        Key.Status.CURRENT: row.activated_at,
        Key.Status.PAST: row.retired_at,
        Key.Status.REVOKED: row.revoked_at,
    }
    gone = keys.is_gone(row, now=timezone.now(), times=keys.lifecycle_times())
    return KeyStatus(row.kid, row.status, since.get(row.status), row.pk, row.has_private, gone, use)


def _configured(kid: str, use: Key.Use) -> bool:
    try:
        if use == Key.Use.ENCRYPTION:
            return conf.decryption_keys is not None and kid in trust.decryption_keys()
        return conf.verification_keys is not None and kid in trust.verification_keys()
    except InstAccessError:
        return False


def under_key_held_elsewhere(key: KeyStatus | None) -> bool:
    """Whether the private half of the encryption key that a token is under, or may be under, is with the gateway."""
    if key is not None:
        return key.why_unusable is Variant.ELSEWHERE
    return (
        keys.stored_keys()
        .filter(use=Key.Use.ENCRYPTION, sealed_private_jwk="")
        .exclude(status=Key.Status.REVOKED)
        .exists()
    )


def find_row(payload: Mapping[str, Any], *, authentic: bool, kids: Mapping[Key.Use, str]) -> AuditFinding | None:
    """The audit row of a token and how the two agree; None where the payload names no id.

    `kids` are the keys that fitted. An `authentic` token that no row knows is alarming, for every token has one.
    """
    jti = payload.get("jti")
    if not isinstance(jti, str):
        return None
    row = None
    if _is_canonical(jti):
        row = audit.issued_tokens().select_related("user", "real_user", "application").filter(jti=jti).first()
    if row is None:
        return AuditFinding(None, alarms=(_missing(),) if authentic else ())
    verdict = _evidence(row)
    differences = tuple(_differences(payload, row, kids))
    alarms = []
    if verdict is audit.HmacStatus.BROKEN:
        alarms.append(
            _("The audit row was altered: its authentication code does not fit. See `instaccess_tokens verify`.")
        )
    if differences and authentic:
        alarms.append(_("The signed claims and the audit row disagree: one of the two was made by somebody else."))
    return AuditFinding(row, verdict, differences, tuple(alarms))


def _missing() -> str:
    if conf.verification_keys is not None:
        return _(
            "There is no audit row for it in this database. The issuer keeps the audit: look there. A token that is "
            "not in it was made by somebody who has the signing key."
        )
    return _(
        "There is no audit row for it, and the issuer hands out no token without one. Either the row was deleted or "
        "pruned, or somebody else has the signing key: if it is not pruned, treat the key as stolen and revoke it."
    )


def _is_canonical(jti: str) -> bool:
    try:
        return str(uuid.UUID(jti)) == jti
    except ValueError:
        return False


def _evidence(row: IssuedToken) -> audit.HmacStatus | None:
    try:
        return audit.row_status(row, conf.key_encryption_keys)
    except (ConfigError, ValueError):
        return None


def _differences(payload: Mapping[str, Any], row: IssuedToken, kids: Mapping[Key.Use, str]) -> list[Difference]:
    said = {ATTRIBUTES[name]: value for name, value in payload.items() if name in ATTRIBUTES}
    if None in (said.get("masquerading_user_uuid"), said.get("masquerading_user_shard_id")):
        said.pop("masquerading_user_uuid", None)  # services honour the two together, or not at all
    written: dict[str, Any] = {
        "user_uuid": row.user_uuid,
        "account_uuid": row.account_uuid,
        "canvas_domain": row.canvas_domain,
        "issued_at": int(row.issued_at.timestamp()),
        "expires_at": int(row.expires_at.timestamp()),
        "masquerading_user_uuid": row.real_user_uuid or None,
    }
    if "client_id" in said:  # only the tokens of service users say it; the row always does
        written["client_id"] = row.client_id
    names = {attribute: name for name, attribute in ATTRIBUTES.items()}
    found = [
        Difference(names[attribute], "" if value is None else format_value(value))
        for attribute, value in written.items()
        if said.get(attribute) != value
    ]
    for use, kid in ((Key.Use.SIGNING, row.signing_kid), (Key.Use.ENCRYPTION, row.encryption_kid)):
        if kid and kids.get(use, kid) != kid:
            found.append(Difference(str(use.label), kid))
    return found
