"""Tests of case A12: `verify` doesn't fail because of a reviewed problem, but reports every further change."""

from __future__ import annotations

import json
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection

from instaccess.audit import Problem
from instaccess.audit.evidence import reauthentication, reviews, verification
from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.evidence.pruning import prune
from instaccess.audit.evidence.report import Incident
from instaccess.audit.evidence.statements import Review
from instaccess.exceptions import AuditAltered, KeyUnavailable
from instaccess.keys import evidence_keys, provision, ring
from instaccess.models import Checkpoint, IncidentReview, IssuedToken, PruneMarker
from instaccess.tokens import jose
from tests.support.problems import only_problem, only_row

from .conftest import DAY, NOON

pytestmark = pytest.mark.django_db


def modify(*rows: IssuedToken, **columns: Any) -> None:
    pks = [row.pk for row in rows]
    assert IssuedToken.objects.filter(pk__in=pks).update(**(columns or {"user_agent": "modified"})) == len(pks)


def delete(*rows: IssuedToken) -> None:
    IssuedToken.objects.filter(pk__in=[row.pk for row in rows]).delete()


def listed() -> list[Problem]:
    return verification.verify(evidence_keys()).problems


def incidents() -> list[Incident]:
    return verification.verify(evidence_keys()).incidents


def review_everything() -> Review:
    return reviews.record_review(listed(), evidence_keys(), by="ada", reason="ticket 4711")


class TestAReviewedIncident:
    def test_a12_verify_succeeds_after_a_review_and_shows_the_review(self, audit):
        modify(audit[1])
        delete(audit[4])
        before = listed()
        review_everything()

        report = verification.verify(evidence_keys())

        assert (report.problems, report.more) == ([], 0)
        [incident] = report.incidents
        assert (incident.review.number, incident.review.by, incident.review.reason) == (1, "ada", "ticket 4711")
        assert incident.review.reviewed_at == int(NOON.timestamp())
        assert list(incident.problems) == before
        assert incident.present == 2

    def test_a12_verify_reports_a_further_change_of_the_same_row(self, audit):
        modify(audit[1])
        review_everything()
        modify(audit[1], user_agent="modified again")

        assert only_row(verification.verify(evidence_keys())) == audit[1].pk
        assert [incident.present for incident in incidents()] == [0]

    @pytest.mark.parametrize("column", ["mac", "user_uuid", "ip_address"])
    def test_a12_verify_reports_a_further_change_of_any_column(self, audit, column):
        modify(audit[7])
        review_everything()
        modify(audit[7], **{column: "192.0.2.9"})

        assert only_row(verification.verify(evidence_keys())) == audit[7].pk

    def test_a12_verify_reports_only_the_newly_modified_rows_next_to_reviewed_rows(self, audit):
        modify(audit[1], audit[2])
        review_everything()
        modify(audit[0], audit[3])

        assert [(problem.first, problem.count) for problem in listed()] == [(audit[0].pk, 1), (audit[3].pk, 1)]
        assert [incident.present for incident in incidents()] == [1]

    def test_a12_verify_reports_a_change_in_the_middle_of_reviewed_rows(self, audit):
        delete(*audit[0:3])
        review_everything()
        audit[1].save(force_insert=True)

        # After the middle row was restored, the first and the last deleted row are no longer consecutive. `verify`
        # must report each of the two rows as a new problem.
        assert [(problem.kind, problem.first) for problem in listed()] == [
            ("deleted", audit[0].pk),
            ("deleted", audit[2].pk),
        ]

    def test_a12_verify_reports_a_changed_reference_of_a_reviewed_row(self, audit, django_user_model):
        modify(audit[1])
        review_everything()
        modify(audit[1], user=django_user_model.objects.create_user("mallory"))

        assert only_problem(verification.verify(evidence_keys())).kind == "reference"

    def test_a12_verify_does_not_report_a_reviewed_problem_again_after_a_new_checkpoint(self, audit, time_machine):
        modify(audit[6], audit[8])
        modify(audit[7], id=audit[7].pk + 1)
        review_everything()
        time_machine.shift(2 * 3600)
        (made,) = seal(evidence_keys()).made

        assert made.altered == 3
        assert listed() == []

    def test_a12_verify_does_not_report_a_reviewed_problem_again_after_a_new_key_encryption_key(
        self, audit, time_machine, settings
    ):
        modify(audit[1], audit[6])
        review_everything()
        time_machine.shift(2 * 3600)
        seal(evidence_keys())
        new = secrets.token_urlsafe(32)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, "SECRET_KEY"]}
        provision.reseal()
        # New HMACs are computed for three checkpoints, one review and the names in nine rows. The nine rows need no
        # new HMAC, because checkpoints prove the contents of the rows.
        assert reauthentication.reauthenticate(evidence_keys()) == 13
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new]}

        assert listed() == []
        assert [incident.present for incident in incidents()] == [2]

    def test_a12_verify_does_not_report_a_reviewed_problem_of_a_checkpoint_again(self, audit):
        Checkpoint.objects.filter(number=1).update(jws="x")
        review_everything()
        assert listed() == []

        Checkpoint.objects.filter(number=1).update(jws="y")
        assert only_problem(verification.verify(evidence_keys())).kind == "checkpoint"

    def test_a12_verify_shows_several_reviews_in_order(self, audit):
        for each in audit[0:5:2]:
            modify(each)
            review_everything()

        assert [(each.review.number, each.present) for each in incidents()] == [(1, 1), (2, 1), (3, 1)]
        assert listed() == []

    def test_a12_record_review_raises_key_unavailable_if_there_is_no_signing_key(self, audit):
        modify(audit[1])
        keys = evidence_keys()

        def sign(payload: bytes, typ: str) -> str:
            raise KeyUnavailable("no key")

        object.__setattr__(keys, "sign", sign)
        with pytest.raises(KeyUnavailable):
            reviews.record_review(listed(), keys, by="ada", reason="x")
        assert not IncidentReview.objects.exists()


class TestPruneAfterAReview:
    def test_a12_prune_without_force_deletes_reviewed_rows_and_keeps_the_review(self, audit):
        modify(audit[0], issued_at=datetime(9999, 1, 1, tzinfo=UTC))
        modify(audit[1])
        delete(audit[2])
        with pytest.raises(AuditAltered, match="nothing was pruned"):
            prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        review_everything()

        assert prune(NOON - timedelta(days=2, hours=12), evidence_keys()).rows == 2

        report = verification.verify(evidence_keys())
        assert report.problems == []
        [incident] = report.incidents
        assert (len(incident.problems), incident.present) == (2, 0)

    def test_a12_prune_deletes_nothing_if_a_problem_is_not_reviewed(self, audit):
        modify(audit[0])
        review_everything()
        modify(audit[2])

        with pytest.raises(AuditAltered, match=f"nothing was pruned: row {audit[2].pk} "):
            prune(NOON - timedelta(days=1), evidence_keys())

    def test_a12_prune_can_delete_rows_after_the_problem_of_a_prune_marker_was_reviewed(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        PruneMarker.objects.update(jws="x")
        with pytest.raises(AuditAltered, match="prune marker 1 was modified"):
            prune(NOON - timedelta(days=1), evidence_keys())
        review_everything()

        assert prune(NOON - timedelta(days=1), evidence_keys()).rows == 3
        assert listed() == []


class TestAnAttackerWithoutTheKeys:
    @pytest.fixture
    def reviewed(self, audit):
        modify(audit[1])
        review_everything()
        return audit

    @pytest.mark.parametrize("column", ["jws", "problems", "mac"])
    def test_a12_verify_ignores_and_reports_a_modified_review(self, reviewed, column):
        modify(reviewed[4])
        other = review_everything()
        value = getattr(IncidentReview.objects.get(number=other.number), column)
        IncidentReview.objects.filter(number=1).update(**{column: value})

        assert [(problem.kind, problem.first) for problem in listed()] == [
            ("modified", reviewed[1].pk),
            ("review", 1),
        ]

    def test_a12_verify_ignores_and_reports_a_review_signed_with_another_key(self, audit, rsa_pool):
        modify(audit[1])
        [problem] = listed()
        theirs = rsa_pool.take_private("sig")
        signed = jose.sign(b"{}", theirs, kid=ring.current_ring().signing_key().kid, typ="instaccess-review")
        kek_id = audit[0].mac.partition(".")[0]
        IncidentReview.objects.create(number=1, jws=signed, problems=json.dumps([problem.digest]), mac=f"{kek_id}.x")

        assert {problem.kind.value for problem in listed()} == {"modified", "review"}

    def test_a12_verify_ignores_and_reports_a_copied_review(self, reviewed):
        first = IncidentReview.objects.get()
        IncidentReview.objects.create(number=2, jws=first.jws, problems=first.problems, mac=first.mac)

        assert only_problem(verification.verify(evidence_keys())).text == (
            "review 2 was modified: its signed number is 1"
        )

    def test_a12_verify_fails_again_after_the_review_was_deleted(self, reviewed):
        IncidentReview.objects.all().delete()

        assert only_row(verification.verify(evidence_keys())) == reviewed[1].pk

    def test_a12_verify_reports_a_deleted_review_even_if_its_rows_were_pruned(self, reviewed, time_machine):
        time_machine.shift(2 * 3600)
        seal(evidence_keys())
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        assert listed() == []
        IncidentReview.objects.all().delete()

        assert only_problem(verification.verify(evidence_keys())).text == "review 1 was deleted"

    def test_a12_verify_reports_a_deleted_review_with_a_lower_number_than_another_review(self, reviewed):
        modify(reviewed[3])
        review_everything()
        IncidentReview.objects.filter(number=1).delete()

        assert "review 1 was deleted" in [problem.text for problem in listed()]

    def test_a12_record_review_finds_a_free_number_if_reviews_were_modified_or_inserted(self, reviewed):
        IncidentReview.objects.filter(number=1).update(mac="x")
        IncidentReview.objects.create(number=2**63 - 1, jws="x", problems="x", mac="x")

        assert review_everything().number == 2
        assert listed() == []


@pytest.mark.django_db(transaction=True)
def test_a12_reviews_that_several_operators_record_at_the_same_time_have_different_numbers(
    row: Any, initial_keys: Any
) -> None:
    modify(row(age=2 * DAY))
    found, errors = listed(), []

    def run() -> None:
        try:
            reviews.record_review(found, evidence_keys(), by="ada", reason="x")
        except IntegrityError as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert IncidentReview.objects.count() == 4 - len(errors) >= 1
    assert listed() == []
