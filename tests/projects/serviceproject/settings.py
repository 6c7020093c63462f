"""Settings of a service without the issuer's app, as in docs/services.md.

SUBPROJECT_QUESTION contains the code block of the page that defines the settings, and values that change the settings
INSTACCESS and REST_FRAMEWORK.
"""

import json
import os

QUESTION = json.loads(os.environ["SUBPROJECT_QUESTION"])

SECRET_KEY = "a service's own"
INSTALLED_APPS = ["instaccess.service", "rest_framework"]
DATABASES: dict[str, object] = {}
USE_TZ = True
LOGGING = {"version": 1}
exec(QUESTION["snippet"])
INSTACCESS = {**globals()["INSTACCESS"], **QUESTION["instaccess"]}
REST_FRAMEWORK = {
    **globals()["REST_FRAMEWORK"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    # Disable AnonymousUser, which needs django.contrib.auth, because this project doesn't install
    # django.contrib.auth.
    **QUESTION.get("rest_framework", {"UNAUTHENTICATED_USER": None}),
}
