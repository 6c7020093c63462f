"""A test of the complete lifecycle of one token. Read the test from top to bottom.

A client exchanges an OAuth2 access token for an InstAccess token. The gateway decrypts the token, and a service
authenticates the request. An operator revokes the token, and the gateway refuses the token. An InstAccess token
cannot be exchanged for another InstAccess token. The comments name the sections of `docs/wire-contract.md`.
"""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws

from instaccess import users
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken
from tests.support.answers import INVALID, JWT_FROM_JWT, answer
from tests.support.clocks import Clock

VERIFY = "/internal/gateway/verify"
SELF = "/api/v1/users/self"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_gateway(empty_gateway_caches: None) -> None:
    """Clear the caches of the gateway before and after every test in this file."""


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Return the clock that decides when the gateway reloads its keys and its deny list."""
    clock = Clock()
    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def get(client):
    """Return a function that sends a GET request with a bearer token."""

    def get_(path: str, token: str) -> Any:
        return client.get(path, headers={"Authorization": f"Bearer {token}"})

    return get_


def test_a_token_is_issued_decrypted_accepted_revoked_and_refused(clock, access_token, post, get, user, application):
    # §1 Issue a token: simulate a client that exchanges an access token for an encrypted InstAccess token.
    issued = post(access_token, headers={"User-Agent": "canvas-client/1.0"})

    assert issued.status_code == 201
    assert list(issued.json()) == ["token"]
    encrypted = issued.json()["token"]
    assert encrypted.count(".") == 4

    # The audit row contains the user, the application, the client address and the user agent.
    row = IssuedToken.objects.get()
    assert (row.user, row.application, row.client_id) == (user, application, application.client_id)
    assert row.user_uuid == str(uuid.UUID(row.user_uuid)) == users.user_uuid(user)
    assert (row.ip_address, row.user_agent) == ("127.0.0.1", "canvas-client/1.0")

    # §3 Gateway: the gateway decrypts the token, and gives the signed token to the proxy.
    passed = get(VERIFY, encrypted)

    assert (passed.status_code, passed.content) == (204, b"")
    scheme, _, signed = passed["Authorization"].partition(" ")
    assert scheme == "Bearer"
    assert signed.count(".") == 2

    # §2 The token: an independent library also decrypts the token to this signed token, and reads the claims.
    ring = keys_ring.current_ring()
    encryption_key = joserfc_jwk.RSAKey.import_key(dict(ring.encryption_key().private().reveal()))
    signing_key = joserfc_jwk.RSAKey.import_key(dict(ring.signing_key().public))
    inside = joserfc_jwe.decrypt_compact(encrypted, encryption_key, algorithms=["RSA-OAEP", "A128CBC-HS256"])
    payload = joserfc_jws.deserialize_compact(signed, signing_key, algorithms=["RS256"]).payload
    claims = json.loads(payload)
    assert inside.plaintext.decode() == signed
    assert (claims["iss"], claims["jti"], claims["sub"]) == ("instructure:inst_access", str(row.jti), row.user_uuid)
    assert claims["exp"] - claims["iat"] == 3600

    # §4 Services: simulate a proxy that forwards the signed token. The service authenticates the user of the token.
    served = get(SELF, signed)

    assert (served.status_code, served.json()["uuid"]) == (200, row.user_uuid)

    # Simulate an operator who revokes the token. The gateway still accepts the token until the gateway reloads its
    # deny list.
    call_command("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", "laptop stolen")
    assert get(VERIFY, encrypted).status_code == 204

    # §3 Revocation: within 5 seconds, every gateway worker refuses the token, even if the token is cached.
    clock.advance(5)
    assert answer(get(VERIFY, encrypted)) == INVALID
    row.refresh_from_db()
    assert row.revoked_at is not None

    # §4 Services: a service has no deny list, so the service accepts the signed token until the token expires. For
    # this reason, the gateway refuses a client that sends the signed token (§3 Already decrypted tokens).
    assert get(SELF, signed).status_code == 200
    assert answer(get(VERIFY, signed)) == INVALID


def test_a_service_refuses_an_encrypted_token_that_did_not_go_through_the_gateway(access_token, post, get):
    encrypted = post(access_token).json()["token"]

    # §4 Services: five parts count as an encrypted InstAccess token, so no other authenticator is called.
    refused = get(SELF, encrypted)

    assert (refused.status_code, refused.content, refused["WWW-Authenticate"]) == INVALID


def test_an_inst_access_token_cannot_be_exchanged_for_another_inst_access_token(access_token, post, get):
    encrypted = post(access_token).json()["token"]
    signed = get(VERIFY, encrypted)["Authorization"].removeprefix("Bearer ")

    # §1 Issue a token: a valid signed token is recognized, and the response is Canvas's 403.
    assert answer(post(signed)) == JWT_FROM_JWT
    # §1 Issue a token: the issuer does not decrypt tokens, so an encrypted token is an unknown access token.
    assert answer(post(encrypted)) == INVALID
    assert IssuedToken.objects.count() == 1
