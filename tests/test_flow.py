"""The story end to end: a client with an OAuth2 access token gets an InstAccess token, the operator finds it."""

from __future__ import annotations

import uuid

import pytest
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws

from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db


def test_an_access_token_becomes_an_inst_access_token_and_the_audit_tells_of_it(
    initial_keys, access_token, post, user, application
):
    response = post(access_token, headers={"User-Agent": "canvas-client/1.0"})

    assert response.status_code == 201
    assert list(response.json()) == ["token"]
    ring = keys_ring.current_ring()
    gateway_key = joserfc_jwk.RSAKey.import_key(dict(ring.encryption_key().private()))
    signed = joserfc_jwe.decrypt_compact(
        response.json()["token"], gateway_key, algorithms=["RSA-OAEP", "A128CBC-HS256"]
    ).plaintext.decode()
    signing_key = joserfc_jwk.RSAKey.import_key(dict(ring.signing_key().public))
    claims = joserfc_jws.deserialize_compact(signed, signing_key, algorithms=["RS256"]).payload
    row = IssuedToken.objects.get()
    assert str(row.jti).encode() in claims
    assert (row.user, row.application, row.client_id) == (user, application, application.client_id)
    assert row.user_uuid == str(uuid.UUID(row.user_uuid))
    assert (row.ip_address, row.user_agent) == ("127.0.0.1", "canvas-client/1.0")
