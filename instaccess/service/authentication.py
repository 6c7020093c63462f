"""A service accepts the decrypted token: DRF authentication (contract §4).

Needs this package, DRF and public keys: neither the app in INSTALLED_APPS, nor an OAuth2 provider, nor a table.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import re
import time
from typing import Any

from django.db import Error as DbError
from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from .. import tokens, trust
from ..conf import conf
from ..exceptions import ConfigError, InstAccessError, InvalidToken, Reason
from ..tokens import Claims, identifiers, nests_too_deep
from ..web import RETRY_AFTER, InvalidAccessToken, Unavailable, challenge, request_domain
from .local_users import local_users

logger = logging.getLogger("instaccess.service")

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_ASCII_WHITE = " \t\n\r\x0b\x0c"
_ASCII_SPACE = re.compile(rf"[{_ASCII_WHITE}]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedClaims(Claims):
    """`request.auth`: what the token says, and the real user behind a masquerade where they are known here."""

    real_user: Any = None


class TokenUser:
    """Who a token is about, read from its claims alone: authenticated, and nothing in a database."""

    is_active = True
    is_anonymous = False
    is_authenticated = True
    is_staff = False
    is_superuser = False

    def __init__(self, claims: Claims) -> None:
        self.uuid = self.pk = self.id = claims.user_uuid
        self.username = claims.user_uuid

    def __str__(self) -> str:
        return self.uuid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenUser) and self.uuid == other.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def get_username(self) -> str:
        return self.uuid

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    def has_perms(self, perms: Any, obj: Any = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False


class _Refused(APIException):
    """In Canvas's words, for every reason alike.

    Not DRF's AuthenticationFailed: that has the challenge of whichever authenticator comes first, and is a 403 where
    that one has none.
    """

    status_code = 401

    def __init__(self) -> None:
        detail: Any = InvalidAccessToken.body
        super().__init__()
        self.detail = detail  # as it is: DRF would make objects of the texts
        self.auth_header = _challenge()


class _Unavailable(APIException):
    status_code = 503
    wait = RETRY_AFTER

    def __init__(self) -> None:
        detail: Any = Unavailable.body
        super().__init__()
        self.detail = detail


class InstAccessAuthentication(BaseAuthentication):
    """`request.user` and `request.auth` from an InstAccess token.

    An opaque bearer, or a JWT of another issuer, is left to the next authenticator. A broken, expired or still
    encrypted InstAccess token is refused for good. Each of the four steps can be overridden: `get_bearer`,
    `verify`, `get_claims`, `get_user`.
    """

    @sensitive_variables("token", "payload")
    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        payload: dict[str, Any] = {}
        try:
            token = self.get_bearer(request)
            if token is None or not self.is_ours(token):
                return None
            payload = self.verify(token)
            claims = self.get_claims(payload)
            self.check_account(claims, request)
            return self.get_user(claims), claims
        except InvalidToken as refusal:
            jti = identifiers(payload).get("jti", "")[:64]  # known once its signature was checked
            logger.warning("refused reason=%s jti=%r detail=%r", refusal.code, jti, refusal.detail)
            answer: type[APIException] = _Refused
        except (DbError, InstAccessError) as error:
            logger.error("not decided: %s: %s", type(error).__name__, error)
            answer = _Unavailable
        # Not while the other one is handled, which would go along, with the frames that know the token.
        raise answer

    def authenticate_header(self, request: Request) -> str:
        """The challenge that makes DRF answer 401 and not 403."""
        return _challenge()

    @sensitive_variables("header", "readings", "found", "ours")
    def get_bearer(self, request: Request) -> str | None:
        """Step 1: the bearer token of the Authorization header, None where there is not exactly one.

        As lenient as other authenticators are: what one of them could read as a token is looked at here first.
        """
        header = request.META.get("HTTP_AUTHORIZATION", "")
        # As text it has more kinds of white space than as bytes, and some read the one, some the other.
        readings = header.split(), _ASCII_SPACE.split(header.strip(_ASCII_WHITE))
        found = {words[1]: None for words in readings if len(words) == 2 and words[0].lower() == "bearer"}
        if len(found) > 1 and (ours := [token for token in found if self.is_ours(token)]):
            return ours[0]
        return next(iter(found), None)

    @sensitive_variables("token")
    def is_ours(self, token: str) -> bool:
        """Whether it means to be an InstAccess token: an encrypted one, or signed and naming our issuer."""
        return token.count(".") == 4 or (token.count(".") == 2 and conf.issuer in _issuers(token))

    @sensitive_variables("token")
    def verify(self, token: str) -> dict[str, Any]:
        """Step 2: the payload of a well-signed token. Raises InvalidToken."""
        if token.count(".") == 4:
            raise InvalidToken("still encrypted: send it through the gateway", code=Reason.STILL_ENCRYPTED)
        payload, _ = tokens.verify(token, trust.verification_keys(max_staleness=conf.max_staleness))
        return payload

    def get_claims(self, payload: dict[str, Any]) -> AcceptedClaims:
        """Step 3: the claims, not expired, and the real user behind a masquerade."""
        claims = AcceptedClaims.from_payload(payload, now=time.time(), issuer=conf.issuer, leeway=conf.leeway)
        if not claims.masquerading_user_uuid or conf.user_hook or local_users.find is None:
            return claims
        real_user = local_users.find(claims.masquerading_user_uuid)
        if real_user is None:
            raise InvalidToken("the real user is unknown or inactive", code=Reason.UNKNOWN_MASQUERADER)
        return dataclasses.replace(claims, real_user=real_user)

    def check_account(self, claims: AcceptedClaims, request: Request) -> None:
        """Refuse a token of another tenant, where ACCOUNT_UUID names this service's account, or ACCOUNT_HOOK that of
        the host the request was sent to."""
        account = conf.account_uuid
        if account is None and (hook := conf.account_hook) is not None:
            account = hook(request_domain(request._request))
            if not isinstance(account, str) or not account:
                raise ConfigError("INSTACCESS['ACCOUNT_HOOK'] must return a text", setting="ACCOUNT_HOOK")
        if account not in (None, claims.account_uuid):
            raise InvalidToken(
                f"for account {claims.account_uuid!r}, and this is {account!r} (ACCOUNT_UUID or ACCOUNT_HOOK)",
                code=Reason.WRONG_ACCOUNT,
            )

    def get_user(self, claims: AcceptedClaims) -> Any:
        """Step 4: who it is. What USER_HOOK says, the local user with that uuid where the app is installed, else a
        TokenUser. Raises InvalidToken for one that is unknown or inactive."""
        if (hook := conf.user_hook) is not None:
            user = hook(claims)
        elif local_users.find is not None:
            user = local_users.find(claims.user_uuid)
        else:
            user = TokenUser(claims)
        if user is None or not getattr(user, "is_active", False):
            raise InvalidToken("the user is unknown or inactive", code=Reason.UNKNOWN_USER)
        return user


def _challenge() -> str:
    try:
        return challenge()
    except ConfigError as error:
        logger.error("a challenge without its realm: %s", error)
        return "Bearer"


@sensitive_variables("token", "segment", "raw", "text", "pairs")
def _issuers(token: str) -> list[Any]:
    """Every `iss` in an unverified JWT, read as leniently as anybody might.

    A strict reading would call a respelled InstAccess token no token at all, and leave it to an authenticator that is
    less strict and may not know what has been revoked.
    """
    segment = _NOT_BASE64.sub("", token.split(".")[1].replace("+", "-").replace("/", "_"))
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        text = raw.decode(json.detect_encoding(raw), "replace")
        pairs = None if nests_too_deep(text) else json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return []
    return [value for name, value in pairs if name == "iss"] if isinstance(pairs, tuple) else []
