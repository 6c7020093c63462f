"""Settings of a django-tenants project with the app's tables in each schema, which a system check refuses."""

from tests.projects.tenants.settings import *  # noqa: F403

TENANT_APPS = ["django.contrib.sessions", "instaccess", "oauth2_provider"]
