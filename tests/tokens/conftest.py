"""Fixtures: two RSA keys, and a token that is signed with the first key and encrypted for the second key."""

from __future__ import annotations

from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess.tokens import PrivateKey, jose
from tests.tokens.handmade import PAYLOAD


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[str, str], JWK]:
    """Return a cache of validated keys, because OpenSSL takes longer to validate a key than most tests take."""
    return {}


@pytest.fixture
def signing_key(rsa_pool: Any, loaded: dict[tuple[str, str], JWK]) -> JWK:
    key = rsa_pool.take("sig")
    return loaded.setdefault((key.thumbprint(), "sig"), key)


@pytest.fixture
def encryption_key(rsa_pool: Any, loaded: dict[tuple[str, str], JWK]) -> JWK:
    key = rsa_pool.take("enc")
    return loaded.setdefault((key.thumbprint(), "enc"), key)


@pytest.fixture
def signed(signing_key: JWK) -> str:
    return jose.sign(PAYLOAD, PrivateKey(signing_key), kid="s1")


@pytest.fixture
def encrypted(signed: str, encryption_key: JWK) -> str:
    return jose.encrypt(signed, encryption_key, kid="e1", alg="RSA-OAEP", enc="A128CBC-HS256")
