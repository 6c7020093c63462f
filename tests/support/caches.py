"""A function that returns the setting CACHES for a real Redis server."""

from __future__ import annotations

import os
import uuid
from typing import Any

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9")
DJANGOS, DJANGO_REDIS = "django.core.cache.backends.redis.RedisCache", "django_redis.cache.RedisCache"


def on_redis(backend: str, url: str, **options: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": str(uuid.uuid4()), "OPTIONS": options}}
