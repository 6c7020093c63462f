"""Who is asking: django-oauth-toolkit's access tokens, checked by the project's own validator, and scope.

Differences from `oauth2_provider.contrib.rest_framework.OAuth2Authentication`, each a measured trap of it: the token
comes from the Authorization header alone (RFC 6750 §2.1), nothing is asked of another server, the body is left
unread, and an inactive user or a token without application is refused.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from contextlib import suppress
from functools import cache, partial
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables
from oauth2_provider.models import get_access_token_model, get_application_model
from oauthlib.common import Request as OAuthlibRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from .. import keys, tokens, users
from ..conf import SCOPE, conf
from ..exceptions import ConfigError, InvalidToken, Reason
from ..tokens import Claims
from ..web import ExpiredAccessToken, InsufficientScope, InvalidAccessToken, JWTFromJWT, Unauthenticated
from . import access_tokens
from .parameters import form, query

logger = logging.getLogger("instaccess.issuer")

# RFC 6750 §2.1: one token, and nothing after it. What a token looks like is its generator's affair.
# (A lone surrogate can only come from a form whose sender chose an odd charset; there is no encoding it.)
_BEARER = re.compile(r"bearer +([^\s,\ud800-\udfff]+)", re.ASCII | re.IGNORECASE)
_DEFAULT_VALIDATOR = "oauth2_provider.oauth2_validators.OAuth2Validator"


class AccessTokenAuthentication(BaseAuthentication):
    """DRF authentication for the issuing endpoint: `(user, access token)`, or one of Canvas's refusals.

    Raises the refusals of `canvas.py` in the order of the contract's table, up to the scope.
    """

    @sensitive_variables("text")
    def authenticate(self, request: Request) -> tuple[Any, Any]:
        text = bearer_token(request._request)
        _refuse_inst_access_token(text)
        user, access_token = _validated(text, request._request)
        if not access_token.allow_scopes([SCOPE]):
            raise InsufficientScope(
                code=Reason.INSUFFICIENT_SCOPE,
                user=user,
                client_id=access_token.application.client_id,
                access_token_pk=access_token.pk,
            )
        return user, access_token


@sensitive_variables("header", "match", "text")
def bearer_token(request: HttpRequest) -> str:
    """The bearer token of the Authorization header; of the query or form too where a setting allows that.

    Raises Unauthenticated when there is none, InvalidAccessToken when there is no telling which it is.
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
        raise InvalidAccessToken("not exactly one bearer token", code=Reason.MALFORMED_HEADER)
    text = match[1]
    if len(text) > tokens.MAX_TOKEN_CHARS:
        raise InvalidAccessToken(code=Reason.TOO_LONG)
    return text


@sensitive_variables("text")
def _refuse_inst_access_token(text: str) -> None:
    if text.count(".") != 2 or tokens.peek_issuer(text) != conf.issuer:
        return
    try:
        payload, _ = tokens.verify(text, keys.current_ring().verification_keys())
        claims = Claims.from_payload(payload, now=time.time(), issuer=conf.issuer, leeway=conf.leeway)
    except InvalidToken as error:
        raise InvalidAccessToken(f"an InstAccess token as bearer: {error}", code=Reason.BROKEN_JWT) from None
    raise JWTFromJWT(f"jti={claims.jti}", code=Reason.JWT_FROM_JWT)


@sensitive_variables("text", "headers", "oauth_request")
def _validated(text: str, request: HttpRequest) -> tuple[Any, Any]:
    """Whom the valid access token with this text is for, and the access token. Raises a refusal."""
    validator_class = _validator_class(getattr(settings, "OAUTH2_PROVIDER", {}).get("OAUTH2_VALIDATOR_CLASS"))
    validator = validator_class()
    oauth_request: Any = _LazyRequest(text, request)
    if validator_class.reads_the_request:
        oauth_request = _oauthlib_request(text, request)
    if validator.validate_bearer_token(text, [], oauth_request):
        access_token = oauth_request.access_token
        return _user(access_token), access_token
    access_token = validator._load_access_token(text)
    user = _user(access_token)
    if access_token.is_expired() and access_token.application.is_usable(oauth_request):
        raise ExpiredAccessToken(code=Reason.EXPIRED, user=user, client_id=access_token.application.client_id)
    raise InvalidAccessToken(
        "refused by the OAuth2 validator: not for this resource, or its application is not usable",
        code=Reason.REFUSED_BY_VALIDATOR,
        user=user,
        client_id=access_token.application.client_id,
    )


@sensitive_variables("text", "headers")
def _oauthlib_request(text: str, request: HttpRequest) -> OAuthlibRequest:
    """What the toolkit's validators are shown of a request.

    Without query and body: they are not ours to read, and oauthlib chokes on `%GG`. The URI is absolute, for it is
    compared with the resources a token is restricted to (RFC 8707 §2).
    """
    headers = {key: value for key, value in request.META.items() if isinstance(value, str)}
    # Its other spellings are the same endpoint.
    path = request.path.removesuffix("/").removesuffix(".json")
    return OAuthlibRequest(
        request.build_absolute_uri(path),
        http_method=request.method,
        headers={**headers, "Authorization": f"Bearer {text}"},
    )


class _LazyRequest:
    """The same, made when something of it is read: the toolkit's own validator writes down what it has found, and
    reads only of a request with a restricted token. To make one takes as long as to find the token."""

    def __init__(self, text: str, request: HttpRequest) -> None:
        self._make = partial(_oauthlib_request, text, request)

    def __getattr__(self, name: str) -> Any:  # asked for what was not written
        if name.startswith("_"):  # such as `__deepcopy__`, and what a copy of this would lack
            raise AttributeError(name)
        if "_made" not in self.__dict__:
            self._made = self._make()
        return getattr(self._made, name)


def _is_toolkits(function: Any) -> bool:
    return bool(function.__module__.startswith("oauth2_provider."))


def _user(access_token: Any) -> Any:
    """Whom the access token is for: its user, or the service user of an application that came for itself.

    Raises InvalidAccessToken where there is no such token, application or active user.
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


@cache
def _validator_class(path: Any) -> Any:
    """The project's OAuth2 validator, kept from asking other servers.

    With introspection configured, django-oauth-toolkit POSTs an unknown bearer to another server, and creates the
    user that server names. A stranger could so make us call out and fill our user table; and a token of another
    server is not one to issue for.
    """
    project: Any = import_string(path) if isinstance(path, str) else path or import_string(_DEFAULT_VALIDATOR)

    if not hasattr(import_string(_DEFAULT_VALIDATOR), "_get_token_from_authentication_server"):
        # Then what is overridden below overrides nothing, and somebody else's server might be asked after all.
        raise ConfigError(
            "this version of django-oauth-toolkit asks other servers in a way that is not known here: install "
            "one that this version of django-instaccess was made for, or a newer django-instaccess"
        )
    theirs = getattr(project, "_load_access_token", None)
    customised = theirs is not None and not _is_toolkits(theirs)

    class LocalValidator(project):  # type: ignore[misc]
        reads_the_request = not (
            _is_toolkits(project.validate_bearer_token) and _is_toolkits(get_application_model().is_usable)
        )

        def _get_token_from_authentication_server(self, *args: Any, **kwargs: Any) -> None:
            return None

        @sensitive_variables("token")
        def _load_access_token(self, token: str) -> Any:
            if customised:
                return super()._load_access_token(token)
            # What the toolkit's own query finds, and the user's uuid along with it.
            checksum = hashlib.sha256(token.encode()).hexdigest()
            with suppress(access_tokens.NotFixed):
                return access_tokens.find(checksum)
            related = ["application", "user"]
            if conf.user_uuid_field is None:
                related.append("user__instaccess_identity")
            objects = get_access_token_model()._default_manager.select_related(*related)
            return objects.filter(token_checksum=checksum).first()

    return LocalValidator
