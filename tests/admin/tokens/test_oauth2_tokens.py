"""Tests of the admin's checkbox that revokes the OAuth2 tokens of users together with their InstAccess tokens."""

from __future__ import annotations

import html
import secrets
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from oauth2_provider.models import get_access_token_model, get_application_model, get_refresh_token_model

from instaccess import users
from instaccess.models import IssuedToken, ServiceUser

pytestmark = pytest.mark.django_db

LIST = reverse("admin:instaccess_issuedtoken_changelist")
CHECKBOX = '<input type="checkbox" name="oauth2_tokens"'


@pytest.fixture
def staff_client(client):
    """Return the client of a staff user who may only view and revoke tokens."""
    staff = get_user_model().objects.create_user("help.desk", is_staff=True)
    staff.user_permissions.add(*Permission.objects.filter(codename__in=["view_issuedtoken", "revoke_tokens"]))
    client.force_login(staff)
    return client


@pytest.fixture
def grace(db):
    return get_user_model().objects.create_user("grace")


@pytest.fixture
def give(make_access_token):
    """Return a function that creates an access token and a refresh token for a user."""

    def give_(owner: Any, **columns: Any) -> None:
        access_token = make_access_token(user=owner, **columns)
        get_refresh_token_model().objects.create(
            user=owner,
            application=access_token.application,
            token=secrets.token_urlsafe(),
            access_token=access_token,
        )

    return give_


def send(client: Any, action: str, *tokens: IssuedToken, **fields: str) -> str:
    form = {"action": action, "_selected_action": [token.pk for token in tokens], "index": "0", **fields}
    return html.unescape(client.post(LIST, form, follow=True).content.decode())


def confirm(client: Any, action: str, *tokens: IssuedToken, **fields: str) -> str:
    return send(client, action, *tokens, confirmed="yes", reason="laptop lost", **fields)


def owners() -> set[str]:
    """Return the names of the users who have an access token or an unrevoked refresh token."""
    models = (get_access_token_model().objects.all(), get_refresh_token_model().objects.filter(revoked=None))
    return {token.user.username for tokens in models for token in tokens}


class TestTheConfirmationPageOfTheActionOnUsers:
    def test_a21_confirmation_page_lists_the_oauth2_tokens_and_selects_the_checkbox(
        self, staff_client, give, row, user
    ):
        give(user)
        give(user)
        token = row(age=60)

        text = send(staff_client, "revoke_users", token)

        assert "If the box below is checked, 4 OAuth2 tokens are revoked too." in text
        used = f"{token.issued_at:%Y-%m-%d %H:%M:%S} UTC"
        assert f"OAuth2 tokens of ada for LTI tool: 2 access tokens, 2 refresh tokens. Last used: {used}." in text
        assert CHECKBOX in text
        assert "checked" in text.partition(CHECKBOX)[2].partition(">")[0]
        assert owners() == {"ada"}

    def test_a21_confirmation_page_advises_to_change_the_password_and_names_applications_with_a_secret(
        self, staff_client, row, user, application
    ):
        ServiceUser.objects.create(application=application, user=user)

        text = send(staff_client, "revoke_users", row())

        assert "ada: no usable OAuth2 tokens." in text
        assert "get new OAuth2 tokens with their client secrets: LTI tool." in text
        assert "also change the user's password" in text

    def test_a21_confirmation_page_for_single_tokens_and_applications_has_no_checkbox(
        self, staff_client, give, row, user
    ):
        give(user)
        token = row()

        for action in ("revoke_chosen", "revoke_applications"):
            text = send(staff_client, action, token)
            assert "OAuth2 access tokens stay valid" in text
            assert CHECKBOX not in text

    def test_a21_confirmation_page_keeps_a_cleared_checkbox_if_the_reason_is_missing(self, staff_client, row, user):
        text = send(staff_client, "revoke_users", row(), confirmed="yes", reason="")

        assert "checked" not in text.partition(CHECKBOX)[2].partition(">")[0]

    def test_a21_confirmation_page_runs_the_same_number_of_queries_for_many_users(
        self, staff_client, give, row, user
    ):
        def count(tokens: list[IssuedToken]) -> int:
            with CaptureQueriesContext(connection) as captured:
                send(staff_client, "revoke_users", *tokens)
            return len(captured)

        others = [get_user_model().objects.create_user(f"user{number:02}") for number in range(25)]
        tokens = [row(user=each, user_uuid=users.user_uuid(each)) for each in others]
        for each in others:
            give(each)
        few = count(tokens[:2])

        assert count(tokens) == few
        assert "There are OAuth2 tokens for 5 more applications." in send(staff_client, "revoke_users", *tokens)


class TestTheActionOnUsers:
    def test_a21_action_on_users_revokes_the_oauth2_tokens_of_the_user_if_the_checkbox_is_selected(
        self, staff_client, give, row, user, grace
    ):
        give(user)
        give(grace)

        text = confirm(staff_client, "revoke_users", row(), oauth2_tokens="on")

        assert "1 live token was revoked. 2 OAuth2 tokens were revoked." in text
        assert owners() == {"grace"}
        token = IssuedToken.objects.get()
        assert (token.revoked_by, token.revocation_reason) == (
            "help.desk",
            "laptop lost (2 OAuth2 tokens revoked too)",
        )

    def test_a21_action_on_users_keeps_the_oauth2_tokens_if_the_checkbox_is_cleared(
        self, staff_client, give, row, user
    ):
        give(user)

        confirm(staff_client, "revoke_users", row())

        assert owners() == {"ada"}
        assert IssuedToken.objects.get().revocation_reason == "laptop lost"

    @pytest.mark.parametrize("action", ["revoke_chosen", "revoke_applications"])
    def test_a21_other_actions_keep_the_oauth2_tokens_even_if_the_form_contains_the_checkbox(
        self, action, staff_client, give, row, user
    ):
        give(user)

        confirm(staff_client, action, row(), oauth2_tokens="on")

        assert owners() == {"ada"}

    def test_a21_action_on_a_masquerade_revokes_only_the_oauth2_tokens_of_the_actor(
        self, staff_client, give, row, user, grace
    ):
        give(user)
        give(grace)
        masquerade = row(real_user=grace, real_user_uuid=users.user_uuid(grace))

        page = send(staff_client, "revoke_users", masquerade)
        confirm(staff_client, "revoke_users", masquerade, oauth2_tokens="on")

        assert "OAuth2 tokens of grace for LTI tool" in page
        assert "The OAuth2 tokens of ada stay valid, because an actor requested the selected tokens." in page
        assert owners() == {"ada"}

    def test_a21_action_on_users_revokes_no_oauth2_token_of_another_user_if_the_foreign_key_was_modified(
        self, staff_client, give, row, user, grace
    ):
        give(grace)
        users.user_uuid(grace)
        token = row()
        # Simulate an attacker who changes the foreign key in the database.
        IssuedToken.objects.update(user=grace)

        confirm(staff_client, "revoke_users", token, oauth2_tokens="on")

        assert owners() == {"grace"}

    def test_a21_action_by_a_user_without_the_permission_revokes_no_oauth2_token(self, client, give, row, user):
        auditor = get_user_model().objects.create_user("auditor", is_staff=True)
        auditor.user_permissions.add(Permission.objects.get(codename="view_issuedtoken"))
        client.force_login(auditor)
        give(user)

        confirm(client, "revoke_users", row(), oauth2_tokens="on")

        assert owners() == {"ada"}

    def test_a21_action_on_users_revokes_oauth2_tokens_if_a_setting_is_invalid(
        self, staff_client, give, row, user, settings
    ):
        give(user)
        token = row()
        settings.INSTACCESS = {"ACOUNT_UUID": "x"}

        confirm(staff_client, "revoke_users", token, oauth2_tokens="on")

        assert owners() == set()
        assert IssuedToken.objects.get().revoked_at

    def test_a21_confirmation_page_escapes_the_name_of_an_application(self, staff_client, give, row, user):
        tool = get_application_model().objects.create(name="<script>alert(1)</script>", client_id="x")
        give(user, application=tool)

        form = {"action": "revoke_users", "_selected_action": row().pk, "index": "0"}

        assert "<script>alert(1)" not in staff_client.post(LIST, form).content.decode()
