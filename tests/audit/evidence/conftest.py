"""Fixtures for the tests of tamper evidence: audit rows of given ages, and an audit log with two checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from instaccess.audit.evidence import checkpoints, signatures
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken

DAY = 86_400
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def covered_rows() -> list[tuple[int, int]]:
    """Return the number of each checkpoint, with the number of rows that the checkpoint covers."""
    read = [signatures.read_checkpoint(checkpoint, evidence_keys()) for checkpoint in checkpoints.checkpoints()]
    return [(statement.number, statement.rows) for statement in read]


@pytest.fixture
def rows(row: Any, initial_keys: Any, time_machine: Any) -> Callable[..., list[IssuedToken]]:
    """Return a function that creates an audit row for each given age of a token, in seconds."""
    time_machine.move_to(NOON, tick=False)
    return lambda *ages, **columns: [row(age=age, **columns) for age in ages]


@pytest.fixture
def audit(row: Any, initial_keys: Any, time_machine: Any) -> list[IssuedToken]:
    """Create nine audit rows. Two checkpoints cover three rows each, and no checkpoint covers the last three rows."""
    time_machine.move_to(NOON, tick=False)
    ages = (3 * DAY, 3 * DAY - 1, 3 * DAY - 2, 2 * DAY, 2 * DAY - 1, 2 * DAY - 2, 60, 50, 40)
    made = [row(age=age) for age in ages]
    checkpoints.seal(evidence_keys())
    assert Checkpoint.objects.count() == 2
    return made
