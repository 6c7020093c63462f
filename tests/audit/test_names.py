"""Tests of the user names in audit rows: their recording, their HMAC, the search for names, and their erasure."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from instaccess import users
from instaccess.audit import names, revocation, row_hmac, rows
from instaccess.audit.evidence import verification
from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.evidence.report import Kind
from instaccess.audit.names import ERASED
from instaccess.audit.row_hmac import HmacStatus
from instaccess.conf import conf
from instaccess.issuer import issuing
from instaccess.keys import evidence_keys, keks_for_revocation
from instaccess.models import Checkpoint, IssuedToken
from tests.support.problems import only_row

pytestmark = pytest.mark.django_db

ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")
NOW = 1_795_448_096.0


@pytest.fixture
def grace(db):
    return get_user_model().objects.create_user("grace")


@pytest.fixture
def masquerade(row, user, grace):
    """Create the audit row of a token that grace got while she masqueraded as ada."""
    return row(real_user=grace, real_user_uuid=users.user_uuid(grace), age=9000)


def recorded(row: IssuedToken) -> tuple[str, str]:
    row.refresh_from_db()
    return row.user_name, row.real_user_name


def erase(user_uuid: str) -> int:
    return names.erase(user_uuid, keks=conf.key_encryption_keys, by="root (command line)")


class TestRecordingOfNames:
    def test_a13_audit_rows_still_contain_the_user_names_after_the_users_were_deleted(
        self, initial_keys, user, grace
    ):
        row, _ = issuing.issue(user=user, real_user=grace, origin=ORIGIN, now=NOW)
        user.delete()
        grace.delete()

        assert recorded(row) == ("ada", "grace")

    def test_a13_audit_row_contains_the_user_name_at_the_time_of_issue_after_the_user_was_renamed(
        self, initial_keys, user
    ):
        row, _ = issuing.issue(user=user, origin=ORIGIN, now=NOW)
        user.username = "lovelace"
        user.save()

        assert recorded(row) == ("ada", "")

    def test_audit_rows_contain_no_user_names_if_the_setting_audit_user_names_is_false(
        self, initial_keys, user, grace, settings
    ):
        settings.INSTACCESS = {"AUDIT_USER_NAMES": False}
        row, _ = issuing.issue(user=user, real_user=grace, origin=ORIGIN, now=NOW)

        assert recorded(row) == ("", "")
        assert row.user_uuid == users.user_uuid(user)
        assert verification.verify(evidence_keys()).summary == ""

    def test_filter_by_user_finds_a_long_user_name_that_was_shortened_in_the_audit_row(self, initial_keys, user):
        user.username = "ü" * 300
        row, _ = issuing.issue(user=user, origin=ORIGIN, now=NOW)

        assert recorded(row) == ("ü" * 255, "")
        assert list(rows.issued_tokens().filter(rows.filter_by_user("ü" * 300))) == [row]

    def test_recording_user_names_needs_no_additional_query(self, initial_keys, access_token, post):
        assert post(access_token).status_code == 201
        with CaptureQueriesContext(connection) as captured:
            assert post(access_token).status_code == 201

        statements = [item["sql"] for item in captured.captured_queries if "SAVEPOINT" not in item["sql"]]
        assert [sql.split()[0] for sql in statements] == ["SELECT", "INSERT"]
        assert set(IssuedToken.objects.values_list("user_name", flat=True)) == {"ada"}


class TestTheHmacOfTheNames:
    def test_hmac_of_the_user_names_matches_after_the_row_was_stored_and_loaded(self, row):
        assert names.names_status(IssuedToken.objects.get(pk=row().pk), conf.key_encryption_keys) is (
            HmacStatus.AUTHENTIC
        )

    @pytest.mark.parametrize("changes", [{"user_name": "grace"}, {"real_user_name": "ada"}, {"names_mac": ""}])
    def test_a6_verify_reports_a_row_whose_user_names_were_modified(self, initial_keys, row, changes):
        sealed, recent = row(age=9000), row()
        seal(evidence_keys())
        for modified in (recent, sealed):
            IssuedToken.objects.filter(pk=modified.pk).update(**changes)
            [problem] = verification.verify(evidence_keys()).problems

            assert (problem.kind, problem.first, problem.count) == (Kind.NAMES, modified.pk, 1)
            assert problem.text == f"the user names in row {modified.pk} (jti {modified.jti}) were modified"
            IssuedToken.objects.filter(pk=modified.pk).delete()

    def test_a6_verify_reports_a_row_whose_user_names_and_hmac_were_copied_from_another_row(
        self, initial_keys, row, user, grace
    ):
        hers = row(user=grace, user_uuid=users.user_uuid(grace))
        other = row()
        IssuedToken.objects.filter(pk=other.pk).update(user_name="grace", names_mac=hers.names_mac)

        assert only_row(verification.verify(evidence_keys())) == other.pk

    def test_hmac_of_a_row_is_not_valid_as_the_hmac_of_its_user_names(self, row):
        made = row()
        made.names_mac = made.mac

        assert names.names_status(made, conf.key_encryption_keys) is HmacStatus.BROKEN

    def test_verify_names_the_command_reseal_if_the_key_encryption_key_of_user_names_is_missing(
        self, initial_keys, row, settings
    ):
        made = row()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        texts = {problem.kind: problem.text for problem in verification.verify(evidence_keys()).problems}

        assert texts[Kind.NAMES].startswith(f"the user names in row {made.pk} (jti {made.jti}) can't be checked")
        assert "instaccess_keys reseal" in texts[Kind.NAMES]

    def test_hmac_of_the_user_names_still_matches_after_a_revocation(self, row):
        made = row()
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost")

        made.refresh_from_db()
        assert names.names_status(made, conf.key_encryption_keys) is HmacStatus.AUTHENTIC

    def test_canonical_bytes_of_user_names_never_change(self):
        made = IssuedToken(jti=uuid.UUID(int=1), user_name="ü", real_user_name="b")

        assert names.canonical_bytes(made) == (
            rb'["instaccess audit names 1","00000000000000000000000000000001","\u00fc","b"]'
        )


class TestFilterByUser:
    def test_a13_filter_by_user_matches_the_name_of_a_deleted_subject_or_real_user(
        self, masquerade, row, user, grace
    ):
        own = row()
        user.delete()
        grace.delete()

        assert set(rows.issued_tokens().filter(rows.filter_by_user("ada"))) == {own, masquerade}
        assert set(rows.issued_tokens().filter(rows.filter_by_user("grace"))) == {masquerade}

    def test_filter_by_user_matches_the_current_and_the_earlier_name_of_a_user(self, row, user):
        made = row()
        user.username = "lovelace"
        user.save()

        for name in ("ada", "lovelace"):
            assert list(rows.issued_tokens().filter(rows.filter_by_user(name))) == [made]


class TestErase:
    def test_erase_replaces_the_name_of_one_user_in_every_row_and_keeps_other_names(
        self, masquerade, row, user, grace
    ):
        hers = row(user=grace, user_uuid=users.user_uuid(grace))
        own = row()

        assert erase(users.user_uuid(grace)) == 2
        assert recorded(masquerade) == ("ada", ERASED)
        assert recorded(hers) == (ERASED, "")
        assert recorded(own) == ("ada", "")

    def test_erase_replaces_every_name_that_the_user_ever_had(self, row, user):
        earlier, later = row(user_name="ada"), row(user_name="lovelace")

        assert erase(users.user_uuid(user)) == 2
        assert recorded(earlier) == recorded(later) == (ERASED, "")

    def test_verify_finds_no_problem_after_an_erasure_in_covered_and_uncovered_rows(
        self, initial_keys, masquerade, row, user
    ):
        row()
        seal(evidence_keys())
        before = list(Checkpoint.objects.values())
        macs = set(IssuedToken.objects.values_list("mac", flat=True))

        erase(users.user_uuid(user))

        report = verification.verify(evidence_keys())
        assert (report.summary, report.rows, report.sealed) == ("", 2, 1)
        assert list(Checkpoint.objects.values()) == before
        assert set(IssuedToken.objects.values_list("mac", flat=True)) == macs

    def test_verify_reports_a_row_in_which_an_attacker_erased_a_name(self, initial_keys, row):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(user_name=ERASED)

        assert only_row(verification.verify(evidence_keys())) == made.pk

    def test_erase_keeps_the_hmac_of_a_modified_name_so_that_verify_reports_the_row(
        self, initial_keys, row, user, caplog
    ):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(user_name="mallory")

        assert erase(users.user_uuid(user)) == 1
        assert recorded(made) == (ERASED, "")
        assert only_row(verification.verify(evidence_keys())) == made.pk
        assert f"[{made.pk}]" in caplog.text

    def test_erase_replaces_the_name_even_if_the_key_encryption_key_of_the_hmac_is_missing(self, row, user, settings):
        made = row()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        assert erase(users.user_uuid(user)) == 1
        assert recorded(made) == (ERASED, "")
        assert names.names_status(made, conf.key_encryption_keys) is HmacStatus.UNKNOWN

    def test_erase_logs_the_uuid_and_the_operator_but_not_the_name(self, row, user, caplog):
        row()
        user_uuid = users.user_uuid(user)
        erase(user_uuid)

        [line] = [record.getMessage() for record in caplog.records if record.name == "instaccess.audit"]
        assert line == f"user name erased: user_uuid={user_uuid!r} rows=1 by='root (command line)'"

    def test_erase_changes_nothing_if_the_name_is_already_erased(self, row, user):
        row()

        assert erase(users.user_uuid(user)) == 1
        assert erase(users.user_uuid(user)) == 0

    def test_erase_replaces_names_in_batches_with_one_update_per_batch(self, row, user, monkeypatch):
        monkeypatch.setattr(names, "BATCH", 2)
        for _ in range(5):
            row()
        updates: list[str] = []

        def record(execute: Any, sql: str, *args: Any) -> Any:
            updates.extend([sql] if sql.startswith("UPDATE") else [])
            return execute(sql, *args)

        with connection.execute_wrapper(record):
            assert erase(users.user_uuid(user)) == 5
        assert len(updates) == 3
        assert {names.names_status(each, conf.key_encryption_keys) for each in IssuedToken.objects.all()} == {
            HmacStatus.AUTHENTIC
        }

    def test_erase_replaces_the_name_in_a_row_that_another_process_changes_at_the_same_time(
        self, row, user, settings, monkeypatch
    ):
        made = row()
        monkeypatch.setattr(names, "BATCH", 1)
        interrupted = []
        load = row_hmac.load

        def reseal_meanwhile(rows: Any) -> Any:
            result = load(rows)
            if not interrupted:
                interrupted.append(True)
                renewed = row_hmac.authenticate(names.canonical_bytes(made), conf.key_encryption_keys[:1])
                IssuedToken.objects.filter(pk=made.pk).update(names_mac=renewed)
            return result

        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}
        monkeypatch.setattr(row_hmac, "load", reseal_meanwhile)

        assert erase(users.user_uuid(user)) == 1
        assert recorded(made) == (ERASED, "")
        assert names.names_status(made, conf.key_encryption_keys[:1]) is HmacStatus.AUTHENTIC


class TestFindUuids:
    def test_find_uuids_finds_a_user_by_uuid_name_and_primary_key(self, row, user):
        row()
        user_uuid = users.user_uuid(user)

        for text in (user_uuid, "ada", str(user.pk)):
            assert names.find_uuids(text) == {user_uuid}

    def test_find_uuids_finds_a_deleted_user_by_uuid_and_name(self, masquerade, grace):
        user_uuid = users.user_uuid(grace)
        grace.delete()

        for text in (user_uuid, "grace"):
            assert names.find_uuids(text) == {user_uuid}

    def test_find_uuids_finds_both_users_with_the_same_name(self, row, user):
        first = row()
        user.delete()
        again = get_user_model().objects.create_user("ada")
        second = row(user=again, user_uuid=users.user_uuid(again))

        assert names.find_uuids("ada") == {first.user_uuid, second.user_uuid}

    @pytest.mark.parametrize("text", ["nobody", "", "ADA", "adá", "%", "0", "a" * 5000, "\N{FACE SCREAMING IN FEAR}"])
    def test_find_uuids_finds_no_user_for_a_text_that_matches_no_name_uuid_or_primary_key(self, row, text):
        row()

        assert names.find_uuids(text) == set()
