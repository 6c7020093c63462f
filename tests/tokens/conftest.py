"""Fixtures: a signing key, an encryption key, a signed token, and an encrypted token with the signed token inside."""

from __future__ import annotations

from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess.tokens import PrivateKey, jose
from tests.tokens.handmade import PAYLOAD


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[str, str], JWK]:
    """Return a cache of keys for all tests of a module.

    OpenSSL validates a key at its first use. This validation takes longer than most of these tests.
    """
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
