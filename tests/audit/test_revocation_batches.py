"""Tests of revocations of many single tokens: batches, rows that another process revokes, and a failing log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from instaccess import audit, signals
from instaccess.audit import marking, revocation, row_hmac
from instaccess.audit.revocation_log import Act
from instaccess.conf import conf
from instaccess.models import IssuedToken, Revocation
from tests.support import audit_rows
from tests.support.receiving import received

pytestmark = pytest.mark.django_db


def revoke(**options: Any) -> int:
    values: dict[str, Any] = {"keks": conf.key_encryption_keys, "reason": "stolen"}
    return audit.revoke(audit.revocable_tokens(), **(values | options))


class TestManyTokens:
    def test_revoke_revokes_tokens_in_batches_of_five_hundred(self, django_capture_on_commit_callbacks):
        now = timezone.now()
        rows = [
            IssuedToken(jti=audit_rows.next_jti(), issued_at=now, expires_at=now + timedelta(hours=1))
            for _ in range(501)
        ]
        IssuedToken.objects.bulk_create([audit_rows.with_id(row) for row in rows])

        with received(signals.tokens_revoked) as facts, django_capture_on_commit_callbacks(execute=True):
            assert revoke() == 501

        assert [sent["count"] for sent in facts] == [500, 1]


class TestTokensThatAnotherProcessRevokesMeanwhile:
    def test_signal_of_a_batch_omits_a_token_that_another_process_has_just_revoked(
        self, row, monkeypatch, django_capture_on_commit_callbacks
    ):
        monkeypatch.setattr(revocation, "BATCH", 2)
        first, second, third, theirs = (row() for _ in range(4))
        load = row_hmac.load

        def revoke_meanwhile(rows: Any) -> Any:
            loaded = load(rows)
            if third.pk in {pk for pk, _ in loaded}:
                IssuedToken.objects.filter(pk=theirs.pk).update(revoked_at=timezone.now() - timedelta(minutes=1))
            return loaded

        monkeypatch.setattr(row_hmac, "load", revoke_meanwhile)

        with received(signals.tokens_revoked) as facts, django_capture_on_commit_callbacks(execute=True):
            assert revoke(now=timezone.now()) == 3

        assert [sent["jtis"] for sent in facts] == [[str(first.jti), str(second.jti)], [str(third.jti)]]

    def test_mark_batch_marks_no_row_twice_for_the_same_revocation(self, row):
        first, second, now = row(), row(), timezone.now()
        act = Act(now, "grace", "stolen")
        keks = conf.key_encryption_keys

        assert marking.mark_batch([first.pk], act, keks, now) == (1, [str(first.jti)])
        assert marking.mark_batch([first.pk, second.pk], act, keks, now) == (1, [str(second.jti)])
        assert marking.mark_batch([first.pk, second.pk], act, keks, now) == (0, [])

    def test_revocation_that_marks_no_row_adds_no_row_to_the_revocation_log(self, row):
        row(revoked_at=timezone.now())

        assert audit.revoke(audit.issued_tokens(), keks=conf.key_encryption_keys, reason="stolen") == 0
        assert not Revocation.objects.exists()


class TestARowWhoseHmacDoesNotMatch:
    def test_revoke_marks_a_modified_row_and_keeps_its_invalid_hmac(self, row):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(client_id="changed")

        assert revoke() == 1
        made.refresh_from_db()
        assert made.revocation_reason == "stolen"
        assert audit.row_status(made, conf.key_encryption_keys) is audit.HmacStatus.BROKEN


class FailingHandler(logging.Handler):
    """A log handler that raises an error for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("No space left on device")


@pytest.mark.django_db(transaction=True)
class TestALogThatFails:
    @pytest.fixture(autouse=True)
    def failing_log(self) -> Iterator[None]:
        handler, logger = FailingHandler(), logging.getLogger("instaccess.revocation")
        logger.addHandler(handler)
        yield
        logger.removeHandler(handler)

    def test_revoke_revokes_every_token_if_the_log_fails(self, row, monkeypatch):
        monkeypatch.setattr(revocation, "BATCH", 1)
        row()
        row()

        assert revoke() == 2

    def test_a21_oauth2_tokens_and_tokens_of_a_user_are_revoked_if_the_log_fails(self, row, user, make_access_token):
        row()
        make_access_token()

        revoked = audit.revoke_with_oauth2_tokens(
            audit.revocable_tokens(), [user], keks=conf.key_encryption_keys, reason="stolen"
        )

        assert (revoked.tokens, revoked.oauth2_tokens) == (1, 1)
