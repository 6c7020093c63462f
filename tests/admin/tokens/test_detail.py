"""Tests of the page and the history of one issued token: next step, links, refusals and revoke buttons."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from oauth2_provider.models import get_application_model

from instaccess import users
from instaccess.models import IssuedToken, Key, RefusalCount

pytestmark = pytest.mark.django_db

LIST = reverse("admin:instaccess_issuedtoken_changelist")


@pytest.fixture
def log_in(client):
    """Return a function that logs in a staff user with the given permissions, and returns the client."""

    def log_in_(*codenames: str) -> Any:
        staff = get_user_model().objects.create_user("help.desk", is_staff=True)
        staff.user_permissions.add(*Permission.objects.filter(codename__in=["view_issuedtoken", *codenames]))
        client.force_login(staff)
        return client

    return log_in_


@pytest.fixture
def grace(db):
    return get_user_model().objects.create_user("grace")


def page(client: Any, token: IssuedToken, name: str = "change") -> str:
    response = client.get(reverse(f"admin:instaccess_issuedtoken_{name}", args=[token.pk]))
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def links(client: Any, token: IssuedToken) -> dict[str, tuple[str, str]]:
    """Return the text and the URL of each link to a related page, by the label of the link."""
    found = re.findall(r'<dt>([^<]*)</dt><dd><a href="([^"]*)">([^<]*)</a>', page(client, token))
    return {name: (text, url) for name, url, text in found}


def buttons(client: Any, token: IssuedToken) -> list[tuple[str, str]]:
    """Return the action and the label of each button that leads to a confirmation page."""
    text = page(client, token)
    actions = re.findall(r'<input type="hidden" name="action" value="(\w+)">', text)
    return list(zip(actions, re.findall(r'<input type="submit" value="(Revoke [^"]*)">', text), strict=True))


class TestTheLinksOfAToken:
    def test_a24_page_of_a_token_links_to_user_actor_application_and_keys(
        self, log_in, row, user, grace, application, initial_keys
    ):
        signing, encryption = (Key.objects.get(use=use, status="current") for use in ("sig", "enc"))
        token = row(
            real_user=grace,
            real_user_uuid=users.user_uuid(grace),
            signing_kid=signing.kid,
            encryption_kid=encryption.kid,
        )

        found = links(log_in("view_user", "view_application", "view_key"), token)

        assert {name: found[name] for name in ("User", "Actor", "Application", "Signing key", "Encryption key")} == {
            "User": ("ada", reverse("admin:auth_user_change", args=[user.pk])),
            "Actor": ("grace", reverse("admin:auth_user_change", args=[grace.pk])),
            "Application": (
                "LTI tool",
                reverse("admin:oauth2_provider_application_change", args=[application.pk]),
            ),
            "Signing key": (signing.kid, reverse("admin:instaccess_key_change", args=[signing.pk])),
            "Encryption key": (encryption.kid, reverse("admin:instaccess_key_change", args=[encryption.pk])),
        }

    def test_a24_links_on_the_page_of_a_token_work_and_lead_to_the_tokens_of_its_user_actor_and_address(
        self, log_in, row, user, grace, initial_keys
    ):
        own = row(ip_address="192.0.2.8")
        token = row(real_user=grace, real_user_uuid=users.user_uuid(grace))
        of_grace = row(user=grace, user_uuid=users.user_uuid(grace), ip_address="192.0.2.9")
        client = log_in("view_user", "view_application", "view_key")

        found = links(client, token)

        assert all(client.get(url).status_code == 200 for _text, url in found.values())
        listed = {
            name: set(client.get(found[name][1]).context["cl"].result_list)
            for name in (
                "Tokens and refusals of the user",
                "Tokens and refusals of the actor",
                "Tokens of the IP address",
            )
        }
        assert list(listed.values()) == [{own, token}, {token, of_grace}, {token}]

    def test_a24_page_of_a_token_links_only_to_pages_that_the_user_may_view(self, log_in, row, initial_keys):
        token = row(signing_kid=Key.objects.get(use="sig", status="current").kid)

        assert list(links(log_in(), token)) == ["Tokens and refusals of the user", "Tokens of the IP address"]

    def test_a24_page_of_a_token_does_not_link_to_an_object_if_the_foreign_key_was_modified(self, log_in, row, grace):
        users.user_uuid(grace)
        token = row()
        other = get_application_model().objects.create(name="Other", client_id="other")
        # Simulate an attacker who changes the foreign keys in the database.
        IssuedToken.objects.update(user=grace, application=other)

        found = links(log_in("view_user", "view_application"), token)

        assert not {"User", "Application"} & set(found)
        assert found["Tokens and refusals of the user"] == (token.user_uuid, f"{LIST}?q={token.user_uuid}")

    def test_a24_page_of_a_token_links_to_the_tokens_of_a_deleted_user_by_the_recorded_name(self, log_in, row, user):
        token = row()
        user.delete()

        found = links(log_in("view_user"), token)

        assert "User" not in found
        assert found["Tokens and refusals of the user"][0] == "ada"

    def test_a24_page_of_a_token_counts_refused_requests_of_user_and_actor_around_the_time_of_issue(
        self, log_in, row, grace
    ):
        token = row(real_user=grace, real_user_uuid=users.user_uuid(grace))
        hour = timezone.now().replace(minute=0, second=0, microsecond=0)
        for reason, user_uuid, age, count in (
            ("expired", token.user_uuid, 0, 2),
            ("expired", token.real_user_uuid, 1, 3),
            ("scope_missing", token.user_uuid, 0, 1),
            ("too_old", token.user_uuid, 3, 4),
            ("of_another_user", "other", 0, 5),
        ):
            RefusalCount.objects.create(
                hour=hour - timedelta(hours=age), role="issuer", reason=reason, user_uuid=user_uuid, count=count
            )

        text = page(log_in(), token)

        assert "5 × <code>expired</code>, 1 × <code>scope_missing</code></dd>" in text

    def test_a24_page_of_a_token_reports_that_no_request_was_refused(self, log_in, row):
        assert "<dd>none</dd>" in page(log_in(), row())

    def test_a24_page_of_a_token_runs_the_same_number_of_queries_for_many_rows(self, log_in, row, user):
        token, client = row(), log_in("view_user", "view_application", "view_key", "revoke_tokens")

        def count() -> int:
            with CaptureQueriesContext(connection) as captured:
                page(client, token)
            return len(captured)

        few = count()
        for number in range(30):
            row(age=number)

        assert count() == few


class TestTheNextStep:
    @pytest.mark.parametrize(
        ("columns", "text"),
        [
            ({}, "ada has access with this token until "),
            ({"age": 9000}, "Gateways have refused this token since its expiry at "),
            ({"revoked_at": timezone.now}, "Gateways have refused this token since its revocation at "),
        ],
    )
    def test_a24_page_of_a_token_gives_the_next_step_for_its_status(self, columns, text, log_in, row):
        values = {name: value() if callable(value) else value for name, value in columns.items()}

        assert text in page(log_in("revoke_tokens"), row(**values))

    def test_a24_next_step_names_the_actor_who_has_the_token(self, log_in, row, grace):
        token = row(real_user=grace, real_user_uuid=users.user_uuid(grace))

        assert "grace has access with this token until " in page(log_in("revoke_tokens"), token)

    def test_a24_page_of_a_revoked_token_warns_that_a_client_can_get_a_new_token_with_oauth2_tokens(
        self, log_in, row, access_token, make_access_token, grace
    ):
        token = row(revoked_at=timezone.now())
        client = log_in("revoke_tokens")
        assert "but ada has usable OAuth2 tokens (1). A client can get a new token" in page(client, token)
        access_token.delete()
        make_access_token(user=grace)

        assert "usable OAuth2 tokens" not in page(client, token)

    def test_a24_next_step_names_the_permission_if_the_user_may_not_revoke_tokens(self, log_in, row):
        assert "ask an operator with the permission instaccess.revoke_tokens" in page(log_in(), row())


class TestTheRevokeButtons:
    def test_a24_buttons_of_a_live_token_lead_to_the_confirmation_pages(self, log_in, row, user):
        token, client = row(), log_in("revoke_tokens")

        assert buttons(client, token) == [
            ("revoke_chosen", "Revoke this token…"),
            ("revoke_users", "Revoke all live tokens and OAuth2 tokens of ada…"),
        ]
        for action, title in (
            ("revoke_chosen", "Revoke the selected tokens"),
            ("revoke_users", "Revoke all live tokens of the selected users"),
        ):
            form = {"action": action, "_selected_action": token.pk, "index": "0"}
            assert f"<h1>{title}</h1>" in client.post(LIST, form).content.decode()
        assert not IssuedToken.objects.exclude(revoked_at=None).exists()

    def test_a24_page_of_an_expired_token_has_no_button_that_revokes_the_token(self, log_in, row):
        assert [action for action, _ in buttons(log_in("revoke_tokens"), row(age=9000))] == ["revoke_users"]

    def test_a24_button_of_a_masquerade_names_the_user_and_the_actor(self, log_in, row, grace):
        token = row(real_user=grace, real_user_uuid=users.user_uuid(grace))

        _, (_, label) = buttons(log_in("revoke_tokens"), token)
        assert label == "Revoke all live tokens and OAuth2 tokens of ada, grace…"

    def test_a24_page_of_a_token_has_no_button_for_users_without_the_permission(self, log_in, row):
        assert buttons(log_in(), row()) == []

    def test_a24_page_of_a_token_escapes_the_name_of_its_user(self, log_in, row, user):
        token = row(user_name="<script>alert(1)</script>")
        user.delete()
        client = log_in("revoke_tokens")

        for name in ("change", "history"):
            response = client.get(reverse(f"admin:instaccess_issuedtoken_{name}", args=[token.pk]))
            assert "<script>alert(1)" not in response.content.decode()


class TestTheHistoryOfAToken:
    def test_a24_history_shows_the_issue_and_the_revocation_of_a_token(self, log_in, row, grace, application):
        token = row(
            age=60,
            real_user=grace,
            real_user_uuid=users.user_uuid(grace),
            revoked_at=timezone.now(),
            revoked_by="root",
            revocation_reason="laptop lost",
        )

        text = page(log_in(), token, "history")

        events = re.findall(r'<time class="nowrap">([^<]*)</time></th><td>([^<]*)</td>', text)
        assert events == [
            (
                f"{token.issued_at:%Y-%m-%d %H:%M:%S} UTC",
                f"Issued to the actor grace as ada, application {application.client_id}, from 192.0.2.7",
            ),
            (f"{token.revoked_at:%Y-%m-%d %H:%M:%S} UTC", "Revoked by root. Reason: laptop lost"),
        ]
        assert "have a change history" not in text

    def test_a24_history_shows_the_expiry_of_a_token(self, log_in, row):
        client = log_in()

        assert "<td>Expires</td>" in page(client, row(), "history")
        assert "<td>Expired</td>" in page(client, row(age=9000), "history")
