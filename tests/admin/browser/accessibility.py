"""Accessibility checks with axe, in a light and a dark color scheme, and in a wide and a narrow window."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import django

from tests.admin.browser.chromium import appearance_combinations

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Each exception is a rule of axe, and a selector of the elements in Django's own templates that violate the rule.
# test_harness.py checks that each exception is needed.
DJANGOS = [
    # The label of the search box is an image with the alternative text "Search", which axe does not
    # accept as a label.
    ("label-title-only", "#searchbar"),
]
if django.VERSION < (6, 1):
    # Django 6.1 and later underline the links that the following exceptions allow.
    DJANGOS += [
        # In the breadcrumbs, only the color distinguishes the links from the last item, which is plain text. axe
        # reports the links if the last item is long.
        ("link-in-text-block", ".breadcrumbs a"),
        # Only the color distinguishes the link "Show all" from the number of results next to the link.
        ("link-in-text-block", "#changelist-search .quiet a"),
    ]

# Without `preload: false`, axe would insert the style sheets of the page, but the content security policy forbids
# inserted style sheets. axe needs these style sheets only for a rule that is disabled by default.
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
    """An accessibility violation. `rule` is a rule of axe, or `sideways` if the page scrolls horizontally."""

    scheme: str
    width: int
    rule: str
    selector: str = ""
    text: str = ""


def violations(page: Page) -> list[Fault]:
    """Return the violations of a page in each color scheme and window size, including Django's known violations."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    violations_found = []
    for scheme, size in appearance_combinations(page):
        violations_found += [Fault(scheme, size["width"], **each) for each in page.evaluate(_RUN)]
        if (too_wide := page.evaluate(_TOO_WIDE)) > 0:
            violations_found.append(Fault(scheme, size["width"], "sideways", text=f"{too_wide} px"))
    return violations_found


def faults(page: Page) -> list[Fault]:
    """Return the accessibility violations of a page, except the known violations of Django's templates."""
    return [each for each in violations(page) if not any(is_of(page, each, *djangos) for djangos in DJANGOS)]


def is_of(page: Page, fault: Fault, rule: str, selector: str) -> Any:
    """Return whether a fault is a violation of this rule by an element that matches the selector."""
    matches = "([target, selector]) => document.querySelector(target).matches(selector)"
    return fault.rule == rule and page.evaluate(matches, [fault.selector, selector])
