"""Functions that run Debian's Chromium in headless mode. Playwright controls the browser."""

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
"""The window size of a phone, in CSS pixels. `WIDE` is the window size of a laptop."""

# The option `--disable-gpu` is for machines without a graphics card. The other options disable dialogs and background
# requests that could disturb a test.
_ARGUMENTS = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Log each violation of the content security policy, because the browser's own message doesn't contain the blocked URL
# and the element.
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", event => console.error(
    `CSP: ${event.effectiveDirective} ${event.blockedURI} ${event.target?.outerHTML?.slice(0, 200) ?? ""}`));
"""


def executable() -> str | None:
    """Return the path of the browser that the environment variable CHROMIUM names, by default `chromium`.

    Returns None if the program is not installed.
    """
    return shutil.which(os.environ.get("CHROMIUM") or "chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium in headless mode until the context ends. Yields the browser."""
    from playwright.sync_api import sync_playwright

    # Disable Chromium's sandbox only for root, because the sandbox cannot run as root.
    arguments = [*_ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else _ARGUMENTS
    # Playwright runs an event loop in this thread. Without the environment variable, Django would refuse database
    # queries in the thread.
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
    """A recorder of errors in a window: CSP violations, script errors, missing files and requests to other hosts."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.errors: list[str] = []
        self.expected: set[int] = set()
        self._base_url = base_url
        context.add_init_script(_REPORT_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.errors.append(f"script: {error.error}"))
        context.on("request", self._request)
        context.on("requestfailed", self._failed)
        context.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        # Skip messages about HTTP error statuses, because `_response` reports these statuses with the URL.
        if message.type == "error" and "the server responded with a status of" not in message.text:
            self.errors.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(f"{self._base_url}/"):
            self.errors.append(f"request to another host: {request.url[:200]}")

    def _failed(self, request: Request) -> None:
        # Ignore ERR_ABORTED for navigations, because interrupted navigations and downloads also end with ERR_ABORTED.
        if not (request.is_navigation_request() and request.failure == "net::ERR_ABORTED"):
            self.errors.append(f"{request.failure}: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.errors.append(f"{response.status}: {response.url}")


def window(
    browser: Browser, base_url: str, *, dark: bool = False, size: Any = None, **options: Any
) -> BrowserContext:
    """Open and return a browser window without cookies. Relative URLs are resolved against `base_url`."""
    return browser.new_context(
        base_url=base_url,
        color_scheme="dark" if dark else "light",
        viewport=size or WIDE,
        # Disable animations, because a check of contrast could measure an intermediate color of an animation.
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Zurich",
        **options,
    )


def appearance_combinations(page: Page) -> Iterator[tuple[str, ViewportSize]]:
    """Show a page in each combination of color scheme and window size. Yields each combination.

    The last combination is the light color scheme in a wide window.
    """
    for scheme, size in product(("dark", "light"), (NARROW, WIDE)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        # Finish all transitions, because intermediate colors can lack contrast.
        page.evaluate("document.getAnimations().forEach(animation => animation.finish())")
        yield scheme, size
