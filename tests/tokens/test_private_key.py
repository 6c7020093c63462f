"""Tests of `PrivateKey`, the opaque object that contains an RSA key pair."""

from __future__ import annotations

from jwcrypto.jwk import JWK

from instaccess.tokens import PrivateKey


class TestAPrivateKey:
    def test_has_private_is_true_for_a_private_key(self, signing_key):
        assert PrivateKey(signing_key).has_private is True

    def test_public_key_has_the_use_and_kid_of_the_private_key_and_no_private_member(self, rsa_pool):
        pair = JWK(**rsa_pool.take("sig"), kid="s1")

        public = PrivateKey(pair).public()

        assert public == {"kty": "RSA", "use": "sig", "kid": "s1", "n": pair["n"], "e": pair["e"]}
        assert not public.has_private

    def test_thumbprint_of_a_private_key_is_the_thumbprint_of_its_public_key(self, signing_key):
        assert PrivateKey(signing_key).thumbprint() == JWK.from_json(signing_key.export_public()).thumbprint()
