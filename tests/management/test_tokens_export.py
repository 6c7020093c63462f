"""Tests of `manage.py instaccess_tokens export`, to standard output and to a file."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils import timezone

from instaccess import users
from instaccess.audit.export import COLUMNS
from instaccess.models import IssuedToken
from tests.support.failing import failing_after
from tests.support.paths import ROOT
from tests.support.processes import environment

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
BATCH = 1000  # The number of rows that the export reads per query.


def export(*args: str, file_format: str = "jsonl") -> str:
    out = io.StringIO(newline="")
    call_command("instaccess_tokens", "export", "--format", file_format, *args, stdout=out)
    return out.getvalue()


def ids(*args: str) -> list[int]:
    return [int(json.loads(line)["id"]) for line in export(*args).splitlines()]


class TestTokensExport:
    def test_tokens_export_writes_only_csv_to_standard_output(self, row):
        each = row()

        header, line = csv.reader(io.StringIO(export(file_format="csv"), newline=""))

        assert header == list(COLUMNS)
        assert line[:2] == [str(each.pk), str(each.jti)]

    def test_tokens_export_writes_json_lines_with_the_latest_token_first(self, row):
        old, new = row(age=100), row()

        assert ids() == [new.pk, old.pk]

    def test_tokens_export_filters_by_user_application_and_account(self, row):
        grace = get_user_model().objects.create_user("grace")
        other_row = row(user=grace, user_uuid=users.user_uuid(grace), client_id="other", account_uuid="9d")
        row()

        for args in (["--user", "grace"], ["--application", "other"], ["--account", "9d"]):
            assert ids(*args) == [other_row.pk]
        assert ids("--user", "grace", "--account", "3f1c") == []

    def test_tokens_export_with_the_option_live_writes_only_live_tokens(self, row):
        row(age=9000)
        row(revoked_at=timezone.now())
        live = row()

        assert ids("--live") == [live.pk]

    def test_tokens_export_includes_the_start_of_the_period_and_excludes_its_end(self, row):
        made = {
            hours: row(issued_at=NOON + timedelta(hours=hours), expires_at=NOON + timedelta(hours=hours + 1)).pk
            for hours in (-13, -12, 0, 11, 12)
        }

        assert ids("--since", "2026-11-01", "--until", "2026-11-02") == [made[11], made[0], made[-12]]
        assert ids("--since", "2026-11-01T12:00:00") == [made[12], made[11], made[0]]
        assert ids("--until", "2026-11-01T13:00:00+01:00") == [made[-12], made[-13]]

    def test_a22_tokens_export_with_the_option_had_access_writes_tokens_that_were_valid_in_the_period(self, row):
        valid = row(issued_at=NOON - timedelta(minutes=59), expires_at=NOON + timedelta(minutes=1))
        row(issued_at=NOON - timedelta(minutes=60), expires_at=NOON)
        period = ("--since", "2026-11-01T12:00:00", "--until", "2026-11-01T13:00:00")

        assert ids(*period) == []
        assert ids(*period, "--had-access") == [valid.pk]

    @pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+23:00", "\x00"])
    def test_tokens_export_refuses_an_invalid_time_and_prints_an_example(self, text):
        with pytest.raises(CommandError, match="2026-11-01"):
            export("--since", text)

    def test_tokens_export_refuses_a_period_whose_end_is_before_its_start(self):
        with pytest.raises(CommandError, match="before --until"):
            export("--since", "2026-11-02", "--until", "2026-11-01")

    @pytest.mark.parametrize("option", ["--user", "--application", "--account", "--file"])
    def test_tokens_export_refuses_an_option_with_an_empty_value(self, row, option):
        row()
        with pytest.raises(CommandError, match="is empty"):
            export(option, "")

    @pytest.mark.parametrize("args", [[], ["--format", "xml"], ["--format", "csv", "--json"]])
    def test_tokens_export_fails_if_the_format_is_missing_or_invalid_or_the_option_json_is_given(self, args):
        with pytest.raises(CommandError):
            call_command("instaccess_tokens", "export", *args)

    def test_tokens_export_logs_its_start_with_the_filters_and_its_end(self, row, caplog):
        caplog.set_level("INFO", logger="instaccess.audit")
        row()

        export("--user", "ada", "--since", "2026-11-01")

        begun, ended = caplog.messages
        assert begun.startswith("export started by=")
        assert begun.endswith('format=jsonl filters={"user": "ada", "since": "2026-11-01"}')
        assert ended.endswith("rows=1")


class TestTokensExportToAFile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "audit.csv"

    def test_tokens_export_creates_a_file_that_only_its_owner_can_read(self, row, path):
        row()
        row()

        output = export("--file", str(path), file_format="csv")

        assert output == f"Exported 2 rows to {path}.\n"
        assert path.read_bytes().count(b"\r\n") == 3
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(path.parent) == [path.name]

    def test_tokens_export_writes_the_same_bytes_to_a_file_as_to_standard_output(self, row, path):
        row(user_agent="Łukasz\r\n")
        export("--file", str(path), file_format="csv")

        assert path.read_bytes() == export(file_format="csv").encode()

    @pytest.mark.parametrize("what", ["file", "link", "folder"])
    def test_tokens_export_does_not_overwrite_a_file_a_link_or_a_folder(self, row, path, what):
        {"file": path.touch, "link": lambda: path.symlink_to("/nowhere"), "folder": path.mkdir}[what]()

        with pytest.raises(CommandError, match="already exists and is not overwritten"):
            export("--file", str(path))

        assert os.listdir(path.parent) == [path.name]

    def test_tokens_export_does_not_overwrite_the_partial_file_of_another_export(self, row, path):
        partial = path.with_name("audit.csv.partial")
        partial.write_text("incomplete")

        with pytest.raises(CommandError, match=r"audit.csv.partial already exists"):
            export("--file", str(path))

        assert partial.read_text() == "incomplete"
        assert not path.exists()

    def test_tokens_export_fails_with_the_reason_if_the_folder_is_missing(self, tmp_path):
        with pytest.raises(CommandError, match="No such file or directory"):
            export("--file", str(tmp_path / "none" / "audit.csv"))

    def test_tokens_export_deletes_the_partial_file_if_the_database_fails(self, row, path):
        many(BATCH + 1)

        with failing_after(1), pytest.raises(CommandError, match="gone"):
            export("--file", str(path))

        assert os.listdir(path.parent) == []


class TestExportWithAFailingDatabase:
    def test_tokens_export_ends_with_a_line_that_reports_an_incomplete_export_if_the_database_fails(self):
        many(BATCH + 1)
        out = io.StringIO()

        with failing_after(1), pytest.raises(CommandError, match="gone"):
            call_command("instaccess_tokens", "export", "--format", "jsonl", stdout=out)

        lines = out.getvalue().splitlines()
        assert len(lines) == BATCH + 1
        assert "INCOMPLETE" in lines[-1]


@pytest.mark.django_db(transaction=True)
class TestTokensExportInAShell:
    @staticmethod
    def run(pipeline: str, *, before: str = "") -> subprocess.CompletedProcess[bytes]:
        command = f"{before} '{sys.executable}' manage.py instaccess_tokens export {pipeline}"
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env={**environment(), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            capture_output=True,
            timeout=120,
            check=False,
        )

    def test_tokens_export_writes_utf8_and_crlf_even_in_the_c_locale(self, row):
        row(user_agent="Łukasz")

        done = self.run("--format csv")

        assert done.returncode == 0
        assert "Łukasz" in done.stdout.decode()
        assert done.stdout.count(b"\r\n") == done.stdout.count(b"\n") == 2

    def test_tokens_export_ends_without_an_error_message_if_the_reader_of_the_pipe_exits(self):
        many(3 * BATCH)

        done = self.run("--format jsonl | head -n 1")

        assert done.stdout.count(b"\n") == 1
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr
        assert b"Broken pipe" not in done.stderr
        # A shell reports this exit code for a program that SIGPIPE has killed.
        assert done.returncode == 141

    def test_tokens_export_deletes_the_partial_file_if_the_file_size_limit_is_exceeded(self, tmp_path):
        many(3 * BATCH)

        # 512 KiB are enough for temporary files of the database, but not for the exported rows.
        done = self.run(f"--format jsonl --file '{tmp_path}/audit.jsonl'", before="ulimit -f 512;")

        assert done.returncode == 1
        assert b"Can't write the export" in done.stderr
        assert b"Traceback" not in done.stderr
        assert os.listdir(tmp_path) == []

    def test_tokens_export_reports_a_full_disk_without_a_traceback(self, row):
        row()

        done = self.run("--format csv > /dev/full")

        assert done.returncode == 1
        assert b"No space left on device" in done.stderr
        assert b"Traceback" not in done.stderr


def many(count: int) -> None:
    IssuedToken.objects.bulk_create(
        [
            IssuedToken(
                jti=f"00000000-0000-4000-8000-{number:012x}",
                user_uuid="u",
                account_uuid="3f1c",
                canvas_domain="canvas.example.edu",
                signing_kid="s",
                issued_at=NOON + timedelta(seconds=number),
                expires_at=NOON + timedelta(hours=1),
            )
            for number in range(count)
        ],
        batch_size=500,
    )
