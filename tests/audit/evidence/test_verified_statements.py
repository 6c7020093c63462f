"""Tests of `verify` with checkpoints and reviews that are missing, that overlap, or that contradict each other."""

from __future__ import annotations

import json

import pytest

from instaccess.audit.evidence import checkpoint_index, reviews, row_checks, signatures, verification
from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.evidence.pruning import prune
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IncidentReview, IssuedToken, UserIdentity
from tests.support.problems import only_problem

from .conftest import DAY

pytestmark = pytest.mark.django_db


def copies() -> list[checkpoint_index.Exported]:
    """Export all current checkpoints. Returns the exported copies."""
    texts = [checkpoint_index.export_checkpoint(checkpoint) for checkpoint in Checkpoint.objects.all()]
    return [checkpoint_index.read_exported(text, evidence_keys(), name="kept.json") for text in texts]


def problems() -> list[tuple[str, int, int]]:
    found = verification.verify(evidence_keys()).problems
    return [(problem.kind.value, problem.first, problem.count) for problem in found]


class TestCheckpoints:
    def test_verify_does_not_report_covered_rows_as_added_after_checkpoints_were_deleted(self, rows):
        made = rows(*(days * DAY for days in range(20, 2, -1)))
        seal(evidence_keys())
        deleted = range(2, len(made), 2)
        Checkpoint.objects.filter(number__in=deleted).delete()

        assert problems() == [("checkpoint", number + 1, 1) for number in deleted]

    def test_verify_checks_a_row_between_a_missing_checkpoint_and_the_next_checkpoint_once(self, audit, row):
        before = row(id=audit[3].pk - 1, age=2 * DAY)
        Checkpoint.objects.filter(number=1).delete()
        assert problems() == [("checkpoint", 2, 1)]

        IssuedToken.objects.filter(pk__in=[before.pk, audit[3].pk]).update(user_agent="modified")

        assert problems() == [("checkpoint", 2, 1), ("modified", before.pk, 2)]
        assert verification.verify(evidence_keys()).rows == 10

    def test_verify_reports_only_the_broken_chain_if_two_checkpoints_cover_the_same_row(self, rows, time_machine):
        rows(9000, 60)
        seal(evidence_keys())
        checkpoint = Checkpoint.objects.get()
        Checkpoint.objects.update(jws="x")
        time_machine.shift(9000)
        assert [made.rows for made in seal(evidence_keys()).made] == [2]
        checkpoint.save()

        assert problems() == [("checkpoint", 2, 1)]

    def test_verify_reports_a_modified_index_if_the_key_encryption_key_of_the_hmac_is_missing(self, audit):
        Checkpoint.objects.filter(number=2).update(mac="unknown.abc", index=f"{audit[3].pk} unreadable altered")

        assert only_problem(verification.verify(evidence_keys())).text == (
            "checkpoint 2 was modified: its index doesn't match its signature"
        )

    def test_verify_uses_the_exported_copy_instead_of_a_deleted_checkpoint(self, audit):
        kept = copies()
        Checkpoint.objects.filter(number=1).delete()

        report = verification.verify(evidence_keys(), kept)

        assert only_problem(report).text == "checkpoint 1 was deleted, but an exported copy exists"
        assert (report.rows, report.sealed, report.notes) == (9, 6, [])

    def test_verify_uses_the_exported_copy_instead_of_a_modified_checkpoint(self, audit):
        kept = copies()
        Checkpoint.objects.filter(number=1).update(jws="x")

        report = verification.verify(evidence_keys(), kept)

        assert only_problem(report).text == "checkpoint 1 was modified: its HMAC doesn't match"
        assert (report.rows, report.sealed) == (9, 6)


class TestRows:
    def test_verify_reports_that_only_the_hmac_of_a_covered_row_was_modified(self, audit):
        IssuedToken.objects.filter(pk=audit[1].pk).update(mac="x")

        text = only_problem(verification.verify(evidence_keys())).text
        assert text == f"the HMAC of row {audit[1].pk} (jti {audit[1].jti}) was modified"

    def test_verify_reports_a_restored_row_if_a_checkpoint_covers_its_modified_version(self, audit, time_machine):
        IssuedToken.objects.filter(pk=audit[7].pk).update(user_agent="modified")
        time_machine.shift(2 * 3600)
        seal(evidence_keys())
        IssuedToken.objects.filter(pk=audit[7].pk).update(user_agent=audit[7].user_agent)

        text = only_problem(verification.verify(evidence_keys())).text
        assert text.endswith(" was restored: checkpoint 3 covers a modified version of the row")

    def test_verify_reports_that_each_modified_row_was_modified_after_its_checkpoint_was_created(self, rows):
        made = rows(*range(20_000, 10_000, -500))
        seal(evidence_keys())
        IssuedToken.objects.filter(pk__in=[each.pk for each in made[::2]]).update(user_agent="modified")

        texts = [problem.text for problem in verification.verify(evidence_keys()).problems]

        assert len(texts) == 10
        assert all(text.endswith(" was modified after checkpoint 1 was created") for text in texts)

    def test_verify_reports_that_an_audit_log_without_rows_was_truncated(self, audit):
        IssuedToken.objects.all().delete()

        text = only_problem(verification.verify(evidence_keys())).text
        assert text.startswith("the audit log was truncated: 6 rows, ")

    @pytest.mark.parametrize(("age", "noted"), [(DAY + 4620, False), (DAY + 4621, True)])
    def test_verify_adds_a_note_if_no_checkpoint_has_covered_a_row_for_a_day(self, rows, age, noted):
        rows(age)

        notes = verification.verify(evidence_keys()).notes
        assert any("instaccess_tokens seal" in note for note in notes) is noted

    def test_verify_adds_one_note_about_changed_uuids_even_if_several_queries_read_the_rows(
        self, rows, user, monkeypatch
    ):
        monkeypatch.setattr(row_checks, "ROWS", 1)
        rows(60, 50, user_uuid="from-a-field")
        UserIdentity.objects.get_or_create(user=user)

        [note] = verification.verify(evidence_keys()).notes
        assert "USER_UUID_FIELD" in note

    def test_verify_reports_a_modified_reference_in_a_row_that_an_interrupted_prune_did_not_delete(
        self, audit, application, django_user_model
    ):
        left = audit[0]
        prune(audit[3].issued_at, evidence_keys())
        left.user = django_user_model.objects.create_user("mallory")
        left.save(force_insert=True)

        report = verification.verify(evidence_keys())

        assert (only_problem(report).kind, only_problem(report).first) == ("reference", left.pk)
        assert "was interrupted" in report.notes[0]


class TestReviews:
    def test_verify_refuses_a_review_if_its_list_of_problems_does_not_match_its_signature(self, audit):
        reviews.record_review([], evidence_keys(), by="ada", reason="x")
        review = IncidentReview.objects.get()

        # `verify` must refuse every list with a different digest. Try eight lists, so that some digests are less than
        # the signed digest and some are greater.
        for number in range(8):
            review.problems = json.dumps([["checkpoint", number, number, 1, "", ""]])
            signatures.authenticate(review, evidence_keys())
            review.save()
            assert only_problem(verification.verify(evidence_keys())).text == (
                "review 1 was modified: its list of problems doesn't match its signature"
            )
