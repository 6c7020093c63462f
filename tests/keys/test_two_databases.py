"""Tests of changes of keys in a project whose database router stores all tables in a second database."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import subproject

pytestmark = pytest.mark.own_database


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory, _rsa_pool: Any) -> Any:
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.two_databases.change_keys",
        settings="tests.projects.two_databases.settings",
        folder=tmp_path_factory.mktemp("databases"),
        rsa_pool=_rsa_pool,
    )


class TestKeysInASecondDatabase:
    def test_failed_change_of_keys_is_rolled_back_in_a_second_database(self, facts):
        assert facts["erased"] is False

    def test_receiver_of_the_signal_reads_the_new_keys_from_a_second_database(self, facts):
        assert facts["seen"] == [facts["new"]] * 2
