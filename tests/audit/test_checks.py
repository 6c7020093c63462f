"""Tests of case O17: the checks of durability, with a primary and a replica of PostgreSQL that the tests start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections

from instaccess.audit.checks import check_durability
from tests.support import servers
from tests.support.clusters import SUPERUSER, Cluster, clusters

pytestmark = [pytest.mark.postgresql, pytest.mark.services, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Cluster]]:
    with clusters("primary", "replica") as pair:
        pair[0].execute("CREATE ROLE app LOGIN")
        yield pair


@pytest.fixture
def use(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that connects this process to a PostgreSQL server, with the given user and options."""

    with monkeypatch.context() as patch:

        def use_(cluster: Cluster, user: str = SUPERUSER, options: str = "") -> None:
            connections.close_all()
            values = {"HOST": servers.HOST, "PORT": str(cluster.port), "NAME": "postgres", "USER": user}
            for name, value in (values | {"OPTIONS": {"options": options} if options else {}}).items():
                patch.setitem(connection.settings_dict, name, value)

        yield use_
        connections.close_all()


@pytest.fixture
def set_names(pair: list[Cluster]) -> Iterator[Any]:
    """Return a function that sets `synchronous_standby_names` and waits until the replica has the given state."""

    def set_names_(names: str, state: str) -> None:
        pair[0].execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
        servers.wait_until(
            lambda: pair[0].execute(
                "SELECT sync_state, current_setting('synchronous_standby_names') FROM pg_stat_replication"
            ),
            lambda rows: rows == [(state, names)],
        )

    yield set_names_
    set_names_("", "async")


def check() -> list[tuple[str | None, str]]:
    return [(message.id, f"{message.msg} {message.hint}") for message in check_durability(databases=["default"])]


class TestReplicas:
    @pytest.mark.parametrize("user", [SUPERUSER, "app"])
    def test_o17_check_reports_an_asynchronous_replica_even_to_a_database_user_without_privileges(
        self, pair, use, set_names, user
    ):
        set_names("", "async")
        use(pair[0], user)

        [(check_id, text)] = check()
        assert check_id == "instaccess.W033"
        assert "All replicas of PostgreSQL are asynchronous (1)" in text
        assert "Set synchronous_standby_names" in text

    @pytest.mark.parametrize("user", [SUPERUSER, "app"])
    @pytest.mark.parametrize(("names", "state"), [("*", "sync"), ("ANY 1 (*)", "quorum")])
    def test_o17_check_does_not_report_a_synchronous_replica(self, pair, use, set_names, user, names, state):
        set_names(names, state)
        use(pair[0], user)

        assert check() == []

    def test_o17_check_reports_a_replica_that_synchronous_standby_names_does_not_list(self, pair, use, set_names):
        set_names("another", "async")
        use(pair[0])

        assert [check_id for check_id, _ in check()] == ["instaccess.W033"]

    def test_check_does_not_report_a_server_without_replicas(self, pair, use):
        use(pair[1])  # Connect to the replica, which has no replicas.

        assert check() == []


class TestSynchronousCommit:
    def test_o17_check_reports_commits_that_do_not_wait_for_the_disk(self, pair, use):
        use(pair[1], options="-c synchronous_commit=off")

        [(check_id, text)] = check()
        assert check_id == "instaccess.W032"
        assert "synchronous_commit is off" in text

    def test_o17_check_reports_commits_that_do_not_wait_for_the_replica(self, pair, use, set_names):
        set_names("*", "sync")
        use(pair[0], options="-c synchronous_commit=local")

        [(check_id, text)] = check()
        assert check_id == "instaccess.W032"
        assert "before they are on a replica" in text

    def test_check_does_not_report_local_commits_of_a_server_without_replicas(self, pair, use):
        use(pair[1], options="-c synchronous_commit=local")

        assert check() == []


class TestOtherDatabases:
    def test_check_of_durability_opens_no_connection_to_a_database_that_the_caller_does_not_name(self, use):
        connections.close_all()

        assert check_durability(databases=["other"]) == check_durability(databases=None) == []
        assert connection.connection is None
