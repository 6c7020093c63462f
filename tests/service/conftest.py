"""Keys, and a service that holds their public halves."""

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
    """A service that holds public keys and finds its users from the claims: no database."""
    settings.INSTACCESS = {"VERIFICATION_KEYS": [public(makes)], "USER_HOOK": TokenUser}
    return makes
