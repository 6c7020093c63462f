"""Tests for `manage.py instaccess_keys` as a process: exit codes, standard output, and database errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection

from tests.management.keys.helpers import error_of
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db


class TestADatabaseError:
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    @pytest.mark.parametrize("args", [["list"], ["generate", "--use", "sig"], ["rotate"], ["reseal"]], ids=" ".join)
    def test_o1_a_database_error_is_reported_with_a_hint_to_migrate(self, args, error):
        def fail(*_: Any) -> Any:
            raise error("no such table: instaccess_key")

        with connection.execute_wrapper(fail):
            text = error_of(*args)

        assert "no such table: instaccess_key" in text
        assert "`python manage.py migrate`" in text


@pytest.mark.own_database
class TestAsAProcess:
    def manage(self, database: Path, *args: str, **kwargs: Any) -> Any:
        environment = {
            **os.environ,
            "INSTACCESS_DATABASE": "sqlite",
            "SQLITE_NAME": str(database),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **kwargs,
        )

    def test_before_migrate_the_exit_code_is_1_and_the_error_is_readable(self, tmp_path):
        result = self.manage(tmp_path / "empty.sqlite3", "instaccess_keys", "list", "--json")

        assert result.returncode == 1
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert "`python manage.py migrate`" in result.stderr

    def test_standard_output_contains_only_the_result_while_other_migrations_are_pending(self, tmp_path):
        """A notice from Django in the output would make the PEM file or the JSON document invalid."""
        database = tmp_path / "partly_migrated.sqlite3"
        assert self.manage(database, "migrate", "instaccess", "--verbosity", "0").returncode == 0
        assert self.manage(database, "instaccess_init").returncode == 0
        listed = self.manage(database, "instaccess_keys", "list", "--json")
        exported = self.manage(
            database, "instaccess_keys", "export", "--kid", json.loads(listed.stdout)[0]["kid"], "--private", input=""
        )

        assert listed.returncode == 0
        assert [key["use"] for key in json.loads(listed.stdout)] == ["enc", "sig", "sig"]
        assert (exported.returncode, exported.stdout) == (1, "")
        assert "was not exported" in exported.stderr
