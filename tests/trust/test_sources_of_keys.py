"""Tests of keys for callers in an event loop, and of a decryption key: its early loading and its kid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess.exceptions import ConfigError
from instaccess.tokens import jose
from instaccess.trust import MustWait, sources
from tests.support.tokens import TokenFactory


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    """Clear the cached keys that earlier tests fetched from JWKS URLs."""
    sources._remote.cache_clear()


@pytest.fixture
def key(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


class TestVerificationKeysWithoutWaiting:
    def test_caller_must_wait_for_keys_in_the_database(self):
        with pytest.raises(MustWait, match="the keys are in the database"):
            sources.verification_keys_without_waiting()

    def test_caller_must_wait_for_the_first_fetch_of_a_jwks_url(self, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": "https://canvas.example.edu/internal/services/jwks"}
        keys = sources.verification_keys_without_waiting()

        with pytest.raises(MustWait, match="must be loaded"):
            len(keys)

    def test_caller_gets_the_keys_of_the_settings_without_waiting(self, settings, key):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [key.export_to_pem().decode()]}

        assert list(sources.verification_keys_without_waiting()) == [key.thumbprint()]

    def test_error_of_an_invalid_key_names_the_setting(self, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": ["/does/not/exist"]}

        with pytest.raises(ConfigError) as caught:
            sources.verification_keys_without_waiting()
        assert caught.value.setting == "VERIFICATION_KEYS"


class TestTheFirstTokenOfAProcess:
    def test_decryption_key_is_not_loaded_again_for_the_first_token(self, rsa_pool, key, settings, monkeypatch):
        token = TokenFactory(rsa_pool.take("sig"), key).encrypted()
        settings.INSTACCESS = {"DECRYPTION_KEYS": [key.export_private()]}
        keys = sources.decryption_keys()
        loaded: list[JWK] = []
        load: Any = JWK._rsa_pri_n
        monkeypatch.setattr(JWK, "_rsa_pri_n", lambda jwk: loaded.append(jwk) or load(jwk))

        assert jose.decrypt(token, keys)[1] == key.thumbprint()
        assert loaded == []


class TestADecryptionKeyWithAKid:
    @pytest.mark.parametrize(("kid", "is_used"), [("gateway-1", True), (7, False), (None, False)])
    def test_kid_of_a_jwk_is_used_if_the_kid_is_a_string(self, settings, key, kid, is_used):
        settings.INSTACCESS = {"DECRYPTION_KEYS": [json.dumps({**key.export_private(as_dict=True), "kid": kid})]}

        assert list(sources.decryption_keys()) == [kid if is_used else key.thumbprint()]
