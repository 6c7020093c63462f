"""Tests of the progress of `seal`, `verify` and `prune`, and of changes by other processes during these commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest

from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.evidence.pruning import prune
from instaccess.audit.evidence.verification import verify
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, PruneMarker

from .conftest import DAY, NOON, covered_rows

pytestmark = pytest.mark.django_db


class Recorder:
    """A progress callback that records the name and the number of rows of each step, and the size of each batch."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, list[int]]] = []

    def __call__(self, step: str, count: Callable[[], int] | None) -> Callable[[int], None]:
        assert count is not None
        batches: list[int] = []
        self.steps.append((step, count(), batches))
        return batches.append


class TestProgress:
    def test_seal_counts_only_the_rows_that_a_checkpoint_can_cover(self, rows):
        recorder = Recorder()
        rows(2 * DAY, 9000, 8000, 60)

        seal(evidence_keys(), progress=recorder)

        assert recorder.steps == [("creating checkpoints", 3, [1, 2])]

    def test_verify_counts_all_rows(self, audit):
        recorder = Recorder()

        verify(evidence_keys(), progress=recorder)

        assert recorder.steps == [("verifying", 9, [3, 3, 3])]

    def test_prune_reports_how_many_rows_each_step_processes(self, rows):
        recorder = Recorder()
        rows(41 * DAY, 40 * DAY, 20 * DAY)

        prune(NOON - timedelta(days=30), evidence_keys(), progress=recorder)

        assert recorder.steps == [
            ("creating checkpoints", 3, [1, 1, 1]),
            ("verifying", 2, [1, 1]),
            ("deleting", 2, [2]),
        ]

    def test_prune_does_not_verify_or_delete_again_if_all_old_rows_are_already_deleted(self, rows):
        recorder = Recorder()
        rows(40 * DAY)
        prune(NOON - timedelta(days=30), evidence_keys())

        prune(NOON - timedelta(days=30), evidence_keys(), progress=recorder)

        assert [step for step, _, _ in recorder.steps] == ["creating checkpoints"]


class TestOtherProcesses:
    def test_verify_starts_again_if_another_process_prunes_rows_during_the_verification(self, audit):
        def progress(step: str, count: object) -> Callable[[int], None]:
            def advance(rows: int) -> None:
                if not PruneMarker.objects.exists():
                    prune(NOON - timedelta(days=1), evidence_keys())

            return advance

        report = verify(evidence_keys(), progress=progress)

        assert (report.problems, report.rows) == ([], 3)
        assert report.pruned is not None
        assert report.pruned.number == 2

    def test_seal_stops_without_an_error_if_another_process_created_the_next_checkpoint(self, rows, caplog):
        caplog.set_level("INFO", logger="instaccess.audit")
        rows(4 * DAY, 3 * DAY, 2 * DAY, 60)
        keys = evidence_keys()

        def sign_after_another_process(payload: bytes, typ: str) -> str:
            if Checkpoint.objects.count() == 1:
                seal(keys)
            return keys.sign(payload, typ)

        done = seal(dataclasses.replace(keys, sign=sign_after_another_process))

        assert ([made.number for made in done.made], done.waiting) == ([1], 1)
        assert covered_rows() == [(1, 1), (2, 1), (3, 1)]
        [record] = [each for each in caplog.records if "another process created" in each.getMessage()]
        assert vars(record)["checkpoints"] == 1
