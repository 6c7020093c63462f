"""Settings of a host project. The issuer must follow docs/wire-contract.md despite these settings."""

import os

from testproject.settings import *  # noqa: F403
from testproject.settings import MIDDLEWARE as _MIDDLEWARE
from testproject.settings import OAUTH2_PROVIDER as _PROVIDER

_CONFLICTING = "tests.projects.hostproject.conflicting."

DEBUG = False
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SUBPROJECT_DATABASE"],
        "ATOMIC_REQUESTS": True,
    }
}
MIDDLEWARE = [
    *_MIDDLEWARE,
    "django.middleware.locale.LocaleMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]
APPEND_SLASH = True
LANGUAGE_CODE = "de"
USE_THOUSAND_SEPARATOR = True
DEFAULT_CHARSET = "latin-1"
DATA_UPLOAD_MAX_MEMORY_SIZE = 10
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING = {"version": 1}
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": [_CONFLICTING + "HTML"],
    "DEFAULT_PARSER_CLASSES": [_CONFLICTING + "FailingParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": [_CONFLICTING + "RefuseEveryone"],
    "DEFAULT_PERMISSION_CLASSES": [_CONFLICTING + "DenyEveryone"],
    "DEFAULT_THROTTLE_CLASSES": [_CONFLICTING + "ThrottleEveryone"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": _CONFLICTING + "FailingNegotiation",
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    "ALLOWED_VERSIONS": ["7"],
    "DEFAULT_VERSION": "6",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": None,
    "EXCEPTION_HANDLER": _CONFLICTING + "handle_exception",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "COMPACT_JSON": False,
    "UNICODE_JSON": False,
    "URL_FORMAT_OVERRIDE": "format",
    "FORMAT_SUFFIX_KWARG": "suffix",
}
OAUTH2_PROVIDER = {
    **_PROVIDER,
    # No server listens on this port. If the issuer sent a request to this URL, the issuer would answer 503.
    "RESOURCE_SERVER_INTROSPECTION_URL": "http://127.0.0.1:9/introspect",
    "RESOURCE_SERVER_AUTH_TOKEN": "theirs",
}
# Disable throttling, because the test requests more tokens than a bucket allows.
INSTACCESS = {"THROTTLE_LIMIT": None}
