"""The settings of the benchmarks, with the kind of database connections that BENCHMARK_CONNECTIONS selects."""

import os
from typing import Any

from .settings import *  # noqa: F403
from .settings import DATABASES as _PERSISTENT

_CHANGES: dict[str, dict[str, Any]] = {
    "closed": {"CONN_MAX_AGE": 0},
    # All threads of a worker share psycopg's pool. If all connections of the pool are in use (by default, four),
    # further requests wait.
    "pool": {"CONN_MAX_AGE": 0, "OPTIONS": {**_PERSISTENT["default"]["OPTIONS"], "pool": True}},
}
DATABASES = {"default": {**_PERSISTENT["default"], **_CHANGES[os.environ["BENCHMARK_CONNECTIONS"]]}}
