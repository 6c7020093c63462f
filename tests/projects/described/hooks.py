"""A hook of drf-spectacular for the schema in docs/openapi.yaml."""

from typing import Any

from instaccess.service import InstAccessAuthentication
from instaccess.service.openapi import InstAccessScheme


def add_service_scheme(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the security scheme of services to a schema."""
    scheme = InstAccessScheme(InstAccessAuthentication())
    result["components"]["securitySchemes"][scheme.name] = scheme.get_security_definition(None)
    return result
