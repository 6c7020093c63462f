"""Settings of a project whose database router sends every read to an outdated replica."""

import os

from testproject.settings import *  # noqa: F403


class ReadFromTheReplica:
    def db_for_read(self, model: object, **hints: object) -> str:
        return "replica"

    def db_for_write(self, model: object, **hints: object) -> str:
        return "default"

    def allow_relation(self, *args: object, **hints: object) -> bool:
        return True


_NAME = os.environ["SUBPROJECT_DATABASE"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _NAME},
    "replica": {"ENGINE": "django.db.backends.sqlite3", "NAME": _NAME + ".replica"},
}
DATABASE_ROUTERS = ["tests.projects.keyring_projects.settings.ReadFromTheReplica"]
LOGGING = {"version": 1}
INSTACCESS = {"KEY_CACHE_SECONDS": 0}
