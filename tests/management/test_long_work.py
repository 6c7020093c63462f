"""Tests of long work: the progress on a terminal, and commands that Ctrl-C stops. Each command is a real process."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management.base import OutputWrapper
from django.utils import timezone

from instaccess import audit, conf, keys
from instaccess.audit import names, row_hmac
from instaccess.management.progress_line import ProgressLine
from instaccess.models import Checkpoint, IssuedToken, PruneMarker
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE, environment
from tests.support.servers import wait_until_asleep

DAY = 86_400

PROGRAM = """
import os, signal, sys
from django.core.management import execute_from_command_line
import django
django.setup()
from instaccess.audit.evidence import reauthentication
from instaccess.management import progress_line

step, action, *arguments = sys.argv[1:]
signals, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
reauthentication.BATCH = 2
advance = progress_line.ProgressLine._advance

def interrupt(self, rows):
    if self._step == step:
        if action == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            self._show()
            sys.stderr.write("READY")
            sys.stderr.flush()
            while action == "wait forever" or not self.stop_requested:
                os.read(signals, 1)  # Returns after a signal, even if the signal arrived before this call.
                sys.stderr.write("AGAIN")
                sys.stderr.flush()
    advance(self, rows)

progress_line.ProgressLine._advance = interrupt
execute_from_command_line(["manage.py", *arguments])
"""
"""A program that runs a command. After a step's first batch, the program sends itself SIGINT or waits for SIGINT."""


def run(*command: str, step: str = "", action: str = "signal", **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a new process without a terminal. Interrupt the process after the first batch of `step`."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, step, action, *command],
        cwd=ROOT,
        env=environment()
        | {"DJANGO_SETTINGS_MODULE": "testproject.settings", "INSTACCESS_SETTINGS": json.dumps(settings)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Terminal:
    """A process whose standard streams are a pseudo-terminal. `text` is the output of the process so far."""

    def __init__(self, *command: str, step: str = "", action: str = "signal", stdout: int | None = None) -> None:
        self._master, slave = pty.openpty()
        self.text = ""
        # `setsid --ctty` makes the terminal the controlling terminal of the process, so that Ctrl-C sends SIGINT.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, "-c", PROGRAM, step, action, *command],
            cwd=ROOT,
            env=environment() | {"DJANGO_SETTINGS_MODULE": "testproject.settings", "LC_ALL": "C", "PYTHONUTF8": "0"},
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
        )
        os.close(slave)

    def read_until(self, text: str) -> None:
        while text not in self.text:
            assert select.select([self._master], [], [], PATIENCE)[0], self.text
            self.text += os.read(self._master, 4096).decode()

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait_for_read(self) -> None:
        """Wait until the process waits for input.

        If SIGINT arrives after the prompt but before the system call, Python only notes the signal, and the system
        call waits forever.
        """
        wait_until_asleep(self._process.pid)

    def wait(self) -> int:
        """Read the output until the process exits. Returns the exit status."""
        try:
            while True:
                assert select.select([self._master], [], [], PATIENCE)[0], self.text
                self.text += os.read(self._master, 4096).decode()
        except OSError:  # On Linux, reading fails after the process has closed the terminal.
            pass
        os.close(self._master)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the process, which is still running if a test has failed."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def open_terminal(transactional_db: None) -> Iterator[Callable[..., Terminal]]:
    """Return a function that starts a process on a terminal. After the test, the process is killed."""
    started: list[Terminal] = []

    def start(*command: str, **options: Any) -> Terminal:
        started.append(Terminal(*command, **options))
        return started[-1]

    yield start
    for terminal in started:
        terminal.kill()


@pytest.fixture
def rows(row: Callable[..., IssuedToken], initial_keys: Any) -> list[IssuedToken]:
    """Create two audit rows on each of three days. `seal` creates a checkpoint for each day."""
    noon = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)
    times = [noon - timedelta(days=days, seconds=second) for days in (42, 41, 40) for second in (2, 1)]
    return [row(issued_at=time, expires_at=time + timedelta(hours=1)) for time in times]


@pytest.mark.django_db(transaction=True)
class TestCtrlC:
    def test_o24_seal_keeps_its_checkpoints_after_ctrl_c_and_continues_when_run_again(self, rows):
        done = run("instaccess_tokens", "seal", step="creating checkpoints")

        assert done.returncode == 130
        assert done.stdout == ""
        assert done.stderr.splitlines()[-1] == (
            "CommandError: Interrupted while creating checkpoints, after 2 rows. To continue, run the same command "
            "again."
        )
        assert "Traceback" not in done.stderr
        assert Checkpoint.objects.count() == 1
        assert run("instaccess_tokens", "seal").returncode == 0
        assert Checkpoint.objects.count() == 3
        assert audit.verify(keys.evidence_keys()).problems == []

    def test_o24_prune_keeps_undeleted_rows_after_ctrl_c_and_deletes_these_rows_when_run_again(self, rows):
        command = ("instaccess_tokens", "prune", "--older-than", "30d", "--batch", "2")

        done = run(*command, step="deleting")

        assert (done.returncode, "Traceback" in done.stderr) == (130, False)
        assert "Interrupted while deleting, after 2 rows. To continue, run the same command again." in done.stderr
        assert IssuedToken.objects.count() == 4
        assert audit.verify(keys.evidence_keys()).problems == []
        assert "Deleted 4 rows" in run(*command).stdout
        assert (IssuedToken.objects.count(), PruneMarker.objects.count()) == (0, 1)

    @pytest.mark.parametrize("step", ["creating checkpoints", "verifying"])
    def test_o24_prune_deletes_nothing_if_ctrl_c_is_pressed_before_the_deletion(self, rows, step):
        done = run("instaccess_tokens", "prune", "--older-than", "30d", step=step)

        assert (done.returncode, IssuedToken.objects.count(), PruneMarker.objects.count()) == (130, 6, 0)

    def test_o24_verify_after_ctrl_c_prints_no_result_and_reports_that_all_rows_must_be_checked(self, rows):
        audit.seal(keys.evidence_keys())

        done = run("instaccess_tokens", "verify", "--json", step="verifying")

        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr.splitlines()[-1] == (
            "CommandError: Interrupted while verifying, after 2 rows. `verify` stores no results: to check all rows, "
            "run the same command again."
        )
        assert audit.maintenance_runs()[0].result == "failed"

    def test_o24_export_deletes_its_incomplete_file_after_ctrl_c(self, rows, tmp_path):
        command = ("instaccess_tokens", "export", "--format", "csv", "--file", str(tmp_path / "audit.csv"))

        done = run(*command, step="exporting")

        assert (done.returncode, list(tmp_path.iterdir())) == (130, [])
        assert "Interrupted while exporting, after 6 rows. An incomplete file was deleted." in done.stderr
        assert "export aborted" in done.stderr
        assert run(*command).returncode == 0
        assert (tmp_path / "audit.csv").read_text().count("\n") == 7

    def test_o24_reseal_keeps_renewed_hmacs_after_ctrl_c_and_renews_the_other_hmacs_when_run_again(
        self, rows, settings
    ):
        new, command = "n" * 43, ("instaccess_keys", "reseal")
        both = {"KEY_ENCRYPTION_KEYS": [new, "SECRET_KEY"]}

        for step, renewed in (("renewing HMACs", (2, 0)), ("renewing HMACs of user names", (6, 2))):
            done = run(*command, step=step, **both)
            assert (done.returncode, "Traceback" in done.stderr) == (130, False)
            assert f"Interrupted while {step}, after 2 rows. To continue, run the same" in done.stderr
            assert renewed_hmacs(settings, new) == renewed
        assert run(*command, **both).returncode == 0
        assert renewed_hmacs(settings, new) == (6, 6)

    def test_o24_second_ctrl_c_stops_a_command_in_the_middle_of_a_batch(self, open_terminal, rows):
        terminal = open_terminal("instaccess_tokens", "seal", step="creating checkpoints", action="wait forever")
        terminal.read_until("READY")
        terminal.press_ctrl_c()
        terminal.read_until("AGAIN")
        terminal.press_ctrl_c()

        assert terminal.wait() == 130
        assert "Interrupted while creating checkpoints, after 0 of 6 rows." in terminal.text
        assert "Traceback" not in terminal.text

    def test_o24_ctrl_c_at_a_confirmation_prompt_prints_an_error_message_and_no_traceback(self, open_terminal, rows):
        terminal = open_terminal("instaccess_keys", "after-restore")
        terminal.read_until("type yes")
        terminal.wait_for_read()
        terminal.press_ctrl_c()

        assert terminal.wait() == 130
        assert "CommandError: Interrupted." in terminal.text
        assert "Traceback" not in terminal.text


def renewed_hmacs(settings: Any, kek: str) -> tuple[int, int]:
    """Return the numbers of HMACs of rows and of user names that were computed with the key-encryption key `kek`."""
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [kek]}
    keks = conf.conf.key_encryption_keys
    authentic, stored = row_hmac.HmacStatus.AUTHENTIC, list(IssuedToken.objects.all())
    return (
        sum(row_hmac.row_status(each, keks) is authentic for each in stored),
        sum(names.names_status(each, keks) is authentic for each in stored),
    )


@pytest.mark.django_db(transaction=True)
class TestProgressOnATerminal:
    def test_progress_line_shows_rows_rate_and_remaining_time_and_is_rewritten_in_place(self, open_terminal, rows):
        terminal = open_terminal("instaccess_tokens", "seal", step="creating checkpoints", action="wait")
        terminal.read_until("READY")
        terminal.press_ctrl_c()

        assert terminal.wait() == 130
        assert "creating checkpoints: 0 of 6 rows" in terminal.text
        assert terminal.text.isascii()
        assert "Interrupted while creating checkpoints, after 2 of 6 rows." in terminal.text

    def test_progress_line_appears_with_the_option_json_only_on_standard_error(self, open_terminal, rows, tmp_path):
        with (tmp_path / "output.json").open("wb") as output:
            terminal = open_terminal("instaccess_tokens", "verify", "--json", stdout=output.fileno())
            assert terminal.wait() == 0

        assert "verifying: 0 of 6 rows" in terminal.text
        assert json.loads((tmp_path / "output.json").read_text())["rows"] == 6

    def test_progress_line_does_not_appear_if_standard_error_is_a_pipe(self, rows):
        for arguments in (["verify"], ["verify", "--json"], ["export", "--format", "csv"]):
            done = run("instaccess_tokens", *arguments)
            assert done.returncode == 0
            assert "verifying:" not in done.stderr
            assert "exporting:" not in done.stderr
            assert "\r" not in done.stderr

    def test_progress_line_does_not_appear_between_exported_rows_on_the_same_terminal(self, open_terminal, rows):
        terminal = open_terminal("instaccess_tokens", "export", "--format", "jsonl")

        assert terminal.wait() == 0
        assert "exporting" not in terminal.text


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTheProgressLine:
    @pytest.fixture
    def now(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def terminal(self) -> FakeTerminal:
        return FakeTerminal()

    @pytest.fixture
    def line(self, terminal: FakeTerminal, now: list[float]) -> ProgressLine:
        return ProgressLine(OutputWrapper(terminal), clock=lambda: now[0])

    def test_progress_line_computes_the_rate_and_the_remaining_time(self, line, terminal, now):
        advance = line("verifying", lambda: 400_000)
        now[0] = 10
        advance(100_000)

        assert terminal.getvalue().split("\r")[-2].strip() == (
            "verifying: 100,000 of 400,000 rows, 10,000 rows/s, 0:00:30 left"
        )

    def test_progress_line_without_a_total_shows_only_rows_and_rate(self, line, terminal, now):
        advance = line("exporting", None)
        now[0] = 2
        advance(1000)

        assert terminal.getvalue().split("\r")[-2].strip() == "exporting: 1,000 rows, 500 rows/s"

    def test_progress_line_is_written_at_most_five_times_per_second(self, line, terminal, now):
        advance = line("verifying", lambda: 1000)
        for _ in range(100):
            now[0] += 0.01
            advance(10)

        assert terminal.getvalue().count("\r") <= 6

    def test_clear_removes_the_whole_progress_line(self, line, terminal, now):
        line("verifying", lambda: 1_000_000)
        line("deleting", None)
        line.clear()

        first, second, blank, rest = terminal.getvalue().split("\r")
        assert (first, second.strip(), rest) == ("verifying: 0 of 1,000,000 rows", "deleting: 0 rows", "")
        assert len(second) == len(first)
        assert blank.strip() == ""
        assert len(blank) >= len(second.rstrip())

    def test_progress_line_does_not_count_the_rows_if_standard_error_is_not_a_terminal(self):
        stream = io.StringIO()
        line = ProgressLine(OutputWrapper(stream))
        line("verifying", lambda: pytest.fail("the rows were counted"))(10)

        assert stream.getvalue() == ""
        assert line.summary() == "verifying, after 10 rows"
