"""Tests of case A6: `verify` detects modifications of the audit log, and reports the affected rows."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from jwcrypto.common import base64url_encode

from instaccess.audit import revocation, row_hmac, rows
from instaccess.audit.evidence import checkpoint_index, checkpoints, reauthentication, signatures, verification
from instaccess.audit.evidence.pruning import prune
from instaccess.conf import conf
from instaccess.exceptions import AuditAltered, Reason
from instaccess.keys import evidence_keys, keks_for_revocation, ring
from instaccess.models import Checkpoint, IssuedToken, PruneMarker, UserIdentity
from instaccess.tokens import jose
from tests.support.problems import only_problem, only_row

from .conftest import DAY, NOON

pytestmark = pytest.mark.django_db


def modify(row: IssuedToken, **columns: Any) -> None:
    assert IssuedToken.objects.filter(pk=row.pk).update(**columns) == 1


def copies() -> list[checkpoint_index.Exported]:
    """Export all current checkpoints. Returns the exported copies."""
    return [
        checkpoint_index.read_exported(
            checkpoint_index.export_checkpoint(checkpoint), evidence_keys(), name=f"{checkpoint.number}.json"
        )
        for checkpoint in Checkpoint.objects.all()
    ]


class TestVerifyWithoutAModification:
    def test_a6_verify_finds_no_problem_in_an_unmodified_audit_log(self, audit):
        report = verification.verify(evidence_keys(), copies())

        assert (report.problems, report.more, report.notes) == ([], 0, [])
        assert (report.rows, report.sealed, report.checkpoints) == (9, 6, 2)
        assert report.last is not None
        assert report.last.number == 2

    def test_a6_verify_finds_no_problem_after_tokens_were_revoked(self, audit, user):
        assert (
            revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost", by=user) == 3
        )

        assert verification.verify(evidence_keys()).problems == []

    def test_a6_verify_finds_no_problem_after_users_and_applications_were_deleted(self, audit, user, application):
        application.delete()
        user.delete()

        assert verification.verify(evidence_keys()).problems == []

    def test_a6_verify_does_not_report_gaps_between_the_ids_of_uncovered_rows(self, audit, row, time_machine):
        row().delete()
        row()
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())

        assert verification.verify(evidence_keys()).problems == []

    def test_a6_verify_finds_no_problem_in_an_empty_audit_log(self, initial_keys):
        assert verification.verify(evidence_keys()) == verification.Report()


class TestVerifyWithAModifiedRow:
    @pytest.mark.parametrize("place", [0, 4, 8], ids=["covered first", "covered", "not covered"])
    @pytest.mark.parametrize(
        "columns",
        [
            {"user_uuid": "another user"},
            {"ip_address": None},
            {"issued_at": NOON},
            {"revoked_at": NOON},
            {"jti": uuid.UUID(int=7)},
            {"user_agent": "\N{SNOWMAN}"},
        ],
        ids=lambda columns: next(iter(columns)),
    )
    def test_a6_verify_reports_a_modified_row(self, audit, place, columns):
        modify(audit[place], **columns)

        report = verification.verify(evidence_keys())

        assert only_row(report) == audit[place].pk
        assert "was modified" in report.summary
        assert (report.rows, report.sealed) == (9, 6)

    @pytest.mark.parametrize("mac", ["", "x", "unknown.abc"])
    def test_a6_verify_reports_an_invalid_hmac_unless_its_key_is_missing_and_the_row_is_covered(self, audit, mac):
        modify(audit[8], mac=mac)
        assert only_row(verification.verify(evidence_keys())) == audit[8].pk

        modify(audit[8], mac=audit[8].mac)
        modify(audit[1], mac=mac)
        # The key id `unknown` simulates a missing key-encryption key. Without this key, the HMAC can't be checked. A
        # covered row isn't reported, because the checkpoint proves the contents of the row.
        named = [problem.first for problem in verification.verify(evidence_keys()).problems]
        assert named == ([] if mac == "unknown.abc" else [audit[1].pk])

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 5])
    def test_a6_verify_reports_a_covered_row_that_was_deleted(self, audit, place):
        deleted = audit[place].pk
        audit[place].delete()

        report = verification.verify(evidence_keys())

        assert only_row(report) == deleted
        assert report.summary == f"row {deleted} was deleted"

    def test_a6_verify_reports_a_row_that_was_restored_to_its_state_before_the_revocation(self, audit, time_machine):
        before = audit[7]
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost")
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())
        modify(before, revoked_at=None, revocation_reason="", mac=before.mac)

        report = verification.verify(evidence_keys())

        assert (only_row(report), "was replaced" in report.summary) == (before.pk, True)

    @pytest.mark.parametrize("place", ["between", "after", "below"])
    def test_a6_verify_reports_an_added_row(self, audit, place):
        forged = audit[0]
        known = set(IssuedToken.objects.values_list("pk", flat=True))
        if place == "between":
            audit[1].delete()
            checkpointed = sorted(known)[1]
        else:
            checkpointed = {"after": max(known) + 1, "below": -1}[place]
        forged.pk, forged.jti = checkpointed, uuid.uuid4()
        forged.save(force_insert=True)

        report = verification.verify(evidence_keys())

        assert only_row(report) == checkpointed

    def test_a6_verify_reports_an_authentic_row_that_was_added_between_covered_rows(self, row, audit, time_machine):
        # Simulate an issuer whose clock is three days slow, or an attacker who has the key-encryption key.
        added = row(age=3 * DAY - 1)

        report = verification.verify(evidence_keys())

        assert only_row(report) == added.pk
        assert "was added after checkpoint 1 was created, but its HMAC matches" in report.summary

    def test_a6_verify_reports_a_row_whose_foreign_key_refers_to_another_user(self, audit, django_user_model):
        mallory = django_user_model.objects.create_user("mallory")
        UserIdentity.objects.create(user=mallory)
        modify(audit[4], user=mallory)

        report = verification.verify(evidence_keys())

        assert only_row(report) == audit[4].pk
        assert f"refers to user {mallory.pk} instead of the user with the uuid {audit[4].user_uuid}" in report.summary

    def test_a6_verify_reports_a_row_that_was_modified_before_a_checkpoint_covered_the_row(self, audit, time_machine):
        modify(audit[6], user_agent="modified")
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())

        report = verification.verify(evidence_keys())

        assert only_row(report) == audit[6].pk
        assert "was modified before checkpoint 3 was created" in report.summary


class TestVerifyWithATruncatedAuditLog:
    def test_a6_verify_reports_the_deleted_rows_of_a_truncated_audit_log(self, audit):
        IssuedToken.objects.filter(pk__gte=audit[4].pk).delete()

        problem = only_problem(verification.verify(evidence_keys()))

        assert (problem.first, problem.last, problem.count) == (audit[4].pk, audit[5].pk, 2)
        assert problem.text.startswith("the audit log was truncated: 2 rows, ")

    def test_a6_verify_with_an_exported_copy_finds_rows_that_were_deleted_with_their_checkpoint(self, audit):
        kept = copies()
        IssuedToken.objects.filter(pk__gte=audit[3].pk).delete()
        Checkpoint.objects.filter(number=2).delete()

        assert verification.verify(evidence_keys()).problems == []
        checkpoint, deleted = verification.verify(evidence_keys(), kept).problems
        assert checkpoint.text == "checkpoint 2 was deleted, but an exported copy exists"
        assert (deleted.first, deleted.last, deleted.count) == (audit[3].pk, audit[5].pk, 3)
        assert "truncated" in deleted.text

    def test_a6_verify_with_an_exported_copy_finds_that_the_last_checkpoint_was_deleted(self, audit):
        kept = copies()
        Checkpoint.objects.filter(number=2).delete()

        report = verification.verify(evidence_keys(), kept)

        assert report.summary == "checkpoint 2 was deleted, but an exported copy exists"
        [note] = report.notes
        assert note.startswith(
            "the database is older than the exported checkpoint 2 of 2026-03-02 12:00:00 UTC: if the database was "
        )

    def test_a6_verify_adds_a_note_if_no_checkpoint_covers_an_old_row(self, row, initial_keys):
        row(age=3 * DAY)

        report = verification.verify(evidence_keys())

        assert report.problems == []
        assert "instaccess_tokens seal" in report.notes[0]


class TestVerifyWithAModifiedCheckpoint:
    def test_a6_verify_reports_a_missing_checkpoint(self, audit):
        Checkpoint.objects.filter(number=1).delete()

        assert "a checkpoint is missing: checkpoint 2" in verification.verify(evidence_keys()).summary

    def test_a6_verify_reports_how_many_checkpoints_are_missing(self, audit, time_machine):
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())
        Checkpoint.objects.filter(number__lt=3).delete()

        [problem] = verification.verify(evidence_keys()).problems
        assert problem.text == (
            "2 checkpoints are missing: checkpoint 3 doesn't follow the beginning of the audit log"
        )

    @pytest.mark.parametrize("column", ["jws", "index", "mac"])
    def test_a6_verify_reports_a_modified_checkpoint(self, audit, column):
        first, second = Checkpoint.objects.all()
        setattr(first, column, getattr(second, column))
        first.save()

        assert verification.verify(evidence_keys()).summary.startswith("checkpoint 1 was modified")

    def test_a6_verify_reports_swapped_checkpoints(self, audit):
        Checkpoint.objects.filter(number=1).update(number=9)
        Checkpoint.objects.filter(number=2).update(number=1)

        assert [problem.text for problem in verification.verify(evidence_keys()).problems] == [
            "checkpoint 1 was modified: its signed number is 2",
            "checkpoint 9 was modified: its signed number is 1",
        ]


class TestVerifyWithAnAttackerWhoHasAllKeys:
    """Tests with an attacker who can compute HMACs and sign checkpoints. Only exported copies reveal the changes."""

    @pytest.fixture
    def forge(self) -> Callable[[IssuedToken, str], None]:
        def rewrite(row: IssuedToken, agent: str) -> None:
            row.user_agent = agent
            row.mac = row_hmac.authenticate(row_hmac.canonical_bytes(row), conf.key_encryption_keys)
            row.save()
            Checkpoint.objects.all().delete()
            checkpoints.seal(evidence_keys())

        return rewrite

    def test_a6_verify_without_an_exported_copy_finds_no_change_by_an_attacker_with_all_keys(self, audit, forge):
        forge(audit[4], "modified")

        assert verification.verify(evidence_keys()).problems == []

    def test_a6_verify_with_an_exported_copy_reports_a_row_that_an_attacker_with_all_keys_changed(self, audit, forge):
        kept = copies()
        forge(audit[4], "modified")

        checkpoint, modified = verification.verify(evidence_keys(), kept[1:]).problems
        assert checkpoint.text == "checkpoint 2 differs from its exported copy"
        assert (modified.first, modified.count) == (audit[4].pk, 1)

    def test_a6_verify_with_a_copy_of_only_a_later_checkpoint_reports_the_difference_but_no_row(self, audit, forge):
        kept = copies()
        # `verify` must report every checkpoint with a different digest. Forge eight checkpoints, so that some digests
        # are less than the original digest and some are greater.
        for number in range(8):
            forge(audit[1], f"modified {number}")

            differs, replaced = verification.verify(evidence_keys(), kept[1:]).problems

            assert differs.text == "checkpoint 2 differs from its exported copy"
            assert "an exported copy of an earlier checkpoint" in replaced.text
        assert audit[1].pk in [problem.first for problem in verification.verify(evidence_keys(), kept).problems]

    def test_a6_verify_with_exported_copies_reports_checkpoints_that_were_created_again(self, audit, time_machine):
        kept = copies()
        time_machine.shift(60)
        Checkpoint.objects.all().delete()
        checkpoints.seal(evidence_keys())

        assert [problem.text for problem in verification.verify(evidence_keys(), kept).problems] == [
            "checkpoint 1 differs from its exported copy",
            "checkpoint 2 differs from its exported copy",
        ]


class TestReadExported:
    @pytest.mark.parametrize(
        "text",
        [
            *("", "[]", "{}", "null", "[" * 100_000),
            '{"format": "instaccess checkpoint 1", "jws": 1, "index": ""}',
            '{"format": "instaccess checkpoint 0", "jws": "", "index": ""}',
            '{"format": "instaccess checkpoint 2", "jws": "", "index": ""}',
        ],
    )
    def test_read_exported_refuses_text_that_is_not_an_exported_checkpoint(self, initial_keys, text):
        with pytest.raises(AuditAltered, match=r"kept\.json isn't an exported checkpoint"):
            checkpoint_index.read_exported(text, evidence_keys(), name="kept.json")

    def test_read_exported_refuses_a_copy_whose_signature_was_modified(self, audit):
        document = json.loads(checkpoint_index.export_checkpoint(Checkpoint.objects.first()))
        header, payload, signature = document["jws"].split(".")
        document["jws"] = ".".join([header, payload, signature[:-4] + "AAAA"])

        with pytest.raises(
            AuditAltered, match=r"kept\.json was modified: its signature is invalid \(no key verifies"
        ):
            checkpoint_index.read_exported(json.dumps(document), evidence_keys(), name="kept.json")

    def test_read_exported_refuses_a_copy_whose_index_was_modified(self, audit):
        document = json.loads(checkpoint_index.export_checkpoint(Checkpoint.objects.first()))
        # `read_exported` must refuse every index with a different digest. Try eight indexes, so that some digests are
        # less than the signed digest and some are greater.
        for number in range(8):
            modified = json.dumps(document | {"index": f"{document['index']}\n{number} 00000000"})
            with pytest.raises(AuditAltered, match="its index doesn't match"):
                checkpoint_index.read_exported(modified, evidence_keys(), name="kept.json")

    def test_read_exported_explains_why_a_copy_signed_with_an_unknown_key_cannot_be_compared(self, audit):
        text = checkpoint_index.export_checkpoint(Checkpoint.objects.first())
        keys = dataclasses.replace(evidence_keys(), verification={})

        with pytest.raises(AuditAltered, match="the database doesn't contain its signing key") as raised:
            checkpoint_index.read_exported(text, keys, name="kept.json")
        assert raised.value.code == Reason.UNKNOWN_KID


class TestVerifyAfterPruning:
    def test_a6_verify_continues_the_chain_from_the_prune_marker(self, audit):
        kept = copies()
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())

        report = verification.verify(evidence_keys(), kept)

        assert (report.summary, report.notes, report.rows, report.checkpoints) == ("", [], 6, 1)
        assert report.pruned is not None
        assert (report.pruned.number, report.pruned.rows) == (1, 3)

    @pytest.mark.parametrize("place", [3, 8])
    def test_a6_verify_reports_a_modified_row_among_the_rows_that_remain_after_pruning(self, audit, place):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        modify(audit[place], user_agent="modified")

        assert only_row(verification.verify(evidence_keys())) == audit[place].pk

    def test_a6_verify_reports_rows_that_were_deleted_without_a_prune_marker(self, audit):
        IssuedToken.objects.filter(pk__lte=audit[2].pk).delete()
        Checkpoint.objects.filter(number=1).delete()

        report = verification.verify(evidence_keys())

        assert "a checkpoint is missing" in report.summary

    def test_a6_verify_reports_a_forged_prune_marker(self, audit, rsa_pool):
        theirs = rsa_pool.take_private("sig")
        signed = jose.sign(b"{}", theirs, kid=ring.current_ring().signing_key().kid, typ=signatures.MARKER)
        kek_id = audit[0].mac.partition(".")[0]
        PruneMarker.objects.create(number=1, jws=signed, mac=f"{kek_id}.guessed")

        assert verification.verify(evidence_keys()).summary == "prune marker 1 was modified: its HMAC doesn't match"

    def test_a6_verify_reports_a_pruned_row_that_was_restored_and_modified(self, audit):
        ghost = audit[0]
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        ghost.user_agent = "modified"
        ghost.save(force_insert=True)

        report = verification.verify(evidence_keys())

        assert only_row(report) == ghost.pk
        assert "was added with an id that new rows can't have" in report.summary

    def test_a6_verify_reports_missing_checkpoints_if_the_prune_marker_was_deleted(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        PruneMarker.objects.all().delete()

        assert "missing" in verification.verify(evidence_keys()).summary

    def test_a6_verify_compares_a_copy_of_the_last_pruned_checkpoint_with_the_prune_marker(self, audit):
        kept = copies()
        prune(NOON - timedelta(days=1), evidence_keys())
        for some in (kept, kept[:1]):
            report = verification.verify(evidence_keys(), some)
            assert report.problems == []
            assert report.notes == ["checkpoint 1 was pruned, so its exported copy can't be compared"]

        for digest in ("0" * 64, "f" * 64):
            statement = dataclasses.replace(kept[1].statement, digest=digest)
            changed = checkpoint_index.Exported(statement, kept[1].jws, kept[1].index)
            assert "differs from its exported copy" in verification.verify(evidence_keys(), [changed]).summary


def test_a6_digest_of_a_checkpoint_is_computed_as_documented(row: Any, initial_keys: Any, time_machine: Any) -> None:
    """Compute the digest as an auditor does: the SHA-256 of the previous checkpoint's digest, LF and the index."""
    time_machine.move_to(NOON, tick=False)
    made = [row(age=3 * DAY), row(age=2 * DAY)]
    checkpoints.seal(evidence_keys())

    digest = ""
    for each, checkpoint in zip(made, Checkpoint.objects.all(), strict=True):
        row_digest = base64url_encode(hashlib.sha256(row_hmac.canonical_bytes(each)).digest())
        digest = hashlib.sha256(f"{digest}\n{each.pk} {row_digest}".encode()).hexdigest()
        assert signatures.read_checkpoint(checkpoint, evidence_keys()).digest == digest


def write(row: IssuedToken, column: str, value: Any) -> None:
    """Store a value in an audit row without Django's conversion, like an attacker with a database shell."""
    with connection.cursor() as cursor:
        lenient = "SET STATEMENT sql_mode = '' FOR " if connection.vendor == "mysql" else ""
        cursor.execute(f"{lenient}UPDATE instaccess_issuedtoken SET {column} = %s WHERE id = %s", [value, row.pk])


_ZERO = "0000-00-00 00:00:00"
# Each database can store these values in these columns, but Django can't read the values.
UNREADABLE = {
    "sqlite": [
        *(("issued_at", "never"), ("expires_at", "never"), ("expires_at", 5), ("revoked_at", "")),
        *(("jti", "no uuid"), ("jti", b"\x00")),
    ],
    "postgresql": [("issued_at", "infinity"), ("expires_at", "20000-01-01")],
    "mysql": [("issued_at", _ZERO), ("revoked_at", _ZERO)],
}
ODD = {
    "sqlite": [("ip_address", "nowhere"), ("ip_address", b"\xc0\x00\x02\x07"), ("user_agent", b"\x00"), ("mac", b"")],
    "postgresql": [("ip_address", "192.0.2.7/24")],
    "mysql": [("ip_address", "nowhere"), ("ip_address", "192.0.2.007")],
}


class TestRowsWithInvalidValues:
    @pytest.mark.parametrize("place", [0, 8], ids=["covered", "not covered"])
    def test_a6_verify_reports_a_row_with_an_invalid_value_and_the_tokens_of_other_rows_can_be_revoked(
        self, audit, place
    ):
        for column, value in [*UNREADABLE[connection.vendor], *ODD[connection.vendor]]:
            with transaction.atomic():
                write(audit[place], column, value)

                report = verification.verify(evidence_keys())

                assert only_row(report) == audit[place].pk, (column, value)
                assert "was modified" in report.summary, (column, value)
                unreadable = (column, value) in UNREADABLE[connection.vendor]
                assert (report.problems[0].kind == "unreadable") is unreadable, (column, value)
                reauthentication.reauthenticate(evidence_keys())
                assert (
                    revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost") >= 2
                )
                still_live = rows.revocable_tokens().exclude(pk=audit[place].pk)
                assert not still_live.exists()
                transaction.set_rollback(True)

    def test_a6_seal_covers_an_unreadable_row_and_marks_the_row_as_modified(self, audit, time_machine):
        time_machine.shift(2 * 3600)
        for column, value in UNREADABLE[connection.vendor]:
            with transaction.atomic():
                write(audit[7], column, value)
                (made,) = checkpoints.seal(evidence_keys()).made
                assert (made.rows, made.altered) == (3, 1), (column, value)
                assert only_row(verification.verify(evidence_keys())) == audit[7].pk, (column, value)
                transaction.set_rollback(True)

    def test_a6_seal_marks_a_readable_row_with_an_invalid_value_as_modified(self, audit, time_machine):
        time_machine.shift(2 * 3600)
        for column, value in ODD[connection.vendor]:
            with transaction.atomic():
                write(audit[7], column, value)
                assert sum(made.altered for made in checkpoints.seal(evidence_keys()).made) == 1, (column, value)
                transaction.set_rollback(True)

    def test_a6_verify_reports_a_row_if_a_zone_was_added_to_its_ipv6_address(self, row, audit):
        made = row(ip_address="2001:db8::7")
        if connection.vendor != "postgresql":  # PostgreSQL refuses an address with a zone.
            write(made, "ip_address", "2001:db8::7%zone")
            assert only_row(verification.verify(evidence_keys())) == made.pk

    @pytest.mark.parametrize("column", ["jws", "mac", "index"])
    def test_a6_verify_reports_a_checkpoint_with_an_invalid_value(self, audit, column):
        with connection.cursor() as cursor:
            value = b"\x00\xff" if connection.vendor == "sqlite" else "\N{SNOWMAN}"
            name = connection.ops.quote_name(column)
            cursor.execute(f"UPDATE instaccess_checkpoint SET {name} = %s WHERE number = 1", [value])

        assert verification.verify(evidence_keys()).summary == "checkpoint 1 was modified: its HMAC doesn't match"
        assert reauthentication.reauthenticate(evidence_keys()) == 0


class TestStatementsOfAnotherVersion:
    @pytest.mark.parametrize("payload", [{}, {"number": 1}, {"surplus": 1}, {"number": "1"}, {"rows": True}])
    def test_read_exported_refuses_a_checkpoint_with_missing_unknown_or_wrongly_typed_members(self, audit, payload):
        complete = dataclasses.asdict(copies()[0].statement)
        members = {**complete, **payload} if payload and payload != {"number": 1} else payload
        key = ring.current_ring().signing_key()
        signed = jose.sign(json.dumps(members).encode(), key.private(), kid=key.kid, typ=signatures.CHECKPOINT)
        text = json.dumps({"format": "instaccess checkpoint 1", "jws": signed, "index": ""})

        with pytest.raises(AuditAltered, match=r"old\.json can't be read"):
            checkpoint_index.read_exported(text, evidence_keys(), name="old.json")


class TestVerifyWithRowsAmongThePrunedIds:
    @pytest.fixture
    def pruned(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        return audit

    def test_a6_verify_reports_a_row_with_a_pruned_id_and_an_unknown_key_encryption_key(self, pruned):
        ghost = pruned[0]
        ghost.user_agent, ghost.mac = "modified", "unknown.abc"
        ghost.save(force_insert=True)

        assert only_row(verification.verify(evidence_keys())) == ghost.pk

    def test_a11_verify_reports_a_new_row_that_was_moved_to_a_pruned_id(self, pruned):
        modify(pruned[8], id=pruned[1].pk)

        report = verification.verify(evidence_keys())

        assert only_row(report) == pruned[1].pk
        assert "with an id that new rows can't have" in report.summary
        assert f"the token was issued with the id {pruned[8].pk}" in report.summary

    def test_a11_verify_reports_a_pruned_row_that_was_restored_with_a_new_id(self, pruned):
        ghost, original = pruned[0], pruned[0].pk
        ghost.pk = pruned[8].pk + 1
        prune(NOON - timedelta(days=1), evidence_keys())
        ghost.save(force_insert=True)

        report = verification.verify(evidence_keys())

        assert only_row(report) == ghost.pk
        assert f"the token was issued with the id {original}" in report.summary


def test_verify_adds_a_note_but_no_problem_if_the_setting_user_uuid_field_was_changed(
    row: Any, user: Any, initial_keys: Any
) -> None:
    row(user_uuid="from-a-field")
    UserIdentity.objects.get_or_create(user=user)

    report = verification.verify(evidence_keys())

    assert report.problems == []
    assert "USER_UUID_FIELD" in report.notes[0]


def test_a6_verify_finds_no_problem_after_a_missing_key_encryption_key_was_added_again(
    row: Any, initial_keys: Any, time_machine: Any, settings: Any
) -> None:
    """Remove a key-encryption key from the settings too early, and add the key again."""
    time_machine.move_to(NOON, tick=False)
    lost = base64.urlsafe_b64encode(b"k" * 32).decode()
    keks = [base64.urlsafe_b64encode(kek.reveal()).decode() for kek in conf.key_encryption_keys]
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [lost, *keks]}
    made = row(age=2 * 3600)
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": keks}
    checkpoints.seal(evidence_keys())
    assert "Add this key-encryption key again" in verification.verify(evidence_keys()).summary

    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [*keks, lost]}
    assert verification.verify(evidence_keys()).problems == []
    modify(made, user_agent="modified")
    assert only_row(verification.verify(evidence_keys())) == made.pk
