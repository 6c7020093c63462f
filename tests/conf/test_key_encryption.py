"""Tests of key-encryption keys: opaque objects that can be compared and hashed, and that compute HMACs."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import re
from functools import lru_cache

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from instaccess.conf import KeyEncryptionKey, kek_id, key_encryption

# All bytes differ, so that the reversed key is a different key.
RAW = bytes(range(90, 122))
KEK = KeyEncryptionKey(RAW)


class TestAKeyEncryptionKey:
    def test_a1_str_and_repr_of_a_key_encryption_key_contain_no_bytes(self):
        assert {repr(KEK), str(KEK), f"{KEK}", f"{KEK:>40}"} == {"<key-encryption key>"}

    def test_a1_key_encryption_key_cannot_be_pickled(self):
        with pytest.raises(TypeError, match="a key-encryption key can't be pickled"):
            pickle.dumps(KEK)

    def test_reveal_returns_the_bytes_of_a_key_encryption_key(self):
        assert KEK.reveal() == RAW

    def test_two_key_encryption_keys_are_equal_if_their_bytes_are_equal(self):
        assert KeyEncryptionKey(RAW) == KEK
        assert hash(KeyEncryptionKey(RAW)) == hash(KEK)
        assert KeyEncryptionKey(RAW[::-1]) != KEK

    def test_key_encryption_key_never_equals_bytes(self):
        assert KEK != RAW
        assert RAW != KEK

    def test_two_equal_key_encryption_keys_share_one_cache_entry(self):
        calls = []

        @lru_cache
        def cached(kek: KeyEncryptionKey) -> None:
            calls.append(kek)

        cached(KEK)
        cached(KeyEncryptionKey(RAW))
        assert len(calls) == 1

    @pytest.mark.parametrize("raw", [b"", RAW[:31], RAW + b"x"])
    def test_a1_error_for_a_key_encryption_key_of_the_wrong_length_does_not_contain_its_bytes(self, raw):
        with pytest.raises(ValueError, match=r"^a key-encryption key must have 32 bytes$"):
            KeyEncryptionKey(raw)


class TestTheHMACOfAKeyEncryptionKey:
    def test_hmac_of_a_key_encryption_key_is_hmac_sha256_with_a_key_derived_for_the_purpose(self):
        key = HKDF(SHA256(), 32, salt=None, info=b"a purpose").derive(RAW)

        assert KEK.hmac(b"data", info=b"a purpose") == hmac.new(key, b"data", hashlib.sha256).digest()

    def test_hmac_of_a_key_encryption_key_differs_for_each_purpose(self):
        assert KEK.hmac(b"data", info=b"a purpose") != KEK.hmac(b"data", info=b"another")

    def test_prepared_hmac_of_a_key_encryption_key_equals_its_unprepared_hmac_for_any_data(self):
        prepared = KEK.prepare_hmac(info=b"a purpose")

        for data in (b"", b"data", b"data" * 100):
            assert prepared.digest(data) == KEK.hmac(data, info=b"a purpose")
        assert repr(prepared) == "<prepared HMAC>"

    def test_a1_repr_of_a_cached_hmac_key_contains_no_bytes(self):
        assert repr(key_encryption._hmac_key(KEK, b"a purpose")) == "<HMAC key>"


class TestACachedKey:
    def test_key_of_a_secret_and_hmac_key_of_a_purpose_are_derived_only_once(self):
        assert key_encryption.derive_kek("a secret key") is key_encryption.derive_kek("a secret key")
        assert key_encryption._hmac_key(KEK, b"a purpose") is key_encryption._hmac_key(KEK, b"a purpose")


class TestTheIdOfAKeyEncryptionKey:
    def test_id_of_a_key_encryption_key_depends_only_on_its_bytes(self):
        assert kek_id(KEK) == kek_id(KeyEncryptionKey(RAW))
        assert kek_id(KEK) != kek_id(KeyEncryptionKey(RAW[::-1]))

    def test_id_of_a_key_encryption_key_is_a_base64url_string_of_twelve_characters(self):
        assert re.fullmatch(r"[A-Za-z0-9_-]{12}", kek_id(KEK))
