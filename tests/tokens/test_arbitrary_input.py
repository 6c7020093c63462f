"""Tests that random strings, mutated tokens and mixtures of two tokens are refused with a reason code."""

from __future__ import annotations

import json
import string
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaccess.exceptions import InvalidToken
from instaccess.tokens import PrivateKey, jose
from tests.tokens.handmade import CONTENT_ALGORITHMS, PAYLOAD, arbitrary_input, b64, with_header

# Most of these strings resemble tokens. The parser refuses random text at its first check, so random text alone would
# not test the later checks.
near_tokens = st.one_of(
    st.text(max_size=300),
    st.lists(st.text(alphabet=string.ascii_letters + string.digits + "-_", max_size=40), max_size=7).map(".".join),
    st.lists(st.binary(max_size=40).map(b64), min_size=3, max_size=5).map(".".join),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=10,
    ).map(lambda value: ".".join([b64(json.dumps(value).encode())] * 5)),
)


@st.composite
def mutations(draw: Any) -> Any:
    """Draw a function that changes a string in up to three places.

    The function can return the same string, for example if it replaces a character with the same character.
    """
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "insert", "delete", "double"]),
                st.floats(min_value=0, max_value=0.999),
                st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \n\x00é"),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def mutate(text: str) -> str:
        for kind, where, character in steps:
            at = int(len(text) * where)
            if kind == "flip":
                text = text[:at] + character + text[at + 1 :]
            elif kind == "insert":
                text = text[:at] + character + text[at:]
            elif kind == "delete":
                text = text[:at] + text[at + 1 :]
            else:
                text = text[:at] + text[at : at + 4] + text[at:]
        return text

    return mutate


class TestArbitraryInput:
    @arbitrary_input
    @given(text=near_tokens)
    def test_decrypt_and_verify_give_a_reason_code_for_the_refusal_of_an_arbitrary_string(
        self, text, signing_key, encryption_key
    ):
        decryption_keys = {"e1": PrivateKey(encryption_key)}
        for refused, keys in ((jose.decrypt, decryption_keys), (jose.verify, {"s1": signing_key})):
            with pytest.raises(InvalidToken) as refusal:
                refused(text, keys)
            assert refusal.value.code not in {"", "invalid"}

    @arbitrary_input
    @given(header=st.dictionaries(
        st.sampled_from(["alg", "enc", "kid", "typ", "cty", "zip", "crit"]),
        st.sampled_from(["RSA-OAEP", "RS256", "A256GCM", "A128CBC-HS256", "JWT", "e1", "s1", "", "DEF", None, 1, []]),
    ))  # fmt: skip
    def test_decrypt_and_verify_refuse_a_token_with_a_replaced_header(
        self, header, signed, encrypted, signing_key, encryption_key
    ):
        # The token must be refused, because the authentication tag and the signature cover the header.
        for refused, token, keys in (
            (jose.decrypt, encrypted, {"e1": PrivateKey(encryption_key)}),
            (jose.verify, signed, {"s1": signing_key}),
        ):
            with pytest.raises(InvalidToken):
                refused(with_header(token, json.dumps(header)), keys)

    @arbitrary_input
    @given(mutate=mutations())
    def test_g18_decrypt_refuses_an_encrypted_token_that_was_mutated(self, mutate, encrypted, signed, encryption_key):
        text = mutate(encrypted)

        if text == encrypted:
            assert jose.decrypt(text, {"e1": PrivateKey(encryption_key)}) == (signed, "e1")
        else:
            with pytest.raises(InvalidToken) as refusal:
                jose.decrypt(text, {"e1": PrivateKey(encryption_key)})
            assert refusal.value.code not in {"", "invalid"}

    @arbitrary_input
    @given(mutate=mutations())
    def test_g18_verify_refuses_a_signed_token_that_was_mutated(self, mutate, signed, signing_key):
        text = mutate(signed)

        if text == signed:
            assert jose.verify(text, {"s1": signing_key}) == (json.loads(PAYLOAD), "s1")
        else:
            with pytest.raises(InvalidToken) as refusal:
                jose.verify(text, {"s1": signing_key})
            assert refusal.value.code not in {"", "invalid"}

    @pytest.mark.parametrize("enc", CONTENT_ALGORITHMS)
    def test_g6_decrypt_refuses_every_mixture_of_two_encrypted_tokens(self, enc, signing_key, encryption_key):
        first, second = (
            jose.encrypt(
                jose.sign(payload, PrivateKey(signing_key), kid="s1"),
                encryption_key,
                kid="e1",
                alg="RSA-OAEP",
                enc=enc,
            )
            for payload in (b'{"sub":"ada"}', b'{"sub":"eve"}')
        )
        pairs = list(zip(first.split("."), second.split("."), strict=True))
        for mix in set(product(*pairs)) - {tuple(first.split(".")), tuple(second.split("."))}:
            with pytest.raises(InvalidToken):
                jose.decrypt(".".join(mix), {"e1": PrivateKey(encryption_key)})

    def test_verify_refuses_every_mixture_of_two_signed_tokens(self, signing_key):
        first, second = (
            jose.sign(payload, PrivateKey(signing_key), kid=kid).split(".")
            for payload, kid in ((b'{"sub":"ada"}', "s1"), (b'{"sub":"eve"}', "s2"))
        )
        for mix in set(product(*zip(first, second, strict=True))) - {tuple(first), tuple(second)}:
            with pytest.raises(InvalidToken):
                jose.verify(".".join(mix), {"s1": signing_key, "s2": signing_key})

    def test_error_of_decrypt_or_verify_contains_no_part_of_the_token(self, encrypted, signed, rsa_pool):
        # Errors are logged. A person who can read the log must not find a token or its claims there.
        rsa_pool.take(), rsa_pool.take()
        for refused, token, keys in (
            (jose.decrypt, encrypted, {"e1": rsa_pool.take_private("enc")}),
            (jose.verify, signed, {"s1": rsa_pool.take()}),
        ):
            with pytest.raises(InvalidToken) as refusal:
                refused(token, keys)
            text = repr(refusal.value) + str(refusal.value)
            assert not any(segment in text for segment in token.split("."))
