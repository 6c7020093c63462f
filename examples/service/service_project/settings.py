"""The settings of a service without a database.

The environment contains all values that differ between deployments.
"""

import os

# If a variable in `os.environ[…]` is missing, Django doesn't start, and the error names the variable.
SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
# The host names of the API, and the host name or address that the proxy uses for the service.
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")

INSTALLED_APPS = ["instaccess.service", "rest_framework"]
# The service authenticates each request by its token. The service has no sessions and no login, so the service needs
# no other middleware of `startproject`. For example, AuthenticationMiddleware needs django.contrib.auth, which is not
# installed.
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "service_project.urls"
WSGI_APPLICATION = "service_project.wsgi.application"
DATABASES: dict[str, dict[str, object]] = {}
USE_TZ = True
TIME_ZONE = "UTC"

INSTACCESS = {
    "VERIFICATION_KEYS": os.environ["ISSUER_URL"] + "/internal/services/jwks",
    # The value of ACCOUNT_UUID in the issuer's settings. Without this setting, the service accepts the tokens of all
    # accounts.
    "ACCOUNT_UUID": os.environ["ACCOUNT_UUID"],
    # Set this variable to 1 only for development, if the issuer has no TLS.
    "ALLOW_HTTP_URLS": os.environ.get("ALLOW_HTTP_URLS") == "1",
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["instaccess.service.InstAccessAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    # The anonymous user of Django REST framework needs django.contrib.auth. Without this line, a request without a
    # token gets a 500 instead of a 401.
    "UNAUTHENTICATED_USER": None,
}

SILENCED_SYSTEM_CHECKS = [
    # The project has no pages and no cookies, so it needs no protection against clickjacking and CSRF.
    "security.W002",
    "security.W003",
    # The proxy terminates TLS and redirects HTTP to HTTPS. The proxy connects to the service over HTTP.
    "security.W004",
    "security.W008",
]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    # The service logs the reason of each refusal as a warning. Clients never get the reason.
    "loggers": {"instaccess": {"level": "INFO"}},
}
