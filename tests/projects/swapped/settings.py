"""Settings of a project that swaps every swappable model.

SUBPROJECT_DATABASE is the path of the database. PYTHONPATH contains the folder of `swapped_migrations`.
"""

import os

from testproject.settings import *  # noqa: F403
from testproject.settings import INSTALLED_APPS as _APPS

INSTALLED_APPS = [*_APPS, "tests.projects.swapped"]
AUTH_USER_MODEL = "swapped.Person"
OAUTH2_PROVIDER_APPLICATION_MODEL = "swapped.Tool"
OAUTH2_PROVIDER_ACCESS_TOKEN_MODEL = "swapped.Pass"
OAUTH2_PROVIDER_GRANT_MODEL = "swapped.Grant"
OAUTH2_PROVIDER_ID_TOKEN_MODEL = "swapped.IDToken"
OAUTH2_PROVIDER_REFRESH_TOKEN_MODEL = "swapped.RefreshToken"
MIGRATION_MODULES = {"swapped": "swapped_migrations"}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SUBPROJECT_DATABASE"]}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING = {"version": 1}
INSTACCESS = {"USER_UUID_FIELD": "uuid"}
