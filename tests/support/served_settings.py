"""The test project, its cache in a corner of Redis that CACHE_PREFIX names: for servers of several processes."""

import os

from testproject.settings import *  # noqa: F403

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9"),
        "KEY_PREFIX": os.environ["CACHE_PREFIX"],
    }
}
