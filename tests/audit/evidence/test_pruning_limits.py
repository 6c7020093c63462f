"""Tests of the limits of `prune`: the times and the ids up to which `prune` deletes audit rows and revocations."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from instaccess.audit import Scope, record_revocation
from instaccess.audit.evidence import checkpoints, verification
from instaccess.audit.evidence.checkpoints import chain_start, seal
from instaccess.audit.evidence.pruning import prunable, prune
from instaccess.audit.row_ids import first_id
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken, PruneMarker, Revocation
from tests.support.problems import only_problem

from .conftest import DAY, NOON

pytestmark = pytest.mark.django_db

BEFORE = NOON - timedelta(days=30)


def move(row: IssuedToken, to: int) -> None:
    assert IssuedToken.objects.filter(pk=row.pk).update(id=to) == 1


class TestTheTimeInTheArgumentBefore:
    def test_prune_keeps_a_covered_row_whose_id_is_the_lowest_possible_id_for_the_given_time(self, rows):
        rows(31 * DAY)
        rows(30 * DAY, jti=uuid.UUID(int=10**9))
        seal(evidence_keys())

        assert (prunable(BEFORE, evidence_keys()), prune(BEFORE, evidence_keys()).rows) == (1, 1)

    def test_prunable_counts_covered_and_uncovered_rows_before_the_given_time(self, rows):
        rows(40 * DAY)
        seal(evidence_keys())
        rows(31 * DAY, 29 * DAY)

        assert (prunable(BEFORE, evidence_keys()), prune(BEFORE, evidence_keys()).rows) == (2, 2)

    def test_prune_up_to_a_future_time_keeps_the_revocations_of_the_last_4620_seconds(self, rows):
        rows(DAY)
        for age in (4630, 4610, 60):
            now = NOON - timedelta(seconds=age)
            record_revocation([Scope.user(str(age))], keks=evidence_keys().keks, reason="", now=now)

        prune(NOON + timedelta(days=1), evidence_keys())

        assert [revocation.value for revocation in Revocation.objects.order_by("number")] == ["4610", "60"]


class TestRowsWithModifiedIds:
    def test_prune_keeps_a_row_with_a_pruned_id_whose_token_was_issued_a_second_after_the_pruned_rows(self, rows):
        old, later = rows(40 * DAY, 40 * DAY - 1)
        assert prune(later.issued_at, evidence_keys()).rows == 1
        move(later, old.pk)

        assert prune(later.issued_at, evidence_keys()).rows == 0
        assert IssuedToken.objects.get().jti == later.jti

    @pytest.mark.parametrize(("distance", "deleted"), [(-1, 0), (0, 1)])
    def test_prune_with_force_deletes_an_old_row_with_an_id_at_least_a_day_in_the_future(
        self, rows, distance, deleted
    ):
        moved, _ = rows(40 * DAY, 39 * DAY)
        move(moved, first_id(NOON + timedelta(days=1)) + distance)

        assert prune(BEFORE, evidence_keys(), force=True).rows == 1 + deleted

    def test_prune_with_force_keeps_a_recent_row_that_was_moved_to_the_end_of_the_audit_log(self, rows):
        _, moved = rows(40 * DAY, 20 * DAY)
        move(moved, 2**62)

        assert prune(BEFORE, evidence_keys(), force=True).rows == 1
        assert IssuedToken.objects.get().jti == moved.jti

    @pytest.mark.parametrize(
        ("age", "kept"), [(60, True), (4620, True), (4621, False), (-4620, True), (-4621, False)]
    )
    def test_prune_with_force_keeps_a_row_with_an_old_id_only_if_its_token_may_be_live(self, rows, age, kept):
        old, _ = rows(40 * DAY, 39 * DAY)
        (moved,) = rows(age)
        move(moved, old.pk + 1)

        prune(BEFORE, evidence_keys(), force=True)

        assert IssuedToken.objects.filter(jti=moved.jti).exists() is kept


class TestStatementsOfPrunedRows:
    def test_verify_seal_and_prune_ignore_a_restored_checkpoint_of_pruned_rows(self, audit, time_machine):
        restored = Checkpoint.objects.get(number=1)
        prune(NOON - timedelta(days=1), evidence_keys())
        restored.pk = None
        restored.save()
        assert verification.verify(evidence_keys()).problems == []

        time_machine.shift(2 * DAY)
        assert [(made.number, made.first) for made in seal(evidence_keys()).made] == [(3, audit[6].pk)]
        before = NOON + timedelta(days=1)
        assert (prunable(before, evidence_keys()), prune(before, evidence_keys()).rows) == (3, 3)
        assert (chain_start(evidence_keys()).number, chain_start(evidence_keys()).rows) == (3, 9)

    def test_verify_ignores_a_modified_prune_marker_if_a_later_prune_marker_exists(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        prune(NOON - timedelta(days=1), evidence_keys())
        PruneMarker.objects.filter(number=1).update(jws="x")

        assert verification.verify(evidence_keys()).problems == []

    def test_seal_trusts_the_signature_of_a_prune_marker_if_its_key_encryption_key_is_missing(
        self, audit, time_machine
    ):
        prune(NOON - timedelta(days=1), evidence_keys())
        PruneMarker.objects.update(mac="unknown.abc")
        time_machine.shift(DAY)

        assert [(made.number, made.first) for made in seal(evidence_keys()).made] == [(3, audit[6].pk)]
        assert "prune marker 2 can't be checked" in only_problem(verification.verify(evidence_keys())).text
        assert len(checkpoints.checkpoints()) == 1
