"""Tests of the limits of `seal` and `verify`: the age of rows, the size of a checkpoint, and the size of a query."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from instaccess.audit import row_ids
from instaccess.audit.evidence import checkpoints, reviews, verification
from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.evidence.pruning import prune
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken

from .conftest import DAY, NOON, covered_rows

pytestmark = pytest.mark.django_db


class TestSeal:
    # A token is valid for at most 3600 seconds, and can be revoked for 360 further seconds. The clocks of two servers
    # may differ by 60 seconds, and the INSERT of the row may take 600 seconds.
    @pytest.mark.parametrize(("age", "covered"), [(4620, []), (4621, [(1, 1)])])
    def test_seal_covers_a_row_when_its_token_is_more_than_4620_seconds_old(self, rows, age, covered):
        rows(age)
        seal(evidence_keys())

        assert covered_rows() == covered

    def test_seal_covers_at_most_10000_rows_with_one_checkpoint(self, initial_keys, time_machine):
        time_machine.move_to(NOON, tick=False)
        issued_at = NOON - timedelta(hours=2)
        first = row_ids.first_id(issued_at)
        IssuedToken.objects.bulk_create(
            IssuedToken(pk=first + number, jti=uuid.UUID(int=number), issued_at=issued_at, expires_at=NOON)
            for number in range(10_001)
        )
        seal(evidence_keys())

        assert covered_rows() == [(1, 10_000), (2, 1)]

    def test_seal_fills_a_checkpoint_with_rows_that_two_queries_read(self, rows, monkeypatch):
        monkeypatch.setattr(checkpoints, "ROWS", 4)
        rows(DAY, *range(9100, 9030, -10))
        seal(evidence_keys())

        assert covered_rows() == [(1, 1), (2, 4), (3, 3)]

    def test_seal_starts_a_new_checkpoint_with_a_row_issued_at_the_time_given_as_cut(self, rows):
        rows(9000)
        rows(7500, jti=uuid.UUID(int=10**9))
        seal(evidence_keys(), cut=NOON - timedelta(seconds=7500))

        assert covered_rows() == [(1, 1), (2, 1)]

    def test_seal_logs_the_first_100_modified_rows_of_a_checkpoint(self, rows, caplog):
        made = rows(*([9000] * 101))
        IssuedToken.objects.update(user_agent="modified")
        seal(evidence_keys())

        [record] = [each for each in caplog.records if "covers rows whose HMAC" in each.getMessage()]
        assert vars(record)["modified"] == [each.pk for each in made[:100]]

    def test_seal_logs_the_numbers_of_modified_checkpoints(self, audit, caplog):
        seal(evidence_keys())
        assert "these checkpoints were modified" not in caplog.text

        Checkpoint.objects.filter(number=2).update(jws="x")
        seal(evidence_keys())

        assert "these checkpoints were modified, so the next checkpoint follows checkpoint 1: [2]" in caplog.text


class TestQueries:
    @pytest.fixture
    def statements(self, audit: Any) -> None:
        """Add a prune marker and a review to the audit log with checkpoints."""
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        reviews.record_review([], evidence_keys(), by="ada", reason="x")

    @pytest.mark.parametrize("table", ["checkpoint", "prunemarker", "incidentreview"])
    def test_seal_reads_one_checkpoint_prune_marker_or_review_per_query(self, statements, table):
        with CaptureQueriesContext(connection) as queries:
            seal(evidence_keys())

        sql = [each["sql"] for each in queries]
        selected = [text for text in sql if text.startswith("SELECT") and f"instaccess_{table}" in text]
        assert selected
        assert all(text.endswith(" LIMIT 1") for text in selected)

    def test_verify_reads_four_checkpoints_per_query(self, audit):
        with CaptureQueriesContext(connection) as queries:
            verification.verify(evidence_keys())

        [sql] = [each["sql"] for each in queries if "instaccess_checkpoint" in each["sql"]]
        assert sql.endswith(" LIMIT 4")
