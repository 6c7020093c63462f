"""A signing key, an encryption key, and a service with the public signing key."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.service.authentication import TokenUser
from tests.service.helpers import public
from tests.support.tokens import TokenFactory


@pytest.fixture
def token_factory(rsa_pool: Any) -> TokenFactory:
    return TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def service(token_factory: TokenFactory, settings: Any) -> TokenFactory:
    """Configure a service with the public signing key. Its users come from the claims, not from a database."""
    settings.INSTACCESS = {"VERIFICATION_KEYS": [public(token_factory)], "USER_HOOK": TokenUser}
    return token_factory
