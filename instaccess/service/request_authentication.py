"""Authentication of a Django request by its signed token (docs/wire-contract.md §4), for every Django framework.

A service needs this package and public signing keys. A service needs neither the issuer's app in INSTALLED_APPS, nor
an OAuth2 provider, nor database tables.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db import Error as DbError
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ..conf import conf
from ..exceptions import ConfigError, InstAccessError, InvalidToken, Reason
from ..logs import get_logger
from ..tokens import Claims, identifiers
from ..web import (
    Fault,
    InvalidAccessToken,
    Refusal,
    Unavailable,
    account_uuid,
    announce_refusal,
    challenge,
    client_address_or_none,
    request_domain,
)
from .lenient_parsing import find_bearer
from .local_tables import local_tables
from .refusals import describe_fault, known_ids, log_fault, log_refusal
from .token_user import TokenUser
from .verifier import Verifier

logger = get_logger("instaccess.service")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedClaims(Claims):
    """The claims of the request's token, with the real user.

    Django REST framework stores the object in `request.auth`. `InstAccessMiddleware` and `token_required` store the
    object in `request.instaccess`.

    Attributes:
        real_user: the local user who masquerades as the subject. None if the token is not for a masquerade, if
            USER_HOOK is set, or if the issuer's app is not installed.
    """

    real_user: Any = None


class RequestAuthentication:
    """Authentication of a request by its InstAccess token.

    A subclass can override each of the four steps: `get_bearer`, `verify`, `get_claims`, `get_user`. The methods get
    the framework's request object: a Django request, or a Django REST framework request.
    """

    verifier = Verifier.from_settings()

    @sensitive_variables("payload")
    def authenticate_request(self, request: Any) -> tuple[Any, AcceptedClaims] | None:
        """Return the user and the claims, or None if the request contains no InstAccess token.

        Raises:
            InvalidAccessToken: the token is refused. The response is 401.
            Unavailable: the token could not be checked because of a server-side error. The response is 503.

        An unexpected error of a hook is raised unchanged.
        """
        payload: dict[str, Any] | None = {}
        answer: type[Refusal] = Unavailable
        reason = Reason.FAULT
        detail = ""
        fault: Fault | None = None
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
            known = known_ids(identifiers(payload or {}))
            answer, reason, detail = InvalidAccessToken, refusal.code, refusal.detail
        except Exception as error:
            if payload and not isinstance(error, (DbError, InstAccessError)):
                # The error occurred after the verification, for example in a hook. Raise the error unchanged, because
                # no frame contains the token.
                raise
            fault = describe_fault(error)
        # Log and raise after the `except` blocks. Within these blocks, log handlers could reach the first exception,
        # whose frames contain the token, and the first exception would become the `__context__` of the new exception.
        if fault is not None:
            log_fault(fault)
        else:
            log_refusal(reason, detail, known, client_address_or_none(_django_request(request)))
        announce_refusal("service", reason, status=answer.status, request=_django_request(request), **known)
        raise answer(code=reason)

    @sensitive_variables("token")
    def _read_payload(self, request: Any) -> dict[str, Any] | None:
        """Return the verified payload of the request's token (steps 1 and 2).

        Returns None if the request has no InstAccess token.
        """
        token = self.get_bearer(request)
        return self.verify(token) if token is not None and self.is_ours(token) else None

    @sensitive_variables("header")
    def get_bearer(self, request: Any) -> str | None:
        """Return the bearer token of the Authorization header (step 1), or None if the header contains no token."""
        header: str = request.META.get("HTTP_AUTHORIZATION", "")
        return find_bearer(header)

    @sensitive_variables("token")
    def is_ours(self, token: str) -> bool:
        """Return whether only this authenticator may accept or refuse the token.

        Returns True for a token with five segments (the format of a JWE), and for a JWT whose `iss` is in
        ACCEPTED_ISSUERS.
        """
        return self.verifier.is_ours(token)

    @sensitive_variables("token")
    def verify(self, token: str) -> dict[str, Any]:
        """Verify the signature of the token and return the payload (step 2).

        Raises InvalidToken or KeyUnavailable.
        """
        return self.verifier.read_payload(token)

    def get_claims(self, payload: dict[str, Any]) -> AcceptedClaims:
        """Validate the payload and return the claims (step 3), with the real user if the token is for a masquerade.

        Raises:
            InvalidToken: a claim is invalid, the token has expired, or the real user is unknown or inactive.
        """
        claims = self.verifier.read_claims(payload, AcceptedClaims)
        if not claims.masquerading_user_uuid or conf.user_hook or local_tables.find_user is None:
            return claims
        real_user = local_tables.find_user(claims.masquerading_user_uuid)
        if real_user is None:
            raise InvalidToken("the real user is unknown or inactive", code=Reason.UNKNOWN_MASQUERADER)
        return dataclasses.replace(claims, real_user=real_user)

    def check_account(self, claims: AcceptedClaims, request: Any) -> None:
        """Refuse a token whose account (tenant) is not the account of this service or of the host.

        ACCOUNT_UUID is the account of this service. If ACCOUNT_UUID is not set, ACCOUNT_HOOK returns the account of
        the host that the request was sent to. If neither setting is set, tokens of every account are accepted.

        Raises:
            InvalidToken: the token belongs to another account.
            ConfigError: ACCOUNT_HOOK did not return a string of 1 to 255 characters.
        """
        account = conf.account_uuid
        if account is None and conf.account_hook is not None:
            account = account_uuid(request_domain(_django_request(request)))
        self.verifier.check_account(claims, account, "ACCOUNT_UUID or ACCOUNT_HOOK")

    def check_client(self, claims: Claims, request: Any = None) -> None:
        """Refuse a token whose application was deleted or is unusable, as Canvas does with a developer key.

        The application is looked up if the issuer's app is installed, and only for a token that contains a client id
        and whose `iss` is ISSUER. The applications of other tokens are in the database of another issuer.

        Raises:
            InvalidToken: the application does not exist or is unusable.
        """
        is_usable = local_tables.is_usable_client
        if claims.client_id is None or claims.issuer != conf.issuer or is_usable is None:
            return
        if not is_usable(claims.client_id, _django_request(request)):
            raise InvalidToken(
                f"the application {claims.client_id!r} was deleted or is unusable", code=Reason.UNUSABLE_CLIENT
            )

    def get_user(self, claims: AcceptedClaims) -> Any:
        """Return the user of the claims (step 4).

        If USER_HOOK is set, the hook returns the user. If USER_HOOK is not set, the user is the local user with the
        uuid in the claims or, if the issuer's app is not installed, a TokenUser.

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


def challenge_or_bearer() -> str:
    """Return the value of WWW-Authenticate, without a realm if REALM is invalid."""
    try:
        return challenge()
    except ConfigError as error:
        logger.error(
            "the WWW-Authenticate header has no realm, because a setting is invalid: %(detail)s",
            reason=error.code,
            detail=str(error),
        )
        return "Bearer"


def _django_request(request: Any) -> HttpRequest:
    """Return the Django request inside a Django REST framework request. Return any other request unchanged."""
    inner: HttpRequest = getattr(request, "_request", request)
    return inner
