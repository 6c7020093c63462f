"""A signing key, an encryption key, and a service with the public signing key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from instaccess.service import TokenUser
from instaccess.service.local_tables import local_tables
from tests.service.helpers import jwks, public
from tests.support import servers
from tests.support.tokens import TokenFactory


@pytest.fixture
def token_factory(rsa_pool: Any) -> TokenFactory:
    return TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def service(token_factory: TokenFactory, settings: Any, monkeypatch: pytest.MonkeyPatch) -> TokenFactory:
    """Configure a service with the public signing key and without the issuer's tables. Users come from the claims."""
    monkeypatch.setattr(local_tables, "is_usable_client", None)
    settings.INSTACCESS = {"VERIFICATION_KEYS": [public(token_factory)], "USER_HOOK": TokenUser}
    return token_factory


@pytest.fixture
def server(token_factory: TokenFactory) -> Iterator[servers.ScriptedServer]:
    """Run a server with the JWKS of the token factory."""
    with servers.scripted_server(lambda handler: servers.reply(handler, 200, jwks(token_factory.signing))) as server:
        yield server
