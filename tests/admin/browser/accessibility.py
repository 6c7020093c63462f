"""Accessibility checks with axe, in both colour schemes, with a wide and a narrow window."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.admin.browser.chromium import appearance_combinations

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Rules and selectors of violations in Django's own templates. test_harness.py checks that each exception is needed.
DJANGOS = [
    # Links in the breadcrumbs differ from the last word by their colour only. axe reports this if the word is long.
    ("link-in-text-block", ".breadcrumbs a"),
    # The link "Show all" next to the number of results differs by its colour only.
    ("link-in-text-block", "#changelist-search .quiet a"),
    # The label of the search box is an image with the alternative text "Search", which axe does not accept.
    ("label-title-only", "#searchbar"),
]

# Without `preload: false`, axe inserts the page's style sheets again, which the content security policy forbids. Only
# a rule that is disabled by default needs the inserted style sheets.
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
    """An accessibility violation: a rule of axe, or `sideways` if the page scrolls horizontally."""

    scheme: str
    width: int
    rule: str
    selector: str = ""
    text: str = ""


def violations(page: Page) -> list[Fault]:
    """Return all violations of a page in each `appearance_combinations`, including Django's own violations."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    violations_found = []
    for scheme, size in appearance_combinations(page):
        violations_found += [Fault(scheme, size["width"], **each) for each in page.evaluate(_RUN)]
        if (too_wide := page.evaluate(_TOO_WIDE)) > 0:
            violations_found.append(Fault(scheme, size["width"], "sideways", text=f"{too_wide} px"))
    return violations_found


def faults(page: Page) -> list[Fault]:
    """Return the violations of a page, except the known violations of Django's templates."""
    return [each for each in violations(page) if not any(is_of(page, each, *djangos) for djangos in DJANGOS)]


def is_of(page: Page, fault: Fault, rule: str, selector: str) -> Any:
    """Return whether the fault violates the rule and its element matches the selector."""
    matches = "([target, selector]) => document.querySelector(target).matches(selector)"
    return fault.rule == rule and page.evaluate(matches, [fault.selector, selector])
