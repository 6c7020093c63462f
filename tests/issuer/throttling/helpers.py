"""The start of the simulated clock, and a function that sends requests for tokens, for the throttling tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

START = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


def statuses(post: Callable[..., Any], token: Any, times: int) -> list[int]:
    return [post(token).status_code for _ in range(times)]
