"""Fixtures for the browser tests: a shared browser, a server in this process, and a window for each user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from pytest_django.live_server_helper import LiveServer

from tests.admin.browser.chromium import Watch, chromium, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PASSWORD = "correct horse battery staple"


# Use the scope `package`, so that Playwright stops before tests of other packages run. Code that starts an event loop
# would fail in a thread in which Playwright's event loop runs.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def server(django_db_setup: None) -> Iterator[LiveServer]:
    """Serve the test project and its static files, with the content security policy of `csp.py`."""
    middleware = ["tests.admin.browser.csp.ContentSecurityPolicy", *django_settings.MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware):
        running = LiveServer("127.0.0.1")
    yield running
    running.stop()


@pytest.fixture
def superuser(transactional_db: None) -> Any:
    return get_user_model().objects.create_superuser("root", password=PASSWORD)


@pytest.fixture
def watches() -> list[Watch]:
    """Return a list to which the fixture `visit` adds the `Watch` of each window."""
    return []


@pytest.fixture
def visit(
    browser: Browser, server: LiveServer, watches: list[Watch], transactional_db: None
) -> Iterator[Callable[..., Page]]:
    """Yield a function that opens a window and can sign in a user. The test fails if a window reports an error."""
    opened: list[BrowserContext] = []

    def open_(user: Any = None, **options: Any) -> Page:
        context = window(browser, server.url, **options)
        opened.append(context)
        watches.append(Watch(context, server.url))
        if user is not None:
            client = Client()
            client.force_login(user)
            name = django_settings.SESSION_COOKIE_NAME
            context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": server.url}])
        page = context.new_page()
        page.set_default_timeout(20_000)
        return page

    yield open_
    # Close the windows before pytest-django empties the database, because an open window could send requests.
    for context in opened:
        context.close()
    assert [line for watch in watches for line in watch.errors] == []
