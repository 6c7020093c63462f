"""A pair of keys, and `unwrap` with them."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.gateway.unwrapping import Unwrapped, unwrap
from tests.support.tokens import ISSUER, NOW, Makes


@pytest.fixture
def make(rsa_pool) -> Makes:
    return Makes(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def open_(make):
    """`unwrap` with these keys, at NOW."""

    def open_it(token: str, **changes: Any) -> Unwrapped:
        values: dict[str, Any] = {
            "now": NOW,
            "decryption_keys": make.decryption_keys,
            "verification_keys": make.verification_keys,
            "denied": frozenset(),
            "issuer": ISSUER,
        }
        return unwrap(token, **(values | changes))

    return open_it
