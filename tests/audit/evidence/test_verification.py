"""A6: what was done to the audit is found, and the first row it was done to is named."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F

from instaccess.audit import revocation, row_hmac, rows
from instaccess.audit.evidence import checkpoints, statements, verification
from instaccess.audit.evidence.pruning import prune
from instaccess.conf import conf
from instaccess.exceptions import AuditAltered
from instaccess.keys import evidence_keys, keks_for_revocation, ring
from instaccess.models import Checkpoint, IssuedToken, PruneMarker, UserIdentity
from instaccess.tokens import jose

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAY = 86_400


@pytest.fixture
def audit(row, initial_keys, time_machine) -> list[IssuedToken]:
    """Nine rows: three under checkpoint 1, three under 2, three that are not sealed yet."""
    time_machine.move_to(NOON, tick=False)
    ages = (3 * DAY, 3 * DAY - 1, 3 * DAY - 2, 2 * DAY, 2 * DAY - 1, 2 * DAY - 2, 60, 50, 40)
    made = [row(age=age) for age in ages]
    checkpoints.seal(evidence_keys())
    assert Checkpoint.objects.count() == 2
    return made


def edit(row: IssuedToken, **columns: Any) -> None:
    assert IssuedToken.objects.filter(pk=row.pk).update(**columns) == 1


def copies() -> list[statements.Exported]:
    """Every checkpoint as it is now, taken off the machine."""
    return [
        statements.read_exported(
            statements.export_checkpoint(checkpoint), evidence_keys(), name=f"{checkpoint.number}.json"
        )
        for checkpoint in Checkpoint.objects.all()
    ]


class TestAnUntouchedAudit:
    def test_a6_is_as_it_was_written(self, audit):
        report = verification.verify(evidence_keys(), copies())

        assert (report.broken, report.row, report.notes) == ("", None, [])
        assert (report.rows, report.sealed, report.checkpoints) == (9, 6, 2)
        assert report.last is not None
        assert report.last.number == 2

    def test_a6_stays_so_when_tokens_are_revoked(self, audit, user):
        assert (
            revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost", by=user) == 3
        )

        assert verification.verify(evidence_keys()).broken == ""

    def test_a6_stays_so_when_users_and_applications_are_deleted(self, audit, user, application):
        application.delete()
        user.delete()

        assert verification.verify(evidence_keys()).broken == ""

    def test_a6_may_have_gaps_where_an_insert_was_refused(self, audit, row, time_machine):
        row().delete()
        row()
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())

        assert verification.verify(evidence_keys()).broken == ""

    def test_a6_may_be_empty(self, initial_keys):
        assert verification.verify(evidence_keys()) == verification.Report()


class TestARow:
    @pytest.mark.parametrize("place", [0, 4, 8], ids=["sealed first", "sealed", "not sealed"])
    @pytest.mark.parametrize(
        "columns",
        [
            {"user_uuid": "somebody else"},
            {"ip_address": None},
            {"issued_at": NOON},
            {"revoked_at": NOON},
            {"jti": uuid.UUID(int=7)},
            {"user_agent": "\N{SNOWMAN}"},
        ],
        ids=lambda columns: next(iter(columns)),
    )
    def test_a6_that_was_edited_is_named(self, audit, place, columns):
        edit(audit[place], **columns)

        report = verification.verify(evidence_keys())

        assert report.row == audit[place].pk
        assert "was edited" in report.broken

    def test_a6_the_first_of_several_is_named(self, audit):
        for place in (5, 7, 3):
            edit(audit[place], user_agent="nobody")

        assert verification.verify(evidence_keys()).row == audit[3].pk

    @pytest.mark.parametrize("mac", ["", "x", "unknown.abc"])
    def test_a6_whose_hmac_was_taken_away_is_named_unless_its_checkpoint_stands_for_it(self, audit, mac):
        edit(audit[8], mac=mac)
        assert verification.verify(evidence_keys()).row == audit[8].pk

        edit(audit[8], mac=audit[8].mac)
        edit(audit[1], mac=mac)
        # Under a key-encryption key that was since replaced: nothing to see in a sealed row.
        assert verification.verify(evidence_keys()).row == (None if mac == "unknown.abc" else audit[1].pk)

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 5])
    def test_a6_that_was_deleted_is_named(self, audit, place):
        gone = audit[place].pk
        audit[place].delete()

        report = verification.verify(evidence_keys())

        assert report.row == gone
        assert "was deleted" in report.broken

    def test_a6_of_two_that_changed_places_the_first_is_named(self, audit):
        first, second = audit[0], audit[2]
        edit(first, id=F("id") + 1_000_000)
        edit(second, id=first.pk)
        IssuedToken.objects.filter(pk=first.pk + 1_000_000).update(id=second.pk)

        report = verification.verify(evidence_keys())

        assert report.row == first.pk
        assert "moved" in report.broken

    def test_a6_that_was_put_back_as_it_was_before_its_token_was_revoked_is_named(self, audit, time_machine):
        before = audit[7]
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost")
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())
        edit(before, revoked_at=None, revocation_reason="", mac=before.mac)

        report = verification.verify(evidence_keys())

        assert (report.row, "place or time" in report.broken) == (before.pk, True)

    @pytest.mark.parametrize("place", ["between", "after", "below"])
    def test_a6_that_was_added_is_named(self, audit, place):
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

        assert report.row == checkpointed

    def test_a6_that_was_written_by_us_but_after_its_neighbours_were_sealed_is_named(self, row, audit, time_machine):
        (late,) = (row(age=3 * DAY - 1),)
        gap = IssuedToken.objects.create(
            **{f.name: getattr(late, f.name) for f in late._meta.fields if f.name not in {"id", "jti", "mac"}},
            jti=uuid.uuid4(),
        )
        next_row = row()
        gap.delete()
        late.delete()
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())
        placed = row(age=2 * 3600)
        IssuedToken.objects.filter(pk=placed.pk).update(id=next_row.pk - 1)

        report = verification.verify(evidence_keys())

        assert report.row == next_row.pk - 1
        assert "added" in report.broken

    def test_a6_whose_reference_points_to_somebody_else_is_named(self, audit, django_user_model):
        mallory = django_user_model.objects.create_user("mallory")
        UserIdentity.objects.create(user=mallory)
        edit(audit[4], user=mallory)

        report = verification.verify(evidence_keys())

        assert report.row == audit[4].pk
        assert f"user {mallory.pk}" in report.broken

    def test_a6_edited_before_it_was_sealed_is_named_for_good(self, audit, time_machine):
        edit(audit[6], user_agent="nobody")
        time_machine.shift(2 * 3600)
        checkpoints.seal(evidence_keys())

        report = verification.verify(evidence_keys())

        assert report.row == audit[6].pk
        assert "before it was sealed" in report.broken


class TestTheEndOfTheAudit:
    def test_a6_cut_off_is_named_from_where_on(self, audit):
        first_gone = audit[4].pk
        IssuedToken.objects.filter(pk__gte=first_gone).delete()

        report = verification.verify(evidence_keys())

        assert report.row == first_gone
        assert "truncated" in report.broken

    def test_a6_cut_off_together_with_its_checkpoint_is_found_by_an_exported_copy(self, audit):
        kept = copies()
        first_gone = audit[3].pk
        IssuedToken.objects.filter(pk__gte=first_gone).delete()
        Checkpoint.objects.filter(number=2).delete()

        assert verification.verify(evidence_keys()).broken == ""
        report = verification.verify(evidence_keys(), kept)
        assert report.row == first_gone
        assert "truncated" in report.broken

    def test_a6_a_checkpoint_alone_that_is_gone_is_found_by_an_exported_copy(self, audit):
        kept = copies()
        Checkpoint.objects.filter(number=2).delete()

        assert (
            verification.verify(evidence_keys(), kept).broken
            == "checkpoint 2, of which there is an exported copy, is gone"
        )

    def test_a6_that_nobody_seals_is_noted(self, row, initial_keys):
        row(age=3 * DAY)

        report = verification.verify(evidence_keys())

        assert report.broken == ""
        assert "instaccess_tokens seal" in report.notes[0]


class TestACheckpoint:
    def test_a6_that_is_missing_is_named(self, audit):
        Checkpoint.objects.filter(number=1).delete()

        assert "a checkpoint is missing" in verification.verify(evidence_keys()).broken

    @pytest.mark.parametrize("column", ["jws", "index", "mac"])
    def test_a6_that_was_edited_is_named(self, audit, column):
        first, second = Checkpoint.objects.all()
        setattr(first, column, getattr(second, column))
        first.save()

        assert verification.verify(evidence_keys()).broken.startswith("checkpoint 1 was altered")

    def test_a6_that_changed_places_with_another_is_named(self, audit):
        Checkpoint.objects.filter(number=1).update(number=9)
        Checkpoint.objects.filter(number=2).update(number=1)

        assert verification.verify(evidence_keys()).broken.startswith("checkpoint 1 was altered: it is checkpoint 2")


class TestSomebodyWhoHoldsAllKeys:
    """Whoever took the application server can write any HMAC and sign any checkpoint. Copies kept elsewhere tell."""

    @pytest.fixture
    def forge(self) -> Callable[[IssuedToken, str], None]:
        def rewrite(row: IssuedToken, agent: str) -> None:
            row.user_agent = agent
            row.mac = row_hmac.authenticate(row_hmac.canonical_bytes(row), conf.key_encryption_keys)
            row.save()
            Checkpoint.objects.all().delete()
            checkpoints.seal(evidence_keys())

        return rewrite

    def test_a6_is_not_found_without_one(self, audit, forge):
        forge(audit[4], "nobody")

        assert verification.verify(evidence_keys()).broken == ""

    def test_a6_is_found_and_the_row_is_named(self, audit, forge):
        kept = copies()
        forge(audit[4], "nobody")

        assert verification.verify(evidence_keys(), kept[1:]).row == audit[4].pk

    def test_a6_is_found_by_a_later_copy_that_can_name_no_row(self, audit, forge):
        kept = copies()
        forge(audit[1], "nobody")

        report = verification.verify(evidence_keys(), kept[1:])

        assert "an exported copy of an earlier checkpoint" in report.broken
        assert verification.verify(evidence_keys(), kept).row == audit[1].pk

    def test_a6_that_sealed_again_the_same_is_found(self, audit, time_machine):
        kept = copies()
        time_machine.shift(60)
        Checkpoint.objects.all().delete()
        checkpoints.seal(evidence_keys())

        assert verification.verify(evidence_keys(), kept).broken == "checkpoint 1 is another than its exported copy"


class TestAnExportedCopy:
    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", "null", '{"format": "instaccess checkpoint 1", "jws": 1, "index": ""}', "[" * 100_000],
    )
    def test_that_is_none_is_named(self, initial_keys, text):
        with pytest.raises(AuditAltered, match=r"kept\.json is no exported checkpoint"):
            statements.read_exported(text, evidence_keys(), name="kept.json")

    def test_whose_signature_does_not_hold_is_named(self, audit):
        document = json.loads(statements.export_checkpoint(Checkpoint.objects.first()))
        header, payload, signature = document["jws"].split(".")
        document["jws"] = ".".join([header, payload, signature[:-4] + "AAAA"])

        with pytest.raises(AuditAltered, match=r"kept\.json was altered"):
            statements.read_exported(json.dumps(document), evidence_keys(), name="kept.json")

    def test_whose_index_was_changed_is_named(self, audit):
        document = json.loads(statements.export_checkpoint(Checkpoint.objects.first()))
        document["index"] += "\n9 00000000"

        with pytest.raises(AuditAltered, match="its index is another"):
            statements.read_exported(json.dumps(document), evidence_keys(), name="kept.json")


class TestAfterPruning:
    def test_a6_the_chain_goes_on_from_the_marker(self, audit):
        kept = copies()
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())

        report = verification.verify(evidence_keys(), kept)

        assert (report.broken, report.rows, report.checkpoints) == ("", 6, 1)
        assert report.pruned is not None
        assert (report.pruned.number, report.pruned.rows) == (1, 3)

    @pytest.mark.parametrize("place", [3, 8])
    def test_a6_the_rest_is_still_checked(self, audit, place):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        edit(audit[place], user_agent="nobody")

        assert verification.verify(evidence_keys()).row == audit[place].pk

    def test_a6_rows_deleted_by_somebody_else_are_no_pruning(self, audit):
        IssuedToken.objects.filter(pk__lte=audit[2].pk).delete()
        Checkpoint.objects.filter(number=1).delete()

        report = verification.verify(evidence_keys())

        assert "a checkpoint is missing" in report.broken

    def test_a6_a_marker_by_somebody_else_is_named(self, audit, rsa_pool):
        theirs = rsa_pool.take("sig")
        signed = jose.sign(b"{}", theirs, kid=ring.current_ring().signing_key().kid, typ=statements.MARKER)
        kek_id = audit[0].mac.partition(".")[0]
        PruneMarker.objects.create(number=1, jws=signed, mac=f"{kek_id}.guessed")

        assert verification.verify(evidence_keys()).broken == "prune marker 1 was altered: its HMAC does not fit"

    def test_a6_a_row_put_back_where_rows_were_pruned_is_named(self, audit):
        ghost = audit[0]
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        ghost.user_agent = "nobody"
        ghost.save(force_insert=True)

        report = verification.verify(evidence_keys())

        assert report.row == ghost.pk
        assert "where no row can be" in report.broken

    def test_a6_a_marker_taken_away_is_found(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        PruneMarker.objects.all().delete()

        assert "missing" in verification.verify(evidence_keys()).broken

    def test_a6_a_copy_of_what_was_pruned_is_compared_with_the_marker(self, audit):
        kept = copies()
        prune(NOON - timedelta(days=1), evidence_keys())
        assert verification.verify(evidence_keys(), kept).notes == [
            "checkpoint 1, of which there is a copy, was pruned: nothing to compare with"
        ]
        changed = statements.Exported(
            statements.Statement(**{**vars_of(kept[1].statement), "digest": "0" * 64}), kept[1].jws, kept[1].index
        )

        assert "another than its exported copy" in verification.verify(evidence_keys(), [changed]).broken


def vars_of(statement: statements.Statement) -> dict[str, Any]:
    return {name: getattr(statement, name) for name in statement.__slots__}


def test_a6_the_digest_is_what_the_documentation_says(row: Any, initial_keys: Any, time_machine: Any) -> None:
    """Anybody can compute it: SHA-256 over the digest before, as text, and the SHA-256 of each row in its place."""
    time_machine.move_to(NOON, tick=False)
    made = [row(age=3 * DAY), row(age=2 * DAY)]
    checkpoints.seal(evidence_keys())

    digest = ""
    for each, checkpoint in zip(made, Checkpoint.objects.all(), strict=True):
        leaf = hashlib.sha256(f"{each.pk}\n".encode() + row_hmac.canonical_bytes(each)).digest()
        digest = hashlib.sha256(digest.encode() + leaf).hexdigest()
        assert statements.read_checkpoint(checkpoint, evidence_keys()).digest == digest


def write(row: IssuedToken, column: str, value: Any) -> None:
    """Past Django, as somebody with a shell on the database would."""
    with connection.cursor() as cursor:
        lenient = "SET STATEMENT sql_mode = '' FOR " if connection.vendor == "mysql" else ""
        cursor.execute(f"{lenient}UPDATE instaccess_issuedtoken SET {column} = %s WHERE id = %s", [value, row.pk])


_ZERO = "0000-00-00 00:00:00"
# What each database takes into a column and Django can't read back.
UNREADABLE = {
    "sqlite": [("issued_at", "never"), ("jti", "no uuid"), ("jti", b"\x00"), ("expires_at", 5), ("revoked_at", "")],
    "postgresql": [("issued_at", "infinity"), ("expires_at", "20000-01-01")],
    "mysql": [("issued_at", _ZERO), ("revoked_at", _ZERO)],
}
ODD = {
    "sqlite": [("ip_address", "nowhere"), ("ip_address", b"\xc0\x00\x02\x07"), ("user_agent", b"\x00"), ("mac", b"")],
    "postgresql": [("ip_address", "192.0.2.7/24")],
    "mysql": [("ip_address", "nowhere"), ("ip_address", "192.0.2.007")],
}


class TestARowWithWhatNoColumnOfOursHolds:
    @pytest.mark.parametrize("place", [0, 8], ids=["sealed", "not sealed"])
    def test_a6_is_named_and_does_not_stop_others_from_being_revoked_or_sealed_anew(self, audit, place):
        for column, value in [*UNREADABLE[connection.vendor], *ODD[connection.vendor]]:
            with transaction.atomic():
                write(audit[place], column, value)

                report = verification.verify(evidence_keys())

                assert (report.row, "edited" in report.broken) == (audit[place].pk, True), (column, value)
                checkpoints.reauthenticate(evidence_keys())
                assert (
                    revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost") >= 2
                )
                still_live = rows.revocable_tokens().exclude(pk=audit[place].pk)
                assert not still_live.exists()
                transaction.set_rollback(True)

    def test_a6_stops_sealing_by_its_name_where_it_cannot_be_read(self, audit, time_machine):
        time_machine.shift(2 * 3600)
        for column, value in UNREADABLE[connection.vendor]:
            with transaction.atomic():
                write(audit[7], column, value)
                with pytest.raises(AuditAltered, match=f"row {audit[7].pk} was edited"):
                    checkpoints.seal(evidence_keys())
                transaction.set_rollback(True)

    def test_a6_is_sealed_as_edited_where_it_can(self, audit, time_machine):
        time_machine.shift(2 * 3600)
        for column, value in ODD[connection.vendor]:
            with transaction.atomic():
                write(audit[7], column, value)
                assert sum(made.altered for made in checkpoints.seal(evidence_keys()).made) == 1, (column, value)
                transaction.set_rollback(True)

    def test_a6_a_zone_behind_an_ipv6_address_is_an_edit(self, row, audit):
        made = row(ip_address="2001:db8::7")
        if connection.vendor != "postgresql":  # inet takes none
            write(made, "ip_address", "2001:db8::7%of somebody else")
            assert verification.verify(evidence_keys()).row == made.pk

    @pytest.mark.parametrize("column", ["jws", "mac", "index"])
    def test_a6_in_a_checkpoint_is_named(self, audit, column):
        with connection.cursor() as cursor:
            value = b"\x00\xff" if connection.vendor == "sqlite" else "\N{SNOWMAN}"
            name = connection.ops.quote_name(column)
            cursor.execute(f"UPDATE instaccess_checkpoint SET {name} = %s WHERE number = 1", [value])

        assert verification.verify(evidence_keys()).broken == "checkpoint 1 was altered: its HMAC does not fit"
        assert checkpoints.reauthenticate(evidence_keys()) == 0


class TestAStatementOfAnotherVersion:
    @pytest.mark.parametrize("payload", [{}, {"number": 1}, {"surplus": 1}, {"number": "1"}, {"rows": True}])
    def test_cannot_be_read_and_says_so(self, audit, payload):
        whole = vars_of(copies()[0].statement)
        said = {**whole, **payload} if payload and payload != {"number": 1} else payload
        key = ring.current_ring().signing_key()
        signed = jose.sign(json.dumps(said).encode(), key.private(), kid=key.kid, typ=statements.CHECKPOINT)
        text = json.dumps({"format": "instaccess checkpoint 1", "jws": signed, "index": ""})

        with pytest.raises(AuditAltered, match=r"old\.json can't be read"):
            statements.read_exported(text, evidence_keys(), name="old.json")


class TestWhereRowsWerePruned:
    @pytest.fixture
    def pruned(self, audit):
        prune(NOON - timedelta(days=2, hours=12), evidence_keys())
        return audit

    def test_a6_a_row_with_an_unknown_hmac_is_named(self, pruned):
        ghost = pruned[0]
        ghost.user_agent, ghost.mac = "nobody", "unknown.abc"
        ghost.save(force_insert=True)

        assert verification.verify(evidence_keys()).row == ghost.pk

    def test_a6_a_row_issued_since_is_named_whatever_its_hmac_says(self, pruned, row):
        """As after somebody set back the counter of ids."""
        late = row(id=pruned[1].pk)

        report = verification.verify(evidence_keys())

        assert (report.row, "where no row can be" in report.broken) == (late.pk, True)

    def test_a6_a_row_that_was_pruned_is_named_where_it_was_put_back_elsewhere(self, pruned, row):
        ghost = pruned[0]
        ghost.pk = pruned[8].pk + 1
        prune(NOON - timedelta(days=1), evidence_keys())
        ghost.save(force_insert=True)

        report = verification.verify(evidence_keys())

        assert (report.row, "put back" in report.broken) == (ghost.pk, True)


def test_a_change_of_where_uuids_come_from_is_no_tampering(row: Any, user: Any, initial_keys: Any) -> None:
    row(user_uuid="from-a-field")
    UserIdentity.objects.get_or_create(user=user)

    report = verification.verify(evidence_keys())

    assert report.broken == ""
    assert "USER_UUID_FIELD" in report.notes[0]


def test_a6_a_row_whose_hmac_could_not_be_checked_when_it_was_sealed_fits_once_it_can(
    row: Any, initial_keys: Any, time_machine: Any, settings: Any
) -> None:
    """Its key-encryption key was taken away too early, and was put back."""
    time_machine.move_to(NOON, tick=False)
    lost = base64.urlsafe_b64encode(b"k" * 32).decode()
    keks = [base64.urlsafe_b64encode(kek).decode() for kek in conf.key_encryption_keys]
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [lost, *keks]}
    made = row(age=2 * 3600)
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": keks}
    checkpoints.seal(evidence_keys())
    assert "put it back" in verification.verify(evidence_keys()).broken

    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [*keks, lost]}
    assert verification.verify(evidence_keys()).broken == ""
    edit(made, user_agent="nobody")
    assert verification.verify(evidence_keys()).row == made.pk
