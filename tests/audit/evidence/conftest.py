"""The fixture `audit`: an audit log of nine rows with two checkpoints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from instaccess.audit.evidence import checkpoints
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken

DAY = 86_400
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def audit(row: Any, initial_keys: Any, time_machine: Any) -> list[IssuedToken]:
    """Create nine audit rows. Two checkpoints cover three rows each, and no checkpoint covers the last three rows."""
    time_machine.move_to(NOON, tick=False)
    ages = (3 * DAY, 3 * DAY - 1, 3 * DAY - 2, 2 * DAY, 2 * DAY - 1, 2 * DAY - 2, 60, 50, 40)
    made = [row(age=age) for age in ages]
    checkpoints.seal(evidence_keys())
    assert Checkpoint.objects.count() == 2
    return made
