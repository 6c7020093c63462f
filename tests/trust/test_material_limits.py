"""Tests of the exact limits of accepted RSA keys, and of the exact text of a serialized key."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess.exceptions import KeyRefused
from instaccess.tokens import PrivateKey
from instaccess.trust import material
from tests.support import key_texts
from tests.trust.test_material import generate


def encode(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def public_key(*, bits: int = 2048, exponent: int = 65537) -> str:
    """Return a public JWK with a modulus of `bits` bits. The JWK belongs to no private key."""
    return json.dumps({"kty": "RSA", "n": encode(2 ** (bits - 1) + 1), "e": encode(exponent)})


class TestTheLimitsOfAKey:
    @pytest.mark.parametrize("bits", [2048, 3072, 4096])
    def test_k6_key_of_2048_to_4096_bits_is_accepted(self, bits):
        assert key_texts.parse(public_key(bits=bits)).get_op_key("verify").key_size == bits

    @pytest.mark.parametrize("bits", [2047, 4097])
    def test_k6_key_of_less_than_2048_or_more_than_4096_bits_is_refused(self, bits):
        with pytest.raises(KeyRefused, match=f"the key has {bits} bits; 2048 to 4096 are accepted"):
            key_texts.parse(public_key(bits=bits))

    @pytest.mark.parametrize("exponent", [65537, 65539, 2**31 - 1])
    def test_k6_exponent_of_65537_or_more_is_accepted(self, exponent):
        assert key_texts.parse(public_key(exponent=exponent))["e"] == encode(exponent)

    @pytest.mark.parametrize("members", [{"key_ops": 7}, {"use": ["sig"]}, {"x5c": 7}, {"alg": 7}, {"kid": None}])
    def test_k6_optional_jwk_member_that_jwcrypto_would_refuse_is_ignored(self, members):
        data = json.dumps({**json.loads(public_key()), **members})

        assert set(key_texts.parse(data)) == {"kty", "n", "e"}


class TestTheTextOfAKey:
    @pytest.fixture
    def pair(self, rsa_pool: Any) -> JWK:
        return rsa_pool.take()

    def test_public_jwk_is_indented_json_with_a_newline_at_the_end(self, pair):
        members = material.public_members(pair, use="sig")
        text = material.to_text(JWK(**members), file_format="jwk")

        assert text == json.dumps(members, indent=2) + "\n"
        assert list(members) == ["kty", "n", "e", "use", "kid"]

    def test_private_jwk_contains_its_private_members_last(self, pair):
        key = material.for_use(PrivateKey(pair), use="enc")
        text = material.private_to_text(key, file_format="jwk").reveal()

        assert list(json.loads(text)) == ["kty", "n", "e", "use", "kid", "d", "p", "q", "dp", "dq", "qi"]
        assert text.startswith('{\n  "kty"')

    def test_format_pem_is_compared_by_value_and_not_by_identity(self, pair):
        # `lower` returns a new string, so a comparison with `is` would fail.
        assert material.to_text(pair, file_format="PEM".lower()).startswith("-----BEGIN PUBLIC KEY-----\n")


class TestAGeneratedKey:
    @pytest.mark.parametrize("use", ["sig", "enc"])
    def test_generated_key_has_the_requested_use(self, use):
        assert generate(use).reveal()["use"] == use
