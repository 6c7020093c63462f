"""Authentication of clients by django-oauth-toolkit's access tokens and the project's own OAuth2 validator.

`AccessTokenAuthentication` differs from `oauth2_provider.contrib.rest_framework.OAuth2Authentication`:

- The token is read from the Authorization header only (RFC 6750 §2.1), and the body is not read.
- An unknown token is never sent to another server for introspection.
- A token of an inactive user and a token without an application are refused.
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
from django.db import DataError, router
from django.http import HttpRequest
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables
from oauth2_provider.models import get_access_token_model, get_application_model, get_refresh_token_model
from oauthlib.common import Request as OAuthlibRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from .. import charsets, keys, tokens, users
from ..conf import SCOPE, conf
from ..exceptions import ConfigError, InvalidToken, Reason
from ..tokens import Claims
from ..web import ExpiredAccessToken, InsufficientScope, InvalidAccessToken, JWTFromJWT, Unauthenticated
from . import access_tokens
from .parameters import form, query

logger = logging.getLogger("instaccess.issuer")

# RFC 6750 §2.1: one token and nothing after the token. The token may have any form, because the project can configure
# the token generator. Lone surrogates are excluded, because they can't be encoded as UTF-8.
_BEARER = re.compile(r"bearer +([^\s,\ud800-\udfff]+)", re.ASCII | re.IGNORECASE)
_DEFAULT_VALIDATOR = "oauth2_provider.oauth2_validators.OAuth2Validator"


class AccessTokenAuthentication(BaseAuthentication):
    """DRF authentication for the issuing endpoint. Returns the user and the access token.

    Raises the refusals of the table in docs/wire-contract.md §1, in the same order, up to and including the scope.
    """

    @sensitive_variables("text")
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
def bearer_token(request: HttpRequest) -> str:
    """Return the bearer token of the Authorization header.

    With ALLOW_TOKEN_IN_PARAMETERS, the query or form may contain the token instead, as `access_token`.

    Raises Unauthenticated if there is no bearer token, InvalidAccessToken if the header is malformed.
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
    """Raise JWTFromJWT for a valid InstAccess token, and InvalidAccessToken for an invalid one, as Canvas does."""
    if text.count(".") != 2 or tokens.peek_issuer(text) not in conf.accepted_issuers:
        return
    try:
        payload, _ = tokens.verify(text, keys.current_ring().verification_keys())
        claims = Claims.from_payload(payload, now=time.time(), issuers=conf.accepted_issuers, leeway=conf.leeway)
    except InvalidToken as error:
        raise InvalidAccessToken(
            f"an InstAccess token as the bearer token: {error}", code=Reason.BROKEN_JWT
        ) from None
    raise JWTFromJWT(f"jti={claims.jti}", code=Reason.JWT_FROM_JWT)


@sensitive_variables("text", "headers", "oauth_request")
def _validate(text: str, request: HttpRequest) -> tuple[Any, Any]:
    """Validate an access token, and return its user and the model instance. Raises a Refusal."""
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
    client: dict[str, Any] = {"user": user, "client_id": access_token.application.client_id}
    if not access_token.is_expired() or not access_token.application.is_usable(oauth_request):
        raise InvalidAccessToken(
            "refused by the OAuth2 validator: not for this resource, or its application is not usable",
            code=Reason.REFUSED_BY_VALIDATOR,
            **client,
        )
    if _can_be_refreshed(access_token):
        raise InvalidAccessToken("the client can refresh the access token", code=Reason.EXPIRED, **client)
    raise ExpiredAccessToken(expired_at=access_token.expires, **client)


def _can_be_refreshed(access_token: Any) -> bool:
    """Return whether the access token has a refresh token that is not revoked. Clients then refresh it."""
    model = get_refresh_token_model()
    refresh_tokens = model._default_manager.using(router.db_for_write(model))
    return bool(refresh_tokens.filter(access_token=access_token, revoked=None).exists())


@sensitive_variables("text", "headers")
def _oauthlib_request(text: str, request: HttpRequest) -> OAuthlibRequest:
    """Build the request for django-oauth-toolkit's validators.

    The query and the body are left out, because oauthlib raises ValueError for `%GG`. The URI is absolute, because
    the validator compares the URI with the resources to which a token is restricted (RFC 8707 §2).
    """
    headers = {key: value for key, value in request.META.items() if isinstance(value, str)}
    # A trailing slash and `.json` are removed, because the URL without them names the same endpoint.
    path = request.path.removesuffix("/").removesuffix(".json")
    return OAuthlibRequest(
        request.build_absolute_uri(path),
        http_method=request.method,
        headers={**headers, "Authorization": f"Bearer {text}"},
    )


class _LazyRequest:
    """A request for the validator that is built only if the validator reads an attribute.

    django-oauth-toolkit's own validator reads attributes only for a restricted token. Building the request every time
    would take as long as finding the token.
    """

    def __init__(self, text: str, request: HttpRequest) -> None:
        self._build = partial(_oauthlib_request, text, request)

    def __getattr__(self, name: str) -> Any:
        # Python calls this method only for attributes that are not set. Private names are excluded, because `copy`
        # looks up `__deepcopy__`, and `_build` on an incomplete copy. Without this check, the look-up would recurse
        # forever.
        if name.startswith("_"):
            raise AttributeError(name)
        if "_built" not in self.__dict__:
            self._built = self._build()
        return getattr(self._built, name)


def is_usable_client(client_id: str, request: HttpRequest | None = None) -> bool:
    """Return whether an application exists and is usable, by the rule that the validator applies to access tokens.

    Args:
        client_id: the client id of the application.
        request: the request that `Application.is_usable` receives. None means an empty request.
    """
    # Not a replica, which may not know yet that the application was deleted or disabled.
    model = get_application_model()
    applications = model._default_manager.using(router.db_for_write(model))
    # Some databases reject a comparison with a text that the column can't store, such as a text with NUL.
    if not charsets.can_store(client_id, model._meta.get_field("client_id"), using=applications.db):
        return False
    try:
        application = applications.filter(client_id=client_id).first()
    except (ValueError, DataError):  # the string is not a valid value
        return False
    # Some databases ignore case, so "abc" would also match "ABC".
    if application is None or application.client_id != client_id:
        return False
    oauth_request: Any = OAuthlibRequest("")
    if request is not None:
        oauth_request = _LazyRequest(request.META.get("HTTP_AUTHORIZATION", "").partition(" ")[2], request)
    return bool(application.is_usable(oauth_request))


def _is_toolkit_function(function: Any) -> bool:
    """Return whether a function belongs to django-oauth-toolkit, and not to the project."""
    return bool(function.__module__.startswith("oauth2_provider."))


def _user(access_token: Any) -> Any:
    """Return the user of an access token, or the service user in a client credentials grant.

    Raises InvalidAccessToken if the token is None, or has no application or no active user.
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
    """Subclass the project's OAuth2 validator so that the validator never queries other servers.

    If introspection is configured, django-oauth-toolkit sends an unknown bearer token to another server, and creates
    the user that the other server names. An unauthenticated client could therefore trigger outgoing requests and fill
    the user table. Also, the issuer must not accept access tokens of another server.

    Args:
        path: OAUTH2_VALIDATOR_CLASS, as an import path or a class; None for django-oauth-toolkit's.

    Raises ConfigError for an unsupported version of django-oauth-toolkit.
    """
    project: Any = import_string(path) if isinstance(path, str) else path or import_string(_DEFAULT_VALIDATOR)

    if not hasattr(import_string(_DEFAULT_VALIDATOR), "_get_token_from_authentication_server"):
        # Without this method, the override below has no effect, and another server might be queried.
        raise ConfigError(
            "this version of django-oauth-toolkit is not supported, because its introspection can't be turned off: "
            "install a version that this version of django-instaccess supports, or a newer django-instaccess"
        )
    load = getattr(project, "_load_access_token", None)
    is_customised = load is not None and not _is_toolkit_function(load)

    class LocalValidator(project):  # type: ignore[misc]
        reads_the_request = not (
            _is_toolkit_function(project.validate_bearer_token)
            and _is_toolkit_function(get_application_model().is_usable)
        )

        def _get_token_from_authentication_server(self, *args: Any, **kwargs: Any) -> None:
            return None

        @sensitive_variables("token")
        def _load_access_token(self, token: str) -> Any:
            if is_customised:
                return super()._load_access_token(token)
            # This code loads the same rows as django-oauth-toolkit's own query, and also the user's uuid.
            checksum = hashlib.sha256(token.encode()).hexdigest()
            with suppress(access_tokens.NotFixed):
                return access_tokens.find(checksum)
            related = ["application", "user"]
            if conf.user_uuid_field is None:
                related.append("user__instaccess_identity")
            model = get_access_token_model()
            objects = model._default_manager.using(router.db_for_write(model)).select_related(*related)
            return objects.filter(token_checksum=checksum).first()

    return LocalValidator
