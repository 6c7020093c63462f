"""Tests for the key ring with threads, with forked processes and with a replica."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection

from instaccess.keys import provision
from instaccess.keys import ring as keys_ring
from instaccess.tokens import jose
from tests.support import subproject
from tests.support.processes import PATIENCE

pytestmark = pytest.mark.django_db


class TestThreadsThatShareAKeyRing:
    @pytest.mark.django_db(transaction=True)
    def test_threads_that_read_the_key_ring_at_the_same_time_share_one_query(self):
        provision.init()
        together, rings, counted = threading.Barrier(16, timeout=PATIENCE), [], []

        def count(execute: Any, *args: Any) -> Any:
            counted.append(args[0])
            return execute(*args)

        def read() -> None:
            connection.ensure_connection()
            with connection.execute_wrapper(count):
                together.wait()
                rings.append(keys_ring.current_ring())
            connection.close()

        threads = [threading.Thread(target=read) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(rings) == 16
        assert all(ring is rings[0] for ring in rings)
        assert len(counted) == 1

    @pytest.mark.django_db(transaction=True)
    def test_threads_can_unseal_and_use_the_same_key_at_the_same_time(self):
        provision.init()
        ring, together, signed = keys_ring.current_ring(), threading.Barrier(8, timeout=PATIENCE), []

        def sign() -> None:
            together.wait()
            signed.append(jose.sign(b"{}", ring.signing_key().private(), kid=ring.signing_key().kid))

        threads = [threading.Thread(target=sign) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(signed) == 8
        assert len(set(signed)) == 1
        assert jose.verify(signed[0], ring.verification_keys())[0] == {}


@pytest.mark.own_database
class TestAProcessForkedWhileAThreadReadsTheKeys:
    def test_a_forked_child_reads_the_keys_without_waiting_for_a_thread_of_the_parent(self, rsa_pool, tmp_path):
        facts = subproject.run(
            "tests.projects.keyring_projects.fork",
            settings="tests.projects.keyring_projects.settings",
            folder=tmp_path,
            rsa_pool=rsa_pool,
        )

        assert facts == {
            "status": 0,
            "child": {"kid": facts["parent"], "private": True},
            "parent": facts["parent"],
        }


@pytest.fixture(scope="module")
def facts(tmp_path_factory, _rsa_pool):
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.keyring_projects.replica",
        settings="tests.projects.keyring_projects.settings",
        folder=tmp_path_factory.mktemp("replica"),
        rsa_pool=_rsa_pool,
    )


@pytest.mark.own_database
class TestAReplicaThatLags:
    def test_lagging_replica_contains_the_revoked_key_as_the_current_key_and_contains_no_tokens(self, facts):
        assert facts["replica shows the revoked key as"] == "current"
        assert facts["replica shows tokens"] == 0

    def test_key_ring_and_rotations_read_keys_from_the_primary_database(self, facts):
        assert not facts["revoked key is in the ring"]
        assert not facts["revoked key is published"]
        assert facts["signs now"]
        assert facts["rotates"]
        assert facts["listed"] == "revoked"

    def test_the_audit_log_is_read_from_the_primary_database(self, facts):
        assert facts["live tokens"] == 1
        assert facts["tokens marked"] == 1
        assert facts["audit has"]
