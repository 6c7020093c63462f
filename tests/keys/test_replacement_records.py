"""Tests of the records of a replacement of all keys: the times, the signals, and the revocation log."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from instaccess import audit, database_clock, keys
from instaccess.conf import conf
from instaccess.keys import lifecycle, store
from instaccess.models import Key, Revocation
from instaccess.signals import key_changed, tokens_revoked
from tests.keys.helpers import ENC, START, kids, public_pem
from tests.support import key_texts
from tests.support.receiving import received

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("started")]


def recorded_keys() -> list[str]:
    return sorted(Revocation.objects.filter(kind="key").values_list("value", flat=True))


class TestTheTimeOfAReplacement:
    def test_replacement_stores_the_same_time_in_the_keys_the_revocation_log_and_the_tokens(self, issue, monkeypatch):
        row, _ = issue()
        old = set(Key.objects.values_list("kid", flat=True))
        # Let each reading of the clock be three hours later than the previous reading.
        readings = itertools.count()
        monkeypatch.setattr(database_clock, "now", lambda using: START + timedelta(hours=3) * next(readings))
        result = keys.replace_all()

        row.refresh_from_db()
        assert (result.tokens, row.revoked_at) == (1, START)
        assert {entry.revoked_at for entry in Revocation.objects.all()} == {START}
        assert {entry.completed_at for entry in Revocation.objects.all()} == {START}
        assert {key.revoked_at for key in Key.objects.filter(kid__in=old)} == {START}
        assert {key.created_at for key in Key.objects.exclude(kid__in=old)} == {START}


class TestTheSignalsOfAReplacement:
    def test_signals_of_a_replacement_of_all_keys_contain_the_reason_and_the_operator(
        self, issue, user, django_capture_on_commit_callbacks
    ):
        issue()
        with (
            received(key_changed) as changes,
            received(tokens_revoked) as revocations,
            django_capture_on_commit_callbacks(execute=True),
        ):
            keys.replace_all(reason="the disk broke", by=user)

        revoked = [sent for sent in changes if sent["change"] == "revoked"]
        assert len(revoked) == 4
        assert {(sent["reason"], sent["by"], sent["by_user_id"]) for sent in revoked} == {
            ("the disk broke", "ada", user.pk)
        }
        [sent] = revocations
        assert (sent["count"], sent["reason"]) == (1, "the disk broke")
        assert (sent["by"], sent["by_user_id"]) == ("ada", user.pk)


class TestKeysThatAreRecordedAlready:
    def test_second_replacement_records_only_the_keys_of_the_first_replacement(self):
        first = sorted(key.kid for key in keys.replace_all().plan.revoked)
        assert recorded_keys() == first
        second = [key.kid for key in keys.replace_all().plan.revoked]

        assert len(second) == 3
        assert recorded_keys() == sorted([*first, *second])

    def test_revoked_key_that_the_backup_does_not_contain_is_not_recorded_again(self):
        gone = audit.Scope.key("a kid that the backup does not contain")
        audit.record_revocation([gone], keks=conf.key_encryption_keys, reason="lost", now=audit.current_time())
        old = list(Key.objects.values_list("kid", flat=True))
        keys.replace_all()

        assert recorded_keys() == sorted([gone.value, *old])


class TestNoCurrentEncryptionKey:
    @pytest.fixture(autouse=True)
    def without_a_current_key(self, started: None) -> None:
        Key.objects.filter(use=ENC).delete()

    def test_k15_replacement_generates_no_encryption_key_if_a_gateway_has_a_future_public_key(self, rsa_pool: Any):
        key_texts.import_key(public_pem(rsa_pool), use=ENC)

        assert keys.replace_all().plan.missing
        assert kids(ENC, "current") == []

    def test_k15_replacement_generates_an_encryption_key_if_all_future_keys_are_key_pairs(self):
        keys.generate(ENC)

        assert not keys.replace_all().plan.missing
        assert len(kids(ENC, "current")) == 1

    def test_k15_replacement_generates_an_encryption_key_if_only_an_erased_past_key_remains(self):
        lifecycle.activate(keys.generate(ENC).kid)
        past = lifecycle.rotate(ENC, force=True).retired
        assert past is not None
        Key.objects.filter(use=ENC).exclude(pk=past.pk).delete()
        store.erase(Key.objects.get(pk=past.pk))

        assert not keys.replace_all().plan.missing
        assert len(kids(ENC, "current")) == 1
