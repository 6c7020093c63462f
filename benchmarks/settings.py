"""Production-like settings of the test project, with the alternatives installed and all costly features enabled."""

import os

from testproject import settings as testproject

SECRET_KEY = "benchmarks-only-never-use-this-anywhere-else"
DEBUG = False
ALLOWED_HOSTS = testproject.ALLOWED_HOSTS

INSTALLED_APPS = [*testproject.INSTALLED_APPS, "knox"]
MIDDLEWARE = testproject.MIDDLEWARE
ROOT_URLCONF = "benchmarks.urls"
TEMPLATES = testproject.TEMPLATES

# Connections are persistent and statements are prepared, as docs/speed.md advises. With Django's CONN_MAX_AGE=0,
# the benchmark would mainly measure the time in which PostgreSQL starts a process. Without prepared statements,
# PostgreSQL would spend much of its time on planning the same statements again.
OPTIONS = {
    "postgresql": {"server_side_binding": True, "prepare_threshold": 5},
    "sqlite": {
        **testproject.DATABASES["default"].get("OPTIONS", {}),
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    },
}[os.environ.get("INSTACCESS_DATABASE", "sqlite")]
DATABASES = {"default": {**testproject.DATABASES["default"], "CONN_MAX_AGE": None, "OPTIONS": OPTIONS}}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/15"),
        "KEY_PREFIX": "instaccess-benchmarks",
    }
}

USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# As in production, the log contains one line per issued token.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "file": {
            "class": "logging.FileHandler",
            "filename": os.environ.get("BENCHMARK_LOG", os.devnull),
            "formatter": "line",
        }
    },
    "root": {"handlers": ["file"], "level": "WARNING"},
    "loggers": {"instaccess": {"level": "INFO"}},
}

OAUTH2_PROVIDER = testproject.OAUTH2_PROVIDER
INSTACCESS = {
    # The throttle calls Redis for each request but refuses no request, because the bucket leaks faster than clients
    # fill the bucket.
    "THROTTLE_LIMIT": 1_000_000,
    "THROTTLE_COST": 1,
    "THROTTLE_LEAK": 1_000_000,
    # A gateway that reads the revocations from the issuer's URL sends this secret.
    "SERVICE_SECRETS": ["benchmarks-only-0123456789abcdef0123456789"],
    "ALLOW_HTTP_URLS": True,
    "KEEP_DECISION_SECONDS": int(os.environ.get("BENCHMARK_KEEP_DECISION_SECONDS", "0")),
    # With this hook, the service needs no local users.
    "USER_HOOK": "instaccess.service.TokenUser",
}
