"""Tests of the names of deleted users on the admin pages of issued tokens."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse
from django.utils import timezone

from instaccess import users
from instaccess.admin.inspector import records
from instaccess.admin.tokens import search
from instaccess.audit import ERASED_NAME, HmacStatus, erase_name
from instaccess.conf import conf
from instaccess.models import IssuedToken, RefusalCount

pytestmark = pytest.mark.django_db

LIST = reverse("admin:instaccess_issuedtoken_changelist")


@pytest.fixture
def masquerade(row, user):
    """Create the audit row of a token that grace got while masquerading as ada, and then delete both users."""
    grace = get_user_model().objects.create_user("grace")
    made = row(real_user=grace, real_user_uuid=users.user_uuid(grace))
    user.delete()
    grace.delete()
    made.refresh_from_db()
    return made


def listed(client: Any, **query: str) -> list[IssuedToken]:
    return list(client.get(LIST, query).context["cl"].result_list)


def page(client: Any, token: IssuedToken | None = None) -> str:
    url = LIST if token is None else reverse("admin:instaccess_issuedtoken_change", args=[token.pk])
    return html.unescape(client.get(url).content.decode())


class TestADeletedUser:
    def test_a13_list_of_issued_tokens_shows_the_names_of_deleted_users(self, masquerade, admin_client):
        text = page(admin_client)

        assert '<span class="instaccess-cell-label">user</span> ada</td>' in text
        assert '<span class="instaccess-cell-label">actor</span> grace</td>' in text
        assert masquerade.user_uuid not in text

    def test_a13_page_of_a_token_shows_the_names_and_the_uuids_of_deleted_users(self, masquerade, admin_client):
        text = page(admin_client, masquerade)

        for value in ("ada", "grace", masquerade.user_uuid, masquerade.real_user_uuid):
            assert f'<div class="readonly">{value}</div>' in text

    @pytest.mark.parametrize("name", ["ada", "grace"])
    def test_a13_search_finds_the_tokens_of_a_deleted_user_by_name(self, name, masquerade, admin_client):
        assert listed(admin_client, q=name) == [masquerade]
        assert listed(admin_client, q=f"{name} {masquerade.jti}") == [masquerade]
        assert listed(admin_client, q="nobody") == []

    def test_a13_search_finds_the_refusals_of_a_deleted_user_by_name(self, masquerade, admin_client):
        hour = timezone.now().replace(minute=0, second=0, microsecond=0)
        for user_uuid, count in ((masquerade.user_uuid, 3), (masquerade.real_user_uuid, 4), ("other", 5)):
            RefusalCount.objects.create(hour=hour, role="issuer", reason="expired", user_uuid=user_uuid, count=count)

        for name, counts in (("ada", [3]), ("grace", [4]), ("nobody", [])):
            assert admin_client.get(LIST, {"q": name}).status_code == 200
            matching = RefusalCount.objects.filter(search.refusals_matching(name))
            assert list(matching.values_list("count", flat=True)) == counts

    def test_a13_admin_export_contains_the_names_of_deleted_users(self, masquerade, admin_client):
        url = reverse("admin:instaccess_issuedtoken_export", args=["jsonl"])
        [line] = b"".join(admin_client.get(url, {"q": "grace"}).streaming_content).splitlines()

        fact = json.loads(line)
        assert (fact["user"], fact["user_name"]) == (None, "ada")
        assert (fact["actor"], fact["actor_name"]) == (None, "grace")

    def test_a13_confirmation_page_of_a_revocation_shows_the_names_of_deleted_users(self, masquerade, admin_client):
        response = admin_client.post(LIST, {"action": "revoke_users", "_selected_action": masquerade.pk})

        assert "The live tokens of ada, grace are revoked." in html.unescape(response.content.decode())

    def test_list_of_issued_tokens_shows_an_erased_name_as_erased_and_does_not_find_the_name(
        self, masquerade, admin_client
    ):
        erase_name(masquerade.user_uuid, keks=conf.key_encryption_keys, by="admin")

        assert f'<span class="instaccess-cell-label">user</span> {ERASED_NAME}</td>' in page(admin_client)
        assert listed(admin_client, q="ada") == []
        assert listed(admin_client, q=masquerade.user_uuid) == [masquerade]

    def test_list_of_issued_tokens_shows_the_uuid_if_no_name_was_recorded(self, masquerade, admin_client):
        IssuedToken.objects.update(user_name="", real_user_name="")

        text = page(admin_client)
        assert masquerade.user_uuid in text
        assert masquerade.real_user_uuid in text


class TestNamesInTheInspector:
    @pytest.mark.parametrize("column", ["user_name", "user_agent"])
    def test_a6_inspector_reports_an_audit_row_with_a_modified_name_or_user_agent(self, column, row):
        made = row()
        assert records._check_hmac(made) is HmacStatus.AUTHENTIC

        setattr(made, column, "modified")
        assert records._check_hmac(made) is HmacStatus.BROKEN
