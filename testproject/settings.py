"""The settings of a project with all three roles (issuer, gateway, service), only for tests and `make demo`."""

import json
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
# `manage.py demo` stores its database and the password of its admin user here.
DEMO_DIR = Path(os.environ.get("DEMO_DIR", BASE_DIR))

SECRET_KEY = "django-insecure-testproject-only-never-use-this-anywhere-else"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver", ".example.edu"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "oauth2_provider",
    # List `testproject` before `instaccess`, so that the command `instaccess_tokens` of `testproject`, which has the
    # subcommand `seed`, replaces the command of `instaccess`.
    "testproject",
    "instaccess",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "testproject.urls"
WSGI_APPLICATION = "testproject.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# The default is SQLite. `make test-services` also runs the tests on PostgreSQL and MariaDB.
DATABASES = {
    "default": {
        "sqlite": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SQLITE_NAME", DEMO_DIR / "demo.sqlite3"),
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
            # The test database is a file, so that all threads and processes of a test use the same database.
            "TEST": {"NAME": os.environ.get("SQLITE_TEST_NAME", BASE_DIR / "demo.sqlite3.test")},
        },
        "postgresql": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", "instaccess"),
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
        },
        "mariadb": {
            "ENGINE": "django.db.backends.mysql",
            "NAME": os.environ.get("MARIADB_DATABASE", "instaccess"),
            "HOST": os.environ.get("MARIADB_HOST", "127.0.0.1"),
            "USER": os.environ.get("MARIADB_USER", "root"),
            "PASSWORD": os.environ.get("MARIADB_PASSWORD", ""),
            "TEST": {"CHARSET": "utf8mb4"},
        },
    }[os.environ.get("INSTACCESS_DATABASE", "sqlite")]
}

USE_TZ = True
# Django 6.1 and later use this setting to send mail, such as error reports.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"instaccess": {"handlers": ["console"], "level": "INFO"}},
}

OAUTH2_PROVIDER = {
    "SCOPES": {
        "read": "Read",
        "url:POST|/api/v1/inst_access_tokens": "Issue InstAccess tokens",
    },
    "DEFAULT_SCOPES": ["read"],
}
# A test passes these settings as JSON to each server or command that the test starts.
INSTACCESS: dict[str, object] = json.loads(os.environ.get("INSTACCESS_SETTINGS", "{}"))
