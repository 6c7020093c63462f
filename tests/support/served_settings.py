"""Settings of the test project for servers with several processes.

The cache is on Redis. The environment variable CACHE_PREFIX contains the prefix of the cache keys.
"""

import os

from testproject.settings import *  # noqa: F403

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9"),
        "KEY_PREFIX": os.environ["CACHE_PREFIX"],
    }
}
