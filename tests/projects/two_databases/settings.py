"""Settings of a project whose database router stores all tables in the database `second`."""

import os

from testproject.settings import *  # noqa: F403


class UseTheSecondDatabase:
    def db_for_read(self, model: object, **hints: object) -> str:
        return "second"

    def db_for_write(self, model: object, **hints: object) -> str:
        return "second"

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool:
        return db == "second"


_NAME = os.environ["SUBPROJECT_DATABASE"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _NAME},
    "second": {"ENGINE": "django.db.backends.sqlite3", "NAME": _NAME + ".second"},
}
DATABASE_ROUTERS = ["tests.projects.two_databases.settings.UseTheSecondDatabase"]
LOGGING = {"version": 1, "disable_existing_loggers": False}
