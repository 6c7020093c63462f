"""Tests of case O10: `prune` deletes old audit rows, and keeps the rows of live and recently revoked tokens."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instaccess.audit import Scope, record_revocation
from instaccess.audit.evidence import checkpoints, pruning, verification
from instaccess.audit.evidence.pruning import prunable, prune
from instaccess.exceptions import AuditAltered, KeyUnavailable
from instaccess.issuer import issuing
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken, PruneMarker, Revocation
from tests.support.problems import only_row

from .conftest import DAY, NOON

pytestmark = pytest.mark.django_db


def ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


class TestPrune:
    def test_o10_prune_deletes_rows_issued_before_a_time_and_returns_their_number(self, rows):
        old = rows(400 * DAY, 40 * DAY, 31 * DAY)
        (young,) = rows(29 * DAY)
        assert prunable(ago(30), evidence_keys()) == 3

        done = prune(ago(30), evidence_keys())

        assert (done.rows, done.last) == (3, old[-1].pk)
        assert list(IssuedToken.objects.all()) == [young]
        assert prunable(ago(30), evidence_keys()) == 0
        assert verification.verify(evidence_keys()).problems == []

    def test_o10_prune_up_to_a_future_time_keeps_rows_of_tokens_that_a_gateway_may_still_accept(self, rows):
        (pruned,) = rows(2 * 3600)
        kept = [*rows(3700), *rows(3500, revoked_at=NOON), *rows(3500, 0)]
        assert prunable(NOON + timedelta(days=1), evidence_keys()) == 1

        assert prune(NOON + timedelta(days=1), evidence_keys()).rows == 1
        assert list(IssuedToken.objects.order_by("pk")) == kept
        assert pruned not in kept

    def test_o10_prune_deletes_revocations_that_were_recorded_before_the_given_time(self, rows):
        rows(400 * DAY)
        keks = evidence_keys().keks
        for value, days in (("long ago", 40), ("recent", 20), ("latest", 10)):
            record_revocation([Scope.user(value)], keks=keks, reason="", now=ago(days))

        prune(ago(30), evidence_keys())

        assert [revocation.value for revocation in Revocation.objects.order_by("number")] == ["recent", "latest"]

    def test_o10_prune_deletes_the_rows_of_a_checkpoint_only_if_the_newest_row_is_old_enough(self, rows):
        rows(30 * DAY + 60, 30 * DAY - 60)
        checkpoints.seal(evidence_keys())

        assert (prunable(ago(30), evidence_keys()), prune(ago(30), evidence_keys()).rows) == (0, 0)
        assert (prunable(ago(29), evidence_keys()), prune(ago(29), evidence_keys()).rows) == (2, 2)

    def test_o10_prune_deletes_uncovered_rows_exactly_up_to_the_given_time(self, rows):
        rows(30 * DAY + 60, 30 * DAY - 60)

        assert (prunable(ago(30), evidence_keys()), prune(ago(30), evidence_keys()).rows) == (1, 1)

    @pytest.mark.parametrize(("batch", "transactions"), [(0, 7), (1, 7), (3, 3), (7, 1)])
    def test_o10_prune_deletes_rows_in_batches_of_the_given_size(self, rows, batch, transactions):
        rows(*(days * DAY for days in range(38, 31, -1)))
        with CaptureQueriesContext(connection) as queries:
            assert prune(ago(30), evidence_keys(), batch=batch).rows == 7

        sql = [query["sql"] for query in queries.captured_queries]
        deletes = [text for text in sql if text.startswith("DELETE") and "issuedtoken" in text]
        assert len(deletes) == transactions

    def test_o10_prune_deletes_rows_in_batches_of_a_thousand_rows_by_default(self, rows):
        rows(31 * DAY)
        with CaptureQueriesContext(connection) as queries:
            prune(ago(30), evidence_keys())

        assert any("OFFSET 999" in query["sql"] for query in queries.captured_queries)

    def test_o10_prune_begins_each_batch_after_the_ids_of_the_previous_batch(self, rows):
        old = rows(*(days * DAY for days in range(36, 30, -1)))
        checkpoints.seal(evidence_keys())

        with CaptureQueriesContext(connection) as queries:
            prune(ago(30), evidence_keys(), batch=2)

        sql = [each["sql"] for each in queries]
        deletes = [text for text in sql if text.startswith("DELETE") and "issued_at" in text]
        ends = [text for text in sql if "OFFSET" in text]
        assert (len(deletes), len(ends)) == (3, 3)
        assert all(str(old[place].pk) in text for place, text in zip((1, 3, 5), deletes, strict=True))
        for queries_of_batches in (deletes, ends):
            assert all(str(old[place].pk) in text for place, text in zip((1, 3), queries_of_batches[1:], strict=True))

    def test_o10_prune_deletes_the_checkpoints_of_the_pruned_rows(self, rows):
        rows(40 * DAY, 31 * DAY, 29 * DAY)
        prune(ago(30), evidence_keys())

        assert [checkpoint.number for checkpoint in Checkpoint.objects.all()] == [3]
        assert [marker.number for marker in PruneMarker.objects.all()] == [2]

    def test_prune_does_nothing_if_no_row_is_old_enough(self, rows):
        rows(0)

        assert prune(ago(30), evidence_keys()) == pruning.Pruned(0, 0, 0)
        assert not PruneMarker.objects.exists()

    def test_prune_marker_contains_the_number_of_all_rows_that_were_ever_pruned(self, rows):
        rows(400 * DAY, 300 * DAY, 200 * DAY)
        prune(ago(350), evidence_keys())
        prune(ago(250), evidence_keys())

        marker = checkpoints.chain_start(evidence_keys())
        assert (marker.number, marker.rows) == (2, 2)
        assert verification.verify(evidence_keys()).problems == []

    @pytest.mark.django_db(transaction=True)
    def test_prune_deletes_the_remaining_rows_after_an_earlier_call_was_killed(self, rows):
        rows(*(days * DAY for days in range(38, 31, -1)), 0)
        checkpoints.seal(evidence_keys())
        left = 3

        class Killed(BaseException):
            pass

        def kill(execute: Any, sql: str, *args: Any) -> Any:
            nonlocal left
            if sql.startswith("DELETE"):
                left -= 1
                if left == 0:
                    raise Killed
            return execute(sql, *args)

        with connection.execute_wrapper(kill), pytest.raises(Killed):
            prune(ago(30), evidence_keys(), batch=2)
        assert IssuedToken.objects.count() == 4

        report = verification.verify(evidence_keys())
        assert report.problems == []
        assert "instaccess_tokens prune" in report.notes[0]
        assert prunable(ago(30), evidence_keys()) == 3
        assert prune(ago(30), evidence_keys()).rows == 3
        assert verification.verify(evidence_keys()).notes == []

    def test_prune_raises_key_unavailable_if_there_is_no_signing_key(self, row):
        row(age=31 * DAY)

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            prune(ago(30), evidence_keys())
        assert IssuedToken.objects.count() == 1

    @pytest.mark.parametrize("place", [0, 1])
    def test_a6_prune_without_force_refuses_to_delete_modified_rows(self, rows, place):
        modified = rows(40 * DAY, 35 * DAY, 0)[place]
        checkpoints.seal(evidence_keys())
        IssuedToken.objects.filter(pk=modified.pk).update(user_agent="modified")

        with pytest.raises(AuditAltered, match=f"nothing was pruned: row {modified.pk} .*--force"):
            prune(ago(30), evidence_keys())
        assert IssuedToken.objects.count() == 3

        assert prune(ago(30), evidence_keys(), force=True).rows == 2
        report = verification.verify(evidence_keys())
        assert report.problems == []
        assert f"row {modified.pk} " in report.notes[0]

    def test_prune_deletes_old_rows_even_if_newer_rows_were_modified(self, rows):
        rows(40 * DAY)
        young = rows(20 * DAY, 0)
        checkpoints.seal(evidence_keys())
        for each in young:
            IssuedToken.objects.filter(pk=each.pk).update(user_agent="modified")

        assert prune(ago(30), evidence_keys()).rows == 1
        assert [problem.first for problem in verification.verify(evidence_keys()).problems] == [young[0].pk]


@pytest.mark.django_db(transaction=True)
def test_o10_issuing_and_pruning_at_the_same_time_keeps_every_new_row(row: Any, user: Any, initial_keys: Any) -> None:
    for days in range(60, 30, -1):
        row(age=days * DAY)
    errors: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    def issue() -> None:
        origin = issuing.Origin(canvas_domain="canvas.example.edu")
        for _ in range(25):
            issuing.issue(user=user, origin=origin, now=timezone.now().timestamp())

    works = [
        issue,
        issue,
        lambda: prune(ago(30), evidence_keys(), batch=2),
        lambda: prune(ago(30), evidence_keys(), batch=2),
        lambda: verification.verify(evidence_keys()),
    ]
    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prune(ago(30), evidence_keys())

    assert errors == []
    assert IssuedToken.objects.count() == 50
    assert verification.verify(evidence_keys()).problems == []


class TestPruneAfterAModification:
    def test_o10_prune_keeps_the_row_of_a_live_token_that_was_moved_to_a_pruned_id(self, rows, row):
        old = rows(40 * DAY, 39 * DAY)
        rows(0)
        prune(ago(30), evidence_keys())
        live = row(age=60, revoked_at=NOON)
        IssuedToken.objects.filter(pk=live.pk).update(id=old[0].pk)

        assert prune(ago(30), evidence_keys()).rows == 0
        assert IssuedToken.objects.filter(pk=old[0].pk, jti=live.jti).exists()
        assert only_row(verification.verify(evidence_keys())) == old[0].pk

    def test_o10_prune_with_force_keeps_the_row_of_a_live_token_that_was_moved_to_an_old_id(self, rows, row):
        old, _ = rows(40 * DAY, 39 * DAY)
        young, live = row(age=20 * DAY), row()
        IssuedToken.objects.filter(pk=young.pk).update(id=old.pk + 1)
        IssuedToken.objects.filter(pk=live.pk).update(id=old.pk + 2)
        with pytest.raises(AuditAltered, match=f"row {old.pk + 1} "):
            prune(ago(30), evidence_keys())

        prune(ago(30), evidence_keys(), force=True)

        assert IssuedToken.objects.get().jti == live.jti

    def test_a11_prune_needs_force_to_delete_an_old_row_that_was_moved_to_the_end_of_the_audit_log(self, rows):
        moved, _ = rows(40 * DAY, 39 * DAY)
        IssuedToken.objects.filter(pk=moved.pk).update(id=2**62)

        assert prune(ago(30), evidence_keys()).rows == 1
        assert only_row(verification.verify(evidence_keys())) == 2**62
        assert prune(ago(30), evidence_keys(), force=True).rows == 1
        assert verification.verify(evidence_keys()).problems == []

    def test_o10_prune_with_force_deletes_a_row_whose_time_of_issue_was_changed_to_the_future(self, rows):
        modified, _ = rows(40 * DAY, 39 * DAY)
        checkpoints.seal(evidence_keys())
        IssuedToken.objects.filter(pk=modified.pk).update(issued_at=datetime(9999, 1, 1, tzinfo=UTC))

        assert prune(ago(30), evidence_keys(), force=True).rows == 2
        assert verification.verify(evidence_keys()).problems == []

    def test_a6_seal_and_prune_continue_after_a_row_whose_time_of_issue_was_changed_to_the_future(self, rows):
        first, modified, last = rows(40 * DAY, 39 * DAY, 38 * DAY)
        IssuedToken.objects.filter(pk=modified.pk).update(issued_at=datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
        done = checkpoints.seal(evidence_keys())

        assert (sum(made.rows for made in done.made), sum(made.altered for made in done.made)) == (3, 1)
        assert only_row(verification.verify(evidence_keys())) == modified.pk
        assert prune(ago(30), evidence_keys(), force=True).rows == 3
        assert {first, modified, last}.isdisjoint(IssuedToken.objects.all())

    def test_a6_seal_covers_the_last_row_even_if_its_time_of_issue_was_changed_to_the_future(self, rows):
        (modified,) = rows(40 * DAY)
        IssuedToken.objects.filter(pk=modified.pk).update(issued_at=datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
        done = checkpoints.seal(evidence_keys())

        assert (sum(made.rows for made in done.made), done.waiting) == (1, 0)
        assert only_row(verification.verify(evidence_keys())) == modified.pk
