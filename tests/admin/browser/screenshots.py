"""The command that `make screenshots` runs to take screenshots of the main admin pages.

Each page is shown in each combination of color scheme and window size.

The command generates sample data in a temporary database and keeps only the screenshots. The exit status is 1 if a
page causes an error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from django.utils.translation import gettext

from tests.admin.browser import school
from tests.admin.browser.chromium import Watch, appearance_combinations, chromium, window

if TYPE_CHECKING:
    from playwright.sync_api import Page

DASHBOARD, KEYS, TOKENS = "/admin/instaccess/", "/admin/instaccess/key/", "/admin/instaccess/issuedtoken/"
INSPECTOR = f"{TOKENS}inspect/"
IN_THE_DOCUMENTATION = ("issued-tokens", "keys")
"""The names of the screenshots that docs/admin.md shows."""
TALLEST = 2400
"""The maximum height of a screenshot, in pixels."""


class Album:
    """The screenshots of one run of the command. `readme` is the folder for the screenshots in docs/admin.md."""

    def __init__(self, page: Page, folder: Path, readme: Path | None) -> None:
        self._page, self._folder, self._readme = page, folder, readme
        self.count = 0

    def take(self, name: str) -> None:
        """Take screenshots of the current page in each combination of color scheme and window size."""
        if self._readme is not None and name in IN_THE_DOCUMENTATION:
            # The documentation shows only the visible part of the page, in the light color scheme and a wide window.
            self._page.screenshot(path=self._readme / f"{name}.png")
        for scheme, size in appearance_combinations(self._page):
            height = self._page.evaluate("document.documentElement.scrollHeight")
            self._page.screenshot(
                path=self._folder / f"{name}-{scheme}-{size['width']}.png",
                full_page=True,
                clip={"x": 0, "y": 0, "width": size["width"], "height": min(height, TALLEST)},
            )
            self.count += 1


def visit_pages(page: Page, album: Album) -> None:
    """Visit the main admin pages, in the order in which a user would visit the pages, and take screenshots."""
    page.goto("/admin/")
    page.locator("[name=username]").fill(school.USERNAME)
    page.locator("[name=password]").fill(school.PASSWORD)
    page.locator("[type=submit]").click()
    # Wait for the requests for styles and icons. A navigation would abort these requests, and `Watch` reports an
    # aborted request as an error.
    page.wait_for_load_state("networkidle")
    page.goto(DASHBOARD)
    _see(page, "Last 24 hours")
    album.take("dashboard")
    page.wait_for_load_state("networkidle")
    page.get_by_role("link", name=gettext("Keys and their timeline")).click()
    _see(page, "Timeline")
    album.take("keys")
    page.get_by_role("button", name=gettext("Rotate signing key…")).click()
    _see(page, "Rotate the signing key")
    album.take("key-rotate")
    page.goto(KEYS)
    page.locator("#result_list tbody th a").first.click()
    page.locator(".field-kid").wait_for()
    album.take("key")
    page.goto(TOKENS)
    page.locator(".instaccess-filters > summary").click()
    page.get_by_role("link", name=gettext("Last 24 hours")).click()
    _see(page, "Last 24 hours")
    album.take("issued-tokens")
    page.locator("#result_list tbody th a").first.click()
    page.locator(".instaccess-next-step").wait_for()
    album.take("issued-token")
    page.locator(".instaccess-next-step [type=submit]").last.click()
    _see(page, "Revoke all live tokens of the selected users")
    album.take("issued-token-revoke-user")
    page.goto(TOKENS)
    page.locator(".instaccess-filters > summary").click()
    page.get_by_role("link", name=gettext("Last night, 18:00 to 08:00")).click()
    _see(page, "by hour")
    album.take("issued-tokens-last-night")
    page.goto(TOKENS)
    for box in page.locator("#result_list input.action-select").all()[:2]:
        box.check()
    page.locator("[name=action]").select_option("revoke_chosen")
    page.locator("[name=index]").click()
    _see(page, "Revoke the selected tokens")
    album.take("issued-token-revoke")
    page.goto(INSPECTOR)
    album.take("inspector")
    text = school.make_token()
    for verdict, pasted in ("Accepted", text), ("Refused", text[:-1]):
        page.locator("textarea").fill(pasted)
        page.get_by_role("button", name=gettext("Inspect token")).click()
        _see(page, verdict)
        album.take(f"inspector-{verdict.lower()}")


def _see(page: Page, heading: str) -> None:
    page.get_by_role("heading", name=gettext(heading)).first.wait_for()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Folder for the screenshots.")
    parser.add_argument("--readme", type=Path, help="Folder for the screenshots that docs/admin.md shows.")
    parser.add_argument("--rows", type=int, default=20_000, help="Number of issued tokens (default: 20000).")
    parser.add_argument("--language", default="en", help="Language of the pages, such as de, es or fr (default: en).")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        school.set_up(Path(folder), rows=options.rows, language=options.language)
        with school.served() as base_url, chromium() as browser:
            context = window(browser, base_url)
            watch, page = Watch(context, base_url), context.new_page()
            album = Album(page, options.folder, options.readme)
            visit_pages(page, album)
            context.close()
    for error in watch.errors:
        sys.stderr.write(f"{error}\n")
    sys.stdout.write(f"{album.count} screenshots are in {options.folder}.\n")
    return bool(watch.errors)


if __name__ == "__main__":
    sys.exit(main())
