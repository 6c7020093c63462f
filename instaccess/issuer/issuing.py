"""Issuing of InstAccess tokens. Only this code signs, encrypts and records the claims of tokens.

Every issued token is recorded in the audit log before the token is returned.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError

from .. import audit, database_errors, keys, signals, tokens, users, web
from ..conf import conf
from ..exceptions import AuditError, ConfigError
from ..logs import get_logger
from ..models import IssuedToken
from ..opaque import Opaque, concealed
from ..tokens import Claims

logger = get_logger("instaccess.issuer")

_ATTEMPTS = 2
_MAX_USER_AGENT_CHARS = 512

# Control characters are replaced, because some terminals interpret control characters as commands. The pattern
# includes C1 control characters (0x80 to 0x9f), because servers decode headers as Latin-1. Lone surrogates are
# replaced, because databases reject lone surrogates.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Origin:
    """The host to which a request was sent, and the client that sent the request.

    Attributes:
        canvas_domain: the host, followed by the port unless the port is the default port of the scheme.
        ip_address: the client's IP address, or None if the address is unknown.
        user_agent: the User-Agent header as the client sent it. In the audit row, control characters are replaced,
            and the string is shortened.
    """

    canvas_domain: str
    ip_address: str | None = None
    user_agent: str = ""


def issue(
    *,
    user: Any,
    origin: Origin,
    now: float,
    real_user: Any = None,
    application: Any = None,
    service: bool = False,
    access_token_pk: Any = None,
    encrypted: bool = True,
) -> tuple[IssuedToken, str]:
    """Issue a token for `user` and record the token in the audit log.

    Args:
        user: the subject. The caller must have checked that the client may get tokens for this user.
        origin: the host and the client of the request, for the claim `canvas_domain` and the audit log.
        now: the time of issue, in seconds since the epoch.
        real_user: the user who masquerades as `user`, or None.
        application: the OAuth2 application that sent the request, or None.
        service: True if the application uses the client credentials grant. The token then contains the client id.
        access_token_pk: the primary key of the OAuth2 access token, for the audit log only.
        encrypted: whether to encrypt the token. Pass False only for development.

    Returns the committed audit row and the token: a compact JWE that contains a compact JWS
    (docs/wire-contract.md §2).

    Raises:
        KeyUnavailable: there is no usable current key.
        ConfigError: a setting is invalid.
        ClaimsTooLarge: the claims exceed the size limit.
        AuditError: the audit row could not be committed.
    """
    ring = keys.current_ring()
    signing, encryption = ring.signing_key(), ring.encryption_key()
    claims = _build_claims(
        user=user, real_user=real_user, application=application, service=service, origin=origin, now=now
    )
    rejection = ""
    for _ in range(_ATTEMPTS):
        # Keep the token opaque until its row is committed, because error reporters print the variables if the commit
        # fails.
        started = web.metrics.clock()
        token = _sign_and_encrypt(claims, signing=signing, encryption=encryption if encrypted else None)
        web.metrics.stage("issuer", "crypto", started)
        row = _build_row(
            claims,
            user=user,
            real_user=real_user,
            application=application,
            access_token_pk=access_token_pk,
            origin=origin,
            signing_kid=signing.kid,
            encryption_kid=encryption.kid if encrypted else "",
        )
        started = web.metrics.clock()
        try:
            audit.commit(row, keks=conf.key_encryption_keys)
        except IntegrityError as error:
            # Either the jti already exists, or the user was deleted during this request. Retry with a new jti. If the
            # second attempt fails too, the jti was probably not the cause.
            rejection = database_errors.describe(error)
            claims = replace(claims, jti=str(uuid.uuid4()))
            continue
        web.metrics.stage("issuer", "audit", started)
        logger.info(
            "issued jti=%(jti)s user=%(user)s real_user=%(real_user)s client_id=%(client_id)r "
            "signing_kid=%(signing_kid)s",
            jti=claims.jti,
            user=user.pk,
            real_user=getattr(real_user, "pk", None),
            client_id=row.client_id,
            signing_kid=row.signing_kid,
            ip_address=row.ip_address,
        )
        _announce(row, user=user, real_user=real_user)
        return row, token.reveal()
    raise AuditError(
        f"the database rejected the audit row twice: the jti already exists, or the user was deleted ({rejection})"
    )


def _announce(row: IssuedToken, *, user: Any, real_user: Any) -> None:
    """Send the signal `token_issued` for a committed audit row."""

    def build_facts() -> signals.TokenIssued:
        return {
            "jti": str(row.jti),
            "user_id": user.pk,
            "user_uuid": row.user_uuid,
            "real_user_id": getattr(real_user, "pk", None),
            "real_user_uuid": row.real_user_uuid,
            "client_id": row.client_id,
            "account_uuid": row.account_uuid,
            "canvas_domain": row.canvas_domain,
            "signing_kid": row.signing_kid,
            "encryption_kid": row.encryption_kid,
            "ip_address": row.ip_address,
            "issued_at": row.issued_at,
            "expires_at": row.expires_at,
        }

    # The row is already committed, so the signal is sent immediately. In a project's test, the row may be part of the
    # test's transaction, which is never committed. The signal is then not sent.
    signals.token_issued.announce_after_commit(IssuedToken, build_facts, using=str(row._state.db))


def _build_claims(
    *, user: Any, real_user: Any, application: Any, service: bool, origin: Origin, now: float
) -> Claims:
    """Build the claims of a new token from the settings and from the users and application of the request.

    Raises ConfigError for an invalid setting, or if a hook returns an invalid value.
    """
    shard_id = conf.shard_id
    masquerading = real_user is not None
    return Claims.new(
        now=now,
        lifetime=conf.lifetime,
        issuer=conf.issuer,
        user_uuid=users.user_uuid(user),
        account_uuid=web.account_uuid(origin.canvas_domain),
        canvas_domain=origin.canvas_domain,
        masquerading_user_uuid=users.user_uuid(real_user) if masquerading else None,
        # The shard has a default, because readers ignore a masquerade unless the user and the shard are both present.
        masquerading_user_shard_id=(shard_id or 1) if masquerading else None,
        user_global_id=str(user.pk),
        real_user_global_id=str(real_user.pk) if masquerading else None,
        region=conf.region,
        shard_id=shard_id,
        client_id=application.client_id if service else None,
        instructure_service=service,
        extra=_extra_claims(user, application),
    )


@concealed
def _sign_and_encrypt(claims: Claims, *, signing: keys.HeldKey, encryption: keys.HeldKey | None) -> Opaque[str]:
    """Sign the claims, encrypt the signed token unless `encryption` is None, and return the token.

    Raises ClaimsTooLarge, KeyUnavailable or ConfigError.
    """
    signed = tokens.sign(claims.to_json(), signing.private(), kid=signing.kid)
    if encryption is None:
        return Opaque(signed)
    token = tokens.encrypt(
        signed,
        encryption.public,
        kid=encryption.kid,
        alg=conf.encryption_alg,
        enc=conf.content_encryption,
    )
    return Opaque(token)


def _build_row(
    claims: Claims,
    *,
    user: Any,
    real_user: Any,
    application: Any,
    access_token_pk: Any,
    origin: Origin,
    signing_kid: str,
    encryption_kid: str,
) -> IssuedToken:
    """Build the audit row of a token, without an HMAC. The row never contains the token itself."""
    with_names = conf.audit_user_names
    return IssuedToken(
        jti=uuid.UUID(claims.jti),
        user=user,
        user_uuid=claims.user_uuid,
        user_name=users.user_name(user) if with_names else "",
        real_user=real_user,
        real_user_uuid=claims.masquerading_user_uuid or "",
        real_user_name=users.user_name(real_user) if with_names and real_user is not None else "",
        application=application,
        client_id=getattr(application, "client_id", ""),
        access_token_pk="" if access_token_pk is None else str(access_token_pk),
        account_uuid=claims.account_uuid,
        canvas_domain=origin.canvas_domain,
        signing_kid=signing_kid,
        encryption_kid=encryption_kid,
        ip_address=origin.ip_address,
        user_agent=_CONTROL.sub("\N{REPLACEMENT CHARACTER}", origin.user_agent)[:_MAX_USER_AGENT_CHARS],
        issued_at=datetime.fromtimestamp(claims.issued_at, UTC),
        expires_at=datetime.fromtimestamp(claims.expires_at, UTC),
    )


def _extra_claims(user: Any, application: Any) -> dict[str, Any]:
    """Return the claims that CLAIMS_HOOK returns, without claims whose value is None.

    Raises ConfigError if the hook doesn't return a dictionary whose keys are strings.
    """
    hook = conf.claims_hook
    if hook is None:
        return {}
    extra = hook(user, application)
    if not isinstance(extra, dict) or not all(isinstance(name, str) for name in extra):
        raise ConfigError(
            "INSTACCESS['CLAIMS_HOOK'] must return a dictionary whose keys are strings", setting="CLAIMS_HOOK"
        )
    return {name: value for name, value in extra.items() if value is not None}
