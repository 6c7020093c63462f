"""Tests of case O18: PostgreSQL restarts, never answers, or can't write, while a server issues tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connections

from instaccess.audit import writability
from instaccess.models import IssuedToken
from tests.outages.conftest import documented_database, documented_pgbouncer, environment_of
from tests.support import servers
from tests.support.clusters import WAL_SEGMENT, Cluster, clusters
from tests.support.issuers import Clients, Issuer, issuer
from tests.support.pgbouncer import pgbouncer

pytestmark = [pytest.mark.postgresql, pytest.mark.services, pytest.mark.django_db(transaction=True)]

SETTINGS: dict[str, Any] = {"THROTTLE_LIMIT": None, "ALLOW_UNENCRYPTED": True}


@pytest.fixture
def cluster(template: Path) -> Iterator[Cluster]:
    with clusters("server", template=template) as [cluster]:
        yield cluster


@pytest.fixture
def access_token(cluster: Cluster, deploy: Any) -> Any:
    return deploy(cluster)


@pytest.fixture
def server(cluster: Cluster, access_token: Any, tmp_path: Path) -> Iterator[Issuer]:
    """Run a server with the documented settings, which keep connections to the database open."""
    with issuer(tmp_path, environment_of(cluster), database=documented_database(), **SETTINGS) as server:
        yield server


@pytest.fixture
def without_persistent_connections(cluster: Cluster, access_token: Any, tmp_path: Path) -> Iterator[Issuer]:
    """Run a server that opens a new connection to the database for each request."""
    database = documented_database() | {"CONN_MAX_AGE": 0}
    with issuer(tmp_path, environment_of(cluster), database=database, **SETTINGS) as server:
        yield server


def missing_rows(clients: Clients) -> list[str]:
    """Return the ids of the tokens that a client got and that the audit log lacks."""
    connections.close_all()
    recorded = {str(jti) for jti in IssuedToken.objects.values_list("jti", flat=True)}
    return [jti for jti in clients.jtis if jti not in recorded]


class TestARestartOfPostgreSQL:
    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_o18_server_issues_tokens_again_after_a_restart_of_postgresql(self, cluster, server, access_token, mode):
        with Clients(server, access_token) as clients:
            clients.wait_for_tokens()
            cluster.stop(mode)
            servers.wait_until(lambda: 503 in clients.statuses, bool)
            cluster.start()
            clients.wait_for_tokens()

        assert missing_rows(clients) == []
        assert set(clients.statuses) == {201, 503}
        assert server.tracebacks_per_minute() <= 1


class TestAPostgreSQLServerThatNeverAnswers:
    def test_o18_server_answers_503_while_postgresql_is_suspended_and_issues_tokens_after_the_resume(
        self, cluster, without_persistent_connections, access_token
    ):
        server = without_persistent_connections
        with Clients(server, access_token) as clients:
            clients.wait_for_tokens()
            cluster.suspend()
            servers.wait_until(lambda: 503 in clients.statuses, bool)
            assert server.health("issuer").body["checks"]["database"]["status"] == "error"
            cluster.resume()
            clients.wait_for_tokens()

        assert missing_rows(clients) == []
        assert set(clients.statuses) == {201, 503}
        assert server.tracebacks_per_minute() <= 1

    def test_o18_server_with_persistent_connections_issues_tokens_again_after_postgresql_was_suspended(
        self, cluster, server, access_token
    ):
        with Clients(server, access_token) as clients:
            clients.wait_for_tokens()
            cluster.suspend()
            # Wait for the health check, which opens a new connection with a time limit. The open connections have no
            # time limit.
            servers.wait_until(
                lambda: server.health("issuer").body["checks"]["database"]["status"], lambda status: status == "error"
            )
            cluster.resume()
            clients.wait_for_tokens()

        assert missing_rows(clients) == []
        assert set(clients.statuses) <= {201, 503}

    def test_o18_server_connected_through_pgbouncer_answers_503_while_postgresql_is_suspended(
        self, cluster, access_token, tmp_path
    ):
        database = documented_database() | {"OPTIONS": {"connect_timeout": 2}}
        with pgbouncer(tmp_path, server_port=str(cluster.port), options=documented_pgbouncer()) as port:
            env = environment_of(cluster) | {"PGPORT": str(port)}
            with (
                issuer(tmp_path, env, database=database, **SETTINGS) as server,
                Clients(server, access_token) as clients,
            ):
                clients.wait_for_tokens()
                cluster.suspend()
                servers.wait_until(lambda: clients.statuses.count(503), lambda count: count >= 10)
                cluster.resume()
                clients.wait_for_tokens()

        assert missing_rows(clients) == []
        assert set(clients.statuses) == {201, 503}
        assert server.tracebacks_per_minute() <= 1

    def test_o18_server_answers_503_if_the_audit_table_is_locked_longer_than_statement_timeout(
        self, cluster, server, access_token
    ):
        # Import the driver here, because `make test` collects this file but doesn't install the driver.
        import psycopg

        server.wait_until_issued(access_token)
        with psycopg.connect(**cluster.connection) as connection:
            connection.execute("LOCK TABLE instaccess_issuedtoken IN ACCESS EXCLUSIVE MODE")
            assert server.issue(access_token).status == 503

        # On a busy machine, the first request can exceed a time limit of the database.
        server.wait_until_issued(access_token)
        assert "canceling statement due to statement timeout" in server.log()
        assert server.tracebacks_per_minute() <= 1


class TestAFullDisk:
    """Tests of a full disk. To simulate a full disk, the kernel limits the size of PostgreSQL's files."""

    @pytest.fixture
    def full(self, cluster: Cluster, access_token: Any) -> None:
        """Fill the table of the audit log with dead rows, and let the kernel refuse larger files."""
        cluster.execute("ALTER TABLE instaccess_issuedtoken SET (autovacuum_enabled = off)")
        size = 0
        while size <= WAL_SEGMENT:
            writability.try_insert()
            [(size,)] = cluster.execute("SELECT pg_relation_size('instaccess_issuedtoken')")
        cluster.limit_files(WAL_SEGMENT)
        connections.close_all()  # The limit applies only to new connections.

    def test_o18_issuer_without_disk_space_answers_503_and_issues_tokens_again_when_there_is_space(
        self, cluster, full, without_persistent_connections, access_token
    ):
        server = without_persistent_connections
        # Repeat each probe, because a probe can exceed its time limit on a busy machine.
        servers.wait_until(lambda: server.health("issuer").status, lambda status: status == 200)

        # Repeat the requests, because the last page of the table still has space for a few rows.
        servers.wait_until(
            lambda: {server.issue(access_token).status for _ in range(10)}, lambda statuses: statuses == {503}
        )
        health = servers.wait_until(
            lambda: server.health("issuer"), lambda health: health.body["checks"]["database"]["status"] == "ok"
        )
        assert (health.status, health.body["checks"]["audit"]["status"]) == (503, "error")
        assert "could not extend file" in server.log()
        assert server.tracebacks_per_minute() <= 1

        cluster.limit_files(None)
        servers.wait_until(lambda: server.health("issuer").status, lambda status: status == 200)
        server.wait_until_issued(access_token)

    def test_o18_issuer_issues_tokens_again_after_a_failed_write_of_the_wal_stopped_postgresql(
        self, cluster, without_persistent_connections, access_token
    ):
        server = without_persistent_connections
        with Clients(server, access_token) as clients:
            clients.wait_for_tokens()
            cluster.limit_files(WAL_SEGMENT // 2)
            servers.wait_until(lambda: "PANIC" in cluster.log, bool)
            servers.wait_until(lambda: clients.statuses[-10:], lambda statuses: set(statuses) == {503})
            cluster.kill()
            cluster.start()
            clients.wait_for_tokens()

        assert missing_rows(clients) == []
        assert set(clients.statuses) == {201, 503}
        assert server.tracebacks_per_minute() <= 1

    def test_o18_check_reports_a_full_disk_and_adds_no_row_to_the_audit_log(self, cluster, full):
        [message] = self.messages()
        assert "No row can be inserted into the audit log" in message.msg
        assert "could not extend file" in message.msg
        assert "If the disk of the database server is full, add or free space." in message.hint

        cluster.limit_files(None)
        connections.close_all()
        assert self.messages() == []
        assert not IssuedToken.objects.exists()

    @staticmethod
    def messages() -> list[CheckMessage]:
        return [each for each in run_checks(databases=["default"]) if each.id == "instaccess.E062"]
