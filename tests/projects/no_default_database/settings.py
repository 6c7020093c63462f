"""Settings of a project that has no database `default`. A database router stores all tables in `second`."""

from tests.projects.two_databases.settings import *  # noqa: F403
from tests.projects.two_databases.settings import DATABASES as _DATABASES

DATABASES = {"default": {}, "second": _DATABASES["second"]}
