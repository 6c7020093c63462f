"""Tests of the revocation log: the order and the scopes of revocations, and interrupted revocations."""

from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from instaccess import audit, signals, users
from instaccess.audit import revocation, revocation_log
from instaccess.audit.scopes import Scope
from instaccess.conf import KeyEncryptionKey, conf
from instaccess.models import IssuedToken, Revocation
from instaccess.tokens import CLOCK_SKEW
from instaccess.trust import revocation_table
from instaccess.trust.revoked import RETENTION
from tests.support import tasks
from tests.support.processes import KilledError

pytestmark = pytest.mark.django_db


def revoke_user(name: str = "ada", **options: Any) -> int:
    """Revoke all tokens of a user. Returns the number of tokens that were marked as revoked."""
    tokens = audit.revocable_tokens().filter(audit.filter_by_user(name))
    values = {"keks": conf.key_encryption_keys, "reason": "laptop lost", "by": "grace"} | options
    return audit.revoke(tokens, scopes=audit.scopes_of_user(name), **values)


def revoke_one(row: IssuedToken) -> int:
    """Revoke a single token. Returns the number of tokens that were marked as revoked."""
    return audit.revoke(audit.revocable_tokens().filter(pk=row.pk), keks=conf.key_encryption_keys, reason="x")


def marked() -> set[IssuedToken]:
    return set(IssuedToken.objects.exclude(revoked_at=None))


def is_authentic(row: IssuedToken) -> bool:
    return audit.row_status(row, conf.key_encryption_keys) is audit.HmacStatus.AUTHENTIC


class TestTheScopeOfARevocation:
    def test_revocation_scope_without_a_value_raises_value_error(self):
        for make in (Scope.user, Scope.account, Scope.key):
            with pytest.raises(ValueError, match="needs a value"):
                make("")

    def test_scopes_of_user_finds_a_user_by_name_and_by_uuid(self, row, user):
        row()
        expected = [Scope.user(users.user_uuid(user))]

        assert audit.scopes_of_user("ada") == audit.scopes_of_user(users.user_uuid(user)) == expected

    def test_scopes_of_user_finds_a_user_without_tokens_only_if_the_user_has_a_uuid(self):
        grace = get_user_model().objects.create_user("grace")
        assert audit.scopes_of_user("grace") == []  # Grace has no uuid yet, because she never got a token.
        uuid = users.user_uuid(grace)

        assert audit.scopes_of_user("grace") == [Scope.user(uuid)]

    def test_scopes_of_user_finds_the_real_user_of_a_masquerade_by_uuid(self, row):
        row(real_user_uuid="real")

        assert audit.scopes_of_user("real") == [Scope.user("real")]

    def test_scopes_of_an_unknown_user_or_account_are_empty(self, row):
        row()

        assert audit.scopes_of_user("nobody") == audit.scopes_of_account("nothing") == []
        assert audit.scopes_of_account("3f1c") == [Scope.account("3f1c")]


class TestRevokingAllTokensOfAUser:
    def test_g33_revocation_of_a_user_adds_one_log_row_and_marks_every_audit_row_with_the_same_time(
        self, row, monkeypatch
    ):
        monkeypatch.setattr(revocation, "BATCH", 2)
        rows, now = {row() for _ in range(5)}, timezone.now()
        other = row(user_uuid="other", user=None)

        assert revoke_user(now=now) == 5

        recorded = Revocation.objects.get()
        assert (recorded.kind, recorded.value) == ("user", next(iter(rows)).user_uuid)
        assert (recorded.latest_iat, recorded.revoked_at) == (int(now.timestamp()), now)
        assert (recorded.revoked_by, recorded.reason) == ("grace", "laptop lost")
        assert marked() == rows
        assert other not in marked()
        for each in IssuedToken.objects.filter(pk__in=[each.pk for each in rows]):
            assert (each.revoked_at, each.revoked_by, each.revocation_reason) == (now, "grace", "laptop lost")
            assert is_authentic(each)

    def test_g33_revocation_of_a_user_is_on_the_deny_list_before_audit_rows_are_marked(self, row, monkeypatch):
        row()
        monkeypatch.setattr(revocation, "mark_batch", lambda *args: pytest.fail("interrupted"))
        tokens, scopes = audit.revocable_tokens(), audit.scopes_of_user("ada")

        with pytest.raises(pytest.fail.Exception):
            audit.revoke(tokens, keks=conf.key_encryption_keys, reason="x", scopes=scopes)

        assert revocation_table.read().users.keys() == {scopes[0].value}

    def test_revocation_of_a_user_covers_a_token_from_a_server_whose_clock_is_fast(self, row):
        now = timezone.now()
        ahead = row(issued_at=now + timedelta(seconds=30))
        revoke_user(now=now)

        assert Revocation.objects.get().latest_iat == int(ahead.issued_at.timestamp())
        assert marked() == {ahead}

    def test_row_from_the_far_future_does_not_extend_a_revocation_to_later_tokens(self, row):
        now = timezone.now()
        far_ahead = row(issued_at=now + timedelta(days=1))
        revoke_user(now=now)

        assert Revocation.objects.get(kind="user").latest_iat == int(now.timestamp()) + CLOCK_SKEW
        assert marked() == {far_ahead}

    def test_revocation_of_a_user_does_not_cover_a_token_that_is_issued_later(self, row):
        early, now = row(), timezone.now()
        audit.record_revocation(
            audit.scopes_of_user("ada"),
            keks=conf.key_encryption_keys,
            reason="x",
            now=now,
            latest_iat=int(now.timestamp()),
        )
        late = row(issued_at=now + timedelta(seconds=1))
        audit.complete_revocations(keks=conf.key_encryption_keys)

        assert marked() == {early}
        assert late not in marked()

    def test_revocation_of_a_user_revokes_a_row_with_a_modified_foreign_key_as_a_single_token(self, row, user):
        victims = row(user_uuid="victim")  # Simulate an attacker who has changed the foreign key in the database.
        own = row()
        revoke_user()

        assert marked() == {victims, own}
        assert [each.value for each in Revocation.objects.filter(kind="user")] == [own.user_uuid]
        assert set(revocation_table.read("0").tokens) == {str(victims.jti)}

    def test_revocation_of_a_user_sends_a_signal_with_the_jtis_of_each_batch(
        self, row, user, monkeypatch, django_capture_on_commit_callbacks
    ):
        monkeypatch.setattr(revocation, "BATCH", 2)
        rows, received = [row() for _ in range(3)], []

        def receive(jtis: Any, reason: Any, by: Any, by_user_id: Any, **kwargs: Any) -> None:
            received.append((jtis, reason, by, by_user_id))

        signals.tokens_revoked.connect(receive)
        try:
            with django_capture_on_commit_callbacks(execute=True):
                revoke_user(by=user)
        finally:
            signals.tokens_revoked.disconnect(receive)

        assert [len(jtis) for jtis, *_ in received] == [2, 1]
        assert {jti for jtis, *_ in received for jti in jtis} == {str(each.jti) for each in rows}
        assert {tuple(facts) for _, *facts in received} == {("laptop lost", "ada", user.pk)}

    @pytest.mark.sqlite
    @pytest.mark.parametrize("time", ["zzz", "2026-99-99 00:00:00", b"zzz"], ids=repr)
    def test_revocation_of_a_user_also_marks_an_audit_row_with_an_unreadable_time_of_issue(self, row, time):
        good, bad = row(), row()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE instaccess_issuedtoken SET issued_at = %s WHERE id = %s", [time, bad.pk])

        assert revoke_user() == 2
        assert {row.pk for row in IssuedToken.objects.exclude(revoked_at=None).only("pk")} == {good.pk, bad.pk}

    def test_revocation_of_a_user_succeeds_if_no_key_encryption_key_is_available(self, row):
        made = row()

        assert revoke_user(keks=[]) == 1
        assert marked() == {made}
        assert revocation_table.read().users.keys() == {made.user_uuid}


class TestTheNumbersOfRevocations:
    def test_numbers_of_revocations_are_times_in_microseconds_and_always_increase(self, row):
        row()
        now = timezone.now()
        microseconds = int(now.timestamp()) * 1_000_000 + now.microsecond
        revoke_user(now=now)
        revoke_user(now=now)
        revoke_user(now=now - timedelta(hours=1))

        numbers = list(Revocation.objects.values_list("number", flat=True))
        assert numbers == [microseconds, microseconds + 1, microseconds + 2]

    def test_revocations_of_several_scopes_have_consecutive_numbers(self):
        now = timezone.now()
        scopes = [Scope.user(f"u{number}") for number in range(3)]
        recorded = audit.record_revocation(scopes, keks=conf.key_encryption_keys, reason="x", now=now)

        first = recorded[0].number
        assert [each.number for each in recorded] == [first, first + 1, first + 2]
        assert [each.value for each in Revocation.objects.all()] == ["u0", "u1", "u2"]

    def test_revocation_of_single_tokens_adds_one_log_row_per_batch(self, row, monkeypatch):
        monkeypatch.setattr(revocation, "BATCH", 2)
        for _ in range(3):
            row()
        audit.revoke(audit.revocable_tokens(), keks=conf.key_encryption_keys, reason="x")

        assert [each.kind for each in Revocation.objects.all()] == ["tokens", "tokens"]


class TestAnInterruptedRevocation:
    def interrupt(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        """Start to revoke all tokens of ada. The database fails before the second audit row is marked."""
        original, batches = revocation.mark_batch, []

        def fail_later(*args: Any) -> Any:
            batches.append(1)
            if len(batches) > 1:
                raise OperationalError("gone")
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(revocation, "BATCH", 1)
            patch.setattr(revocation, "mark_batch", fail_later)
            with pytest.raises(OperationalError):
                revoke_user(**options)
        assert len(marked()) == 1

    def test_k22_next_revocation_completes_an_interrupted_revocation_with_the_original_time_and_reason(
        self, row, monkeypatch
    ):
        rows, now = {row() for _ in range(3)}, timezone.now() - timedelta(minutes=1)
        other = row(user_uuid="other", user=None)
        self.interrupt(monkeypatch, now=now)

        assert revoke_one(other) == 1
        assert audit.complete_revocations(keks=conf.key_encryption_keys)[Scope.user(next(iter(rows)).user_uuid)] == 2

        assert marked() == {*rows, other}
        for each in IssuedToken.objects.filter(pk__in=[each.pk for each in rows]):
            assert (each.revoked_at, each.revoked_by, each.revocation_reason) == (now, "grace", "laptop lost")
            assert is_authentic(each)

    def test_k22_second_revocation_of_the_same_user_marks_and_counts_the_remaining_rows(self, row, monkeypatch):
        rows = {row() for _ in range(3)}
        self.interrupt(monkeypatch)

        assert revoke_user(reason="again") == 2
        assert marked() == rows
        assert set(IssuedToken.objects.values_list("revocation_reason", flat=True)) == {"laptop lost"}
        assert not Revocation.objects.filter(completed_at=None).exists()

    @pytest.mark.parametrize("command", [("instaccess_tokens", "seal"), ("instaccess_keys", "rotate")])
    def test_commands_that_cron_runs_mark_the_remaining_rows_of_an_interrupted_revocation(
        self, row, initial_keys, monkeypatch, command
    ):
        rows = {row() for _ in range(3)}
        self.interrupt(monkeypatch)

        call_command(*command, stdout=io.StringIO())

        assert marked() == rows

    def test_complete_revocations_runs_one_query_if_every_revocation_is_complete(
        self, row, django_assert_num_queries
    ):
        row()
        revoke_user()
        with django_assert_num_queries(1):
            assert not audit.complete_revocations(keks=conf.key_encryption_keys)

    def test_complete_revocations_marks_no_row_for_a_revocation_that_an_attacker_inserted(self, row, caplog):
        made, now = row(), timezone.now()
        Revocation.objects.create(number=17, kind="user", value=made.user_uuid, latest_iat=2**40, revoked_at=now)

        assert not audit.complete_revocations(keks=conf.key_encryption_keys)
        assert marked() == set()
        assert "revocation 17 has no valid HMAC" in caplog.text


class TestTheHmacOfARevocation:
    def test_canonical_bytes_and_hmac_of_a_revocation_never_change(self):
        """Compare the canonical bytes and the HMAC with literals.

        A changed format with the same label would invalidate the HMACs of revocations that are already stored.
        An interrupted revocation could then not be completed.
        """
        revoked_at = datetime(2026, 3, 2, 12, 0, 0, 123_000, tzinfo=UTC)
        made = Revocation(
            number=7,
            kind="user",
            value="ü",
            latest_iat=1_900_000_000,
            revoked_at=revoked_at,
            revoked_by="ada",
            reason="lost",
            mac="BvHe6PZZiVlh.Wmesr8eH4FhTiNiBDXXDaLG2Io7BEcgmLZ3A2FeLB2k",
        )

        assert revocation_log.canonical_bytes(made) == (
            rb'["instaccess revocation 1",7,"user","\u00fc",1900000000,1772452800123000,"ada","lost"]'
        )
        assert revocation_log.is_authentic(made, [KeyEncryptionKey(bytes(range(32)))])

    @pytest.mark.parametrize(
        "change",
        [
            {"number": 1},
            {"kind": "account"},
            {"value": "other"},
            {"latest_iat": 1},
            {"revoked_at": timezone.now},
            {"revoked_by": "mallory"},
            {"reason": "none"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_revocation_is_not_authentic_after_a_column_was_modified(self, row, change):
        row()
        revoke_user()
        recorded = Revocation.objects.get()
        assert revocation_log.is_authentic(recorded, conf.key_encryption_keys)
        for name, value in change.items():
            setattr(recorded, name, value() if callable(value) else value)

        assert not revocation_log.is_authentic(recorded, conf.key_encryption_keys)


class TestPruningOfRevocations:
    def test_prune_deletes_old_revocations_except_the_latest_revocation_and_revocations_of_keys(self, row):
        now = timezone.now()
        old = now - timedelta(seconds=RETENTION + 60)
        keks = conf.key_encryption_keys
        for scope in (Scope.user("u1"), Scope.key("k1"), Scope.account("a1"), Scope.user("latest")):
            audit.record_revocation([scope], keks=keks, reason="x", now=old)

        assert revocation_log.prune(now - timedelta(seconds=RETENTION)) == 2
        assert [each.value for each in Revocation.objects.all()] == ["k1", "latest"]

    def test_prune_keeps_recent_revocations(self, row):
        row()
        revoke_user()

        assert revocation_log.prune(timezone.now() - timedelta(seconds=RETENTION)) == 0


@pytest.mark.django_db(transaction=True)
class TestAKilledRevocation:
    def test_k22_all_tokens_of_a_user_are_revoked_if_a_killed_command_is_run_again(self, crew, row):
        for number in itertools.count(1):
            Revocation.objects.all().delete()
            IssuedToken.objects.all().delete()
            rows = {row() for _ in range(3)}
            [worker] = crew.start()
            worker.ask(tasks.die_after_statement, number)
            try:
                worker.ask(tasks.attempt, "instaccess_tokens", "revoke", "--user", "ada", "--reason", "lost")
            except KilledError:
                covered = bool(revocation_table.read().users)
                assert covered or not marked()
                revoke_user()
                assert marked() == rows
                assert not Revocation.objects.filter(completed_at=None).exists()
            else:
                assert number > 5
                break
