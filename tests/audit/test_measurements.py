"""Tests of the measurements of the audit log: maintenance runs, and rows that no checkpoint covers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from instaccess import audit
from instaccess.models import MaintenanceRun

pytestmark = pytest.mark.django_db

STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FINISHED = datetime(2026, 11, 23, 12, 5, tzinfo=UTC)
EARLIER = datetime(2026, 11, 22, 12, 5, tzinfo=UTC)


def measured() -> dict[str, float]:
    """Return the measured values. The keys are the names of the measurements without their prefixes."""
    return {
        each.name.removeprefix("instaccess_").removeprefix("maintenance_"): each.value for each in audit.measure()
    }


class TestMeasurementsOfAMaintenanceRun:
    @pytest.mark.parametrize(("result", "succeeded"), [("failed", 0), ("succeeded", 1)])
    def test_measurements_of_a_finished_run_contain_its_times_and_its_result(self, result, succeeded):
        MaintenanceRun.objects.create(command="seal", started_at=STARTED, finished_at=FINISHED, result=result)

        assert measured() == {
            "started_timestamp_seconds": STARTED.timestamp(),
            "finished_timestamp_seconds": FINISHED.timestamp(),
            "succeeded": succeeded,
            "audit_unsealed_rows": 0,
        }

    def test_measurements_of_an_unfinished_run_contain_only_the_start_and_the_last_success(self):
        MaintenanceRun.objects.create(command="seal", started_at=STARTED, succeeded_at=EARLIER, result="running")

        assert measured() == {
            "started_timestamp_seconds": STARTED.timestamp(),
            "last_success_timestamp_seconds": EARLIER.timestamp(),
            "audit_unsealed_rows": 0,
        }

    def test_measurements_of_a_run_have_the_command_as_label(self):
        for command in ("seal", "verify"):
            MaintenanceRun.objects.create(
                command=command, started_at=STARTED, finished_at=FINISHED, succeeded_at=FINISHED, result="succeeded"
            )

        runs = [each for each in audit.measure() if each.name.startswith("instaccess_maintenance_")]
        assert [each.labels for each in runs] == [{"command": "seal"}] * 4 + [{"command": "verify"}] * 4


class TestMeasurementsOfUncoveredRows:
    def test_measurements_count_every_audit_row_as_uncovered_if_there_is_no_checkpoint(self, row):
        row(id=1)
        row()

        assert measured() == {"audit_unsealed_rows": 2, "audit_oldest_unsealed_timestamp_seconds": 0}

    def test_description_of_the_number_of_uncovered_rows_contains_the_limit_of_one_hundred_thousand(self):
        [sample] = audit.measure()

        assert sample.help == "Audit rows that no checkpoint covers, up to 100000."
