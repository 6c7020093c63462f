"""Tests of signals and a log line in a project whose database router stores all tables in a second database."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import subproject

pytestmark = pytest.mark.own_database

CHANGES = ["tokens_revoked", "key_changed", "key_changed by a deletion", "log of revoked OAuth2 tokens"]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, _rsa_pool: Any) -> Any:
    """Return the numbers of signals before and after the end of each transaction, by database and by signal."""
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.two_databases.send_signals",
        settings="tests.projects.two_databases.settings",
        folder=tmp_path_factory.mktemp("databases"),
        rsa_pool=_rsa_pool,
    )


class TestSignalsOfTablesInASecondDatabase:
    @pytest.mark.parametrize("name", CHANGES)
    def test_signal_is_sent_once_after_the_commit_in_the_second_database(self, sent, name):
        assert sent["second"][name] == [0, 1]

    @pytest.mark.parametrize("name", CHANGES)
    def test_rollback_in_the_second_database_sends_no_signal(self, sent, name):
        assert sent["second, rolled back"][name] == [0, 0]

    @pytest.mark.parametrize("name", ["token_issued", *CHANGES])
    def test_signal_does_not_depend_on_a_transaction_on_the_default_database(self, sent, name):
        assert sent["default, rolled back"][name] == [1, 1]
