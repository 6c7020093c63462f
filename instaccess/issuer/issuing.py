"""The one way a token is made: claims, signature, encryption, a committed audit row, and only then the text."""

from __future__ import annotations

import logging
import re
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import Error as DbError
from django.db import IntegrityError, connections, router, transaction
from django.views.decorators.debug import sensitive_variables

from .. import audit, keys, tokens, users, web
from ..conf import conf
from ..exceptions import AuditError, ConfigError
from ..models import IssuedToken
from ..tokens import Claims

logger = logging.getLogger("instaccess.issuer")

_ATTEMPTS = 2
# C1 too (0x80 to 0x9f): servers read headers as Latin-1, and some terminals obey them.
# And lone surrogates, which no database takes.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from.

    Args:
        canvas_domain: the host it was sent to, with a port that is not the scheme's own.
        ip_address: the client's address, None where it is not known.
        user_agent: as sent; control characters are replaced and the rest cut before it is stored.
    """

    canvas_domain: str
    ip_address: str | None = None
    user_agent: str = ""


@sensitive_variables("signed", "text")
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
    """Make a token for `user` and write who got it.

    Args:
        user: whom the token is about. The caller has authenticated them and checked that they may.
        real_user: who is behind it, where that is somebody else (a masquerade).
        origin: for `canvas_domain` and the audit.
        now: seconds since the epoch.
        application: the OAuth2 application the user came through.
        service: the application acts for itself, as its service user; the token says so.
        access_token_pk: primary key of the OAuth2 access token; for the audit only.
        encrypted: False returns the bare signed token, for development.

    Returns the committed audit row and the token: a compact JWE around a compact JWS (contract §2).

    Raises KeyUnavailable, ConfigError, ClaimsTooLarge; AuditError when the row could not be committed. Whatever is
    raised, no token has left.
    """
    ring = keys.current_ring()
    signing, encryption = ring.signing_key(), ring.encryption_key()
    values: dict[str, Any] = {
        "issuer": conf.issuer,
        "user_uuid": users.user_uuid(user),
        "account_uuid": web.account_uuid(origin.canvas_domain),
        "canvas_domain": origin.canvas_domain,
        "user_global_id": str(user.pk),
        "region": conf.region,
        "shard_id": conf.shard_id,
    }
    if real_user is not None:
        values["masquerading_user_uuid"] = users.user_uuid(real_user)
        values["masquerading_user_shard_id"] = conf.shard_id or 1
        values["real_user_global_id"] = str(real_user.pk)
    if service:
        values["client_id"], values["instructure_service"] = application.client_id, True
    extra = _extra_claims(user, application)
    for _ in range(_ATTEMPTS):
        claims = Claims.new(now=now, lifetime=conf.lifetime, extra=extra, **values)
        signed = tokens.sign(claims.to_json(), signing.private(), kid=signing.kid)
        text = signed
        if encrypted:
            text = tokens.encrypt(
                signed,
                encryption.public,
                kid=encryption.kid,
                alg=conf.encryption_alg,
                enc=conf.content_encryption,
            )
        record = IssuedToken(
            user=user,
            real_user=real_user,
            application=application,
            jti=uuid.UUID(claims.jti),
            user_uuid=claims.user_uuid,
            real_user_uuid=claims.masquerading_user_uuid or "",
            client_id=getattr(application, "client_id", ""),
            access_token_pk="" if access_token_pk is None else str(access_token_pk),
            account_uuid=claims.account_uuid,
            canvas_domain=claims.canvas_domain,
            signing_kid=signing.kid,
            encryption_kid=encryption.kid if encrypted else "",
            ip_address=origin.ip_address,
            user_agent=_CONTROL.sub("\N{REPLACEMENT CHARACTER}", origin.user_agent)[:512],
            issued_at=datetime.fromtimestamp(claims.issued_at, UTC),
            expires_at=datetime.fromtimestamp(claims.expires_at, UTC),
        )
        record.mac = audit.authenticate(audit.canonical_bytes(record), conf.key_encryption_keys)
        try:
            _commit(record)
        except IntegrityError:
            # A jti that is taken, or a user deleted a moment ago. Once more with a new jti tells which.
            continue
        logger.info(
            "issued jti=%s user=%s real_user=%s client_id=%r signing_kid=%s",
            claims.jti,
            user.pk,
            getattr(real_user, "pk", None),
            record.client_id,
            record.signing_kid,
        )
        return record, text
    raise AuditError("the audit row was refused by the database twice")


def _commit(record: IssuedToken) -> None:
    """Write the audit row so that no later error can take it back.

    Raises IntegrityError as it comes, AuditError for every other failure.
    """
    alias = router.db_for_write(IssuedToken)
    connection = connections[alias]
    # One INSERT in autocommit mode is committed when it returns. Inside somebody's transaction it would vanish with
    # their next error: `durable` refuses that (and lets Django's TestCase pass, which wraps every test in one).
    context: Any = nullcontext()
    try:
        if connection.in_atomic_block:
            context = transaction.atomic(using=alias, durable=True)
        elif not connection.get_autocommit():
            raise AuditError(f"DATABASES[{alias!r}]['AUTOCOMMIT'] is off, so the row would not be committed")
        with context:
            audit.insert(record, using=alias)
    except IntegrityError:
        raise
    except (DbError, RuntimeError, ValueError) as error:
        raise AuditError(f"the audit row was not written: {type(error).__name__}: {error}") from error


def _extra_claims(user: Any, application: Any) -> dict[str, Any]:
    hook = conf.claims_hook
    if hook is None:
        return {}
    extra = hook(user, application)
    if not isinstance(extra, dict) or not all(isinstance(name, str) for name in extra):
        raise ConfigError("INSTACCESS['CLAIMS_HOOK'] must return a dictionary with text keys", setting="CLAIMS_HOOK")
    return {name: value for name, value in extra.items() if value is not None}  # absent, never null
