"""Settings of a project with drf-spectacular.

SUBPROJECT_QUESTION contains the installed apps, the name of the URLconf module, and the values of further settings.
"""

import json
import os
from typing import Any

QUESTION: dict[str, Any] = json.loads(os.environ.get("SUBPROJECT_QUESTION", "{}"))

SECRET_KEY = "only-for-tests-" + "x" * 50
ALLOWED_HOSTS = ["canvas.example.edu"]
_ISSUER = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider", "instaccess"]
INSTALLED_APPS = ["rest_framework", "drf_spectacular", *QUESTION.get("apps", _ISSUER)]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ROOT_URLCONF = "tests.projects.described." + QUESTION.get("urls", "issuer_urls")
OAUTH2_PROVIDER = {
    "SCOPES": {"read": "Read", "url:POST|/api/v1/inst_access_tokens": "Issue InstAccess tokens"},
    "DEFAULT_SCOPES": ["read"],
}
REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
    **QUESTION.get("rest_framework", {}),
}
SPECTACULAR_SETTINGS = QUESTION.get("spectacular", {})
INSTACCESS = QUESTION.get("instaccess", {})
