"""A middleware of a host project, for the tests of error reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model


def run_query(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a middleware that runs a database query before each view."""

    def middleware(request: Any) -> Any:
        get_user_model().objects.exists()
        return get_response(request)

    return middleware
