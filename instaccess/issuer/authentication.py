"""Authentication of clients by OAuth2 access tokens, with the OAuth2 validator of the project.

`AccessTokenAuthentication` differs from `oauth2_provider.contrib.rest_framework.OAuth2Authentication`:

- The token is read only from the Authorization header (RFC 6750 §2.1), and the body is not read. If
  ALLOW_TOKEN_IN_PARAMETERS is on, the query and the form can contain the token too.
- An unknown token is never sent to another server for introspection.
- A token of an inactive user and a token without an application are refused.
"""

from __future__ import annotations

import re
import time
from typing import Any

from django.conf import settings
from django.db import router
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables
from oauth2_provider.models import get_refresh_token_model
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from .. import keys, tokens, users
from ..conf import SCOPE, conf
from ..exceptions import InvalidToken, Reason
from ..opaque import Opaque
from ..tokens import Claims
from ..web import ExpiredAccessToken, InsufficientScope, InvalidAccessToken, JWTFromJWT, Unauthenticated
from .oauth2_validator import LazyRequest, build_oauthlib_request, local_validator_class
from .parameters import form, query

# The header must contain one token and nothing after the token (RFC 6750 §2.1). The token may have any form, because
# the project can configure the token generator. Lone surrogates are refused, because UTF-8 can't encode them.
_BEARER = re.compile(r"bearer +([^\s,\ud800-\udfff]+)", re.ASCII | re.IGNORECASE)


class AccessTokenAuthentication(BaseAuthentication):
    """The DRF authentication class of the issuing endpoint. `authenticate` returns the user and the access token.

    `authenticate` raises the refusals in the table of docs/wire-contract.md §1, in the order of the table. The last
    of these refusals is the refusal for a missing scope. The view raises the later refusals.
    """

    def authenticate(self, request: Request) -> tuple[Any, Any]:
        text = bearer_token(request._request)
        _refuse_inst_access_token(text)
        user, access_token = _validate(text, request._request)
        if not access_token.allow_scopes([SCOPE]):
            raise InsufficientScope(
                code=Reason.INSUFFICIENT_SCOPE,
                user=user,
                client_id=access_token.application.client_id,
                access_token_pk=access_token.pk,
            )
        return user, access_token


@sensitive_variables("header", "match", "text")
def bearer_token(request: HttpRequest) -> Opaque[str]:
    """Return the bearer token of the Authorization header.

    If ALLOW_TOKEN_IN_PARAMETERS is on, the query or the form can contain the token as `access_token` instead.

    Raises:
        Unauthenticated: there is no bearer token.
        InvalidAccessToken: the header is malformed, or the token is too long.
    """
    header = request.META.get("HTTP_AUTHORIZATION", "").strip()
    if header.partition(" ")[0].lower() != "bearer":
        text = ""
        if conf.allow_token_in_parameters:
            text = query(request).get("access_token") or form(request).get("access_token") or ""
        if not text:
            raise Unauthenticated(code=Reason.NO_CREDENTIALS)
        header = f"Bearer {text}"
    match = _BEARER.fullmatch(header)
    if match is None:
        raise InvalidAccessToken("the header does not contain exactly one bearer token", code=Reason.MALFORMED_HEADER)
    text = match[1]
    if len(text) > tokens.MAX_TOKEN_CHARS:
        raise InvalidAccessToken(code=Reason.TOO_LONG)
    return Opaque(text)


def _refuse_inst_access_token(text: Opaque[str]) -> None:
    """Refuse a signed InstAccess token, as Canvas does. Any other bearer token causes no error.

    Raises:
        JWTFromJWT: the InstAccess token is valid.
        InvalidAccessToken: the InstAccess token is invalid or expired.
    """
    if text.reveal().count(".") != 2 or tokens.peek_issuer(text.reveal()) not in conf.accepted_issuers:
        return
    try:
        payload, _ = tokens.verify(text.reveal(), keys.current_ring().verification_keys())
        claims = Claims.from_payload(payload, now=time.time(), issuers=conf.accepted_issuers, leeway=conf.leeway)
    except InvalidToken as error:
        raise InvalidAccessToken(
            f"the bearer token is an invalid InstAccess token: {error}", code=Reason.BROKEN_JWT
        ) from None
    raise JWTFromJWT(f"jti={claims.jti}", code=Reason.JWT_FROM_JWT)


@sensitive_variables("oauth_request")
def _validate(text: Opaque[str], request: HttpRequest) -> tuple[Any, Any]:
    """Validate an access token, and return its user and the model instance of the access token. Raises a Refusal."""
    validator_class = local_validator_class(getattr(settings, "OAUTH2_PROVIDER", {}).get("OAUTH2_VALIDATOR_CLASS"))
    validator = validator_class()
    oauth_request: Any = LazyRequest(text.reveal(), request)
    if validator_class.reads_the_request:
        oauth_request = build_oauthlib_request(text.reveal(), request)
    if validator.validate_bearer_token(text.reveal(), [], oauth_request):
        access_token = oauth_request.access_token
        return _user(access_token), access_token
    access_token = validator._load_access_token(text.reveal())
    user = _user(access_token)
    client: dict[str, Any] = {"user": user, "client_id": access_token.application.client_id}
    if not access_token.is_expired() or not access_token.application.is_usable(oauth_request):
        raise InvalidAccessToken(
            "the OAuth2 validator refused the access token: the token is for another resource, or its application is "
            "unusable",
            code=Reason.REFUSED_BY_VALIDATOR,
            **client,
        )
    if _can_be_refreshed(access_token):
        raise InvalidAccessToken(
            "the access token has expired, but the client can refresh it", code=Reason.EXPIRED, **client
        )
    raise ExpiredAccessToken(expired_at=access_token.expires, **client)


def _can_be_refreshed(access_token: Any) -> bool:
    """Return whether the access token has a refresh token that is not revoked."""
    model = get_refresh_token_model()
    refresh_tokens = model._default_manager.using(router.db_for_write(model))
    return bool(refresh_tokens.filter(access_token=access_token, revoked=None).exists())


def _user(access_token: Any) -> Any:
    """Return the user of an access token. If the token has no user, return the service user of its application.

    Raises InvalidAccessToken if the access token is None, has no application, or has neither an active user nor an
    active service user.
    """
    if access_token is None:
        raise InvalidAccessToken(code=Reason.UNKNOWN_TOKEN)
    if access_token.application is None:
        raise InvalidAccessToken("the access token has no application", code=Reason.NO_APPLICATION)
    client_id = access_token.application.client_id
    user = access_token.user or users.service_user(access_token.application)
    if user is None:
        raise InvalidAccessToken("the access token has no user", code=Reason.NO_USER, client_id=client_id)
    if not user.is_active:
        raise InvalidAccessToken(code=Reason.INACTIVE_USER, user=user, client_id=client_id)
    return user
