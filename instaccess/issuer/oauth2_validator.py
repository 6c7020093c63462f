"""The project's OAuth2 validator without its calls to other servers, and the request that the validator reads."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache, partial
from typing import Any

from django.db import DataError, router
from django.http import HttpRequest
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables
from oauth2_provider.models import get_access_token_model, get_application_model
from oauthlib.common import Request as OAuthlibRequest

from .. import charsets
from ..conf import conf
from ..exceptions import ConfigError
from . import access_tokens

_DEFAULT_VALIDATOR = "oauth2_provider.oauth2_validators.OAuth2Validator"


@cache
def local_validator_class(path: Any) -> Any:
    """Return a subclass of the project's OAuth2 validator that never queries other servers.

    If introspection is configured, django-oauth-toolkit sends an unknown bearer token to another server, and creates
    a user with the name that this server returns. An unauthenticated client could therefore cause outgoing requests
    and fill the user table. Also, the issuer must not accept access tokens of another server.

    Args:
        path: OAUTH2_VALIDATOR_CLASS, as an import path or a class. None selects django-oauth-toolkit's validator.

    Raises ConfigError for an unsupported version of django-oauth-toolkit.
    """
    project: Any = import_string(path) if isinstance(path, str) else path or import_string(_DEFAULT_VALIDATOR)

    if not hasattr(import_string(_DEFAULT_VALIDATOR), "_get_token_from_authentication_server"):
        # If this method is missing, the override below has no effect, and another server might be queried.
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
            # Load the rows that django-oauth-toolkit's query loads, and also the user's uuid, so that
            # no second query is needed to read the uuid.
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


def _is_toolkit_function(function: Any) -> bool:
    """Return whether a function belongs to django-oauth-toolkit, and not to the project."""
    return bool(function.__module__.startswith("oauth2_provider."))


@sensitive_variables("text", "headers")
def build_oauthlib_request(text: str, request: HttpRequest) -> OAuthlibRequest:
    """Build the request for django-oauth-toolkit's validators.

    The query and the body are left out, because oauthlib raises ValueError for an invalid escape sequence such as
    `%GG`. The URI is absolute, because the validator compares the URI with the resources to which a token is
    restricted (RFC 8707 §2).
    """
    headers = {key: value for key, value in request.META.items() if isinstance(value, str)}
    # Remove a trailing slash and `.json`, because tokens are restricted to the URL without the slash and `.json`.
    path = request.path.removesuffix("/").removesuffix(".json")
    return OAuthlibRequest(
        request.build_absolute_uri(path),
        http_method=request.method,
        headers={**headers, "Authorization": f"Bearer {text}"},
    )


class LazyRequest:
    """A request for the OAuth2 validator. The request is built only if the validator reads an attribute.

    django-oauth-toolkit's own validator reads attributes only if a token is restricted to a resource. Building the
    request every time would take as long as looking up the token.
    """

    def __init__(self, text: str, request: HttpRequest) -> None:
        self._build = partial(build_oauthlib_request, text, request)

    def __getattr__(self, name: str) -> Any:
        # Python calls this method only for attributes that are not set. During copying, `copy` looks up names such as
        # `__deepcopy__` on an object whose `_build` is not set. Without this check, the look-up of `_build` would
        # call this method again, in an infinite recursion.
        if name.startswith("_"):
            raise AttributeError(name)
        if "_built" not in self.__dict__:
            self._built = self._build()
        return getattr(self._built, name)


def is_usable_client(client_id: str, request: HttpRequest | None = None) -> bool:
    """Return whether an application exists and its method `is_usable` returns True.

    Args:
        client_id: the client id of the application.
        request: the request that `Application.is_usable` receives. None means an empty request.
    """
    # Do not read from a replica, because a replica may still contain an application that was recently deleted.
    model = get_application_model()
    applications = model._default_manager.using(router.db_for_write(model))
    # Some databases reject a query that compares a column with a string that the column can't store, for example a
    # string that contains a NUL character.
    if not charsets.can_store(client_id, model._meta.get_field("client_id"), using=applications.db):
        return False
    try:
        application = applications.filter(client_id=client_id).first()
    except (ValueError, DataError):
        # The client id is invalid, so no application has this client id.
        return False
    # Compare the client id again in Python, because some databases ignore case and would find "ABC" for "abc".
    if application is None or application.client_id != client_id:
        return False
    oauth_request: Any = OAuthlibRequest("")
    if request is not None:
        oauth_request = LazyRequest(request.META.get("HTTP_AUTHORIZATION", "").partition(" ")[2], request)
    return bool(application.is_usable(oauth_request))
