"""Measurements of the audit log for monitoring. The cost of reading each measurement is limited."""

from __future__ import annotations

import json
from collections.abc import Iterator

from jwcrypto.common import base64url_decode

from ..models import MaintenanceRun
from ..monitoring import Sample
from .evidence.checkpoints import checkpoints, markers, rows_after
from .maintenance import maintenance_runs
from .row_ids import id_time

MAX_COUNTED = 100_000
"""The maximum number of rows that are counted. Counting 10,000,000 rows would take seconds."""


def measure() -> Iterator[Sample]:
    """Yield measurements of the rows that no checkpoint covers, and of the last run of each maintenance command.

    Raises DatabaseError if a query fails. If the last checkpoint or prune marker was modified, raises the error of
    parsing its content, such as ValueError or KeyError.
    """
    for run in maintenance_runs():
        yield from _measure_run(run)
    rows = rows_after(_last_covered_row())
    # Select only the primary key. Without `values_list`, the database would read all columns to count the rows.
    count = rows.values_list("pk")[:MAX_COUNTED].count()
    yield Sample(
        "instaccess_audit_unsealed_rows", f"Audit rows that no checkpoint covers, counted up to {MAX_COUNTED}.", count
    )
    if (first := rows.values_list("pk", flat=True).first()) is not None:
        yield Sample(
            "instaccess_audit_oldest_unsealed_timestamp_seconds",
            "Time of issue, in seconds since 1970, of the oldest audit row that no checkpoint covers.",
            id_time(first).timestamp(),
        )


def _measure_run(run: MaintenanceRun) -> Iterator[Sample]:
    labels = {"command": run.command}
    yield Sample(
        "instaccess_maintenance_started_timestamp_seconds",
        "Time, in seconds since 1970, when the last run of a command started.",
        run.started_at.timestamp(),
        labels,
    )
    if run.finished_at is not None:
        yield Sample(
            "instaccess_maintenance_finished_timestamp_seconds",
            "Time, in seconds since 1970, when the last run of a command ended. Absent while the command runs, or if "
            "the command was killed.",
            run.finished_at.timestamp(),
            labels,
        )
        yield Sample(
            "instaccess_maintenance_succeeded",
            "1 if the last run of a command succeeded, 0 if the last run failed or found a problem.",
            float(run.result == MaintenanceRun.Result.SUCCEEDED),
            labels,
        )
    if run.succeeded_at is not None:
        yield Sample(
            "instaccess_maintenance_last_success_timestamp_seconds",
            "Time, in seconds since 1970, when the last successful run of a command ended.",
            run.succeeded_at.timestamp(),
            labels,
        )


def _last_covered_row() -> int:
    """Return the id of the last row that a checkpoint or a prune marker covers, or 0 if there is no such row.

    The signature isn't verified here, because reading the large index of a checkpoint would slow every scrape down.
    `verify` verifies the signature.
    """
    for statements in (checkpoints(), markers()):
        jws = statements.reverse().values_list("jws", flat=True).first()
        if jws is not None:
            return int(json.loads(base64url_decode(jws.split(".")[1]))["last"])
    return 0
