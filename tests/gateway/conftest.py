"""A signing key, an encryption key, and a function that calls `unwrap` with both keys."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.gateway.unwrapping import Unwrapped, unwrap
from tests.support.tokens import ISSUER, NOW, TokenFactory, denying


@pytest.fixture
def make(rsa_pool) -> TokenFactory:
    return TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def unwrap_(make):
    """Return a function that calls `unwrap` with the keys of `make` at the time NOW."""

    def call(token: str, **changes: Any) -> Unwrapped:
        values: dict[str, Any] = {
            "now": NOW,
            "decryption_keys": make.decryption_keys,
            "verification_keys": make.verification_keys,
            "denied": denying(),
            "issuers": [ISSUER],
        }
        return unwrap(token, **(values | changes))

    return call
