"""Settings of a django-tenants project with the app's tables in each schema. A system check refuses the settings."""

from tests.projects.tenants.settings import *  # noqa: F403

TENANT_APPS = ["django.contrib.sessions", "instaccess", "oauth2_provider"]
