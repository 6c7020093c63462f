"""Browser tests of the search, the export and the revocation of issued tokens in the admin."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from instaccess.models import IssuedToken
from tests.admin.browser.accessibility import faults

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.services

Visit = Callable[..., "Page"]
LIST = "/admin/instaccess/issuedtoken/"
HOUR = 3600


@pytest.fixture
def audit(row: Callable[..., IssuedToken], user: Any) -> dict[str, list[IssuedToken]]:
    """Create the audit rows of three live tokens and one expired token of Ada, and of one live token of Boole."""
    boole = get_user_model().objects.create_user("boole")
    return {
        "live": [row(age=minutes * 60) for minutes in (1, 20, 40)],
        "expired": [row(age=3 * HOUR)],
        "boole": [row(age=600, user=boole, user_uuid="b001e")],
    }


def rows(page: Page) -> Locator:
    return page.locator("#result_list tbody tr")


class TestAUserWhoseLaptopIsLost:
    def test_operator_searches_for_a_user_and_revokes_two_tokens_in_the_browser(
        self, visit: Visit, superuser: Any, audit: dict[str, list[IssuedToken]]
    ) -> None:
        page = visit(superuser)
        page.goto(LIST)
        assert rows(page).count() == 5
        page.get_by_text("Filters", exact=True).click()
        page.get_by_role("link", name="live", exact=True).click()
        page.wait_for_url("**/?status=live")
        page.locator("#searchbar").fill("ada")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=ada**")
        assert rows(page).count() == 3
        for token in audit["live"][:2]:
            rows(page).filter(has_text=str(token.jti)).get_by_role("checkbox").check()
        page.get_by_label("Action:").select_option("revoke_chosen")
        page.get_by_role("button", name=re.compile("^(Go|Run)$")).click()
        page.get_by_text("Live tokens to revoke: 2.").wait_for()
        page.get_by_label("Reason").fill("laptop lost")
        assert faults(page) == []
        page.get_by_role("button", name="Revoke").click()
        page.get_by_text("2 live tokens were revoked.").wait_for()
        page.goto(LIST)
        for token in audit["live"]:
            words = rows(page).filter(has_text=str(token.jti)).locator(".field-status").inner_text()
            assert words == ("revoked" if token in audit["live"][:2] else "live")

    def test_a21_operator_revokes_all_tokens_of_a_user_from_the_page_of_a_token_in_the_browser(
        self,
        visit: Visit,
        superuser: Any,
        audit: dict[str, list[IssuedToken]],
        make_access_token: Callable[..., Any],
    ) -> None:
        make_access_token()
        page = visit(superuser)
        page.goto(f"{LIST}{audit['live'][0].pk}/change/")
        assert faults(page) == []
        page.get_by_role("button", name="Revoke all live tokens and OAuth2 tokens of ada…").click()
        page.get_by_text("OAuth2 tokens of ada for LTI tool: 1 access token.").wait_for()
        assert page.get_by_label("Revoke the OAuth2 tokens too").is_checked()
        page.get_by_label("Reason").fill("laptop stolen")
        assert faults(page) == []
        page.get_by_role("button", name="Revoke tokens").click()
        page.get_by_text("3 live tokens were revoked. 1 OAuth2 token was revoked.").wait_for()
        page.goto(f"{LIST}{audit['live'][0].pk}/history/")
        page.get_by_text("Revoked by root. Reason: laptop stolen (1 OAuth2 token revoked too)").wait_for()
        assert faults(page) == []


class TestTheFilterByAccess:
    @pytest.mark.parametrize("size", [None, {"width": 390, "height": 844}], ids=["wide", "phone"])
    def test_a22_list_shows_the_tokens_that_were_valid_in_the_period_that_the_operator_types(
        self, visit: Visit, superuser: Any, audit: dict[str, list[IssuedToken]], size: Any
    ) -> None:
        since = audit["expired"][0].issued_at - timedelta(minutes=1)
        page = visit(superuser, size=size)
        page.goto(LIST)
        page.locator(".instaccess-filters > summary").press("Enter")
        # The fields for a date are in the order of American English: month, day, year. Chromium moves the focus after
        # each complete field. Press Tab after the year, because a year can have six digits.
        for name, time in (("From", since), ("Until", since + timedelta(minutes=30))):
            page.get_by_label(name, exact=True).focus()
            page.keyboard.type(f"{time:%m%d%Y}")
            page.keyboard.press("Tab")
            page.keyboard.type(f"{time:%I%M%p}")
        page.keyboard.press("Enter")
        page.wait_for_url("**since=**until=**")
        assert rows(page).count() == 1
        assert str(audit["expired"][0].jti) in rows(page).inner_text()
        assert page.get_by_text(f"{since:%Y-%m-%d %H:%M}:00 UTC to").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert faults(page) == []


class TestTheListOfIssuedTokens:
    def test_list_of_issued_tokens_has_a_chart_and_a_table_with_the_same_numbers(
        self, visit: Visit, superuser: Any, audit: dict[str, list[IssuedToken]]
    ) -> None:
        page = visit(superuser)
        page.goto(LIST)
        chart = page.get_by_role("img", name="Tokens over time")
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 100
        page.locator("summary", has_text="Show as a table").focus()
        page.keyboard.press("Enter")
        numbers = page.get_by_role("region", name="Show as a table").locator("td:first-of-type").all_inner_texts()
        assert sum(int(number) for number in numbers) == 5
        assert faults(page) == []

    def test_list_of_issued_tokens_links_to_the_page_of_a_token(
        self, visit: Visit, superuser: Any, audit: dict[str, list[IssuedToken]]
    ) -> None:
        token = audit["live"][0]
        page = visit(superuser)
        page.goto(LIST)
        page.get_by_role("link", name=str(token.jti)).click()
        page.get_by_role("heading", name="View issued token").wait_for()
        assert page.locator("#issuedtoken_form").get_by_text("192.0.2.7").is_visible()
        assert faults(page) == []


class TestAnExportedFile:
    def test_downloaded_export_contains_the_filtered_rows(
        self, visit: Visit, superuser: Any, audit: dict[str, list[IssuedToken]], tmp_path: Path
    ) -> None:
        page = visit(superuser)
        page.goto(f"{LIST}?status=live&q=ada")
        wanted = [str(token.jti) for token in audit["live"]]
        with (tmp_path / download(page, "Export CSV", tmp_path)).open(newline="", encoding="utf-8-sig") as file:
            assert [line["jti"] for line in csv.DictReader(file)] == wanted
        text = (tmp_path / download(page, "Export JSON Lines", tmp_path)).read_text()
        assert [json.loads(line)["jti"] for line in text.splitlines()] == wanted


class TestAUserWhoMayOnlyView:
    def test_user_who_may_only_view_issued_tokens_sees_no_actions(
        self, visit: Visit, audit: dict[str, list[IssuedToken]]
    ) -> None:
        clerk = get_user_model().objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(Permission.objects.get(codename="view_issuedtoken"))
        page = visit(clerk)
        page.goto(LIST)
        assert rows(page).count() == 5
        assert page.get_by_role("img", name="Tokens over time").is_visible()
        assert not page.get_by_label("Action:").count()
        assert not page.get_by_role("link", name="Inspect a token").count()
        assert faults(page) == []


def download(page: Page, link: str, folder: Path) -> str:
    """Click a link and save the downloaded file in a folder. Returns the suggested file name."""
    with page.expect_download() as event:
        page.get_by_role("link", name=link).click()
    name = event.value.suggested_filename
    event.value.save_as(folder / name)
    return name
