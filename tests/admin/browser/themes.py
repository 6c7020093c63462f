"""A program that uses this app's admin pages with a theme, and prints the faults. test_themes.py runs the program.

    python -m tests.admin.browser.themes unfold [--screenshots FOLDER]

A theme changes INSTALLED_APPS, so each theme needs a separate process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.admin.browser import school
from tests.admin.browser.chromium import chromium, window

if TYPE_CHECKING:
    from playwright.sync_api import Page

BARS = ".instaccess-bar, :is(.instaccess-chart-issued, .instaccess-chart-revoked, .instaccess-chart-refused) > rect"
LABELS = ".instaccess-timeline text, .instaccess-chart-picture text"

THEMES = {
    "unfold": ["unfold"],
    "jazzmin": ["jazzmin"],
    "grappelli": ["grappelli"],
    "admin_interface": ["admin_interface", "colorfield"],
}
DASHBOARD, KEYS, TOKENS = "/admin/instaccess/", "/admin/instaccess/key/", "/admin/instaccess/issuedtoken/"

# The minimum width of a figure, in CSS pixels. In a narrower figure, bars and labels are not legible.
_NARROWEST = 300
# Exclude links, code and headings, because the theme sets their colors. `preload: false` prevents axe from inserting
# style sheets.
_CONTRAST = """
async selector => (await axe.run(
    {include: [[selector]], exclude: [["a"], ["code"], ["h2"], ["summary"]]},
    {runOnly: ["color-contrast"], resultTypes: ["violations"], preload: false},
)).violations.flatMap(rule => rule.nodes.map(node => node.html.slice(0, 120) + node.any.map(each => each.message)))
"""
# This script returns each bar or text with too little contrast. The background is the nearest background behind the
# figure that is not transparent. The contrast of a shape is the higher contrast of its fill and its border. A pattern
# is ignored, because a pattern has several colors.
_SHAPES = """
([selector, least]) => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const channels = color => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const luminance = color => [...channels(color)].slice(0, 3)
        .map(value => value / 255)
        .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const contrast = (one, other) => {
        const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    return [...document.querySelectorAll(selector)].map(shape => {
        let behind = shape.ownerSVGElement;
        const background = () => getComputedStyle(behind).backgroundColor;
        while (behind.parentElement && channels(background())[3] === 0) behind = behind.parentElement;
        const page = channels(background())[3] === 0 ? "white" : background();
        const {fill, stroke} = getComputedStyle(shape);
        const colors = [fill, stroke].filter(color => CSS.supports("color", color));
        return [shape.outerHTML.slice(0, 80), page, Math.max(...colors.map(color => contrast(color, page)))];
    }).filter(([, , highest]) => !(highest >= least));
}
"""


class Visit:
    """A visit of this app's pages in one color scheme. `faults` contains a sentence about each fault."""

    def __init__(self, page: Page, scheme: str, folder: Path | None) -> None:
        self.page = page
        self.scheme = scheme
        self.folder = folder
        self.faults: list[str] = []

    def open(self, name: str, url: str, *parts: str) -> None:
        """Open a page, and check that each part is visible, wide enough and legible. A part is a CSS selector."""
        from axe_playwright_python.base import AXE_SCRIPT

        response = self.page.goto(url)
        if response is None or response.status != 200:
            self.faults.append(f"{self.scheme} {name}: status {response and response.status}")
            return
        self.page.wait_for_load_state()
        if self.folder:
            self.page.screenshot(path=self.folder / f"{name}-{self.scheme}.png")
        self.page.evaluate(AXE_SCRIPT)
        for part in parts:
            element = self.page.locator(part).first
            box = element.bounding_box() if element.is_visible() else None
            if box is None or box["width"] < _NARROWEST:
                self.faults.append(f"{self.scheme} {name}: {part} is not visible or too narrow: {box}")
            elif unclear := self.page.evaluate(_CONTRAST, part):
                self.faults.append(f"{self.scheme} {name}: {part} lacks contrast: {unclear[:3]}")
        # WCAG 2.2 requires these contrasts for graphics (1.4.11) and for text (1.4.3).
        for shapes, least in (BARS, 3), (LABELS, 4.5):
            if unclear := self.page.evaluate(_SHAPES, [shapes, least]):
                self.faults.append(f"{self.scheme} {name}: a part of the figure lacks contrast: {unclear[:3]}")

    def check_button(self, name: str, label: str) -> None:
        """Check that a button opens its confirmation page. A button inside another form would send the other form."""
        self.page.get_by_role("button", name=label).first.click()
        self.page.wait_for_load_state()
        if self.page.locator("input[name=confirmed], input[name=confirm], [type=submit]").count() == 0:
            self.faults.append(f"{self.scheme} {name}: the button {label!r} leads to no confirmation page")
        if "/change/" in self.page.url or "error" in self.page.title().lower():
            self.faults.append(f"{self.scheme} {name}: the button {label!r} leads to {self.page.url}")


def visit(page: Page, scheme: str, folder: Path | None) -> list[str]:
    """Sign in and use the pages of this app. Returns the faults."""
    page.goto("/admin/login/?next=/admin/")
    page.locator("[name=username]").fill(school.USERNAME)
    page.locator("[name=password]").fill(school.PASSWORD)
    page.locator("[name=password]").press("Enter")
    page.wait_for_url("**/admin/")
    seen = Visit(page, scheme, folder)
    seen.open("dashboard", DASHBOARD, ".instaccess-dashboard")
    seen.open("keys", KEYS, ".instaccess-panel", "svg.instaccess-timeline")
    seen.check_button("keys", "Rotate signing key…")
    seen.open("tokens", TOKENS, ".instaccess-chart", "svg.instaccess-chart-picture")
    page.goto(TOKENS)
    address = page.locator("a[href*='/issuedtoken/'][href*='/change/']").first.get_attribute("href")
    seen.open("token", str(address), ".instaccess-next-step", ".instaccess-related")
    seen.check_button("token", "Revoke this token…")
    page.goto(f"{KEYS}?status__exact=current")
    address = page.locator("#result_list a[href*='/change/']").first.get_attribute("href")
    seen.open("key", str(address))
    seen.check_button("key", "Revoke key…")
    return seen.faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("theme", choices=THEMES)
    parser.add_argument("--screenshots", type=Path, help="Folder for screenshots.")
    options = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        school.set_up(Path(folder), rows=300, theme=THEMES[options.theme])
        if options.theme == "grappelli":
            from django.urls import include, path

            from testproject import urls

            urls.urlpatterns.append(path("grappelli/", include("grappelli.urls")))
        with school.served() as base_url, chromium() as browser:
            for scheme in ("light", "dark"):
                context = window(browser, base_url, dark=scheme == "dark")
                faults += visit(context.new_page(), scheme, options.screenshots)
                context.close()
    sys.stdout.write(json.dumps(faults, indent=1))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
