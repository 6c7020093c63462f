"""Tests of case A11: `verify` reports changed ids and foreign keys of audit rows. `seal` covers the other rows."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from oauth2_provider.models import get_application_model

from instaccess.audit.evidence import checkpoints, verification
from instaccess.audit.evidence.checkpoints import SETTLED, seal
from instaccess.keys import evidence_keys
from instaccess.models import IssuedToken
from tests.support.problems import only_problem, only_row

from .conftest import NOON

pytestmark = pytest.mark.django_db

BELOW, ABOVE, LATEST = 100_000, 2**62, 2**63 - 10**9
"""The ids that audit rows of tokens issued in 1970, 2116 and 2262 would have."""


def move(row: IssuedToken, to: int) -> None:
    assert IssuedToken.objects.filter(pk=row.pk).update(id=to) == 1


def swap(first: IssuedToken, second: IssuedToken) -> None:
    move(first, -1)
    move(second, first.pk)
    IssuedToken.objects.filter(pk=-1).update(id=second.pk)


class TestAChangedId:
    @pytest.mark.parametrize("to", [-5, BELOW, ABOVE, LATEST])
    def test_a11_verify_reports_a_row_with_a_changed_id_and_its_original_id(self, audit, to):
        move(audit[7], to)

        problem = only_problem(verification.verify(evidence_keys()))

        assert (problem.first, problem.last) == (to, to)
        assert f"row {to} (jti {audit[7].jti}) was " in problem.text
        assert f"only its id was changed; the token was issued with the id {audit[7].pk}" in problem.text

    @pytest.mark.parametrize("to", [BELOW, ABOVE])
    def test_a11_verify_reports_both_ids_of_a_covered_row_whose_id_was_changed(self, audit, to):
        move(audit[4], to)

        problems = verification.verify(evidence_keys()).problems

        assert {(problem.first, problem.kind) for problem in problems} == {
            (audit[4].pk, "deleted"),
            (to, "added" if to == BELOW else "modified"),
        }

    @pytest.mark.parametrize("places", [(0, 2), (6, 8), (1, 7)], ids=["covered", "not covered", "one covered"])
    def test_a11_verify_reports_both_rows_whose_ids_were_swapped(self, audit, places):
        first, second = (audit[place] for place in places)
        swap(first, second)

        problems = verification.verify(evidence_keys()).problems

        assert [(problem.first, problem.count) for problem in problems] == [(first.pk, 1), (second.pk, 1)]
        assert f"issued with the id {second.pk}" in problems[0].text
        assert f"issued with the id {first.pk}" in problems[1].text

    def test_a11_verify_reports_no_original_id_if_another_column_was_modified_too(self, audit):
        move(audit[7], ABOVE)
        IssuedToken.objects.filter(pk=ABOVE).update(user_agent="modified")

        assert "only its id was changed" not in only_problem(verification.verify(evidence_keys())).text
        assert only_row(verification.verify(evidence_keys())) == ABOVE


class TestSealAfterAnIdWasChanged:
    @pytest.mark.parametrize("to", [-5, BELOW, ABOVE, LATEST])
    def test_a11_seal_covers_all_other_rows_after_the_id_of_a_row_was_changed(self, audit, row, time_machine, to):
        move(audit[7], to)
        time_machine.shift(2 * 3600)

        (made,) = seal(evidence_keys()).made

        assert (made.rows, made.first, made.last) == (2, audit[6].pk, audit[8].pk)
        assert only_row(verification.verify(evidence_keys())) == to
        row(age=SETTLED + 1)
        assert [made.rows for made in seal(evidence_keys()).made] == [1]
        assert only_row(verification.verify(evidence_keys())) == to

    @pytest.mark.parametrize("to", [1, BELOW])
    def test_a11_seal_covers_and_marks_a_row_whose_id_was_changed_to_the_lowest_id(
        self, row, initial_keys, time_machine, to
    ):
        # A checkpoint ends at midnight, so the rows of this test must belong to one day.
        time_machine.move_to(NOON, tick=False)
        moved, *_ = [row(age=age) for age in (9000, 8000, 7000)]
        move(moved, to)

        made = seal(evidence_keys()).made

        assert [(each.rows, each.altered) for each in made] == [(1, 1), (2, 0)]
        assert only_row(verification.verify(evidence_keys())) == to

    # Test the id 0 only on SQLite, because Django refuses the id 0 on MariaDB.
    @pytest.mark.parametrize("to", [-5, pytest.param(0, marks=pytest.mark.sqlite)])
    def test_a11_seal_covers_no_row_whose_id_was_changed_to_an_id_below_1(self, row, initial_keys, time_machine, to):
        time_machine.move_to(NOON, tick=False)
        moved, *_ = [row(age=age) for age in (9000, 8000, 7000)]
        move(moved, to)

        assert [(each.rows, each.altered) for each in seal(evidence_keys()).made] == [(2, 0)]
        assert only_row(verification.verify(evidence_keys())) == to

    def test_a11_seal_marks_rows_whose_ids_were_swapped(self, audit, time_machine):
        swap(audit[6], audit[8])
        time_machine.shift(2 * 3600)

        (made,) = seal(evidence_keys()).made

        assert (made.rows, made.altered) == (3, 2)
        assert [problem.first for problem in verification.verify(evidence_keys()).problems] == [
            audit[6].pk,
            audit[8].pk,
        ]


class TestAChangedReferenceToAnApplication:
    @pytest.fixture
    def other(self, application):
        return get_application_model().objects.create(
            name="Other",
            client_id="other",
            client_type="confidential",
            authorization_grant_type="authorization-code",
            redirect_uris="https://other.example/callback",
        )

    @pytest.mark.parametrize("place", [1, 7], ids=["covered", "not covered"])
    def test_a11_verify_reports_a_row_whose_reference_to_an_application_was_changed(
        self, audit, application, other, place
    ):
        IssuedToken.objects.filter(pk=audit[place].pk).update(application=other)

        report = verification.verify(evidence_keys())

        problem = only_problem(report)
        assert (problem.first, problem.kind, report.notes) == (audit[place].pk, "reference", [])
        expected = f"it refers to application {other.pk} instead of the application with the client id "
        assert expected + application.client_id in problem.text

    def test_a11_verify_reports_a_reference_to_an_application_in_a_row_without_a_client_id(
        self, row, initial_keys, other
    ):
        each = row(application=None, client_id="")
        IssuedToken.objects.filter(pk=each.pk).update(application=other)

        text = only_problem(verification.verify(evidence_keys())).text

        assert text.endswith(f"it refers to application {other.pk} instead of no application")

    def test_a11_verify_finds_no_problem_after_an_application_was_deleted(self, audit, application, other):
        application.delete()

        report = verification.verify(evidence_keys())
        assert (report.problems, report.notes) == ([], [])

    def test_a11_verify_adds_a_note_but_no_problem_if_the_client_id_of_an_application_was_changed(
        self, audit, application
    ):
        application.client_id = "renamed"
        application.save()

        report = verification.verify(evidence_keys())

        assert report.problems == []
        [note] = report.notes
        assert "after the client id was changed" in note

    def test_a11_verify_reports_two_changed_references_of_a_row_as_one_problem(self, audit, other, django_user_model):
        IssuedToken.objects.filter(pk=audit[7].pk).update(
            application=other, user=django_user_model.objects.create_user("mallory")
        )

        text = only_problem(verification.verify(evidence_keys())).text

        assert "refers to user" in text
        assert "refers to application" in text

    @pytest.mark.sqlite
    @pytest.mark.parametrize("column", ["user_id", "real_user_id", "application_id"])
    def test_a11_verify_reports_a_row_with_a_foreign_key_of_the_wrong_type(self, audit, column):
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"UPDATE instaccess_issuedtoken SET {column} = 'nobody' WHERE id = %s", [audit[7].pk])

            assert only_row(verification.verify(evidence_keys())) == audit[7].pk
            transaction.set_rollback(True)


def test_a11_verify_does_not_report_gaps_between_ids(audit, row, time_machine):
    row(age=1)
    time_machine.shift(30 * 86_400)
    row()
    checkpoints.seal(evidence_keys())

    assert verification.verify(evidence_keys()).problems == []
