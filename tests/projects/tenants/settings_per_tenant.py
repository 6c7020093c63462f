"""Settings of a django-tenants project with the app's tables in each schema. A system check refuses the settings."""

from tests.projects.tenants.settings import *  # noqa: F403
from tests.projects.tenants.settings import DATABASES as _DATABASES

TENANT_APPS = ["django.contrib.sessions", "instaccess", "oauth2_provider"]
# Since Django 6.1, each run of `check` connects to the database. Every PostgreSQL server has the database `postgres`.
DATABASES = {"default": {**_DATABASES["default"], "NAME": "postgres"}}
