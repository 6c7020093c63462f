"""Tests of a router that sends reads to an empty replica, which the audit log must never read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import subproject

pytestmark = pytest.mark.own_database


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory, _rsa_pool: Any) -> Any:
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.keyring_projects.audit_replica",
        settings="tests.projects.keyring_projects.settings",
        folder=tmp_path_factory.mktemp("replica"),
        rsa_pool=_rsa_pool,
    )


class TestAReplicaWithoutRows:
    def test_the_test_project_records_each_query_that_reads_the_replica(self, facts):
        assert facts["tokens on the replica"] == 0
        assert facts["recorded"] == ["instaccess_issuedtoken"]

    def test_p26_no_function_of_the_audit_log_or_of_the_keys_reads_the_replica(self, facts):
        assert facts["read from the replica"] == []

    def test_verify_names_an_unreadable_row_despite_an_empty_replica(self, facts):
        assert facts["unreadable"]

    def test_reseal_renews_every_hmac_and_every_sealed_key_despite_an_empty_replica(self, facts):
        assert (facts["reauthenticated"], facts["resealed"]) == (6, 3)

    def test_export_contains_every_token_despite_an_empty_replica(self, facts):
        assert facts["tokens"] == 4

    def test_erase_name_erases_every_name_despite_an_empty_replica(self, facts):
        assert facts["uuids found"]
        assert (facts["names"], facts["names left"]) == (4, 0)

    def test_revoke_revokes_every_live_token_despite_an_empty_replica(self, facts):
        assert facts["revoked"] == 2

    def test_prune_deletes_old_rows_despite_an_empty_replica(self, facts):
        assert facts["tokens left"] == 2

    def test_rotate_stores_new_keys_despite_an_empty_replica(self, facts):
        assert facts["keys"] == 6
