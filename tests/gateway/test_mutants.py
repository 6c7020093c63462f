"""Tests with mutated tokens: the gateway refuses every mutant and accepts only the genuine token."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaccess.exceptions import InvalidToken
from instaccess.gateway.unwrapping import TokenCache
from tests.support.tokens import b64, claims, with_header

MUTANTS = 100_000
RSA_AT_MOST = 1_500
"""The number of look-ups that find an RSA key. A mutant takes a hundredth of the time if no key is found."""


_ODD = [b".", b"=", b"+", b"/", b"\n", b"\x00", b"\xff", b" ", b"..", b"====", b"eyJ", b"{}", b"AAAA"]


def mutant(genuine: bytes, order: random.Random) -> bytes:
    """Return the token with one to three random changes: bytes replaced, deleted, inserted or swapped."""
    raw = bytearray(genuine)
    for _ in range(order.choice((1, 1, 1, 2, 3))):
        place, kind = order.randrange(len(raw)), order.randrange(8)
        if kind == 0:
            raw[place] ^= 1 << order.randrange(8)
        elif kind == 1:
            raw[place] = order.randrange(256)
        elif kind == 2:
            del raw[place : place + order.choice((1, 1, 4, 40))]
        elif kind == 3:
            raw[place:place] = order.choice(_ODD)
        elif kind == 4:
            raw[place:place] = raw[place : place + order.choice((1, 4, 40))]
        elif kind == 5:
            del raw[max(place, 1) :]
        elif kind == 6:
            segments = bytes(raw).split(b".")
            order.shuffle(segments)
            raw = bytearray(b".".join(segments))
        else:
            other = order.randrange(len(raw))
            raw[place], raw[other] = raw[other], raw[place]
        if not raw:
            return b""
    return bytes(raw)


class ScarceKeys(dict[str, Any]):
    """A mapping of keys that finds a key only in the first `RSA_AT_MOST` look-ups."""

    uses = 0

    def get(self, *args: Any) -> Any:
        self.uses += 1
        return super().get(*args) if self.uses <= RSA_AT_MOST else None

    def items(self) -> Any:
        self.uses += 1
        return super().items() if self.uses <= RSA_AT_MOST else ()


class TestMutatedTokens:
    def test_g18_unwrap_accepts_only_the_genuine_token_among_100_000_mutants(self, make, unwrap_):
        genuine = make.token().encode()
        order = random.Random(20261123)
        keys = ScarceKeys(make.decryption_keys)
        cache = TokenCache()
        accepted = refused = identical = 0
        for number in range(MUTANTS):
            raw = genuine if number % 1000 == 0 else mutant(genuine, order)
            identical += raw == genuine
            # The limit is only for mutants, because each genuine token must be accepted.
            available = make.decryption_keys if raw == genuine else keys
            try:
                # Decode the token as Latin-1, as servers do with header values.
                unwrap_(raw.decode("latin-1"), decryption_keys=available, cache=cache, cache_size=9)
            except InvalidToken:
                refused += 1
            else:
                assert raw == genuine
                accepted += 1

        assert accepted == identical >= 100
        assert accepted + refused == MUTANTS
        assert cache.get(genuine.decode())
        assert len(cache._tokens) == 1

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(max_size=300))
    def test_g18_unwrap_raises_only_invalid_token_for_arbitrary_text(self, unwrap_, text):
        with pytest.raises(InvalidToken):
            unwrap_(text)

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(segments=st.lists(st.binary(max_size=64), min_size=5, max_size=5))
    def test_g18_unwrap_raises_only_invalid_token_for_five_canonical_base64_segments(self, unwrap_, segments):
        with pytest.raises(InvalidToken):
            unwrap_(".".join(b64(segment) for segment in segments))

    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        header=st.dictionaries(
            st.sampled_from(["alg", "enc", "kid", "typ", "cty", "zip", "crit", "jwk", "epk", ""]),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.sampled_from(["RSA-OAEP", "A128CBC-HS256", "JWT", "DEF", ""])
                | st.text(max_size=20),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                max_leaves=5,
            ),
        )
    )
    def test_g18_unwrap_raises_only_invalid_token_for_an_arbitrary_protected_header(self, make, unwrap_, header):
        genuine = make.token()
        token = with_header(genuine, header)
        if token != genuine:
            with pytest.raises(InvalidToken):
                unwrap_(token)

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        payload=st.dictionaries(
            st.sampled_from(
                ["iss", "jti", "iat", "exp", "sub", "acct", "canvas_domain", "nbf", "masq_sub", "region"]
            ),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers()),
        )
    )
    def test_g18_unwrap_raises_only_invalid_token_for_signed_claims_of_arbitrary_types(self, make, unwrap_, payload):
        text = json.dumps({**claims(), **payload}) if payload else "{}"
        try:
            unwrap_(make.encrypted(make.signed(text.encode())))
        except InvalidToken:
            return
        required = set(payload) - {"nbf", "masq_sub", "region"}
        assert all(isinstance(payload[name], (str, int)) for name in required)
