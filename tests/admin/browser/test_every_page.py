"""Browser tests that every admin page which no other browser test visits is accessible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from instaccess.models import Key, ServiceUser
from tests.admin.browser.accessibility import faults

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.services

Visit = Callable[..., "Page"]


class TestOtherPages:
    @pytest.mark.parametrize(
        ("button", "heading"), [("Generate key…", "Generate a key"), ("Import key…", "Import a key")]
    )
    def test_confirmation_pages_of_keys_are_accessible(
        self, visit: Visit, superuser: Any, initial_keys: list[Key], button: str, heading: str
    ) -> None:
        page = visit(superuser)
        page.goto("/admin/instaccess/key/")
        page.get_by_role("button", name=button).click()
        page.get_by_role("heading", name=heading).wait_for()
        assert faults(page) == []

    def test_pages_of_service_users_are_accessible(
        self, visit: Visit, superuser: Any, user: Any, application: Any
    ) -> None:
        bound = ServiceUser.objects.create(application=application, user=user)
        page = visit(superuser)
        faults_by_url = {}
        for url in "", "add/", f"{bound.pk}/change/":
            page.goto(f"/admin/instaccess/serviceuser/{url}")
            faults_by_url[url] = faults(page)
        assert not any(faults_by_url.values()), faults_by_url

    def test_key_page_without_keys_is_accessible(self, visit: Visit, superuser: Any) -> None:
        page = visit(superuser)
        page.goto("/admin/instaccess/key/")
        page.get_by_text("python manage.py instaccess_init").wait_for()
        assert faults(page) == []
