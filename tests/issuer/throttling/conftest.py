"""Fixtures for the throttling tests: a frozen clock, and an access token that is valid for a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from tests.issuer.throttling.helpers import START


@pytest.fixture
def clock(initial_keys: Any) -> Iterator[Any]:
    """Yield a clock that is frozen until a test shifts the clock."""
    with time_machine.travel(START, tick=False) as clock:
        yield clock


@pytest.fixture
def token(clock: Any, make_access_token: Callable[..., Any]) -> Any:
    return make_access_token(expires=timezone.now() + timedelta(days=1))
