"""Tests of case O16: the package connects to PostgreSQL through PgBouncer in transaction mode.

Two successive transactions of a client run on different connections from PgBouncer to PostgreSQL.
"""

from __future__ import annotations

import http.client
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, connections

from instaccess import audit, keys
from instaccess.management.commands import instaccess_keys, instaccess_tokens
from instaccess.models import Checkpoint, IssuedToken, Key
from tests.keys.helpers import public_pem
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.pgbouncer import SERVERS, pgbouncer
from tests.support.processes import environment, within
from tests.support.stored_keys import CURRENT, ENC, FUTURE, NEW_KEK, SIG, kids

pytestmark = [pytest.mark.postgresql, pytest.mark.services, pytest.mark.django_db(transaction=True)]

DAY = 86_400
ISSUE, VERIFY = "/api/v1/inst_access_tokens", "/internal/gateway/verify"


@pytest.fixture
def port(transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run PgBouncer, and connect this process to PgBouncer. Yields the port of PgBouncer."""
    with pgbouncer(tmp_path) as port:
        with monkeypatch.context() as patch:
            connections.close_all()
            patch.setitem(connection.settings_dict, "HOST", servers.HOST)
            patch.setitem(connection.settings_dict, "PORT", str(port))
            yield port
        connections.close_all()


@pytest.fixture
def rows(port: int, row: Callable[..., IssuedToken], initial_keys: list[Key]) -> list[IssuedToken]:
    """Create audit rows of old tokens, which checkpoints cover, and the row of a live token of the current keys."""
    old = [row(age=age * DAY) for age in range(9, 1, -1)]
    audit.seal(keys.evidence_keys())
    return [*old, row(signing_kid=kids(SIG, CURRENT)[0], encryption_kid=kids(ENC, CURRENT)[0])]


def run(*command: str) -> str:
    out = io.StringIO()
    call_command(*command, stdout=out, stderr=io.StringIO())
    return out.getvalue()


KEYS_COMMANDS: dict[str, list[str]] = {
    "list": [],
    "generate": ["--use", "sig"],
    "import": ["--use", "enc", "--file", "PUBLIC"],
    "export": ["--kid", "CURRENT"],
    "rotate": ["--force"],
    "activate": ["--kid", "FUTURE", "--force"],
    "revoke": ["--kid", "CURRENT"],
    "reseal": [],
    "after-restore": ["--yes"],
}
TOKENS_COMMANDS: dict[str, list[str]] = {
    "list": [],
    "show": ["--jti", "JTI"],
    "revoke": ["--user", "ada", "--reason", "x"],
    "erase-name": ["--user", "ada"],
    "export": ["--format", "csv"],
    "seal": [],
    "checkpoint": [],
    "verify": [],
    "review": ["CODE", "--reason", "x"],
    "prune": ["--older-than", "3d"],
}


class TestThePool:
    def test_o16_pgbouncer_runs_successive_transactions_on_different_connections(self, port):
        pids = []
        for _ in range(SERVERS):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pids.append(cursor.fetchone()[0])

        assert len(set(pids)) == SERVERS

    def test_o16_server_side_cursors_fail_through_pgbouncer_and_a_setting_of_django_disables_them(
        self, rows, monkeypatch
    ):
        with pytest.raises(DatabaseError, match="does not exist"):
            list(IssuedToken.objects.iterator(chunk_size=1))
        connection.close()

        monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
        assert len(list(IssuedToken.objects.iterator(chunk_size=1))) == len(rows)


class TestCommands:
    @pytest.mark.parametrize(
        ("listed", "module"), [(KEYS_COMMANDS, instaccess_keys), (TOKENS_COMMANDS, instaccess_tokens)]
    )
    def test_tests_of_pgbouncer_run_every_subcommand_of_instaccess_keys_and_instaccess_tokens(self, listed, module):
        assert listed.keys() == module._SUBCOMMANDS.keys()

    @pytest.mark.parametrize("subcommand", KEYS_COMMANDS)
    def test_o16_instaccess_keys_subcommand_works_through_pgbouncer(self, rows, subcommand, tmp_path, rsa_pool):
        (tmp_path / "public.pem").write_text(public_pem(rsa_pool))
        values = {
            "PUBLIC": str(tmp_path / "public.pem"),
            "CURRENT": kids(SIG, CURRENT)[0],
            "FUTURE": kids(SIG, FUTURE)[0],
        }
        assert run("instaccess_keys", subcommand, *(values.get(arg, arg) for arg in KEYS_COMMANDS[subcommand]))
        assert audit.verify(keys.evidence_keys()).summary == ""

    @pytest.mark.parametrize("subcommand", TOKENS_COMMANDS)
    def test_o16_instaccess_tokens_subcommand_works_through_pgbouncer(self, rows, subcommand):
        values = {"JTI": str(rows[0].jti)}
        if subcommand == "review":
            IssuedToken.objects.filter(pk=rows[0].pk).update(client_id="modified")
            values["CODE"] = audit.verify(keys.evidence_keys()).problems[0].code

        assert run("instaccess_tokens", subcommand, *(values.get(arg, arg) for arg in TOKENS_COMMANDS[subcommand]))
        assert audit.verify(keys.evidence_keys()).summary == ""

    def test_o16_many_checkpoints_are_verified_resealed_and_pruned_through_pgbouncer(
        self, port, row, initial_keys, settings
    ):
        for age in range(45, 1, -1):
            row(age=age * DAY)
        run("instaccess_tokens", "seal")
        assert Checkpoint.objects.count() == 44

        assert "44 rows are covered by 44 checkpoints" in run("instaccess_tokens", "verify")
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, "SECRET_KEY"]}
        # The reseal computes one HMAC for each of the 44 checkpoints, and one for the names in each of the 44 rows.
        assert "HMACs of the audit log recomputed: 88." in run("instaccess_keys", "reseal")
        assert "Deleted 41 rows" in run("instaccess_tokens", "prune", "--older-than", "108h")

    def test_o16_instaccess_init_and_migrate_and_check_work_through_pgbouncer(self, port):
        assert "Generated the current signing key" in run("instaccess_init")
        run("migrate")
        run("check", "--database", "default")


def request(port: int, method: str, path: str, bearer: str) -> tuple[int, bytes]:
    """Send a request to a server. Returns the status and the body of the response."""
    client = http.client.HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
    try:
        client.request(method, path, headers={"Authorization": f"Bearer {bearer}"})
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


class TestServers:
    @pytest.fixture
    def server(self, port: int, initial_keys: list[Key], tmp_path: Path) -> Iterator[servers.Process]:
        """Run one server, which is both issuer and gateway, with two workers that connect through PgBouncer."""
        own = servers.free_port()
        env = {**environment(), "PGHOST": servers.HOST, "PGPORT": str(port)}
        env["INSTACCESS_SETTINGS"] = json.dumps({"THROTTLE_LIMIT": None})
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi:application", "--workers", "2"]
        command += ["--bind", f"{servers.HOST}:{own}"]
        process = servers.Process(command, port=own, log=tmp_path / "server.log", env=env, cwd=ROOT)
        yield process
        process.kill()

    def test_o16_server_issues_accepts_and_refuses_revoked_tokens_through_pgbouncer(self, server, access_token):
        tokens = []
        for _ in range(10):
            status, body = request(server.port, "POST", ISSUE, access_token.token)
            assert status == 201, body
            tokens.append(json.loads(body)["token"])
        assert [request(server.port, "GET", VERIFY, token)[0] for token in tokens] == [204] * 10
        assert IssuedToken.objects.count() == 10

        run("instaccess_tokens", "revoke", "--user", "ada", "--reason", "left")
        assert within(5, lambda: {request(server.port, "GET", VERIFY, token)[0] for token in tokens} == {401})
        assert "Traceback" not in server.log.read_text()
