"""Tests of revocations of users, accounts, keys and all tokens: the covered rows, the times and the numbers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from instaccess import audit
from instaccess.audit import revocation_log
from instaccess.audit.scopes import Scope
from instaccess.conf import conf
from instaccess.models import IssuedToken, Revocation, RevocationLock

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def record(*scopes: Scope, **options: Any) -> list[Revocation]:
    values = {"keks": conf.key_encryption_keys, "reason": "stolen", "now": timezone.now()} | options
    return audit.record_revocation(scopes, **values)


def revoke(*scopes: Scope, **options: Any) -> int:
    values: dict[str, Any] = {"keks": conf.key_encryption_keys, "reason": "stolen"}
    return audit.revoke(audit.revocable_tokens(), scopes=scopes, **(values | options))


def complete(**options: Any) -> Any:
    return audit.complete_revocations(keks=conf.key_encryption_keys, **options)


def marked() -> set[IssuedToken]:
    return set(IssuedToken.objects.exclude(revoked_at=None))


class TestTheRowsThatAScopeCovers:
    @pytest.mark.parametrize(
        ("scope", "columns"),
        [
            (Scope.user("x"), {"user_uuid": "x"}),
            (Scope.user("x"), {"real_user_uuid": "x"}),
            (Scope.account("x"), {"account_uuid": "x"}),
            (Scope.key("x"), {"signing_kid": "x"}),
            (Scope.key("x"), {"encryption_kid": "x"}),
            (Scope.everything(), {}),
        ],
        ids=["subject", "real user", "account", "signing key", "encryption key", "all tokens"],
    )
    def test_revocation_of_a_scope_needs_no_revocation_of_single_tokens_in_the_scope(self, row, scope, columns):
        made = row(**columns)

        assert revoke(scope) == 1
        assert marked() == {made}
        assert [each.kind for each in Revocation.objects.all()] == [scope.kind]

    @pytest.mark.parametrize(
        ("scope", "columns"),
        [
            (Scope.user("x"), {"account_uuid": "x", "signing_kid": "x"}),
            (Scope.account("x"), {"user_uuid": "x", "encryption_kid": "x"}),
            (Scope.key("x"), {"user_uuid": "x", "account_uuid": "x"}),
        ],
        ids=["user", "account", "key"],
    )
    def test_revoke_adds_a_revocation_of_a_single_token_for_a_token_outside_the_scope(self, row, scope, columns):
        made = row(**columns)

        assert revoke(scope) == 1
        assert marked() == {made}
        assert [each.kind for each in Revocation.objects.all()] == [scope.kind, "tokens"]

    def test_revocation_of_a_user_does_not_cover_a_token_that_is_issued_during_the_revocation(self, row):
        early, now = row(user_uuid="x"), timezone.now()
        late: list[IssuedToken] = []

        def issue_meanwhile(execute: Any, sql: str, *args: Any) -> Any:
            result = execute(sql, *args)
            if sql.startswith("INSERT") and "latest_iat" in sql:
                late.append(row(user_uuid="x", issued_at=now + timedelta(seconds=2)))
            return result

        with connection.execute_wrapper(issue_meanwhile):
            assert revoke(Scope.user("x"), now=now) == 1

        assert len(late) == 1
        assert marked() == {early}

    def test_revocation_counts_a_token_of_an_issuer_whose_clock_is_fast_by_a_day(self, row):
        rows = {row(user_uuid="x"), row(user_uuid="x", issued_at=timezone.now() + DAY)}

        assert revoke(Scope.user("x")) == 2
        assert marked() == rows

    def test_row_that_two_revocations_cover_is_marked_by_the_earlier_revocation(self, row):
        made = row(user_uuid="x", account_uuid="y")
        record(Scope.account("y"), Scope.user("x"), reason="first")
        record(Scope.everything(), reason="second")

        assert complete() == {Scope.account("y"): 1}
        made.refresh_from_db()
        assert made.revocation_reason == "first"


class TestTheCompletionOfRevocations:
    def test_revocation_is_recorded_as_completed_at_the_time_of_the_revocation(self, row):
        now = timezone.now() - timedelta(minutes=1)
        revoke(Scope.user("x"), now=now)

        assert Revocation.objects.get().completed_at == now

    def test_completion_does_not_change_completed_revocations_or_revocations_with_an_invalid_hmac(self, row):
        earlier, now = timezone.now() - timedelta(minutes=1), timezone.now()
        revoke(Scope.user("x"), now=earlier)
        Revocation.objects.create(number=17, kind="user", value="y", latest_iat=1, revoked_at=now)
        revoke(Scope.user("z"), now=now)

        assert dict(Revocation.objects.values_list("value", "completed_at")) == {"x": earlier, "y": None, "z": now}

    def test_completion_of_a_revocation_also_marks_the_rows_of_a_later_interrupted_revocation(self, row):
        first, second = row(user_uuid="x"), row(user_uuid="y")
        recorded = record(Scope.user("x"))
        record(Scope.user("y"))

        assert complete(recorded=recorded) == {Scope.user("x"): 1, Scope.user("y"): 1}
        assert marked() == {first, second}

    def test_completion_of_a_revocation_does_not_mark_a_token_that_is_expired_at_the_given_time(self, row):
        row(user_uuid="x")
        record(Scope.user("x"))

        assert complete(now=timezone.now() + DAY) == {}
        assert marked() == set()


class TestTheRevocationLog:
    def test_number_of_a_revocation_is_the_time_in_microseconds_or_follows_the_last_number(self):
        now = timezone.now()
        first = int(now.timestamp()) * 1_000_000 + now.microsecond
        record(*map(Scope.user, "abc"), now=now)
        record(*map(Scope.user, "de"), now=now)

        numbers = dict(Revocation.objects.values_list("value", "number"))
        assert numbers == {"a": first, "b": first + 1, "c": first + 2, "d": first + 3, "e": first + 4}
        assert RevocationLock.objects.get().last_number == first + 4

    def test_second_row_in_the_lock_table_does_not_change_the_number_of_a_revocation(self):
        now = timezone.now()
        record(Scope.user("a"), now=now)
        RevocationLock.objects.create(pk=2, last_number=2**62)
        [recorded] = record(Scope.user("b"), now=now)

        assert recorded.number == Revocation.objects.get(value="a").number + 1
        assert RevocationLock.objects.get(pk=2).last_number == 2**62

    def test_every_revocation_has_a_latest_time_of_issue_except_the_revocation_of_a_key(self):
        record(Scope.user("u"), Scope.account("a"), Scope.key("k"), Scope.everything(), latest_iat=17)

        kinds = dict(Revocation.objects.values_list("kind", "latest_iat"))
        assert kinds == {"user": 17, "account": 17, "key": None, "all": 17}

    def test_recorded_keys_returns_the_kid_of_each_key_in_the_revocation_log(self):
        record(Scope.user("u"), Scope.key("k"), Scope.account("a"), Scope.key("l"))

        assert audit.recorded_keys() == {"k", "l"}

    def test_prune_keeps_every_revocation_after_the_given_time(self):
        now = timezone.now()
        for value, age in (("a", 3), ("b", 2), ("c", 1), ("d", 0)):
            record(Scope.user(value), now=now - age * DAY)

        assert revocation_log.prune(now - 2 * DAY) == 1
        assert [each.value for each in Revocation.objects.all()] == ["b", "c", "d"]

    @pytest.mark.sqlite
    def test_completion_of_revocations_skips_and_logs_a_revocation_in_which_an_attacker_stored_bytes(
        self, row, caplog
    ):
        made = row(user_uuid="x")
        [recorded] = record(Scope.user("x"))
        with connection.cursor() as cursor:
            cursor.execute("UPDATE instaccess_revocation SET reason = %s", [b"stolen"])

        assert complete() == {}
        assert made not in marked()
        assert f"revocation {recorded.number} has no valid HMAC" in caplog.text


class TestTheScopesOfAUser:
    def test_user_who_is_the_subject_and_the_real_user_of_tokens_has_one_revocation_scope(self, row):
        row(user_uuid="x")
        row(real_user_uuid="x")

        assert audit.scopes_of_user("x") == [Scope.user("x")]

    def test_revocation_scope_of_all_tokens_needs_no_value(self):
        assert (Scope.everything().kind, Scope.everything().value) == ("all", "")
