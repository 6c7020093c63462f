"""Fixtures for the tests of monitoring: empty caches, time limits of probes, stalling checks, and URLs of roles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from django.test import override_settings
from django.urls import include, path

from instaccess.gateway import views as gateway_views
from instaccess.monitoring import background
from instaccess.trust import sources
from tests.support import servers


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    """Clear the deny list before and after each test, and the JWK sets before each test."""
    gateway_views.clear_caches()
    sources._remote.cache_clear()
    yield
    gateway_views.clear_caches()


@pytest.fixture(autouse=True)
def wait_for_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a probe wait until its checks end, because the checks are slow on a busy machine."""
    monkeypatch.setattr(background, "ANSWER_SECONDS", servers.PATIENCE)


@pytest.fixture
def answer_soon(wait_for_checks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a probe wait only briefly, because the checks in these tests never end."""
    monkeypatch.setattr(background, "ANSWER_SECONDS", 0.1)


@pytest.fixture
def stall() -> Iterator[Callable[..., None]]:
    """Yield a function that stalls: each call returns only when the test ends."""
    released = threading.Event()

    def wait(*args: Any) -> None:
        released.wait()

    yield wait
    released.set()


@pytest.fixture
def including() -> Iterator[Callable[..., None]]:
    """Yield a function that replaces the URLs of the project with the URLs of the given modules."""
    patches: list[Any] = []

    def include_(*modules: str) -> None:
        urlconf = ModuleType("urls_of_the_test")
        urlconf.urlpatterns = [path("", include(module)) for module in modules]  # type: ignore[attr-defined]
        patches.append(override_settings(ROOT_URLCONF=urlconf))
        patches[-1].enable()

    yield include_
    for patch in reversed(patches):
        patch.disable()
