"""Tests of case A12: `verify` lists all problems up to a limit, and continues after each problem."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from instaccess.audit.evidence import reauthentication, row_checks, signatures, verification
from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.evidence.pruning import prune
from instaccess.audit.evidence.report import LISTED
from instaccess.exceptions import AuditAltered
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken, PruneMarker
from tests.support.problems import only_problem

from .conftest import DAY, NOON

pytestmark = pytest.mark.django_db


def modify(*rows: IssuedToken, **columns: Any) -> None:
    pks = [row.pk for row in rows]
    assert IssuedToken.objects.filter(pk__in=pks).update(**(columns or {"user_agent": "modified"})) == len(pks)


def delete(row: IssuedToken) -> None:
    IssuedToken.objects.filter(pk=row.pk).delete()


def problems() -> list[tuple[str, int, int, int]]:
    report = verification.verify(evidence_keys())
    assert report.more == 0
    return [(problem.kind.value, problem.first, problem.last, problem.count) for problem in report.problems]


class TestSeveralProblems:
    @pytest.mark.parametrize("page", [1, 2, 3, 10_000])
    def test_a12_verify_lists_problems_of_every_kind_in_the_order_of_the_rows(self, audit, row, monkeypatch, page):
        monkeypatch.setattr(row_checks, "ROWS", page)
        delete(audit[1])
        modify(audit[3])
        added = row(age=2 * DAY)
        modify(audit[5], real_user=audit[5].user)
        modify(audit[7], id=2**62)

        assert problems() == [
            ("deleted", audit[1].pk, audit[1].pk, 1),
            ("modified", audit[3].pk, audit[3].pk, 1),
            ("added", added.pk, added.pk, 1),
            ("reference", audit[5].pk, audit[5].pk, 1),
            ("modified", 2**62, 2**62, 1),
        ]

    def test_a12_verify_joins_consecutive_rows_with_the_same_problem_across_checkpoints(self, audit):
        modify(*audit[1:5])
        for each in audit[6:8]:
            modify(each, mac="unknown.abc")

        assert problems() == [
            ("modified", audit[1].pk, audit[4].pk, 4),
            ("unchecked", audit[6].pk, audit[7].pk, 2),
        ]
        text = verification.verify(evidence_keys()).problems[0].text
        assert text.startswith(
            f"4 rows, {audit[1].pk} to {audit[4].pk}, don't match their HMACs or checkpoints; the "
        )
        assert (
            f"the first: row {audit[1].pk} (jti {audit[1].jti}) was modified after checkpoint 1 was created" in text
        )

    def test_a12_verify_lists_two_problems_if_an_unmodified_row_is_between_the_modified_rows(self, audit):
        modify(audit[0], audit[2])

        assert [problem[3] for problem in problems()] == [1, 1]

    def test_a12_verify_reports_two_kinds_of_problems_of_one_row(self, audit):
        modify(audit[4], user_agent="modified", real_user=audit[4].user)

        assert {problem[0] for problem in problems()} == {"modified", "reference"}

    def test_a12_verify_lists_a_hundred_problems_and_counts_the_remaining_problems(
        self, row, initial_keys, time_machine
    ):
        time_machine.move_to(NOON, tick=False)
        rows = [row(age=60) for _ in range(2 * LISTED + 5)]
        modify(*rows[::2])

        report = verification.verify(evidence_keys())

        assert [problem.first for problem in report.problems] == [each.pk for each in rows[: 2 * LISTED : 2]]
        assert report.more == 3
        assert report.rows == len(rows)
        assert report.summary.endswith(f" (and {LISTED + 2} more problems)")

    def test_a12_verify_limits_the_number_of_rows_that_each_query_loads(self, audit, monkeypatch):
        monkeypatch.setattr(row_checks, "ROWS", 2)
        modify(*audit)
        with CaptureQueriesContext(connection) as queries:
            assert problems() == [("modified", audit[0].pk, audit[8].pk, 9)]

        pages = [query["sql"] for query in queries.captured_queries if "user_agent" in query["sql"]]
        assert len(pages) >= 5
        assert all("LIMIT 2" in sql for sql in pages)


class TestVerifyAfterAModifiedCheckpoint:
    @pytest.fixture
    def broken(self, audit):
        Checkpoint.objects.filter(number=1).update(mac="x")
        return audit

    def test_a12_verify_compares_later_rows_with_the_checkpoints_after_a_modified_checkpoint(self, broken):
        delete(broken[4])

        assert problems() == [("checkpoint", 1, 1, 1), ("deleted", broken[4].pk, broken[4].pk, 1)]

    def test_a12_verify_checks_the_hmacs_of_uncovered_rows_after_a_modified_checkpoint(self, broken):
        modify(broken[1], broken[8])

        assert [problem[:2] for problem in problems()] == [
            ("checkpoint", 1),
            ("modified", broken[1].pk),
            ("modified", broken[8].pk),
        ]

    def test_a12_verify_reports_a_missing_checkpoint_and_continues(self, audit):
        Checkpoint.objects.filter(number=1).delete()
        modify(audit[0], audit[5])

        kinds = [problem[:2] for problem in problems()]

        assert kinds == [("checkpoint", 2), ("modified", audit[0].pk), ("modified", audit[5].pk)]

    def test_a12_verify_reports_a_modified_prune_marker_and_continues(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        PruneMarker.objects.update(mac="x")
        modify(audit[4])

        assert [problem[:2] for problem in problems()] == [
            ("prune_marker", 1),
            ("checkpoint", 2),
            ("modified", audit[4].pk),
        ]

    @pytest.mark.parametrize("number", [-1, 3, 2**40])
    def test_a12_verify_reports_an_inserted_checkpoint_and_continues(self, audit, number):
        second = Checkpoint.objects.get(number=2)
        Checkpoint.objects.create(number=number, jws=second.jws, index=second.index, mac=second.mac)
        modify(audit[7])

        inserted = [("checkpoint", number, number, 1)] if number > 0 else []
        assert problems() == [*inserted, ("modified", audit[7].pk, audit[7].pk, 1)]

    @pytest.mark.sqlite
    @pytest.mark.parametrize("table", ["checkpoint", "prunemarker", "incidentreview"])
    @pytest.mark.parametrize("number", [7, "seven", b"\x07"])
    def test_a12_verify_and_seal_continue_after_an_inserted_statement_with_values_of_the_wrong_type(
        self, audit, time_machine, table, number
    ):
        values = {"number": number, "jws": b"\x00\xff", "mac": "unknown.abc"}
        values |= {"checkpoint": {'"index"': b"\x00"}, "incidentreview": {"problems": b"\x00"}}.get(table, {})
        with connection.cursor() as cursor:
            placeholders = ", ".join(["%s"] * len(values))
            cursor.execute(
                f"INSERT INTO instaccess_{table} ({', '.join(values)}) VALUES ({placeholders})", list(values.values())
            )
        modify(audit[7])
        time_machine.shift(2 * 3600)

        assert [made.number for made in seal(evidence_keys()).made] == [3]
        report = verification.verify(evidence_keys())
        assert (len(report.problems), report.more) == (2, 0)
        assert audit[7].pk in [problem.first for problem in report.problems]
        assert reauthentication.reauthenticate(evidence_keys()) == 0
        prune(NOON - timedelta(days=1), evidence_keys(), force=True)


class TestSealAfterAModifiedCheckpoint:
    def test_a12_seal_continues_the_chain_from_the_checkpoint_before_a_modified_checkpoint(self, audit, time_machine):
        Checkpoint.objects.filter(number=2).update(jws="x")
        time_machine.shift(2 * 3600)

        made = seal(evidence_keys()).made

        first = Checkpoint.objects.get(number=1)
        assert [(each.number, each.rows) for each in made] == [(3, 3), (4, 3)]
        assert made[0].previous == signatures.read_checkpoint(first, evidence_keys()).digest
        assert made[0].first == audit[3].pk
        assert problems() == [("checkpoint", 2, 2, 1)]
        delete(audit[4])
        assert problems() == [("checkpoint", 2, 2, 1), ("deleted", audit[4].pk, audit[4].pk, 1)]

    def test_a12_verify_reports_only_the_broken_chain_after_a_modified_checkpoint_was_restored(
        self, audit, time_machine
    ):
        before = Checkpoint.objects.get(number=2)
        Checkpoint.objects.filter(number=2).update(jws="x")
        time_machine.shift(2 * 3600)
        seal(evidence_keys())
        before.save()

        problem = only_problem(verification.verify(evidence_keys()))

        assert problem.text.startswith(
            "checkpoint 3 doesn't follow checkpoint 2: an earlier checkpoint was replaced."
        )

    def test_a12_seal_continues_if_no_checkpoint_can_be_read(self, audit, time_machine):
        Checkpoint.objects.update(mac="x")
        time_machine.shift(2 * 3600)

        first, *_ = seal(evidence_keys()).made

        assert (first.number, first.previous, first.first) == (3, "", audit[0].pk)
        assert {problem[:2] for problem in problems()} == {("checkpoint", 1), ("checkpoint", 2)}

    def test_a12_seal_continues_after_an_inserted_checkpoint_with_the_highest_number(self, audit, row, time_machine):
        Checkpoint.objects.create(number=2**63 - 1, jws="x", index="x", mac="x")
        time_machine.shift(2 * 3600)

        assert [made.number for made in seal(evidence_keys()).made] == [3]
        assert problems() == [("checkpoint", 2**63 - 1, 2**63 - 1, 1)]

    def test_a12_seal_continues_after_a_modified_prune_marker(self, audit, time_machine):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        PruneMarker.objects.update(jws="x")
        time_machine.shift(2 * 3600)

        assert [made.number for made in seal(evidence_keys()).made] == [3]

    def test_a12_seal_continues_after_a_checkpoint_whose_key_encryption_key_is_missing(self, audit, time_machine):
        """If the HMAC can't be checked, the signature must be enough: an unknown key id must not stop `seal`."""
        Checkpoint.objects.filter(number=2).update(mac="unknown.abc")
        time_machine.shift(2 * 3600)

        assert [(made.number, made.first) for made in seal(evidence_keys()).made] == [(3, audit[6].pk)]
        assert "can't be checked" in only_problem(verification.verify(evidence_keys())).text


def test_a12_prune_names_the_first_problem_and_the_number_of_other_problems(audit: Any) -> None:
    modify(audit[0], audit[2])

    with pytest.raises(AuditAltered, match=rf"row {audit[0].pk} .* \(and 1 more problems\)\. Investigate"):
        prune(NOON - timedelta(days=1), evidence_keys())
    prune(NOON - timedelta(days=1), evidence_keys(), force=True)

    report = verification.verify(evidence_keys())
    assert report.problems == []
    assert "(and 1 more problems)" in report.notes[0]
