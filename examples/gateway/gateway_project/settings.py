"""The settings of a gateway without a database.

The environment contains all values that differ between deployments.
"""

import os

# If a variable in `os.environ[…]` is missing, Django doesn't start, and the error names the variable.
SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
# The host names or addresses that the proxy uses for the gateway, for example "gateway.internal,10.0.0.11".
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")

INSTALLED_APPS = ["instaccess.gateway"]
# A gateway has no sessions, no login and no pages, so it needs no other middleware of `startproject`. For example,
# AuthenticationMiddleware needs django.contrib.auth, which is not installed.
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
ROOT_URLCONF = "gateway_project.urls"
WSGI_APPLICATION = "gateway_project.wsgi.application"
DATABASES: dict[str, dict[str, object]] = {}
USE_TZ = True
TIME_ZONE = "UTC"

INSTACCESS = {
    # The files with the gateway's private keys, separated by commas. While you replace a key, list the files of the
    # old and of the new key.
    "DECRYPTION_KEYS": os.environ["DECRYPTION_KEYS"].split(","),
    "VERIFICATION_KEYS": os.environ["ISSUER_URL"] + "/internal/services/jwks",
    "DENY_LIST": os.environ["ISSUER_URL"] + "/internal/services/revocations",
    "SERVICE_SECRETS": [os.environ["SERVICE_SECRET"]],
    # Set this variable to 1 only for development, if the issuer has no TLS.
    "ALLOW_HTTP_URLS": os.environ.get("ALLOW_HTTP_URLS") == "1",
}

SILENCED_SYSTEM_CHECKS = [
    # The project has no pages and no cookies, so it needs no protection against clickjacking and CSRF.
    "security.W002",
    "security.W003",
    # The proxy terminates TLS and redirects HTTP to HTTPS. The proxy connects to the gateway over HTTP.
    "security.W004",
    "security.W008",
]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    # The gateway logs the reason of each refusal as a warning. Clients never get the reason.
    "loggers": {"instaccess": {"level": "INFO"}},
}
