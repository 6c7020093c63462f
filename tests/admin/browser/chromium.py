"""Chromium without a screen, driven by Playwright: Debian's, for Playwright would download one of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, ViewportSize

WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}
"""A laptop's window and a telephone's, in CSS pixels."""

# The first two for machines without a graphics card, the rest keep it from calling home.
_ARGUMENTS = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# The browser speaks of violations on the console, too; here it is said what was blocked, and by which element.
_TELL_OF_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", event => console.error(
    `CSP: ${event.effectiveDirective} ${event.blockedURI} ${event.target?.outerHTML?.slice(0, 200) ?? ""}`));
"""


def executable() -> str | None:
    """Where Chromium is, or None: what CHROMIUM names, or Debian's package `chromium`."""
    return shutil.which(os.environ.get("CHROMIUM") or "chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the length of a `with`. It has no window yet."""
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox refuses to run as root; as anybody else it stays on.
    arguments = [*_ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else _ARGUMENTS
    # Playwright has an event loop running in this thread, and Django would take queries for ones made by a coroutine.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
            try:
                yield browser
            finally:
                browser.close()
    finally:
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
        else:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


class Watch:
    """What goes wrong in a window without anybody clicking on it: CSP, scripts, files that are missing, strangers.

    Attributes:
        complaints: one line each.
        expected: HTTP statuses of 400 and more that the test is about.
    """

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.complaints: list[str] = []
        self.expected: set[int] = set()
        self._base_url = base_url
        context.add_init_script(_TELL_OF_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(f"script: {error.error}"))
        context.on("request", self._request)
        context.on("requestfailed", self._failed)
        context.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        # What it says of a status is said below, with the address.
        if message.type == "error" and "the server responded with a status of" not in message.text:
            self.complaints.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(f"{self._base_url}/"):
            self.complaints.append(f"asked somebody else: {request.url[:200]}")

    def _failed(self, request: Request) -> None:
        # A page that is left before it came, and one that turns out to be a file to save, end so.
        if not (request.is_navigation_request() and request.failure == "net::ERR_ABORTED"):
            self.complaints.append(f"{request.failure}: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.complaints.append(f"{response.status}: {response.url}")


def window(
    browser: Browser, base_url: str, *, dark: bool = False, size: Any = None, **options: Any
) -> BrowserContext:
    """A window with no cookies. Pages take addresses without the host."""
    return browser.new_context(
        base_url=base_url,
        color_scheme="dark" if dark else "light",
        viewport=size or WIDE,
        # Colours are there at once, not faded in.
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Zurich",
        **options,
    )


def four_ways(page: Page) -> Iterator[tuple[str, ViewportSize]]:
    """Puts a page into each of the four ways to see it; yields the colour scheme and the size. It ends light and
    wide."""
    for scheme, size in product(("dark", "light"), (NARROW, WIDE)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        # To the end of every transition: colours in between are nobody's choice.
        page.evaluate("document.getAnimations().forEach(animation => animation.finish())")
        yield scheme, size
