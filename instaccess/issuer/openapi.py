"""The description of the issuing endpoint for drf-spectacular. `web.load_openapi` imports this file.

docs/wire-contract.md §1 defines the endpoint. The texts of an OpenAPI schema are for developers, and in English only.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import NoReverseMatch, reverse
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiViewExtension
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view

from ..conf import SCOPE, conf
from . import openapi_responses

_DESCRIPTION = f"""\
Exchange an OAuth2 access token for an InstAccess token of the same user, or of the user in `as_user_id`.

The access token needs the scope `{SCOPE}`. Send the access token in the
`Authorization` header.

The path with `.json` at the end is the same endpoint. `Accept` has no effect. The body is optional: the parameters
can be in the query or in a form. A body of any other content type is ignored. Methods other than POST and OPTIONS get
a 405 with the header `Allow: POST, OPTIONS`.
"""
_PARAMETERS = {
    "as_user_id": (
        "The user to masquerade as: a primary key, or `uuid:` and the uuid of the user. A blank value is ignored. "
        "The caller needs the permission `instaccess.masquerade`."
    ),
    "unencrypted": (
        "For development only: `1`, `true`, `t`, `yes`, `y` or `on` requests the signed token without encryption. "
        "The value is ignored unless the settings `DEBUG` and `ALLOW_UNENCRYPTED` of the server are on."
    ),
}
_ACCESS_TOKEN = {"access_token": "The OAuth2 access token, if the `Authorization` header contains no bearer token."}


class AccessTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[misc]
    """The security scheme of the issuing endpoint: OAuth2 with the issuing scope.

    The URLs come from the settings of drf-spectacular, or else from django-oauth-toolkit. If the URLs are unknown,
    the scheme is a bearer token.
    """

    target_class = "instaccess.issuer.authentication.AccessTokenAuthentication"
    name = "oauth2AccessToken"

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[str]]:
        # In OpenAPI 3.0, only a scheme with the type `oauth2` can require scopes.
        return {self.name: [SCOPE] if _flows() else []}

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        description = f"An OAuth2 access token with the scope `{SCOPE}`."
        if flows := _flows():
            return {"type": "oauth2", "flows": flows, "description": description}
        return {"type": "http", "scheme": "bearer", "description": description}


class IssueViewExtension(OpenApiViewExtension):  # type: ignore[misc]
    """The issuing endpoint with its parameters and all responses that docs/wire-contract.md §1 defines."""

    target_class = "instaccess.issuer.views.IssueView"

    def view_replacement(self) -> Any:
        names = _PARAMETERS | (_ACCESS_TOKEN if conf.allow_token_in_parameters else {})
        form = {
            "type": "object",
            "properties": {name: {"type": "string", "description": text} for name, text in names.items()},
        }
        # Before drf-spectacular calls this method, it replaces the import path in `target_class` with the class.
        view: Any = self.target_class
        described = type(view.__name__, (view,), {})
        return extend_schema_view(
            post=extend_schema(
                operation_id="createInstAccessToken",
                summary="Issue an InstAccess token",
                description=_DESCRIPTION,
                tags=["InstAccess tokens"],
                parameters=[
                    *(OpenApiParameter(name, description=text) for name, text in names.items()),
                    *openapi_responses.headers(),
                ],
                request={"application/x-www-form-urlencoded": form, "multipart/form-data": form},
                responses=openapi_responses.responses(),
            )
        )(described)


def _flows() -> dict[str, dict[str, Any]]:
    """Return the OAuth2 flows with which a client gets an access token, or {} if the URLs are unknown."""
    try:
        authorization_url = spectacular_settings.OAUTH2_AUTHORIZATION_URL or reverse("oauth2_provider:authorize")
        token_url = spectacular_settings.OAUTH2_TOKEN_URL or reverse("oauth2_provider:token")
    except NoReverseMatch:
        return {}
    provider: Any = getattr(settings, "OAUTH2_PROVIDER", {})
    scopes = {SCOPE: str(provider.get("SCOPES", {}).get(SCOPE, "Issue InstAccess tokens"))}
    common = {"tokenUrl": token_url, "refreshUrl": spectacular_settings.OAUTH2_REFRESH_URL or token_url}
    return {
        "authorizationCode": {"authorizationUrl": authorization_url, **common, "scopes": scopes},
        "clientCredentials": {"tokenUrl": token_url, "scopes": scopes},
    }
