"""Tests of case O17: the primary of PostgreSQL is killed, and a replica is promoted, while clients request tokens."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.test import override_settings

from instaccess.audit import progress
from instaccess.keys import ring
from instaccess.models import IssuedToken
from tests.outages.conftest import documented_database, environment_of
from tests.support import servers
from tests.support.caches import DJANGOS, REDIS_URL, on_redis
from tests.support.clusters import Cluster, clusters
from tests.support.issuers import Clients, Issuer, issuer

pytestmark = [pytest.mark.postgresql, pytest.mark.services, pytest.mark.django_db(transaction=True)]


LAST_ID = "SELECT max(id) FROM instaccess_issuedtoken"
REPLICAS = "SELECT sync_state FROM pg_stat_replication"
SETTINGS: dict[str, Any] = {"THROTTLE_LIMIT": None, "ALLOW_UNENCRYPTED": True}


@pytest.fixture
def pair(template: Path) -> Iterator[list[Cluster]]:
    with clusters("primary", "replica", template=template) as pair:
        yield pair


@pytest.fixture
def server(pair: list[Cluster], access_token: Any, tmp_path: Path) -> Iterator[Issuer]:
    with issuer(tmp_path, environment_of(*pair), database=documented_database(), **SETTINGS) as server:
        yield server


@pytest.fixture
def access_token(pair: list[Cluster], deploy: Any) -> Any:
    return deploy(pair[0])


def replicate_synchronously(
    primary: Cluster, names: str = "*", states: Sequence[tuple[object, ...]] = (("sync",),)
) -> None:
    primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
    servers.wait_until(lambda: primary.execute(REPLICAS), lambda rows: rows == list(states))


def position(replica: Cluster) -> object:
    """Return the position in the write-ahead log up to which a replica has received the commits of its primary."""
    [(position,)] = replica.execute("SELECT pg_last_wal_receive_lsn()::text")
    return position


def missing_on(cluster: Cluster, use: Callable[[Cluster], None], clients: Clients) -> list[str]:
    """Return the ids of the tokens that a client got and that the audit log on the given server lacks."""
    use(cluster)
    recorded = {str(jti) for jti in IssuedToken.objects.values_list("jti", flat=True)}
    return [jti for jti in clients.jtis if jti not in recorded]


def verify() -> str:
    """Run `instaccess_tokens verify`. Returns the output, followed by the error message if the command fails."""
    out = io.StringIO()
    try:
        call_command("instaccess_tokens", "verify", stdout=out)
    except CommandError as error:
        return f"{out.getvalue()}{error}"
    return out.getvalue()


class TestASynchronousReplica:
    def test_o17_synchronous_replica_has_the_audit_row_of_every_token_that_a_client_got(
        self, pair, access_token, server, use
    ):
        primary, replica = pair
        replicate_synchronously(primary)

        with Clients(server, access_token) as clients:
            clients.wait_for_tokens()
            primary.kill()
            replica.promote()
            clients.wait_for_tokens()

        assert missing_on(replica, use, clients) == []
        assert set(clients.statuses) <= {201, 503}
        assert server.tracebacks_per_minute() <= 1
        assert "No tampering found" in verify()

    def test_o17_no_client_gets_a_token_while_no_synchronous_replica_confirms_the_commit(
        self, pair, access_token, server
    ):
        primary, replica = pair
        replicate_synchronously(primary)
        replica.suspend()

        with Clients(server, access_token, count=1) as clients:
            # Wait until the primary waits for the replica. The primary has then written the commit to its own disk.
            servers.wait_until(
                lambda: primary.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), bool
            )
            assert clients.jtis == []
            replica.resume()
            clients.wait_for_tokens(1)


class TestAQuorumOfReplicas:
    """Tests with `ANY 1 (*)` and two replicas: a commit is on at least one replica, but not on every replica."""

    def test_o17_replica_with_the_highest_position_has_every_token_that_a_client_got(
        self, template, deploy, use, tmp_path
    ):
        with clusters("primary", "first", "second", template=template) as [primary, first, second]:
            access_token = deploy(primary)
            replicate_synchronously(primary, "ANY 1 (*)", [("quorum",), ("quorum",)])
            env = environment_of(first, primary, second)
            with (
                issuer(tmp_path, env, database=documented_database(), **SETTINGS) as server,
                Clients(server, access_token) as clients,
            ):
                clients.wait_for_tokens()
                first.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
                servers.wait_until(lambda: len(primary.execute(REPLICAS)), lambda number: number == 1)
                clients.wait_for_tokens()
                primary.kill()
                assert second.execute(f"SELECT pg_last_wal_receive_lsn() > '{position(first)}'") == [(True,)]
                second.promote()
                clients.wait_for_tokens()

            assert missing_on(first, use, clients) != []
            assert missing_on(second, use, clients) == []


class TestAnAsynchronousReplica:
    @pytest.fixture
    def lost(self, pair: list[Cluster], access_token: Any, server: Issuer, use: Any) -> Iterator[str]:
        """Fail over to a replica that lacks the row of a token. Yields the id of the token."""
        primary, replica = pair
        with override_settings(CACHES=on_redis(DJANGOS, REDIS_URL)):
            server.wait_until_issued(access_token)
            servers.wait_until(
                lambda: replica.execute("SELECT count(*) FROM instaccess_issuedtoken"), lambda rows: rows == [(1,)]
            )
            replica.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
            servers.wait_until(lambda: primary.execute(REPLICAS), lambda rows: rows == [])
            [(last,)] = primary.execute(LAST_ID)
            with Clients(server, access_token, count=1) as clients:
                # Wait for a token with a higher id, because a lost token with a lower id isn't detected. Tokens of
                # the same second have ids in a random order.
                servers.wait_until(lambda: primary.execute(LAST_ID), lambda rows: rows[0][0] > last)
            run_checks(databases=["default"])  # This check stores the progress of the database in the cache.
            primary.kill()
            replica.promote()
            use(replica)
            ring.clear_cache()
            yield clients.jtis[0]
            cache.delete(progress._cache_key())

    def test_o17_check_and_verify_report_the_rows_that_an_asynchronous_replica_lacks(self, lost):
        assert not IssuedToken.objects.filter(jti=lost).exists()

        [message] = [each for each in run_checks(databases=["default"]) if each.id == "instaccess.W030"]

        assert "The database has lost rows: the last token in the audit log was issued at" in message.msg
        assert "after-restore" in message.hint
        assert "the audit log once contained a token issued at" in verify()

    def test_o17_issuer_uses_an_asynchronous_replica_and_the_command_after_restore_ends_the_report(
        self, lost, server, access_token
    ):
        server.wait_until_issued(access_token)

        call_command("instaccess_keys", "after-restore", "--yes", stdout=io.StringIO())

        assert not [each for each in run_checks(databases=["default"]) if each.id == "instaccess.W030"]
        assert "No tampering found" in verify()
        server.wait_until_issued(access_token)
