"""Tests of maintenance runs: the database records when each command last ran, and whether the run succeeded."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from instaccess import audit
from instaccess.models import IssuedToken, MaintenanceRun

pytestmark = pytest.mark.django_db

COMMANDS = {
    "seal": ["instaccess_tokens", "seal"],
    "verify": ["instaccess_tokens", "verify"],
    "prune": ["instaccess_tokens", "prune", "--older-than", "400d"],
    "rotate": ["instaccess_keys", "rotate"],
}


def runs() -> dict[str, MaintenanceRun]:
    return {run.command: run for run in audit.maintenance_runs()}


class TestACommandThatSucceeds:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_run_of_a_maintenance_command_is_recorded_with_its_times(self, initial_keys, command):
        before = timezone.now()
        call_command(*COMMANDS[command])

        [run] = runs().values()
        assert (run.command, run.result) == (command, "succeeded")
        assert before <= run.started_at <= run.finished_at == run.succeeded_at <= timezone.now()

    def test_record_of_the_second_run_replaces_the_record_of_the_first_run(self, initial_keys):
        call_command(*COMMANDS["seal"])
        first = runs()["seal"]
        call_command(*COMMANDS["seal"])

        assert runs()["seal"].started_at > first.started_at
        assert len(runs()) == 1

    def test_dry_runs_and_commands_that_do_no_maintenance_are_not_recorded(self, initial_keys):
        call_command(*COMMANDS["prune"], "--dry-run")
        call_command("instaccess_tokens", "list")
        call_command("instaccess_keys", "list")

        assert runs() == {}


class TestARunOfACommandThatRanBefore:
    def test_record_of_a_running_command_has_no_end_and_keeps_the_time_of_the_last_success(self):
        with audit.record_run("seal"):
            pass
        before = runs()["seal"]
        with audit.record_run("seal"):
            run = runs()["seal"]

        assert (run.result, run.finished_at, run.succeeded_at) == ("running", None, before.succeeded_at)
        assert run.started_at > before.started_at

    def test_run_of_a_command_does_not_change_the_record_of_another_command(self):
        with audit.record_run("seal"):
            pass
        before = MaintenanceRun.objects.values().get()
        with pytest.raises(KeyboardInterrupt), audit.record_run("rotate"):
            raise KeyboardInterrupt

        assert MaintenanceRun.objects.values().get(command="seal") == before
        assert {name: run.result for name, run in runs().items()} == {"rotate": "failed", "seal": "succeeded"}


class TestACommandThatFails:
    def test_record_of_a_failed_run_keeps_the_time_of_the_last_success(self, initial_keys, row):
        token = row(age=audit.SETTLED + 60)
        call_command(*COMMANDS["verify"])
        succeeded_at = runs()["verify"].succeeded_at
        IssuedToken.objects.filter(pk=token.pk).update(client_id="changed")

        with pytest.raises(CommandError):
            call_command(*COMMANDS["verify"])

        run = runs()["verify"]
        assert (run.result, run.succeeded_at) == ("failed", succeeded_at)
        assert run.finished_at > succeeded_at

    def test_record_of_a_command_that_never_succeeded_has_no_time_of_success(self, row):
        row(age=audit.SETTLED + 60)

        with pytest.raises(CommandError):  # The command fails because there is no signing key.
            call_command(*COMMANDS["seal"])

        assert (runs()["seal"].result, runs()["seal"].succeeded_at) == ("failed", None)

    def test_interrupted_run_of_a_maintenance_command_is_recorded_as_failed(self):
        with pytest.raises(KeyboardInterrupt), audit.record_run("seal"):
            raise KeyboardInterrupt

        assert runs()["seal"].result == "failed"

    def test_killed_run_of_a_maintenance_command_is_recorded_as_running(self):
        with audit.record_run("seal"):
            run = runs()["seal"]

        assert (run.result, run.finished_at) == ("running", None)


class TestARunThatCannotBeRecorded:
    def test_maintenance_command_succeeds_with_a_warning_if_its_run_cannot_be_recorded(
        self, initial_keys, capsys, caplog
    ):
        def fail_on_runs(execute: Any, sql: str, *args: Any) -> Any:
            if "maintenancerun" in sql:
                raise OperationalError("gone")
            return execute(sql, *args)

        with connection.execute_wrapper(fail_on_runs):
            call_command(*COMMANDS["seal"])

        assert "No rows are ready for a checkpoint." in capsys.readouterr().out
        assert "the run of seal could not be recorded (OperationalError): gone" in caplog.text
        assert runs() == {}
