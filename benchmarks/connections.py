"""The benchmarks' settings with database connections that are not persistent: BENCHMARK_CONNECTIONS says which."""

import os
from typing import Any

from .settings import *  # noqa: F403
from .settings import DATABASES as _PERSISTENT

_CHANGES: dict[str, dict[str, Any]] = {
    "closed": {"CONN_MAX_AGE": 0},
    # psycopg's, for all threads of a worker: four connections at most, its default.
    "pool": {"CONN_MAX_AGE": 0, "OPTIONS": {**_PERSISTENT["default"]["OPTIONS"], "pool": True}},
}
DATABASES = {"default": {**_PERSISTENT["default"], **_CHANGES[os.environ["BENCHMARK_CONNECTIONS"]]}}
