"""Settings of the project whose schema is docs/openapi.yaml: an issuer with the default settings."""

from instaccess import __version__
from tests.projects.described.settings import *  # noqa: F403

SPECTACULAR_SETTINGS = {
    "TITLE": "InstAccess tokens",
    "DESCRIPTION": (
        "The endpoint of the issuer. Your own schema contains this endpoint if you use drf-spectacular. The security "
        "scheme `instAccessToken` is the scheme of services, which accept InstAccess tokens."
    ),
    "VERSION": __version__,
    # Add the scheme of services with a hook, because only the views of a service project use this scheme.
    "POSTPROCESSING_HOOKS": ["tests.projects.described.hooks.add_service_scheme"],
}
