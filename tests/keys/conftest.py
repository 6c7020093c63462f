"""Fixtures for the tests of keys: a stopped clock, and the keys of a new deployment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import time_machine

from instaccess.issuer import issuing
from instaccess.keys import provision
from instaccess.models import IssuedToken
from tests.keys.helpers import ENC, START


@pytest.fixture
def clock() -> Any:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def started(clock: Any, db: None) -> None:
    """Set up a new deployment with a future key for each use."""
    provision.init()
    provision.generate(ENC)


@pytest.fixture
def pair(rsa_pool: Any) -> Any:
    return rsa_pool.take()


@pytest.fixture
def issue(user: Any) -> Callable[[], tuple[IssuedToken, str]]:
    return lambda: issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
