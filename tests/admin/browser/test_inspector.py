"""Browser tests that the inspector shows the verdict and that the browser keeps no pasted token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from instaccess.issuer import issuing
from instaccess.models import IssuedToken, Key
from tests.admin.browser.accessibility import faults

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.services

Visit = Callable[..., "Page"]
LIST = "/admin/instaccess/issuedtoken/"
INSPECTOR = f"{LIST}inspect/"

# This script returns everything that another script on the page could read: the page, form values, cookies and
# storage.
_EVERYTHING = """
() => JSON.stringify([
    location.href, document.cookie, document.documentElement.outerHTML, {...localStorage}, {...sessionStorage},
    history.state, [...document.querySelectorAll("input, textarea")].map(field => field.value),
])
"""


@pytest.fixture
def issued(initial_keys: list[Key], user: Any, application: Any) -> tuple[IssuedToken, str]:
    """Issue a token. Returns the audit row and the token."""
    origin = issuing.Origin("canvas.example.edu", "192.0.2.7", "client/1.0")
    return issuing.issue(user=user, origin=origin, now=time.time(), application=application)


def inspect(page: Page, text: str) -> None:
    page.get_by_label("Token").fill(text)
    page.get_by_role("button", name="Inspect token").click()
    page.get_by_role("heading", name="Inspect another token").wait_for()


class TestAUserWithAToken:
    def test_inspector_page_explains_an_accepted_token_and_the_browser_keeps_no_token(
        self, visit: Visit, superuser: Any, issued: tuple[IssuedToken, str]
    ) -> None:
        token, text = issued
        page = visit(superuser)
        page.goto(LIST)
        page.get_by_role("link", name="Inspect a token").click()
        page.get_by_label("Token").wait_for()
        assert faults(page) == []
        inspect(page, f"Bearer {text}")
        assert page.get_by_role("heading", name="Accepted").is_visible()
        assert page.get_by_role("row", name="sub").get_by_text(token.user_uuid).is_visible()
        assert page.get_by_role("row", name="exp").get_by_text("in 59 minutes").is_visible()
        assert page.get_by_role("row", name="User", exact=False).get_by_text("ada").is_visible()
        assert page.get_by_role("link", name=token.signing_kid).is_visible()
        assert secrets_of(text, page) == []
        assert faults(page) == []
        page.go_back()
        page.get_by_label("Token").wait_for()
        assert page.get_by_label("Token").input_value() == ""
        assert secrets_of(text, page) == []

    def test_inspector_page_explains_a_refused_token_in_the_browser(
        self, visit: Visit, superuser: Any, issued: tuple[IssuedToken, str]
    ) -> None:
        _, text = issued
        page = visit(superuser)
        page.goto(INSPECTOR)
        inspect(page, text[:-1])
        assert page.get_by_role("heading", name="Refused").is_visible()
        assert page.get_by_text("malformed", exact=True).is_visible()
        assert secrets_of(text, page) == []
        assert faults(page) == []


class TestAUserWhoMayOnlyInspect:
    def test_user_who_may_only_inspect_finds_the_inspector_in_the_browser(
        self, visit: Visit, issued: tuple[IssuedToken, str], user: Any
    ) -> None:
        clerk = get_user_model().objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(Permission.objects.get(codename="inspect_tokens"))
        page = visit(clerk)
        page.goto("/admin/")
        page.get_by_role("link", name="Issued tokens").first.click()
        inspect(page, issued[1])
        assert page.get_by_role("heading", name="Accepted").is_visible()
        assert faults(page) == []


def secrets_of(text: str, page: Page) -> list[str]:
    """Return the sensitive segments of a token that the browser window contains."""
    everything = page.evaluate(_EVERYTHING)
    _header, *parts = text.split(".")
    return [part for part in parts if part and part in everything]
