"""Tests of text with characters that the database can't store: utf8mb3 on MariaDB, and LATIN1 on PostgreSQL.

On SQLite, these tests show that every character is stored unchanged.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from oauth2_provider.models import get_application_model

from instaccess import audit, charsets, keys, users
from instaccess.audit import names, recording
from instaccess.conf import conf
from instaccess.issuer import issuing, oauth2_validator
from instaccess.keys import lifecycle, queries
from instaccess.models import IssuedToken, Key, RefusalCount
from instaccess.web import refusal_counter
from tests.support.answers import INVALID_AS_USER_ID, answer
from tests.support.narrow import ESCAPED, TEXT, narrow_database

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:instaccess_issuedtoken_changelist")


@pytest.fixture(scope="module", autouse=True)
def narrow(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), narrow_database():
        yield


@pytest.fixture
def stored() -> str:
    """Return the text that the database stores instead of TEXT."""
    return ESCAPED[connection.vendor]


@pytest.fixture
def issue(initial_keys: list[Key], user: Any, application: Any) -> Callable[..., IssuedToken]:
    """Return a function that issues a token for a request with a user agent, by default TEXT."""

    def issue_(user_agent: str = TEXT) -> IssuedToken:
        origin = issuing.Origin("canvas.example.edu", user_agent=user_agent)
        row, _ = issuing.issue(user=user, application=application, origin=origin, now=time.time())
        return row

    return issue_


def run(*command: str) -> Any:
    out = io.StringIO()
    call_command(*command, "--json", stdout=out)
    return json.loads(out.getvalue())


def assert_that_verify_finds_nothing() -> None:
    assert audit.verify(keys.evidence_keys()).summary == ""


class TestIssuing:
    def test_p21_a_token_is_issued_for_a_client_name_a_user_agent_and_a_user_name_with_an_emoji(
        self, issue, user, application, stored
    ):
        # Other tables or databases can store characters that the columns of the audit log can't store.
        user.username, application.client_id = TEXT, TEXT

        row = issue()

        assert row.user_agent == row.client_id == row.user_name == stored
        row.refresh_from_db()
        assert row.user_agent == row.client_id == row.user_name == stored
        assert_that_verify_finds_nothing()

    def test_p21_a_user_agent_that_is_too_long_is_never_cut_within_an_escape_sequence(self, issue, stored):
        row = issue("\N{FACE SCREAMING IN FEAR}" * 512)

        escaped = stored.partition(" ")[2]
        assert row.user_agent == escaped * (512 // len(escaped))
        assert_that_verify_finds_nothing()

    def test_p21_issuing_reads_the_character_sets_once_and_only_for_a_text_that_is_not_ascii(self, issue, stored):
        statements: list[str] = []

        def record(execute: Any, sql: str, *args: Any) -> Any:
            statements.append(sql)
            return execute(sql, *args)

        issue("client/1.0")
        counts = []
        with connection.execute_wrapper(record):
            for user_agent in ("client/1.0", TEXT, TEXT):
                issue(user_agent)
                counts.append(len(statements))
                statements.clear()

        assert counts == [1, 1 if connection.vendor == "sqlite" else 2, 1]

    def test_p21_a_refusal_of_a_client_whose_id_has_an_emoji_is_counted(self, db):
        refusal_counter.count("gateway", "revoked", client_id=TEXT)

        assert refusal_counter.flush() == 1
        assert RefusalCount.objects.get().count == 1


class TestRevoking:
    def test_p21_tokens_are_revoked_for_a_reason_with_an_emoji(self, issue, user, stored):
        row = issue()
        user.username = TEXT

        audit.revoke(audit.revocable_tokens(), keks=conf.key_encryption_keys, reason=TEXT, by=user)

        row.refresh_from_db()
        assert row.revoked_at is not None
        assert row.revocation_reason == row.revoked_by == stored
        assert_that_verify_finds_nothing()

    def test_p21_a_key_and_its_tokens_are_revoked_for_a_reason_with_an_emoji(self, issue, stored):
        row = issue()

        lifecycle.revoke(row.signing_kid, reason=TEXT)

        row.refresh_from_db()
        assert row.revocation_reason == stored
        assert queries.find_key(row.signing_kid).status == Key.Status.REVOKED

    def test_p21_the_commands_accept_a_reason_with_an_emoji(self, issue, stored):
        row = issue()

        assert run("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", TEXT) == {"revoked": 1}
        assert run("instaccess_keys", "revoke", "--kid", row.signing_kid, "--reason", TEXT)["tokens"] == 0
        assert run("instaccess_tokens", "show", "--jti", str(row.jti))["revocation_reason"] == stored

    def test_p21_the_admin_revokes_a_key_for_a_reason_with_an_emoji_and_logs_the_revocation(
        self, issue, admin_client, stored
    ):
        row = issue()
        url = reverse("admin:instaccess_key_revoke", args=[row.signing_kid])

        assert admin_client.post(url, {"confirmed": "yes", "reason": TEXT}).status_code == 302

        row.refresh_from_db()
        assert row.revocation_reason == stored
        messages = LogEntry.objects.values_list("change_message", flat=True)
        assert f"Revoked. Live tokens of the key: 1. Reason: {stored}" in messages

    def test_p21_the_admin_revokes_tokens_for_a_reason_with_an_emoji(self, issue, admin_client, stored):
        row = issue()
        fields = {"action": "revoke_users", "_selected_action": row.pk, "confirmed": "yes", "reason": TEXT}

        assert admin_client.post(LIST, fields).status_code == 302

        row.refresh_from_db()
        assert row.revocation_reason == stored


class TestLookingUp:
    def test_p21_the_admin_finds_text_that_is_stored_with_escape_sequences(self, issue, application, admin_client):
        application.client_id = TEXT.replace(" ", "")
        row = issue()

        for query in ({"q": TEXT.replace(" ", "")}, {"client_id": TEXT.replace(" ", "")}):
            page = admin_client.get(LIST, query)
            assert [token.pk for token in page.context["cl"].result_list] == [row.pk]

    @pytest.mark.parametrize("name", ["q", "client_id", "account_uuid", "status", "period"])
    def test_p21_filters_of_the_admin_accept_a_text_that_the_database_cannot_store(self, name, issue, admin_client):
        issue()

        assert admin_client.get(LIST, {name: f"no-{TEXT}"}).status_code == 200

    def test_p21_the_commands_find_users_and_applications_by_a_text_with_an_emoji(self, issue, user, application):
        user.username = application.client_id = TEXT
        row = issue()

        for option in ("--user", "--application"):
            assert [fact["jti"] for fact in run("instaccess_tokens", "list", option, TEXT)] == [str(row.jti)]
        assert run("instaccess_tokens", "list", "--account", TEXT) == []
        assert run("instaccess_tokens", "erase-name", "--user", TEXT)["erased"] == 1
        with pytest.raises(CommandError, match="No audit row contains the user"):
            run("instaccess_tokens", "erase-name", "--user", f"no-{TEXT}")
        assert_that_verify_finds_nothing()

    @pytest.mark.parametrize("field", [None, "username"])
    def test_p21_a_masquerade_as_a_user_id_with_an_emoji_is_refused(
        self, field, initial_keys, access_token, post, settings
    ):
        access_token.user.user_permissions.add(Permission.objects.get(codename="masquerade"))
        settings.INSTACCESS = {"USER_UUID_FIELD": field}

        for as_user_id in (TEXT, f"uuid:{TEXT}"):
            assert answer(post(access_token, data={"as_user_id": as_user_id})) == INVALID_AS_USER_ID

    def test_p21_an_application_is_not_usable_if_its_id_is_unknown_and_contains_an_emoji(self, application):
        assert not oauth2_validator.is_usable_client(f"no-{TEXT}")
        assert oauth2_validator.is_usable_client(application.client_id)


class TestTheTextColumns:
    def test_p21_a_service_user_of_an_application_and_its_log_entry_can_be_stored(
        self, application, user, admin_client
    ):
        fields = {"application": application.pk, "user": user.pk}
        response = admin_client.post(reverse("admin:instaccess_serviceuser_add"), fields)

        assert response.status_code == 302
        assert LogEntry.objects.get().object_repr == "LTI tool as ada"

    def test_p21_every_text_column_of_the_audit_log_stores_an_emoji_as_the_database_allows(self, issue, stored):
        now = timezone.now()
        short = TEXT.partition(" ")[2]
        hmacs = {"mac", "names_mac"}
        columns = {each.attname: short for each in recording._TEXT_COLUMNS if each.attname not in hmacs}
        row = IssuedToken(jti="94b8b54d-aff3-4846-ab72-8345207a2d20", issued_at=now, **columns)
        row.expires_at = now + timedelta(hours=1)
        row.clean_fields(exclude=["ip_address", "user", "real_user", "application", "revoked_at"])

        recording.commit(row, keks=conf.key_encryption_keys)

        row.refresh_from_db()
        assert {getattr(row, name) for name in columns} == {stored.partition(" ")[2]}
        assert audit.row_status(row, conf.key_encryption_keys) is audit.HmacStatus.AUTHENTIC
        assert names.names_status(row, conf.key_encryption_keys) is audit.HmacStatus.AUTHENTIC

    def test_p21_users_are_searched_only_for_a_text_that_their_column_can_store(self, user):
        assert list(users.named("ada")) == [user]
        assert list(users.named(TEXT)) == []
        client_id = get_application_model()._meta.get_field("client_id")
        assert charsets.can_store("é", client_id, using="default")
