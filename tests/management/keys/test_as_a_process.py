"""Tests of `manage.py instaccess_keys` as a process: exit codes, standard output, and database errors."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection

from tests.management.keys.helpers import error_of
from tests.support import key_texts
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db


class TestADatabaseError:
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    @pytest.mark.parametrize("args", [["list"], ["generate", "--use", "sig"], ["rotate"], ["reseal"]], ids=" ".join)
    def test_o1_instaccess_keys_reports_the_message_of_the_database_and_does_not_suggest_migrate(self, args, error):
        def fail(*_: Any) -> Any:
            raise error("connection refused\n\tIs the server running?")

        with connection.execute_wrapper(fail):
            assert error_of(*args) == "Database error: connection refused Is the server running."

    @pytest.mark.parametrize("args", [["list"], ["generate", "--use", "sig"], ["rotate"], ["reseal"]], ids=" ".join)
    def test_instaccess_keys_reports_a_missing_table_and_names_the_command_migrate(self, args):
        def fail(execute: Any, sql: str, *others: Any) -> Any:
            return execute(sql.replace("instaccess_key", "instaccess_missing"), *others)

        with connection.execute_wrapper(fail):
            text = error_of(*args)

        assert "instaccess_missing" in text
        assert text.endswith(". Run `python manage.py migrate`.")


def manage(database: Path, *args: str, **kwargs: Any) -> Any:
    """Run `manage.py` with a SQLite database. Returns the completed process. By default, the output is captured."""
    environment = {
        **os.environ,
        "INSTACCESS_DATABASE": "sqlite",
        "SQLITE_NAME": str(database),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
    return subprocess.run(
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env=environment,
        text=True,
        check=False,
        timeout=120,
        **streams,
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a SQLite database with keys and only the tables of this app. Returns the path of the database."""
    path = tmp_path_factory.mktemp("database") / "partly_migrated.sqlite3"
    assert manage(path, "migrate", "instaccess", "--verbosity", "0").returncode == 0
    assert manage(path, "instaccess_init").returncode == 0
    return path


@pytest.fixture(scope="module")
def kid(database: Path) -> str:
    kid: str = json.loads(manage(database, "instaccess_keys", "list", "--json").stdout)[0]["kid"]
    return kid


@pytest.mark.own_database
class TestInstaccessKeysAsAProcess:
    def test_instaccess_keys_exits_with_1_and_a_readable_error_before_migrate(self, tmp_path):
        result = manage(tmp_path / "empty.sqlite3", "instaccess_keys", "list", "--json")

        assert result.returncode == 1
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert "`python manage.py migrate`" in result.stderr

    def test_instaccess_keys_prints_only_the_result_while_migrations_of_other_apps_are_pending(self, database):
        """Check the output, because a notice about migrations would make a PEM file or a JSON document invalid."""
        listed = manage(database, "instaccess_keys", "list", "--json")
        exported = manage(database, "instaccess_keys", "export", "--kid", json.loads(listed.stdout)[0]["kid"])

        assert listed.returncode == 0
        assert [key["use"] for key in json.loads(listed.stdout)] == ["enc", "sig", "sig"]
        assert (exported.returncode, exported.stderr) == (0, "")
        assert not key_texts.parse(exported.stdout).has_private


@pytest.mark.own_database
class TestExportOfAPrivateKeyAsAProcess:
    @staticmethod
    def export(database: Path, kid: str, *options: str, **streams: Any) -> Any:
        return manage(database, "instaccess_keys", "export", "--kid", kid, "--private", *options, **streams)

    @pytest.mark.parametrize("typed", ["the key id", "yes"])
    def test_export_to_a_terminal_prints_the_private_key_only_after_the_user_types_the_key_id(
        self, database, kid, typed
    ):
        terminal, end = os.openpty()
        os.write(terminal, f"{kid if typed == 'the key id' else typed}\n".encode())

        done = self.export(database, kid, stdin=end, stdout=end, stderr=end)
        os.close(end)
        output = read_terminal(terminal)

        assert f"type the key id ({kid}): " in output
        if typed == "the key id":
            assert done.returncode == 0
            key = key_texts.parse(output[output.index("-----BEGIN") :])
            assert (key.thumbprint(), key.has_private) == (kid, True)
        else:
            assert done.returncode == 1
            assert "PRIVATE KEY" not in output

    def test_export_to_a_pipe_without_the_option_yes_prints_no_private_key(self, database, kid):
        done = self.export(database, kid, input=f"{kid}\n")

        assert (done.returncode, done.stdout) == (1, "")
        assert "standard output isn't a terminal" in done.stderr
        assert "--file" in done.stderr

    def test_export_to_a_pipe_with_the_option_yes_prints_the_private_key(self, database, kid):
        done = self.export(database, kid, "--yes", stdin=subprocess.DEVNULL)

        assert done.returncode == 0
        assert key_texts.parse(done.stdout).has_private

    def test_export_redirected_to_a_file_without_the_option_yes_prints_no_private_key(self, database, kid, tmp_path):
        path = tmp_path / "key.pem"
        with path.open("w") as file:
            done = self.export(database, kid, stdout=file, input=f"{kid}\n")

        assert (done.returncode, path.read_text()) == (1, "")

    def test_k21_export_to_a_file_asks_no_question_and_only_the_owner_can_read_the_file(
        self, database, kid, tmp_path
    ):
        path = tmp_path / "key.pem"

        done = self.export(database, kid, "--file", str(path), stdin=subprocess.DEVNULL)

        assert done.returncode == 0
        assert str(path) in done.stdout
        assert "PRIVATE KEY" not in done.stdout + done.stderr
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert key_texts.parse(path.read_text()).has_private


def read_terminal(terminal: int) -> str:
    """Read the remaining output of a terminal, and close the terminal. Linux reports the end of the output as EIO."""
    output = b""
    with suppress(OSError):
        while chunk := os.read(terminal, 65536):
            output += chunk
    os.close(terminal)
    return output.decode().replace("\r\n", "\n")
