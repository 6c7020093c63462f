"""Tests that the dashboard shows only the parts that the permissions of the user allow, on every admin site."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.urls import path

from instaccess.admin import IssuedTokenAdmin, KeyAdmin
from instaccess.models import IssuedToken, Key
from tests.admin.dashboard.helpers import dashboard, links

pytestmark = pytest.mark.django_db

KEYS, TOKENS, AUDIT = "Lifecycle", "Last 24 hours", "Last seal"
ATTENTION = "What needs attention"

other_site, site_of_others = admin.AdminSite(name="staff"), admin.AdminSite(name="others")
other_site.register(Key, KeyAdmin)
other_site.register(IssuedToken, IssuedTokenAdmin)


@admin.register(Key, site=site_of_others)
class HostKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin class that the developers of a host project wrote instead of using this app's class."""


urlpatterns = [
    path("admin/", admin.site.urls),
    path("staff/", other_site.urls),
    path("others/", site_of_others.urls),
]


def sections_of(client: Any) -> set[str]:
    text = dashboard(client)
    return {section for section in (KEYS, TOKENS, AUDIT, ATTENTION) if section in text}


class TestPermissions:
    @pytest.mark.parametrize(
        ("permissions", "sections"),
        [
            ({"view_key"}, {KEYS, ATTENTION}),
            ({"view_issuedtoken"}, {TOKENS, AUDIT, ATTENTION}),
            ({"view_key", "view_issuedtoken"}, {KEYS, TOKENS, AUDIT, ATTENTION}),
            ({"inspect_tokens"}, set()),
            ({"view_serviceuser"}, set()),
        ],
    )
    def test_dashboard_shows_only_the_sections_that_the_permissions_allow(
        self, sign_in, initial_keys, permissions, sections
    ):
        assert sections_of(sign_in(*permissions)) == sections

    @pytest.mark.parametrize(
        ("permissions", "labels"),
        [
            ({"view_key"}, {"Keys and their timeline"}),
            ({"view_issuedtoken"}, {"Find out who had access last night", "Check the audit log"}),
            (
                {"view_issuedtoken", "revoke_tokens"},
                {"Revoke tokens", "Find out who had access last night", "Check the audit log"},
            ),
            ({"inspect_tokens"}, {"Inspect a token"}),
            ({"view_serviceuser"}, {"Service users of applications"}),
            ({"view_serviceuser", "revoke_tokens"}, {"Service users of applications"}),
        ],
    )
    def test_dashboard_shows_only_the_links_that_the_permissions_allow(self, sign_in, permissions, labels):
        assert set(links(sign_in(*permissions))) == labels

    def test_dashboard_shows_no_problems_of_keys_to_a_user_who_may_not_view_keys(self, sign_in, settings):
        settings.INSTACCESS = {"NO_SUCH_SETTING": 1}
        text = dashboard(sign_in("view_issuedtoken"))

        assert "no keys yet" not in text
        assert "rotate" not in text
        assert "NO_SUCH_SETTING" not in text

    def test_dashboard_shows_nothing_about_the_audit_log_to_a_user_who_may_not_view_tokens(
        self, sign_in, initial_keys
    ):
        text = dashboard(sign_in("view_key"))

        assert "verify" not in text
        assert re.search(r"\bseal", text) is None

    def test_dashboard_answers_404_to_a_user_without_any_permission_of_the_app(self, sign_in):
        assert sign_in().get("/admin/instaccess/").status_code == 404


@pytest.mark.urls(__name__)
class TestAnotherAdminSite:
    def test_dashboard_links_to_the_pages_of_the_same_admin_site(self, admin_client, initial_keys):
        found = links(admin_client, "/staff/instaccess/")

        assert found["Keys and their timeline"] == "/staff/instaccess/key/"
        assert found["Inspect a token"] == "/staff/instaccess/issuedtoken/inspect/"
        assert "Service users of applications" not in found
        assert "Current since" in dashboard(admin_client, "/staff/instaccess/")

    def test_admin_site_without_the_admin_pages_of_this_app_has_no_dashboard(self, admin_client, initial_keys):
        assert dashboard(admin_client, "/others/instaccess/") == ""
