"""Settings of a django-tenants project with one PostgreSQL schema per school. All schools share the app's tables."""

import os

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES as _DATABASES
from testproject.settings import INSTALLED_APPS as _APPS
from testproject.settings import MIDDLEWARE as _MIDDLEWARE

DATABASES = {
    "default": {
        **_DATABASES["default"],
        "ENGINE": "django_tenants.postgresql_backend",
        "NAME": "_".join(
            # Each process of pytest-xdist needs a separate database, because several processes may run the test at
            # the same time.
            [os.environ.get("PGDATABASE", "instaccess"), "tenants", os.environ.get("PYTEST_XDIST_WORKER", "")]
        ),
    }
}
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
TENANT_APPS = ["django.contrib.sessions"]
SHARED_APPS = [
    "django_tenants",
    "tests.projects.tenants.schools",
    *(app for app in _APPS if app not in TENANT_APPS),
]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "schools.School"
TENANT_DOMAIN_MODEL = "schools.Domain"
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware", *_MIDDLEWARE]
ROOT_URLCONF = "tests.projects.tenants.urls"
ALLOWED_HOSTS = [".example.edu"]
INSTACCESS = {
    "ACCOUNT_HOOK": "tests.projects.tenants.schools.accounts.account_of",
    "DENY_LIST_SECONDS": 0,
    "THROTTLE_LIMIT": None,
}
