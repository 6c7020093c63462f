"""Tests of the log while the database is unavailable: an error that repeats is logged at most once per minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import servers
from tests.support.outage import TIMES
from tests.support.paths import ROOT

PASSWORD = "no-line-contains-this"


def unavailable(database, tmp_path):
    """Return environment variables for a database that refuses connections."""
    port = str(servers.free_port())
    return {
        **os.environ,
        "INSTACCESS_DATABASE": database,
        "SQLITE_NAME": str(tmp_path / "no such folder" / "database"),
        "PGHOST": servers.HOST,
        "PGPORT": port,
        "PGPASSWORD": PASSWORD,
        "MARIADB_HOST": servers.HOST,
        "MYSQL_TCP_PORT": port,
        "MARIADB_PASSWORD": PASSWORD,
    }


def run(role, database, tmp_path):
    """Send requests to a role while the database is unavailable. Returns the set of statuses and the log lines."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.outage", role],
        env=unavailable(database, tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = [line["status"] for line in lines if "status" in line]
    assert len(statuses) == TIMES
    return set(statuses), [line for line in lines if "status" not in line]


@pytest.mark.parametrize(
    "database",
    [
        pytest.param("sqlite", marks=pytest.mark.own_database),
        pytest.param("postgresql", marks=pytest.mark.services),
        pytest.param("mariadb", marks=pytest.mark.services),
    ],
)
class TestTheLogWhileTheDatabaseIsUnavailable:
    @pytest.mark.parametrize("role", ["issuer", "gateway", "service", "jwks", "revocations"])
    def test_log_contains_the_database_error_once_and_no_password_and_no_traceback_per_request(
        self, role, database, tmp_path
    ):
        statuses, lines = run(role, database, tmp_path)

        assert statuses == {503}
        [own] = [line for line in lines if "could not" in line["text"] and line["logger"] != "instaccess.refusals"]
        assert "OperationalError" in own["text"]
        assert "migrate" not in own["text"]
        assert PASSWORD not in json.dumps(lines)
        texts = [line["text"] for line in lines]
        assert sum(text.count("Traceback (most recent call last)") for text in texts) <= 2 * (role == "issuer")
        assert not any(line["traceback"] for line in lines)

    @pytest.mark.parametrize("role", ["issuer", "gateway", "jwks", "revocations"])
    def test_django_logs_only_the_first_503_of_an_outage(self, role, database, tmp_path):
        _, lines = run(role, database, tmp_path)

        assert [line["logger"] for line in lines].count("django.request") == 1
