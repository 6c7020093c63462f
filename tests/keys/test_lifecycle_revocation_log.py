"""Tests of `revoke`: the entry in the revocation log, the log lines, the signals, and the time of all changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest

from instaccess import audit, database_clock
from instaccess.conf import conf
from instaccess.keys import lifecycle
from instaccess.models import IssuedToken, Key, Revocation
from instaccess.signals import key_changed, tokens_revoked
from tests.keys.helpers import BOTH_USES, ENC, SIG, START, key_of
from tests.support.receiving import received

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("started")]

KEY_REASON = "the key of the token was revoked"


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that starts a clock on which each reading is three hours later than the previous reading."""

    def hurry_() -> None:
        readings = itertools.count()
        monkeypatch.setattr(database_clock, "now", lambda using: START + timedelta(hours=3) * next(readings))

    return hurry_


def entries() -> list[tuple[str, str, str]]:
    """Return the kid, the reason and the operator of each revocation of a key in the revocation log."""
    return list(Revocation.objects.filter(kind="key").order_by("number").values_list("value", "reason", "revoked_by"))


def forget_marks() -> None:
    """Remove the marks of revoked tokens, to simulate tokens that were issued after the revocation."""
    IssuedToken.objects.update(revoked_at=None, revoked_by="", revocation_reason="")


class TestTheEntryInTheRevocationLog:
    @BOTH_USES
    def test_revoke_records_the_key_with_the_reason_and_the_operator(self, use, user):
        kid = key_of(use, "current").kid
        lifecycle.revoke(kid, reason="laptop stolen", by=user)

        assert entries() == [(kid, "laptop stolen", "ada")]

    def test_revoke_without_a_reason_records_the_default_reason(self):
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid)

        assert entries() == [(kid, KEY_REASON, "")]

    def test_second_revocation_and_rotation_do_not_record_a_revoked_key_again(self, user):
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid, reason="laptop stolen", by=user)
        lifecycle.revoke(kid, reason="again")
        lifecycle.rotate(SIG)

        assert entries() == [(kid, "laptop stolen", "ada")]

    def test_rotation_records_a_revoked_key_that_the_revocation_log_does_not_contain(self):
        kid = lifecycle.revoke(key_of(SIG, "current").kid, reason="laptop stolen", by="root").key.kid
        Revocation.objects.all().delete()
        lifecycle.rotate(SIG)

        assert entries() == [(kid, KEY_REASON, "")]

    def test_revoked_key_that_is_no_longer_stored_is_not_recorded_again(self):
        gone = audit.Scope.key("a kid that is no longer stored")
        audit.record_revocation([gone], keks=conf.key_encryption_keys, reason="lost", now=audit.current_time())
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid)
        lifecycle.rotate(SIG)

        assert [value for value, *_ in entries()] == [gone.value, kid]


class TestTheTimeOfARevocation:
    def test_revocation_of_a_key_stores_one_time_in_the_key_the_revocation_log_and_the_tokens(self, issue, hurry):
        row, _ = issue()
        hurry()
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        entry = Revocation.objects.get()
        row.refresh_from_db()
        assert (done.tokens, done.key.revoked_at) == (1, START)
        assert (entry.revoked_at, entry.completed_at, row.revoked_at) == (START, START, START)
        assert done.generated is not None
        assert (key_of(SIG, "current").activated_at, done.generated.created_at) == (START, START)

    def test_second_revocation_of_a_key_marks_tokens_that_have_not_expired(self, issue, user, hurry):
        issue()
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid)
        forget_marks()
        hurry()

        assert lifecycle.revoke(kid, by=user).tokens == 1
        marked = IssuedToken.objects.get()
        assert (marked.revoked_at, marked.revoked_by, marked.revocation_reason) == (START, "ada", KEY_REASON)

    def test_second_revocation_of_a_key_does_not_change_the_row_of_the_key(self, clock):
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid)
        before = list(Key.objects.order_by("pk").values())
        clock.shift(60)
        lifecycle.revoke(kid)

        assert list(Key.objects.order_by("pk").values()) == before


class TestTheSignalsOfARevocation:
    def test_signal_of_a_revoked_key_has_the_reason_and_the_operator(self, user, django_capture_on_commit_callbacks):
        kid = key_of(SIG, "current").kid
        with received(key_changed) as facts, django_capture_on_commit_callbacks(execute=True):
            lifecycle.revoke(kid, reason="laptop stolen", by=user)

        [sent] = [each for each in facts if each["change"] == "revoked"]
        assert (sent["kid"], sent["status"], sent["has_private"]) == (kid, "revoked", False)
        assert (sent["reason"], sent["by"], sent["by_user_id"]) == ("laptop stolen", "ada", user.pk)

    def test_signal_of_the_tokens_of_a_revoked_key_has_the_operator(
        self, issue, user, django_capture_on_commit_callbacks
    ):
        issue()
        kid = key_of(SIG, "current").kid
        for _ in ("the first revocation", "the second revocation"):
            with received(tokens_revoked) as facts, django_capture_on_commit_callbacks(execute=True):
                lifecycle.revoke(kid, reason="laptop stolen", by=user)
            forget_marks()

            [sent] = facts
            assert (sent["count"], sent["reason"]) == (1, "laptop stolen")
            assert (sent["by"], sent["by_user_id"]) == ("ada", user.pk)


class TestTheLogOfARevocation:
    def test_only_the_first_revocation_of_a_key_is_logged(self, user, caplog):
        kid = key_of(SIG, "current").kid
        lifecycle.revoke(kid, reason="laptop stolen", by=user)
        assert f"key {kid} revoked by {user.pk}: 'laptop stolen'" in caplog.text
        assert "no new signing key was generated" not in caplog.text

        caplog.clear()
        lifecycle.revoke(kid, reason="laptop stolen", by=user)
        assert f"key {kid} revoked" not in caplog.text

    def test_revocation_of_a_key_while_the_settings_are_invalid_logs_that_no_new_key_was_generated(
        self, settings, caplog
    ):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["too short"]}
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert "KEY_ENCRYPTION_KEYS" in done.failure
        assert f"no new signing key was generated after a revocation: {done.failure}" in caplog.text

    def test_revocation_of_a_key_while_the_settings_are_invalid_is_completed(self, issue, settings, caplog):
        row, _ = issue()
        kid = key_of(ENC, "current").kid
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["too short"]}

        assert lifecycle.revoke(kid).tokens == 1
        row.refresh_from_db()
        assert (row.revoked_at, Revocation.objects.get().completed_at) == (START, START)
        assert "has no valid HMAC" not in caplog.text


class TestMarkTokensOfRevokedKeys:
    def test_tokens_of_revoked_keys_are_marked_even_if_the_revocation_log_lacks_a_key(self, issue):
        recorded = lifecycle.revoke(key_of(SIG, "current").kid).key.kid
        late, _ = issue()
        IssuedToken.objects.filter(pk=late.pk).update(signing_kid=recorded)
        unrecorded = key_of(SIG, "current").kid
        issue()
        lifecycle.revoke(unrecorded)
        Revocation.objects.filter(value=unrecorded).delete()
        forget_marks()

        assert lifecycle.mark_tokens_of_revoked_keys(now=START) == 2
        assert not IssuedToken.objects.filter(revoked_at=None).exists()
