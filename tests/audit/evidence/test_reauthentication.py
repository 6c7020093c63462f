"""Tests of `reauthenticate`, which recomputes HMACs after the key-encryption key was replaced."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from django.db import connection

from instaccess.audit import names, row_hmac
from instaccess.audit.evidence import reauthentication, verification
from instaccess.audit.evidence.checkpoints import seal
from instaccess.conf import conf
from instaccess.keys import evidence_keys, provision
from instaccess.models import Checkpoint, IssuedToken
from tests.support.problems import only_row

pytestmark = pytest.mark.django_db


class TestReauthenticate:
    def test_reauthenticate_recomputes_hmacs_so_that_verify_succeeds_without_the_old_key_encryption_key(
        self, rows, settings, time_machine
    ):
        rows(9000, 60)
        seal(evidence_keys())
        old, new = "SECRET_KEY", secrets.token_urlsafe(32)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, old]}
        provision.reseal()
        # Four HMACs are recomputed: the HMACs of the checkpoint, of the uncovered row, and of the names in both rows.
        # The covered row needs no new HMAC, because the checkpoint proves the contents of the row.
        assert reauthentication.reauthenticate(evidence_keys()) == 4
        assert reauthentication.reauthenticate(evidence_keys()) == 0

        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new]}
        report = verification.verify(evidence_keys())
        assert (report.summary, report.rows) == ("", 2)

    def test_reauthenticate_keeps_the_hmac_of_a_modified_row_so_that_verify_reports_the_row(self, rows, settings):
        modified = rows(60)[0]
        IssuedToken.objects.filter(pk=modified.pk).update(user_agent="modified")
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

        # The HMAC of the row doesn't match, so only the HMAC of the names is recomputed.
        assert reauthentication.reauthenticate(evidence_keys()) == 1
        assert only_row(verification.verify(evidence_keys())) == modified.pk

    def test_reauthenticate_keeps_the_hmac_of_a_modified_name_so_that_verify_reports_the_name(self, rows, settings):
        modified = rows(9000)[0]
        seal(evidence_keys())
        IssuedToken.objects.filter(pk=modified.pk).update(user_name="grace")
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

        reauthentication.reauthenticate(evidence_keys())

        assert f"the user names in row {modified.pk}" in verification.verify(evidence_keys()).summary

    def test_verify_names_the_command_reseal_if_the_old_key_encryption_key_is_missing(self, rows, settings):
        rows(9000)
        seal(evidence_keys())
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        report = verification.verify(evidence_keys())

        assert "KEY_ENCRYPTION_KEYS" in report.summary
        assert "reseal" in report.summary

    def test_reauthenticate_recomputes_the_hmacs_of_more_rows_than_one_batch(self, rows, settings, monkeypatch):
        monkeypatch.setattr(reauthentication, "BATCH", 100)
        rows(*([60] * 203))
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

        assert reauthentication.reauthenticate(evidence_keys()) == 2 * 203
        keks = conf.key_encryption_keys[:1]
        for each in IssuedToken.objects.all():
            assert row_hmac.row_status(each, keks) is row_hmac.HmacStatus.AUTHENTIC
            assert names.names_status(each, keks) is row_hmac.HmacStatus.AUTHENTIC

    def test_reauthenticate_keeps_an_hmac_that_was_copied_from_another_checkpoint(self, audit, settings):
        copied = Checkpoint.objects.get(number=1).mac
        Checkpoint.objects.filter(number=2).update(mac=copied)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

        reauthentication.reauthenticate(evidence_keys())

        assert Checkpoint.objects.get(number=1).mac != copied
        assert Checkpoint.objects.get(number=2).mac == copied

    def test_reauthenticate_keeps_the_hmac_that_another_process_stores_at_the_same_time(self, audit, settings):
        changed: list[int] = []

        def change_first(execute: Any, sql: str, *args: Any) -> Any:
            if sql.startswith("UPDATE") and "instaccess_checkpoint" in sql and not changed:
                changed.append(1)
                Checkpoint.objects.filter(number=1).update(mac="changed")
            return execute(sql, *args)

        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}
        with connection.execute_wrapper(change_first):
            # The HMACs of checkpoint 2, of the three uncovered rows, and of the names in nine rows are recomputed.
            # The HMAC of checkpoint 1 isn't recomputed, because the other process has changed this HMAC.
            assert reauthentication.reauthenticate(evidence_keys()) == 13

        assert Checkpoint.objects.get(number=1).mac == "changed"
