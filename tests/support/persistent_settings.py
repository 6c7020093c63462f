"""Settings of the test project with persistent database connections, for long-running servers."""

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES

DATABASES["default"]["CONN_MAX_AGE"] = None
