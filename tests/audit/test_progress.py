"""Tests of the progress of the database, which is stored in a cache to detect a restored backup."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.cache import caches
from django.utils import timezone

from instaccess import audit, keys
from instaccess.conf import conf
from instaccess.keys import lifecycle
from instaccess.models import IssuedToken, Key, KeyLock, RevocationLock
from instaccess.times import format_utc

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

DAY = 86_400


@pytest.fixture(autouse=True)
def shared_cache(settings, tmp_path):
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path / "cache")}}


def check() -> str:
    return audit.check_progress(keys.evidence_keys())


class TestProgress:
    def test_progress_shows_no_loss_while_tokens_are_issued_and_keys_change(self, row):
        for _ in range(3):
            row()
            lifecycle.rotate(Key.Use.SIGNING, force=True)
            assert check() == ""

    def test_progress_shows_no_loss_while_tokens_are_revoked(self, row):
        for _ in range(3):
            token = row()
            audit.revoke(IssuedToken.objects.filter(pk=token.pk), keks=conf.key_encryption_keys, reason="x")
            assert check() == ""

    def test_k15_progress_shows_a_lost_token_until_the_progress_is_reset(self, row):
        old, new = row(age=DAY), row()
        assert check() == ""
        new.delete()

        for _ in range(2):
            assert check().startswith(f"the last token in the audit log was issued at {format_utc(old.issued_at)}")
        audit.reset_progress(keys.evidence_keys())
        assert check() == ""

    def test_k15_progress_shows_that_an_empty_audit_log_has_lost_its_tokens(self, row):
        row()
        check()
        IssuedToken.objects.all().delete()

        assert check().startswith("the audit log is empty, but the audit log once contained a token issued at")

    def test_k15_progress_shows_lost_revocations_and_lost_changes_of_keys(self, row):
        row()
        audit.revoke(IssuedToken.objects.all(), keks=conf.key_encryption_keys, reason="x")
        for _ in range(2):
            lifecycle.rotate(Key.Use.SIGNING, force=True)
        check()
        RevocationLock.objects.update(last_number=5)
        KeyLock.objects.update(changes=1)

        assert check() == "recorded revocations are missing; the last key changes are missing (at least 2)"

    def test_k15_progress_shows_the_number_of_lost_key_changes_if_the_counter_is_missing(self):
        changes = KeyLock.objects.get().changes
        check()
        KeyLock.objects.all().delete()

        assert check() == f"the last key changes are missing (at least {changes})"

    def test_progress_shows_no_loss_after_rows_were_pruned(self, row):
        row(age=3 * DAY)
        check()
        audit.prune(timezone.now() - timedelta(days=1), keys.evidence_keys())

        assert not IssuedToken.objects.exists()
        assert check() == ""

    def test_progress_ignores_a_row_whose_id_is_more_than_a_day_in_the_future(self, row):
        row()
        with time_machine.travel(timezone.now() + timedelta(hours=25)):
            moved = row()
        check()
        moved.delete()

        assert check() == ""

    def test_k15_progress_shows_a_lost_token_of_an_issuer_whose_clock_is_fast_by_hours(self, row):
        row()
        with time_machine.travel(timezone.now() + timedelta(hours=23)):
            ahead = row()
        check()
        ahead.delete()

        assert check().startswith("the last token in the audit log was issued at")

    def test_two_databases_with_one_cache_have_separate_progress(self, row):
        row()
        check()
        IssuedToken.objects.all().delete()
        # Simulate the database of a second deployment, which has a different first key.
        Key.objects.order_by("pk")[0].delete()

        assert check() == ""

    def test_database_without_keys_has_no_progress(self):
        Key.objects.all().delete()
        assert check() == ""
        audit.reset_progress(keys.evidence_keys())


class TestTheCache:
    @pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
    def test_progress_is_not_stored_in_a_cache_that_belongs_to_one_process(self, row, settings, backend):
        settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "progress"}}
        row()
        check()
        IssuedToken.objects.all().delete()

        assert check() == ""

    def test_progress_shows_no_loss_and_logs_a_warning_if_the_cache_is_unavailable(self, settings, caplog, tmp_path):
        (tmp_path / "a file").touch()
        settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": str(tmp_path / "a file" / "cache")}}

        with caplog.at_level(logging.WARNING, logger="instaccess.audit"):
            assert check() == ""
        assert "the progress of the database can't be compared, because the cache is unavailable" in caplog.text

    def test_k15_progress_shows_a_lost_token_a_year_after_the_last_check(self, row):
        row()
        check()
        IssuedToken.objects.all().delete()

        with time_machine.travel(timezone.now() + timedelta(days=365)):
            assert check().startswith("the audit log is empty")

    @pytest.mark.parametrize("value", ["x", [1, 2], [1, 2, None], [True, 1, 1], {"token": 1}], ids=repr)
    def test_check_progress_replaces_a_cache_value_of_another_program(self, row, value: Any):
        name = f"instaccess:progress:{Key.objects.order_by('pk')[0].kid}"
        caches["default"].set(name, value)
        row()

        assert check() == ""
        assert caches["default"].get(name)[0] == IssuedToken.objects.get().pk
