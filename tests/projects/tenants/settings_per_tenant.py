"""Settings of the project with the tables of this app in each schema, which a system check refuses."""

from tests.projects.tenants.settings import *  # noqa: F403

TENANT_APPS = ["django.contrib.sessions", "instaccess", "oauth2_provider"]
