"""Tests of the audit log in a project that has no database `default` (`DATABASES["default"]` is empty)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import subproject

pytestmark = pytest.mark.own_database


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory, _rsa_pool: Any) -> Any:
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.no_default_database.use_the_audit_log",
        settings="tests.projects.no_default_database.settings",
        folder=tmp_path_factory.mktemp("database"),
        rsa_pool=_rsa_pool,
    )


class TestAProjectWithoutADefaultDatabase:
    def test_issuer_commits_audit_rows_and_refuses_an_open_transaction(self, facts):
        assert facts["issued"] == 3
        assert "the request is inside an open transaction" in facts["error in a transaction"]

    def test_tokens_and_oauth2_tokens_can_be_revoked_without_a_default_database(self, facts):
        assert facts["revoked"] == 1
        assert facts["revoked with OAuth2 tokens"] == [1, 1]

    def test_checkpoints_export_erasure_and_prune_work_without_a_default_database(self, facts):
        assert (facts["verified"], facts["names"], facts["exported"], facts["kept"]) == ("", 3, 3, 2)

    def test_maintenance_runs_are_recorded_and_measured_without_a_default_database(self, facts):
        assert facts["runs"] == {"prune": "succeeded", "seal": "succeeded"}
        assert facts["measured"] == 10

    def test_refusals_are_counted_inside_and_outside_a_transaction_of_the_caller(self, facts):
        assert facts["refusals"] == 5

    def test_health_checks_add_no_row_to_the_audit_log(self, facts):
        assert facts["rows after the insert"] == facts["kept"]
