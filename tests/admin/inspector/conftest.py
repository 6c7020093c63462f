"""Fixtures for the tests of the inspector: a gateway with empty caches, and tokens to inspect."""

from __future__ import annotations

import time
from typing import Any

import pytest

from instaccess.issuer import issuing
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken
from tests.support.tokens import TokenFactory

ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")


@pytest.fixture(autouse=True)
def fresh_gateway(empty_gateway_caches: None) -> None:
    """Empty the caches of the gateway before every test in this folder."""


@pytest.fixture
def issue(user, application):
    """Return a function that issues a token. The function returns the audit row and the token."""

    def issue_(*, minutes_ago: float = 0, **changes: Any) -> tuple[IssuedToken, str]:
        values = {"user": user, "application": application, "origin": ORIGIN, "now": time.time() - minutes_ago * 60}
        return issuing.issue(**(values | changes))

    return issue_


@pytest.fixture
def token(issue) -> str:
    return issue()[1]


@pytest.fixture
def make() -> TokenFactory:
    """Return a factory that signs and encrypts tokens with the current keys, without audit rows."""
    ring = keys_ring.current_ring()
    return TokenFactory(ring.signing_key().private().reveal(), ring.encryption_key().private().reveal())
