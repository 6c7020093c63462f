"""A signing key, an encryption key, and a service with the public signing key."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.service.authentication import TokenUser
from instaccess.service.local_tables import local_tables
from tests.service.helpers import public
from tests.support.tokens import Makes


@pytest.fixture
def makes(rsa_pool: Any) -> Makes:
    return Makes(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def service(makes: Makes, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Makes:
    """Configure a service with the public signing key and without the issuer's tables: users come from the claims."""
    monkeypatch.setattr(local_tables, "is_usable_client", None)
    settings.INSTACCESS = {"VERIFICATION_KEYS": [public(makes)], "USER_HOOK": TokenUser}
    return makes
