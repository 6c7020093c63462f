"""Tests that `Watch` reports errors in the browser, and that each accessibility exception is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from instaccess.models import IssuedToken
from tests.admin.browser.accessibility import DJANGOS, is_of, violations
from tests.admin.browser.chromium import Watch
from tests.support.servers import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.services

_ERRORS = {
    "an inline style": "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">.</p>')",
    "an inline script": "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
    "an image from another host": "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2/x.png'}))",
    "a missing file": "fetch('/static/instaccess/no.css')",
    "a script that fails": "setTimeout(() => { throw new Error('oh') })",
}


class TestWatch:
    @pytest.mark.parametrize("misbehavior", _ERRORS)
    def test_watch_reports_each_kind_of_error_in_a_browser_window(
        self, visit: Callable[..., Page], watches: list[Watch], misbehavior: str
    ) -> None:
        page = visit()
        page.goto("/admin/login/")
        [watch] = watches
        page.evaluate(f"() => {{ {_ERRORS[misbehavior]} }}")
        # Evaluate an expression repeatedly, because Playwright delivers events only while a command runs.
        assert wait_until(lambda: page.evaluate("1") and watch.errors, bool)
        watch.errors.clear()


class TestAccessibilityExceptions:
    def test_every_accessibility_exception_for_djangos_own_pages_is_needed(
        self, visit: Callable[..., Page], superuser: Any, row: Callable[..., IssuedToken], settings: Any
    ) -> None:
        """If this test fails, remove the exception, because Django's pages no longer contain the violation."""
        row()
        settings.ROOT_URLCONF = "tests.admin.browser.stock"
        page = visit(superuser)
        page.goto("/admin/instaccess/issuedtoken/")
        faults = violations(page)
        for rule, selector in DJANGOS:
            assert any(is_of(page, fault, rule, selector) for fault in faults), (rule, selector)
