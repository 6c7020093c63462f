"""Browser tests that no list of the admin has a cut-off column, on laptops with the sidebar and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model

from instaccess import users
from instaccess.models import IssuedToken, Key, ServiceUser
from tests.admin.browser.accessibility import faults
from tests.admin.browser.chromium import NARROW, WIDE

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.services

Visit = Callable[..., "Page"]
LISTS = ("issuedtoken", "key", "serviceuser")
WIDTHS = (1280, 1366, 1440, 390)

# This script returns the cells that the list or the window cuts off before a user scrolls.
_CUT_OFF = """
() => {
    const list = document.querySelector("#changelist-form .results").getBoundingClientRect();
    const right = Math.min(list.right, document.documentElement.clientWidth) + 1;
    return [...document.querySelectorAll("#result_list th, #result_list td")].filter(cell => {
        const text = document.createRange();
        text.selectNodeContents(cell);
        const boxes = [cell.getBoundingClientRect(), ...text.getClientRects()];
        return boxes.some(box => box.width && (box.right > right || box.left < list.left - 1))
            || cell.scrollWidth > cell.clientWidth + 1;
    }).map(cell => `${cell.className}: ${cell.textContent.trim()}`);
}
"""


@pytest.fixture
def longest_rows(
    row: Callable[..., IssuedToken], initial_keys: list[Key], application: Any, user: Any
) -> IssuedToken:
    """Create rows with long values in each list. Returns a token that grace requested while masquerading as ada."""
    grace = get_user_model().objects.create_user("grace")
    row(ip_address="2001:db8:85a3:1234:5678:8a2e:370:7334", user=None, user_uuid="5" * 36, client_id="c" * 40)
    row(age=3 * 86_400)
    ServiceUser.objects.create(application=application, user=user)
    return row(age=60, real_user=grace, real_user_uuid=users.user_uuid(grace), application=application)


class TestTheWidthOfTheLists:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("name", LISTS)
    def test_a10_no_column_of_a_list_is_cut_off(
        self, visit: Visit, superuser: Any, longest_rows: IssuedToken, name: str, width: int
    ) -> None:
        page = visit(superuser, size={"width": width, "height": 900})
        page.goto(f"/admin/instaccess/{name}/")
        assert page.locator("#nav-sidebar").is_visible() == (width > 1024)
        assert page.locator("#result_list tbody tr").count()
        assert page.evaluate(_CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    @pytest.mark.parametrize("language", ["de", "es", "fr"])
    @pytest.mark.parametrize("name", LISTS)
    def test_a10_no_column_is_cut_off_on_a_small_laptop_in_another_language(
        self, visit: Visit, superuser: Any, longest_rows: IssuedToken, settings: Any, name: str, language: str
    ) -> None:
        settings.LANGUAGE_CODE = language
        page = visit(superuser, size={"width": 1280, "height": 900})
        page.goto(f"/admin/instaccess/{name}/")
        assert page.locator("html").get_attribute("lang") == language
        assert page.evaluate(_CUT_OFF) == []


class TestAListOnAPhone:
    def test_a10_phone_displays_a_token_as_a_card_with_users_application_time_and_status(
        self, visit: Visit, superuser: Any, longest_rows: IssuedToken
    ) -> None:
        page = visit(superuser, size=NARROW)
        page.goto("/admin/instaccess/issuedtoken/")
        card = page.locator("#result_list tbody tr", has_text=str(longest_rows.jti))
        text = card.inner_text()
        for part in (
            f"{longest_rows.issued_at:%Y-%m-%d %H:%M:%S}",
            "live",
            "user ada",
            "actor grace",
            f"application {longest_rows.application}",
        ):
            assert part in text
        box = card.bounding_box()
        assert box is not None
        assert box["height"] < 160
        assert faults(page) == []

    def test_a10_user_on_a_phone_sorts_the_cards_and_selects_all_cards(
        self, visit: Visit, superuser: Any, longest_rows: IssuedToken
    ) -> None:
        page = visit(superuser, size=NARROW)
        page.goto("/admin/instaccess/issuedtoken/")
        page.locator("#action-toggle").check()
        assert page.locator("#result_list tr.selected").count() == IssuedToken.objects.count()
        # Find the link by its tag, because the link has the role of a button in Django 6.1 and later.
        page.locator("#result_list thead .text a", has_text="issued (UTC)").click()
        page.wait_for_url("**/?o=*")
        assert faults(page) == []


@pytest.mark.parametrize("name", ["issuedtoken", "key"])
class TestTheFilters:
    @pytest.mark.parametrize("size", [NARROW, WIDE, {"width": 1920, "height": 1080}], ids=lambda size: size["width"])
    def test_a10_filters_above_the_list_are_closed_and_can_be_opened_with_the_keyboard(
        self, visit: Visit, superuser: Any, longest_rows: IssuedToken, name: str, size: Any
    ) -> None:
        page = visit(superuser, size=size, java_script_enabled=False)
        page.goto(f"/admin/instaccess/{name}/")
        filters = page.locator("#changelist-filter")
        assert filters.is_hidden()
        page.get_by_text("Filters", exact=True).press("Enter")
        panel, rows = (page.locator(each).bounding_box() for each in ("#changelist-filter", "#result_list"))
        assert panel is not None
        assert rows is not None
        assert panel["y"] + panel["height"] <= rows["y"]
        # The Tab key must move the focus from the summary to the first link of the filters.
        page.keyboard.press("Tab")
        assert filters.locator(":focus").count() == 1

    def test_a10_summary_of_the_closed_filters_names_the_active_filter(
        self, visit: Visit, superuser: Any, longest_rows: IssuedToken, name: str
    ) -> None:
        parameter = "status" if name == "issuedtoken" else "status__exact"
        value = "live" if name == "issuedtoken" else "current"
        page = visit(superuser)
        page.goto(f"/admin/instaccess/{name}/?{parameter}={value}")
        summary = page.locator(".instaccess-filters > summary")
        assert summary.inner_text().split() == ["Active", "filters:", "status"]
        assert faults(page) == []
        summary.click()
        assert faults(page) == []
        page.get_by_role("link", name="Clear all filters").click()
        page.get_by_text("Filters", exact=True).wait_for()


def test_a10_first_token_is_visible_on_a_laptop_before_the_user_scrolls(
    visit: Visit, superuser: Any, longest_rows: IssuedToken
) -> None:
    page = visit(superuser, size=WIDE)
    page.goto("/admin/instaccess/issuedtoken/")
    box = page.locator("#result_list tbody tr").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= WIDE["height"]
