"""The benchmarks' settings with the kind of database connections that BENCHMARK_CONNECTIONS names."""

import os
from typing import Any

from .settings import *  # noqa: F403
from .settings import DATABASES as _PERSISTENT

_CHANGES: dict[str, dict[str, Any]] = {
    "closed": {"CONN_MAX_AGE": 0},
    # The pool of psycopg, shared by all threads of a worker. By default it has at most four connections.
    "pool": {"CONN_MAX_AGE": 0, "OPTIONS": {**_PERSISTENT["default"]["OPTIONS"], "pool": True}},
}
DATABASES = {"default": {**_PERSISTENT["default"], **_CHANGES[os.environ["BENCHMARK_CONNECTIONS"]]}}
