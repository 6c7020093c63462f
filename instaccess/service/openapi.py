"""The security scheme of `InstAccessAuthentication` for drf-spectacular. `web.load_openapi` imports this file."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension

from .authentication import InstAccessAuthentication


class InstAccessScheme(OpenApiAuthenticationExtension):  # type: ignore[misc]
    """The security scheme of views with `InstAccessAuthentication` or a subclass."""

    target_class = InstAccessAuthentication
    match_subclasses = True
    # Extensions have a higher priority by default, so a project can describe its own subclass with another extension.
    priority = -1

    @property
    def name(self) -> str:
        # Give each subclass its own name, because drf-spectacular warns if two classes have the same name.
        subclass = "" if type(self.target) is InstAccessAuthentication else type(self.target).__name__
        return f"instAccessToken{subclass}"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": (
                "An InstAccess token. Clients send the encrypted token (a JWE) that they got from the issuer. The "
                "gateway decrypts this token, and forwards the signed token (a JWS) to the service. An InstAccess "
                "token has no scopes."
            ),
        }
