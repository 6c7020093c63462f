"""Tests of `seal` in a project whose database router stores all tables in a second database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import subproject


@pytest.mark.own_database
def test_seal_keeps_an_open_transaction_usable_if_another_process_created_the_checkpoint(
    tmp_path: Path, rsa_pool: Any
) -> None:
    facts = subproject.run(
        "tests.projects.two_databases.create_checkpoints",
        settings="tests.projects.two_databases.settings",
        folder=tmp_path,
        rsa_pool=rsa_pool,
    )

    assert facts == {"made": 0, "stored": 1}
