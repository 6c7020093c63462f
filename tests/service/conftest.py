"""A signing key, an encryption key, and a service with the public signing key."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.service.authentication import TokenUser
from tests.service.helpers import public
from tests.support.tokens import Makes


@pytest.fixture
def makes(rsa_pool: Any) -> Makes:
    return Makes(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def service(makes: Makes, settings: Any) -> Makes:
    """Configure a service with the public signing key. Its users come from the claims, not from a database."""
    settings.INSTACCESS = {"VERIFICATION_KEYS": [public(makes)], "USER_HOOK": TokenUser}
    return makes
