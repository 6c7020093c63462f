"""Django REST framework authentication of the signed token (`docs/wire-contract.md` §4).

A service needs this package, Django REST framework and public signing keys. A service needs neither the issuer's app
in INSTALLED_APPS, nor an OAuth2 provider, nor database tables.
"""

from __future__ import annotations

import dataclasses
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
from ..logs import get_logger
from ..tokens import Claims, identifiers
from ..web import (
    RETRY_AFTER,
    Fault,
    InvalidAccessToken,
    Unavailable,
    account_uuid,
    announce_refusal,
    challenge,
    client_address_or_none,
    load_openapi,
    metrics,
    request_domain,
)
from .lenient_parsing import find_issuers
from .local_tables import local_tables
from .token_user import TokenUser

logger = get_logger("instaccess.service")

_ASCII_WHITE = " \t\n\r\x0b\x0c"
_ASCII_SPACE = re.compile(rf"[{_ASCII_WHITE}]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedClaims(Claims):
    """The claims of the request's token, with the real user. DRF stores the object in `request.auth`.

    Attributes:
        real_user: the local user who masquerades as the subject. None if the token is not for a masquerade, if
            USER_HOOK is set, or if the issuer's app is not installed.
    """

    real_user: Any = None


class _Refused(APIException):
    """The refusal of a token: a 401 response with Canvas's body, identical for every reason.

    DRF's AuthenticationFailed is not used. With this exception, DRF sends the challenge of the view's first
    authenticator, or a 403 if the first authenticator has no challenge.
    """

    status_code = 401

    def __init__(self) -> None:
        detail: Any = InvalidAccessToken.body
        super().__init__()
        self.detail = detail  # Set the attribute directly, because DRF's constructor would convert the strings.
        self.auth_header = _challenge()


class _Unavailable(APIException):
    status_code = 503
    wait = RETRY_AFTER

    def __init__(self) -> None:
        detail: Any = Unavailable.body
        super().__init__()
        self.detail = detail


class InstAccessAuthentication(BaseAuthentication):
    """Authentication that sets `request.user` and `request.auth` from an InstAccess token.

    For an opaque bearer token or a JWT of another issuer, DRF tries the next authenticator. An InstAccess token that
    is malformed, expired or still encrypted is refused, and no other authenticator is tried. A subclass can override
    each of the four steps: `get_bearer`, `verify`, `get_claims`, `get_user`.
    """

    @sensitive_variables("payload")
    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """Return the user and the claims, or None if the request contains no InstAccess token.

        Raises:
            APIException: the response is 401 if the token is refused, or 503 after a server-side error.
        """
        payload: dict[str, Any] | None = {}
        answer: type[APIException] = _Unavailable
        fault: Fault | None = None
        reason: str = Reason.FAULT
        known: dict[str, str] = {}
        try:
            # No variable of this function contains the token, because some error reporters print the variables of
            # all functions, and USER_HOOK can raise any error.
            if (payload := self._read_payload(request)) is None:
                return None
            claims = self.get_claims(payload)
            self.check_account(claims, request)
            self.check_client(claims, request)
            return self.get_user(claims), claims
        except InvalidToken as refusal:
            known = {name: value[:64] for name, value in identifiers(payload or {}).items()}
            logger.warning(
                "refused reason=%(reason)s jti=%(jti)r detail=%(detail)r",
                reason=refusal.code,
                jti=known.get("jti", ""),
                detail=refusal.detail,
                user_uuid=known.get("user_uuid", ""),
                client_id=known.get("client_id", ""),
                ip_address=client_address_or_none(getattr(request, "_request", request)),
            )
            metrics.refused("service", refusal.code)
            answer, reason = _Refused, refusal.code
        except Exception as error:
            if payload and not isinstance(error, (DbError, InstAccessError)):
                # The error occurred after the verification, for example in a hook. Raise the error unchanged, because
                # no frame contains the token.
                raise
            fault = Fault.of("the service could not check the token", error)
        # Log and raise after the `except` blocks. Within these blocks, log handlers could reach the first exception,
        # whose frames contain the token, and the first exception would become the `__context__` of the new exception.
        if fault is not None:
            fault.log(logger)
            metrics.refused("service", Reason.FAULT)
        announce_refusal(
            "service",
            reason,
            status=answer.status_code,
            request=getattr(request, "_request", request),
            **known,
        )
        raise answer

    @sensitive_variables("token")
    def _read_payload(self, request: Request) -> dict[str, Any] | None:
        """Return the verified payload of the request's token (steps 1 and 2), or None without an InstAccess token."""
        token = self.get_bearer(request)
        return self.verify(token) if token is not None and self.is_ours(token) else None

    def authenticate_header(self, request: Request) -> str:
        """Return the value of WWW-Authenticate. Without this value, DRF would answer 403 instead of 401."""
        return _challenge()

    @sensitive_variables("header", "splits", "candidates", "own")
    def get_bearer(self, request: Request) -> str | None:
        """Return the bearer token of the Authorization header (step 1), or None if the header contains no such token.

        The header is parsed as leniently as other authenticators parse the header. With a stricter parser, this
        authenticator could fail to find an InstAccess token that a later authenticator finds and accepts.
        """
        header = request.META.get("HTTP_AUTHORIZATION", "")
        # Split the header in two ways, because some authenticators use `str.split` and others use `bytes.split`.
        # `str.split` splits at more kinds of white space.
        splits = header.split(), _ASCII_SPACE.split(header.strip(_ASCII_WHITE))
        candidates = {words[1]: None for words in splits if len(words) == 2 and words[0].lower() == "bearer"}
        if len(candidates) > 1 and (own := [token for token in candidates if self.is_ours(token)]):
            return own[0]
        return next(iter(candidates), None)

    @sensitive_variables("token")
    def is_ours(self, token: str) -> bool:
        """Return whether this authenticator, and no later authenticator, accepts or refuses the token.

        Returns True for a token with five segments, as in a JWE, and for a JWT whose `iss` is in ACCEPTED_ISSUERS.
        """
        if token.count(".") != 2:
            return token.count(".") == 4
        issuers = find_issuers(token)
        return any(accepted in issuers for accepted in conf.accepted_issuers)

    @sensitive_variables("token")
    def verify(self, token: str) -> dict[str, Any]:
        """Verify the signature of the token and return the payload (step 2). Raises InvalidToken."""
        if token.count(".") == 4:
            raise InvalidToken(
                "the token is still encrypted: send the request through the gateway", code=Reason.STILL_ENCRYPTED
            )
        payload, _ = tokens.verify(token, trust.verification_keys(max_staleness=conf.max_staleness))
        return payload

    def get_claims(self, payload: dict[str, Any]) -> AcceptedClaims:
        """Validate the payload and return the claims (step 3), with the real user if the token is for a masquerade.

        Raises:
            InvalidToken: a claim is invalid, the token has expired, or the real user is unknown or inactive.
        """
        claims = AcceptedClaims.from_payload(
            payload, now=time.time(), issuers=conf.accepted_issuers, leeway=conf.leeway
        )
        if not claims.masquerading_user_uuid or conf.user_hook or local_tables.find_user is None:
            return claims
        real_user = local_tables.find_user(claims.masquerading_user_uuid)
        if real_user is None:
            raise InvalidToken("the real user is unknown or inactive", code=Reason.UNKNOWN_MASQUERADER)
        return dataclasses.replace(claims, real_user=real_user)

    def check_account(self, claims: AcceptedClaims, request: Request) -> None:
        """Refuse a token whose account (tenant) is not the account of this service or of the host.

        ACCOUNT_UUID is the account of this service. If ACCOUNT_UUID is not set, ACCOUNT_HOOK returns the account of
        the host that the request was sent to. If neither setting is set, tokens of every account are accepted.

        Raises:
            InvalidToken: the token belongs to another account.
            ConfigError: ACCOUNT_HOOK did not return a string of 1 to 255 characters.
        """
        account = conf.account_uuid
        if account is None and conf.account_hook is not None:
            account = account_uuid(request_domain(request._request))
        if account not in (None, claims.account_uuid):
            raise InvalidToken(
                f"the token is for account {claims.account_uuid!r}, not {account!r} (ACCOUNT_UUID or ACCOUNT_HOOK)",
                code=Reason.WRONG_ACCOUNT,
            )

    def check_client(self, claims: Claims, request: Request | None = None) -> None:
        """Refuse a token whose application was deleted or is unusable, as Canvas does with a developer key.

        The application is looked up if the issuer's app is installed, and only for a token whose `iss` is ISSUER.
        The applications of other tokens are in the database of another issuer.

        Raises:
            InvalidToken: the application does not exist or is unusable.
        """
        is_usable = local_tables.is_usable_client
        if claims.client_id is None or claims.issuer != conf.issuer or is_usable is None:
            return
        if not is_usable(claims.client_id, None if request is None else request._request):
            raise InvalidToken(
                f"the application {claims.client_id!r} was deleted or is unusable", code=Reason.UNUSABLE_CLIENT
            )

    def get_user(self, claims: AcceptedClaims) -> Any:
        """Return the user of the claims (step 4).

        If USER_HOOK is set, the hook returns the user. Without USER_HOOK, the user is the local user with the uuid in
        the claims or, if the issuer's app is not installed, a TokenUser.

        Raises:
            InvalidToken: the user is unknown or inactive.
        """
        if (hook := conf.user_hook) is not None:
            user = hook(claims)
        elif local_tables.find_user is not None:
            user = local_tables.find_user(claims.user_uuid)
        else:
            user = TokenUser(claims)
        if user is None or not getattr(user, "is_active", False):
            raise InvalidToken("the user is unknown or inactive", code=Reason.UNKNOWN_USER)
        return user


def _challenge() -> str:
    try:
        return challenge()
    except ConfigError as error:
        logger.error(
            "the WWW-Authenticate header has no realm, because a setting is invalid: %(detail)s",
            reason=error.code,
            detail=str(error),
        )
        return "Bearer"


load_openapi("instaccess.service.openapi")
