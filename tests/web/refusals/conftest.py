"""Fixtures: a gateway with empty caches, the clock of the refusal counter, and a record of SQL statements."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import connection

from instaccess.web import refusals
from tests.support.clocks import Clock
from tests.web.refusals.helpers import Statements


@pytest.fixture(autouse=True)
def fresh_gateway(empty_gateway_caches: None) -> None:
    """Empty the caches of the gateway before every test in this folder."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that determines when counts are written."""
    clock = Clock(frozen=True)
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=clock, time=time.time))
    refusals.counter.reset()
    return clock


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    with connection.execute_wrapper(statements):
        yield statements
