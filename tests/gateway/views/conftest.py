"""Fixtures: a gateway with empty caches, and tokens for the gateway."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from instaccess.issuer import issuing
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken
from tests.support.clocks import Clock
from tests.support.tokens import TokenFactory
from tests.support.verifying import by_asgi, by_wsgi

ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture(autouse=True)
def fresh_gateway(empty_gateway_caches: None) -> None:
    """Clear the caches of the gateway before and after every test in this folder."""


@pytest.fixture
def issue(user):
    """Return a function that issues a token and returns its audit row and the encrypted token."""

    def issue_(**changes: Any) -> tuple[IssuedToken, str]:
        return issuing.issue(**({"user": user, "origin": ORIGIN, "now": time.time()} | changes))

    return issue_


@pytest.fixture
def token(issue) -> str:
    return issue()[1]


@pytest.fixture
def make(initial_keys) -> TokenFactory:
    """Return a factory that creates tokens with the gateway's keys, without the issuer."""
    ring = keys_ring.current_ring()
    return TokenFactory(ring.signing_key().private().reveal(), ring.encryption_key().private().reveal())


@pytest.fixture(params=[by_wsgi, by_asgi], ids=["wsgi", "asgi"])
def ask(request):
    return request.param
