"""Browser tests of the key pages in the admin: rotation, timeline, copying of a public key, and revocation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.utils import timezone

from instaccess.keys import lifecycle, provision
from instaccess.models import Key
from tests.admin.browser.accessibility import faults
from tests.admin.browser.chromium import appearance_combinations

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.services

Visit = Callable[..., "Page"]
KEYS = "/admin/instaccess/key/"
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def signing_keys() -> dict[str, str]:
    """Return a mapping from the kid of each signing key to the status of the key."""
    return dict(Key.objects.filter(use="sig").values_list("kid", "status"))


def current() -> str:
    return Key.objects.get(use="sig", status="current").kid


class TestAnOperatorWhoRotates:
    def test_operator_signs_in_and_rotates_a_key_with_only_the_keyboard(
        self, visit: Visit, superuser: Any, initial_keys: list[Key]
    ) -> None:
        future = Key.objects.get(use="sig", status="future").kid
        page = visit()
        page.goto("/admin/")
        page.keyboard.type("root")
        page.keyboard.press("Tab")
        page.keyboard.type("correct horse battery staple")
        page.keyboard.press("Enter")
        tab_to(page, "link", "Keys")
        page.keyboard.press("Enter")
        tab_to(page, "button", "Rotate signing key…")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Rotate the signing key").wait_for()
        assert faults(page) == []
        tab_to(page, "checkbox", "Rotate the key before rotation is due")
        page.keyboard.press("Space")
        tab_to(page, "button", "Rotate key")
        page.keyboard.press("Enter")
        page.get_by_text(f"Key {future} is now current.").wait_for()
        assert current() == future
        assert faults(page) == []

    def test_a7_double_click_in_the_browser_causes_one_rotation(
        self, visit: Visit, superuser: Any, initial_keys: list[Key]
    ) -> None:
        future = Key.objects.get(use="sig", status="future").kid
        page = visit(superuser)
        page.goto(KEYS)
        page.get_by_role("button", name="Rotate signing key…").click()
        page.get_by_label("Rotate the key before rotation is due").check()
        page.get_by_role("button", name="Rotate key", exact=True).dblclick()
        # Don't check the text of the message, because the browser can show either of the two responses.
        page.locator(".messagelist").wait_for()
        assert current() == future
        assert sorted(signing_keys().values()) == ["current", "future", "past"]


class TestThePageOfKeys:
    def test_key_page_has_a_timeline_and_a_table_with_the_same_information(
        self, visit: Visit, superuser: Any, initial_keys: list[Key]
    ) -> None:
        page = visit(superuser)
        page.goto(KEYS)
        box = page.get_by_role("img", name="Key lifecycles").bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 100
        words = page.get_by_role("region", name="Timeline as a table")
        for key in initial_keys:
            assert words.get_by_role("row", name=key.kid[:8]).get_by_text(key.status, exact=True).is_visible()


def install(age: timedelta) -> None:
    """Generate the first keys of a deployment. `age` is the time since the installation."""
    provision.init(now=timezone.now() - age)


def rotate(ago: timedelta) -> None:
    for use in Key.Use:
        lifecycle.rotate(use, force=True, now=timezone.now() - ago)


def revoke(ago: timedelta) -> None:
    for use in Key.Use:
        lifecycle.revoke(Key.objects.get(use=use, status="current").kid, now=timezone.now() - ago)


SITUATIONS = {
    "new": lambda: install(0 * DAY),
    "a week old": lambda: install(7 * DAY),
    "a month old": lambda: install(29 * DAY),
    "just rotated": lambda: (install(31 * DAY), rotate(MINUTE)),
    "rotated twice at once": lambda: (install(0 * DAY), rotate(0 * DAY), rotate(0 * DAY)),
    "rotated a week ago": lambda: (install(37 * DAY), rotate(7 * DAY)),
    "just revoked": lambda: (install(20 * DAY), revoke(MINUTE)),
    "new and revoked": lambda: (install(0 * DAY), revoke(0 * DAY)),
}


class TestTheTimelineOnEveryScreen:
    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_no_text_of_the_timeline_crosses_a_text_or_line_and_every_bar_is_visible(
        self, situation: str, visit: Visit, superuser: Any
    ) -> None:
        SITUATIONS[situation]()
        page = visit(superuser)
        page.goto(KEYS)
        for scheme, size in appearance_combinations(page):
            found = page.evaluate(_DRAWN)
            assert found["texts"] > 5
            assert found["bars"] > 2
            assert found["crossed"] == [], (scheme, size)
            assert found["overlapping"] == [], (scheme, size)
            assert found["narrow"] == [], (scheme, size)
        assert faults(page) == []


class TestTheRemainingWorkAfterARevocation:
    def test_key_page_shows_the_remaining_work_after_a_revocation_even_after_a_reload(
        self, visit: Visit, superuser: Any, initial_keys: list[Key]
    ) -> None:
        kid = current()
        lifecycle.revoke(kid)
        page = visit(superuser)
        page.goto(KEYS)
        page.reload()
        panel = page.get_by_role("region", name="What remains to do after a revocation")
        panel.get_by_text(f"The signing key {kid[:8]} was revoked").wait_for()
        assert panel.get_by_text(f"python manage.py instaccess_keys export --kid {current()}").is_visible()
        assert faults(page) == []


class TestThePageOfOneKey:
    def test_operator_opens_the_page_of_a_key_copies_the_public_key_and_revokes_the_key(
        self, visit: Visit, superuser: Any, initial_keys: list[Key]
    ) -> None:
        kid = current()
        page = visit(superuser, permissions=["clipboard-read", "clipboard-write"])
        page.goto(KEYS)
        page.get_by_role("link", name=kid).first.click()
        page.get_by_role("button", name="Copy").first.click()
        page.get_by_role("status").get_by_text("Copied.").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == provision.export(Key.objects.get(kid=kid), file_format="pem")
        assert faults(page) == []
        page.get_by_role("button", name="Revoke key…").click()
        page.get_by_label("Reason").fill("laptop lost")
        assert faults(page) == []
        page.get_by_role("button", name="Revoke key", exact=True).click()
        page.get_by_text(f"Key {kid} and its live tokens").wait_for()
        assert signing_keys()[kid] == "revoked"


class TestAUserWhoMayOnlyView:
    def test_user_who_may_only_view_keys_sees_no_buttons_in_the_browser(
        self, visit: Visit, transactional_db: None, initial_keys: list[Key]
    ) -> None:
        user = get_user_model().objects.create_user("clerk", is_staff=True)
        user.user_permissions.add(Permission.objects.get(codename="view_key"))
        page = visit(user)
        page.goto(KEYS)
        assert page.get_by_role("link", name=current()).count()
        assert not page.get_by_role("button", name="Rotate").count()


def tab_to(page: Page, role: str, name: str) -> None:
    """Press Tab until an element has the focus, and check that the page shows the focus."""
    wanted = page.get_by_role(role, name=name, exact=True)
    wanted.first.wait_for()
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate_all("found => found.includes(document.activeElement)"):
            assert page.evaluate(_SHOWN), f"nothing shows that {name} has the focus"
            return
    raise AssertionError(f"the Tab key never moves the focus to {name}")


# This script returns the texts that cross another text or the line of the current time, and the widths of narrow
# bars. Widths are in CSS pixels. Elements that only touch don't cross.
_DRAWN = """
() => {
    const boxes = selector => [...document.querySelectorAll(`.instaccess-timeline ${selector}`)].map(element => {
        const { left, right, top, bottom, width } = element.getBoundingClientRect();
        return { left, right, top, bottom, width, text: element.textContent.trim() };
    });
    const cross = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    const texts = boxes("text").filter(box => box.text);
    const lines = boxes(".instaccess-now");
    const bars = boxes(".instaccess-bar");
    return {
        texts: texts.length,
        bars: bars.length,
        crossed: texts.filter(text => lines.some(line => cross(text, line))).map(box => box.text),
        overlapping: texts.filter((a, n) => texts.slice(n + 1).some(b => cross(a, b))).map(box => box.text),
        narrow: bars.map(bar => bar.width).filter(width => width < 6),
    };
}
"""
_SHOWN = """
() => { const style = getComputedStyle(document.activeElement);
        return style.outlineStyle !== "none" && style.outlineWidth !== "0px" || style.boxShadow !== "none"; }
"""
