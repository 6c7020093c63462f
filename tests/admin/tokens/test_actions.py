"""Tests of the admin actions that revoke tokens: confirmation pages, permissions, and revoked tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from instaccess import users
from instaccess.issuer import issuing
from instaccess.models import IssuedToken, Revocation
from instaccess.trust import denylist

TOKENS = "/admin/instaccess/issuedtoken/"

pytestmark = pytest.mark.django_db


@pytest.fixture
def issue(initial_keys, application):
    def issue_(user: Any, *, minutes_ago: float = 0, **values: Any) -> IssuedToken:
        issued_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        values = {"application": application, **values}
        origin = issuing.Origin(canvas_domain="canvas.example.edu")
        return issuing.issue(user=user, origin=origin, now=issued_at.timestamp(), **values)[0]

    return issue_


@pytest.fixture
def other(db):
    return get_user_model().objects.create_user("grace")


@pytest.fixture
def staff(db):
    """Return a staff user who may view the audit log and revoke tokens."""
    staff = get_user_model().objects.create_user("help.desk", is_staff=True)
    staff.user_permissions.add(*Permission.objects.filter(codename__in=["view_issuedtoken", "revoke_tokens"]))
    return staff


@pytest.fixture
def staff_client(staff):
    client = Client()
    client.force_login(staff)
    return client


def send(client: Client, action: str, *tokens: IssuedToken, **fields: str) -> Any:
    chosen = [str(token.pk) for token in tokens]
    return client.post(TOKENS, {"action": action, "_selected_action": chosen, "index": "0", **fields}, follow=True)


def confirmed(client: Client, action: str, *tokens: IssuedToken) -> Any:
    return send(client, action, *tokens, confirmed="yes", reason="laptop lost")


def revoked() -> set[IssuedToken]:
    return set(IssuedToken.objects.exclude(revoked_at=None))


class TestTheConfirmationPage:
    def test_confirmation_page_of_a_revocation_counts_live_tokens_and_revokes_no_token(
        self, staff_client, issue, user
    ):
        live, expired = issue(user), issue(user, minutes_ago=90)

        response = send(staff_client, "revoke_chosen", live, expired)

        assert "Live tokens to revoke: 1." in response.content.decode()
        assert revoked() == set()

    def test_confirmation_page_of_a_revocation_contains_the_selected_tokens_as_hidden_fields(
        self, staff_client, issue, user
    ):
        token = issue(user)

        text = send(staff_client, "revoke_chosen", token).content.decode()

        assert f'<input type="hidden" name="_selected_action" value="{token.pk}">' in text
        assert '<input type="hidden" name="action" value="revoke_chosen">' in text

    def test_revocation_without_a_reason_revokes_no_token(self, staff_client, issue, user):
        token = issue(user)

        send(staff_client, "revoke_chosen", token, confirmed="yes", reason="")

        assert revoked() == set()


class TestRevokingSelectedTokens:
    def test_action_on_selected_tokens_revokes_the_tokens_and_records_user_and_reason(
        self, staff_client, staff, issue, user
    ):
        token, spared = issue(user), issue(user)

        response = confirmed(staff_client, "revoke_chosen", token)

        assert "1 live token was revoked." in response.content.decode()
        assert revoked() == {token}
        token.refresh_from_db()
        assert (token.revoked_by, token.revocation_reason) == (staff.username, "laptop lost")
        assert str(token.jti) in denylist.read_database()
        assert str(spared.jti) not in denylist.read_database()

    def test_action_on_a_revoked_token_keeps_the_first_reason(self, staff_client, issue, user):
        token = issue(user)
        confirmed(staff_client, "revoke_chosen", token)
        first = IssuedToken.objects.get()

        response = send(staff_client, "revoke_chosen", token, confirmed="yes", reason="again")

        assert "0 live tokens were revoked." in response.content.decode()
        again = IssuedToken.objects.get()
        assert (again.revoked_at, again.revocation_reason) == (first.revoked_at, "laptop lost")


class TestRevokingTokensOfUsers:
    def test_action_on_users_revokes_all_live_tokens_of_the_user_of_a_selected_token(
        self, staff_client, issue, user, other
    ):
        chosen, another, spared = issue(user), issue(user), issue(other)

        confirmed(staff_client, "revoke_users", chosen)

        assert revoked() == {chosen, another}
        assert spared not in revoked()

    def test_action_on_users_also_revokes_tokens_that_a_user_got_by_masquerading(
        self, staff_client, issue, user, other
    ):
        chosen, as_other, spared = issue(user), issue(other, real_user=user), issue(other)

        confirmed(staff_client, "revoke_users", chosen)

        assert revoked() == {chosen, as_other}
        assert spared not in revoked()

    def test_g33_action_on_users_adds_one_row_per_user_to_the_table_of_revocations(
        self, staff_client, issue, user, other
    ):
        issue(user)
        confirmed(staff_client, "revoke_users", issue(user), issue(other))

        values = {users.user_uuid(each) for each in (user, other)}
        assert set(Revocation.objects.values_list("kind", "value")) == {("user", value) for value in values}

    def test_confirmation_page_of_a_revocation_names_services_that_accept_the_tokens_until_expiry(
        self, staff_client, issue, user
    ):
        text = send(staff_client, "revoke_users", issue(user)).content.decode()

        assert "Gateways refuse the tokens within five seconds." in text
        assert "Services that clients reach without a gateway accept each token until its expiry." in text

    def test_confirmation_page_of_the_action_on_users_names_the_users(self, staff_client, issue, user, other):
        text = send(staff_client, "revoke_users", issue(other, real_user=user)).content.decode()

        assert f"The live tokens of {', '.join(sorted([str(user), str(other)]))} are revoked." in text

    def test_confirmation_page_names_the_user_with_the_recorded_uuid_if_the_foreign_key_was_modified(
        self, staff_client, issue, user, other
    ):
        token = issue(user)
        # Simulate an attacker who changes the foreign key in the database.
        IssuedToken.objects.filter(pk=token.pk).update(user=other)

        text = send(staff_client, "revoke_users", token).content.decode()

        assert f"The live tokens of {user} are revoked." in text

    def test_confirmation_page_of_the_action_on_users_names_at_most_twenty_users(self, staff_client, issue):
        users = [get_user_model().objects.create(username=f"user{n:02}") for n in range(23)]
        text = send(staff_client, "revoke_users", *map(issue, users)).content.decode()

        assert "user18, user19 and 3 others are revoked." in text
        assert "user20" not in text


class TestRevokingTokensOfApplications:
    def test_confirmation_page_of_the_action_on_applications_names_the_application(self, staff_client, issue, user):
        token = issue(user)

        text = send(staff_client, "revoke_applications", token).content.decode()

        assert f"The live tokens of {token.client_id} are revoked." in text

    def test_action_on_applications_revokes_all_live_tokens_of_the_application_of_a_selected_token(
        self, staff_client, issue, user, other
    ):
        chosen, another, spared = issue(user), issue(other), issue(user, application=None)

        confirmed(staff_client, "revoke_applications", chosen)

        assert revoked() == {chosen, another}
        assert spared not in revoked()

    def test_action_on_applications_revokes_no_token_without_an_application(self, staff_client, issue, user):
        confirmed(staff_client, "revoke_applications", issue(user, application=None))

        assert revoked() == set()


class TestAnActionWithAnInvalidSetting:
    """Tests that tokens can be revoked even if a setting is invalid, for example after a rollback of the code."""

    @pytest.fixture(autouse=True)
    def misspelled(self, settings, issue, user):
        issue(user)
        settings.INSTACCESS = {"ACOUNT_UUID": "x"}

    def test_pages_of_issued_tokens_answer_200_if_a_setting_is_invalid(self, staff_client):
        row = IssuedToken.objects.get()

        assert staff_client.get("/admin/instaccess/issuedtoken/").status_code == 200
        assert staff_client.get(f"/admin/instaccess/issuedtoken/{row.pk}/change/").status_code == 200

    @pytest.mark.parametrize("action", ["revoke_chosen", "revoke_users"])
    def test_actions_revoke_tokens_if_a_setting_is_invalid(self, staff_client, action):
        row = IssuedToken.objects.get()

        assert send(staff_client, action, row).status_code == 200
        confirmed(staff_client, action, row)
        assert revoked() == {row}


class TestAnActionOnMoreTokensThanTheMaximum:
    @pytest.mark.parametrize("action", ["revoke_users", "revoke_applications"])
    def test_action_on_users_or_applications_refuses_a_selection_over_the_maximum(
        self, action, staff_client, issue, user, monkeypatch
    ):
        monkeypatch.setattr("instaccess.admin.tokens.actions.MOST_CHOSEN", 1)
        tokens = [issue(user), issue(user)]

        response = confirmed(staff_client, action, *tokens)

        assert "No tokens were revoked. Select at most 1 tokens." in response.content.decode()
        assert revoked() == set()

    def test_action_on_selected_tokens_accepts_a_selection_over_the_maximum(
        self, staff_client, issue, user, monkeypatch
    ):
        monkeypatch.setattr("instaccess.admin.tokens.actions.MOST_CHOSEN", 1)
        tokens = [issue(user), issue(user)]

        send(staff_client, "revoke_chosen", tokens[0], confirmed="yes", reason="laptop lost", select_across="1")

        assert revoked() == set(tokens)


class TestAnActionWithoutThePermission:
    @pytest.fixture
    def view_only_client(self, db):
        staff = get_user_model().objects.create_user("auditor", is_staff=True)
        staff.user_permissions.add(Permission.objects.get(codename="view_issuedtoken"))
        client = Client()
        client.force_login(staff)
        return client

    @pytest.mark.parametrize("action", ["revoke_chosen", "revoke_users", "revoke_applications"])
    def test_actions_of_users_without_the_permission_revoke_no_token(self, action, view_only_client, issue, user):
        confirmed(view_only_client, action, issue(user))

        assert revoked() == set()

    def test_list_of_issued_tokens_shows_no_action_to_users_without_the_permission(
        self, view_only_client, issue, user
    ):
        issue(user)

        assert "revoke_" not in view_only_client.get(TOKENS).content.decode()


class TestAnActionWithoutTheCSRFToken:
    def test_action_without_csrf_token_revokes_no_token(self, staff, issue, user):
        client = Client(enforce_csrf_checks=True)
        client.force_login(staff)

        response = confirmed(client, "revoke_chosen", issue(user))

        assert response.status_code == 403
        assert revoked() == set()
