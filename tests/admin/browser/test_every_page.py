"""Browser tests of the accessibility of the admin pages that no other browser test visits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from instaccess.models import Key, RefusalCount, ServiceUser
from tests.admin.browser.accessibility import faults

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.services

Visit = Callable[..., "Page"]

_ONLY_OPTION = "text => [...document.querySelectorAll('[role=option]')].map(each => each.textContent).join() === text"


class TestOtherPages:
    @pytest.mark.parametrize(
        ("button", "heading"), [("Generate key…", "Generate a key"), ("Import key…", "Import a key")]
    )
    def test_pages_that_generate_or_import_a_key_are_accessible(
        self, visit: Visit, superuser: Any, initial_keys: list[Key], button: str, heading: str
    ) -> None:
        page = visit(superuser)
        page.goto("/admin/instaccess/key/")
        page.get_by_role("button", name=button).click()
        page.get_by_role("heading", name=heading).wait_for()
        assert faults(page) == []

    def test_dashboard_is_accessible(self, visit: Visit, superuser: Any, initial_keys: list[Key]) -> None:
        RefusalCount.objects.create(hour=timezone.now(), role="gateway", reason="bad_signature", count=143)
        page = visit(superuser)
        page.goto("/admin/instaccess/")
        page.get_by_text("Most frequent reasons for refusals").wait_for()
        assert faults(page) == []

    def test_dashboard_is_accessible_if_there_are_no_keys(self, visit: Visit, superuser: Any) -> None:
        page = visit(superuser)
        page.goto("/admin/instaccess/")
        page.get_by_text("There are no keys yet").wait_for()
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

    def test_administrator_searches_for_an_application_and_a_user_and_confirms_a_warning(
        self, visit: Visit, superuser: Any, user: Any, application: Any
    ) -> None:
        page = visit(superuser)
        page.goto("/admin/instaccess/serviceuser/add/")
        for label, text in ("Application", str(application)), ("User", "root"):
            page.get_by_role("combobox", name=label).click()
            # Wait for the list of all rows. If the search began earlier, the browser would cancel the request for the
            # list, and `Watch` would report the canceled request.
            page.get_by_role("option", name=text).wait_for()
            with page.expect_response(lambda response: "term=" in response.url):
                page.keyboard.type(text)
            page.wait_for_function(_ONLY_OPTION, arg=text)
            page.keyboard.press("Enter")
            page.get_by_role("combobox", name=f"{label}: {text}").wait_for()
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_text("This user is a superuser, so the application gets every permission.").wait_for()
        assert faults(page) == []
        assert not ServiceUser.objects.exists()
        page.get_by_label("Bind the application to this privileged user").check()
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_text("was added successfully").wait_for()
        assert ServiceUser.objects.get().user == superuser

    def test_key_page_is_accessible_if_there_are_no_keys(self, visit: Visit, superuser: Any) -> None:
        page = visit(superuser)
        page.goto("/admin/instaccess/key/")
        page.get_by_text("python manage.py instaccess_init").wait_for()
        assert faults(page) == []
