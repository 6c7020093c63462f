"""Settings of a project with django-reversion, whose middleware opens a transaction around each request."""

import os

from testproject.settings import *  # noqa: F403
from testproject.settings import INSTALLED_APPS as _APPS
from testproject.settings import MIDDLEWARE as _MIDDLEWARE

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SUBPROJECT_DATABASE"]}}
INSTALLED_APPS = [*_APPS, "reversion"]
MIDDLEWARE = [*_MIDDLEWARE, "reversion.middleware.RevisionMiddleware"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
