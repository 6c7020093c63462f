"""Settings of the test project for tests in which the database server or the Redis server fails.

The environment variables DATABASE and CACHE contain settings for `DATABASES["default"]` and `CACHES["default"]`, as
JSON.
"""

import json
import os

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES

DATABASES["default"] |= json.loads(os.environ.get("DATABASE", "{}"))
if "CACHE" in os.environ:
    CACHES = {"default": json.loads(os.environ["CACHE"])}

# Use SMTP, because `check --deploy` of Django 6.1 and later refuses the console backend of the test project.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": {"host": "127.0.0.1"}}}
