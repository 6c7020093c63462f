"""axe looks over a page as somebody has it: light or dark, on a laptop or on a telephone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.admin.browser.chromium import four_ways

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Rule and selector of what Django's own templates make alike on every project's pages, as test_harness.py shows. How
# its style sheet marks links is its look, which our pages keep to.
DJANGOS = [
    # Links in the breadcrumbs are told from the last word by their colour only. It shows where that word is long.
    ("link-in-text-block", ".breadcrumbs a"),
    # So is "Show all" beside the number of results.
    ("link-in-text-block", "#changelist-search .quiet a"),
    # The label of the search box is a picture with the alternative text "Search", which axe does not count as text.
    ("label-title-only", "#searchbar"),
]

# axe would put the page's style sheets into it a second time, which the page's policy forbids, for a rule that is
# off by default.
_OPTIONS = {"resultTypes": ["violations"], "preload": False}
_RUN = f"""
async () => (await axe.run({json.dumps(_OPTIONS)})).violations.flatMap(rule => rule.nodes.map(node => ({{
    rule: rule.id,
    selector: node.target[0],
    text: [node.html.slice(0, 160), ...[...node.any, ...node.all, ...node.none].map(each => each.message)].join(": "),
}})))
"""
_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass(frozen=True)
class Fault:
    """What keeps somebody out: a rule of axe, or `sideways` where one has to scroll sideways to read on."""

    scheme: str
    width: int
    rule: str
    selector: str = ""
    text: str = ""


def violations(page: Page) -> list[Fault]:
    """All that axe finds in the four ways to see a page, Django's too. The page is left light and wide."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    found = []
    for scheme, size in four_ways(page):
        found += [Fault(scheme, size["width"], **each) for each in page.evaluate(_RUN)]
        if (too_wide := page.evaluate(_TOO_WIDE)) > 0:
            found.append(Fault(scheme, size["width"], "sideways", text=f"{too_wide} px"))
    return found


def faults(page: Page) -> list[Fault]:
    """What is wrong with a page of ours."""
    return [each for each in violations(page) if not any(is_of(page, each, *djangos) for djangos in DJANGOS)]


def is_of(page: Page, fault: Fault, rule: str, selector: str) -> Any:
    """Whether it is a fault by that rule of an element that the selector matches."""
    matches = "([target, selector]) => document.querySelector(target).matches(selector)"
    return fault.rule == rule and page.evaluate(matches, [fault.selector, selector])
