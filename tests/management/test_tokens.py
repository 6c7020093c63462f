"""Tests of `manage.py instaccess_tokens list`, `show` and `revoke`: options, output and errors."""

from __future__ import annotations

import io
import json
import os
import pwd
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instaccess import users
from instaccess.models import IssuedToken, Revocation

pytestmark = pytest.mark.django_db


def tokens(*args: str) -> str:
    out = io.StringIO()
    call_command("instaccess_tokens", *args, stdout=out)
    return out.getvalue()


def as_json(*args: str) -> Any:
    return json.loads(tokens(*args, "--json"))


class TestTokensList:
    def test_tokens_list_prints_one_line_per_token_with_the_latest_token_first(self, row):
        old, new = row(age=100), row()

        lines = tokens("list").splitlines()

        assert [str(each.jti) in line for each, line in zip((new, old), lines, strict=True)] == [True, True]
        assert "live" in lines[0]
        assert "user ada" in lines[0]
        assert "192.0.2.7" in lines[0]

    def test_tokens_list_prints_the_status_of_each_token(self, row):
        row(age=9000)
        row(age=100, revoked_at=timezone.now())
        row()

        assert [fact["status"] for fact in as_json("list")] == ["live", "revoked", "expired"]
        assert [fact["status"] for fact in as_json("list", "--live")] == ["live"]

    def test_tokens_list_filters_by_user_application_and_account(self, row):
        grace = get_user_model().objects.create_user("grace")
        other_row = row(user=grace, user_uuid=users.user_uuid(grace), client_id="other", account_uuid="9d")
        row()

        for args in (["--user", "grace"], ["--application", "other"], ["--account", "9d"]):
            assert [fact["jti"] for fact in as_json("list", *args)] == [str(other_row.jti)]
        assert as_json("list", "--user", "grace", "--account", "3f1c") == []

    def test_a23_tokens_list_and_show_print_an_actor_only_for_a_token_requested_in_a_masquerade(self, row):
        own = row(age=60)
        grace = get_user_model().objects.create_user("grace")
        masquerade = row(real_user=grace, real_user_uuid=users.user_uuid(grace))

        facts = as_json("list")
        assert [(fact["user"], fact["actor"], fact["actor_name"]) for fact in facts] == [
            ("ada", "grace", "grace"),
            ("ada", None, ""),
        ]
        assert [fact["actor_uuid"] for fact in facts] == [masquerade.real_user_uuid, ""]
        lines = tokens("list").splitlines()
        assert ["user ada  actor grace  client" in line for line in lines] == [True, False]
        assert "actor" not in lines[1]
        assert as_json("show", "--jti", str(own.jti))["actor"] is None

    def test_tokens_list_prints_at_most_fifty_tokens_or_the_given_limit(self, row):
        for _ in range(52):
            row()

        assert len(as_json("list")) == 50
        assert len(as_json("list", "--limit", "3")) == 3
        assert as_json("list", "--limit", "0") == as_json("list", "--limit", "-1") == []

    def test_a22_tokens_list_filters_by_the_time_of_issue_or_by_access_in_a_period(self, row):
        noon = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
        made = {
            minutes: row(
                issued_at=noon + timedelta(minutes=minutes), expires_at=noon + timedelta(minutes=minutes + 60)
            )
            for minutes in (-61, -30, 0, 30, 60)
        }
        period = ("--since", "2026-11-01T12:00:00", "--until", "2026-11-01T14:00+01:00")

        assert [fact["jti"] for fact in as_json("list", *period)] == [str(made[each].jti) for each in (30, 0)]
        listed = [fact["jti"] for fact in as_json("list", *period, "--had-access")]
        assert listed == [str(made[each].jti) for each in (30, 0, -30)]

    def test_a22_tokens_list_refuses_an_invalid_period(self, row):
        row()
        for args, error in (
            (["--since", "yesterday"], "2026-11-01"),
            (["--since", "2026-11-02", "--until", "2026-11-01"], "before --until"),
            (["--had-access"], "add --since or --until"),
        ):
            with pytest.raises(CommandError, match=error):
                tokens("list", *args)

    def test_tokens_list_prints_a_message_if_no_token_matches(self):
        assert tokens("list") == "No matching tokens.\n"
        assert as_json("list") == []

    def test_tokens_list_runs_one_query_for_any_number_of_tokens(self, row):
        for n in range(10):
            masquerader = get_user_model().objects.create(username=f"real {n}")
            row(real_user=masquerader, real_user_uuid=users.user_uuid(masquerader))
        with CaptureQueriesContext(connection) as queries:
            tokens("list")

        assert sum("instaccess_" in query["sql"] for query in queries.captured_queries) == 1


class TestTokensShow:
    def test_a6_tokens_show_prints_no_user_name_if_the_foreign_key_was_modified(self, row):
        each = row()
        other = get_user_model().objects.create(username="mallory")
        users.user_uuid(other)
        assert as_json("show", "--jti", str(each.jti))["user"] == "ada"
        IssuedToken.objects.filter(pk=each.pk).update(user=other)

        assert as_json("show", "--jti", str(each.jti))["user"] is None
        assert f"user {each.user_uuid}" in tokens("list")

    def test_tokens_show_prints_the_audit_row_of_a_token(self, row, user):
        each = row(revoked_at=timezone.now(), revoked_by="ada", revocation_reason="lost")

        fact = as_json("show", "--jti", str(each.jti))

        assert (fact["jti"], fact["status"], fact["user"]) == (str(each.jti), "revoked", "ada")
        assert (fact["revoked_by"], fact["revocation_reason"]) == ("ada", "lost")
        assert fact["user_agent"] == "client/1.0"
        assert "revocation_reason  lost" in tokens("show", "--jti", str(each.jti))

    def test_tokens_show_fails_for_an_unknown_token(self):
        with pytest.raises(CommandError, match="no token"):
            tokens("show", "--jti", str(uuid.uuid4()))

    @pytest.mark.parametrize("text", ["x", "", "1", "' OR 1=1", "\x00"])
    def test_tokens_show_fails_for_an_invalid_token_id(self, text):
        with pytest.raises(CommandError, match="uuid"):
            tokens("show", f"--jti={text}")


class TestTokensRevoke:
    def test_tokens_revoke_with_a_jti_revokes_only_the_token_with_this_jti(self, row):
        each, other = row(), row()

        output = tokens("revoke", "--jti", str(each.jti), "--reason", "laptop stolen")

        assert output == "Revoked 1 live tokens. Gateways refuse the tokens within 5 seconds.\n"
        each.refresh_from_db()
        other.refresh_from_db()
        assert (each.revocation_reason, other.revoked_at) == ("laptop stolen", None)

    @pytest.mark.parametrize("by", ["--user", "--application", "--account"])
    def test_tokens_revoke_revokes_all_live_tokens_of_a_user_an_application_or_an_account(self, row, application, by):
        for _ in range(3):
            row()
        row(age=9000)
        what = {"--user": "ada", "--application": application.client_id, "--account": "3f1c"}[by]

        oauth2 = {"oauth2_tokens": []} if by == "--user" else {}
        assert as_json("revoke", by, what, "--reason", "x") == {"revoked": 3, **oauth2}
        assert IssuedToken.objects.exclude(revoked_at=None).count() == 3

    @pytest.mark.parametrize(("by", "kind"), [("--user", "user"), ("--account", "account"), ("--application", "")])
    def test_g33_tokens_revoke_adds_one_row_to_the_revocation_log_for_a_user_or_an_account(
        self, row, application, by, kind
    ):
        made = row()
        values = {"--user": made.user_uuid, "--application": application.client_id, "--account": "3f1c"}
        name = "ada" if by == "--user" else values[by]

        tokens("revoke", by, name, "--reason", "x")

        expected = (kind, values[by]) if kind else ("tokens", "")
        assert list(Revocation.objects.values_list("kind", "value")) == [expected]

    def test_tokens_revoke_with_several_filters_records_a_revocation_of_single_tokens(self, row):
        row()
        tokens("revoke", "--user", "ada", "--account", "3f1c", "--reason", "x")

        assert [each.kind for each in Revocation.objects.all()] == ["tokens"]

    def test_tokens_revoke_records_no_revocation_for_an_unknown_user(self, row):
        row()
        with pytest.raises(CommandError):
            tokens("revoke", "--user", "nobody", "--reason", "x")

        assert not Revocation.objects.exists()

    def test_tokens_revoke_revokes_only_tokens_that_match_all_filters(self, row):
        row(account_uuid="9d")
        row()

        assert as_json("revoke", "--user", "ada", "--account", "9d", "--reason", "x") == {"revoked": 1}

    def test_tokens_revoke_with_the_option_dry_run_prints_the_number_and_revokes_no_token(self, row):
        row()
        args = ("revoke", "--user", "ada", "--reason", "x", "--dry-run")

        assert tokens(*args) == "1 live tokens would be revoked.\n"
        assert as_json(*args) == {"would_revoke": 1, "oauth2_tokens": []}
        assert not IssuedToken.objects.exclude(revoked_at=None).exists()

    def test_tokens_revoke_succeeds_for_a_user_who_has_only_expired_tokens(self, row):
        row(age=9000)

        assert as_json("revoke", "--user", "ada", "--reason", "x") == {"revoked": 0, "oauth2_tokens": []}

    def test_tokens_revoke_fails_for_an_unknown_user_application_or_account(self, row):
        row()
        for args in (["--user", "nobody"], ["--application", "x"], ["--account", "x"]):
            with pytest.raises(CommandError, match="Check the spelling"):
                tokens("revoke", *args, "--reason", "x")

    @pytest.mark.parametrize(
        ("columns", "why"),
        [({"age": 9000}, "it is already expired"), ({"revoked_at": timezone.now}, "it is already revoked")],
    )
    def test_tokens_revoke_fails_for_an_expired_or_revoked_token_and_reports_its_status(self, row, columns, why):
        each = row(**{name: value() if callable(value) else value for name, value in columns.items()})

        with pytest.raises(CommandError, match=why):
            tokens("revoke", "--jti", str(each.jti), "--reason", "x")

    def test_tokens_revoke_fails_for_a_jti_that_is_not_in_the_audit_log(self):
        with pytest.raises(CommandError, match="it isn't in the audit log"):
            tokens("revoke", "--jti", str(uuid.uuid4()), "--reason", "x")

    def test_tokens_revoke_fails_without_a_filter_or_with_an_empty_filter(self, row):
        row()
        with pytest.raises(CommandError, match="No filter given"):
            tokens("revoke", "--reason", "x")
        for empty in ("--user=", "--application=", "--account=", "--jti="):
            with pytest.raises(CommandError):
                tokens("revoke", empty, "--reason", "x")

        assert not IssuedToken.objects.exclude(revoked_at=None).exists()

    def test_tokens_revoke_fails_without_a_reason_or_with_an_empty_reason(self, row):
        row()
        for args in ([], ["--reason", ""], ["--reason", " "]):
            with pytest.raises(CommandError, match="--reason"):
                tokens("revoke", "--user", "ada", *args)

        assert not IssuedToken.objects.exclude(revoked_at=None).exists()

    def test_tokens_revoke_stores_the_operator_in_the_audit_log(self, row, monkeypatch):
        monkeypatch.setenv("LOGNAME", "grace")
        user = f"uid {os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name})"
        each = row()
        tokens("revoke", "--user", "ada", "--reason", "laptop stolen")

        assert as_json("show", "--jti", str(each.jti))["revoked_by"] == f"{user}, command line"


class TestErrorsOfInstaccessTokens:
    def test_instaccess_tokens_reports_a_database_error_and_names_the_command_migrate(self):
        def broken(execute: Any, sql: str, *args: Any) -> Any:
            if "instaccess_" in sql:
                raise OperationalError("no such table")
            return execute(sql, *args)

        with connection.execute_wrapper(broken), pytest.raises(CommandError, match="migrate"):
            tokens("list")

    def test_instaccess_tokens_fails_for_a_missing_or_unknown_subcommand(self):
        for args in ([], ["destroy"]):
            with pytest.raises(CommandError):
                tokens(*args)
