"""Tests of the parser: the longest token, the longest header, and the only accepted encoding of a byte sequence."""

from __future__ import annotations

import string
from collections.abc import Iterable
from contextlib import suppress
from itertools import product

import pytest

from instaccess.exceptions import InvalidToken
from instaccess.tokens import compact
from tests.tokens.handmade import b64

ALPHABET = string.ascii_letters + string.digits + "-_"


def accepted(segments: Iterable[str]) -> dict[str, bytes]:
    """Return the decoded bytes of each segment that the parser accepts."""
    decoded = {}
    for segment in segments:
        with suppress(InvalidToken):
            (decoded[segment],) = compact.split_compact(segment, 1)
    return decoded


class TestTheEncodingOfASegment:
    def test_g4_parser_accepts_exactly_one_encoding_of_each_byte(self):
        texts = ["".join(pair) for pair in product(ALPHABET, repeat=2)]

        assert accepted(texts) == {b64(raw): raw for raw in map(bytes, product(range(256)))}

    def test_g4_parser_accepts_exactly_one_encoding_of_each_tested_pair_of_bytes(self):
        # The strings that begin with A encode all pairs of bytes in which the first byte is at most 3.
        texts = ["A" + "".join(pair) for pair in product(ALPHABET, repeat=2)]

        assert accepted(texts) == {b64(raw): raw for raw in map(bytes, product(range(4), range(256)))}

    def test_g4_parser_refuses_a_segment_of_one_character(self):
        with pytest.raises(InvalidToken) as refusal:
            compact.split_compact("A.AAAA.AAAA", 3)

        assert refusal.value.code == "malformed"


class TestTheLongestTokenAndHeader:
    def test_g19_parser_accepts_a_token_of_exactly_8_kib_and_refuses_a_longer_token(self):
        longest = f"AAAA.AAAA.{'A' * 8182}"
        assert len(longest) == 8192

        assert [len(segment) for segment in compact.split_compact(longest, 3)] == [3, 3, 6136]
        with pytest.raises(InvalidToken) as refusal:
            compact.split_compact(longest + "A", 3)
        assert refusal.value.code == "too_long"

    def test_parser_accepts_a_header_of_exactly_1_kib_and_refuses_a_longer_header(self):
        longest = b'{"alg":"RS256"}'.ljust(1024)

        assert compact.parse_header(longest, frozenset({"alg"})) == {"alg": "RS256"}
        with pytest.raises(InvalidToken) as refusal:
            compact.parse_header(longest + b" ", frozenset({"alg"}))
        assert refusal.value.code == "bad_header"
