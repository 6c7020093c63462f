"""Tests of the functions that extract a token from pasted text and format values for display."""

from __future__ import annotations

import time

import pytest

from instaccess.admin.inspector.pasted import extract_token, format_value
from instaccess.admin.inspector.verdict import MAX_PASTED

pytestmark = pytest.mark.django_db


class TestExtractToken:
    @pytest.mark.parametrize(
        "pasted",
        [
            "aaa.bbb",
            "  aaa.bbb\r\n",
            "Bearer aaa.bbb",
            "bearer  aaa.bbb",
            "Authorization: Bearer aaa.bbb",
            "authorization:Bearer aaa.bbb",
            "Authorization: aaa.bbb",
            '"aaa.bbb"',
            "'Authorization: Bearer aaa.bbb'",
            'Authorization: "Bearer aaa.bbb"',
            "“aaa.bbb”",
            "`aaa.bbb`",
            '{"token": "aaa.bbb"}',
            '{"token":"aaa.bbb"}\n',
            '{"token": "aa\na.bbb"}',
            "aa\na.b\r\nbb",
            "> aaa\n> .bbb",
            ">> aaa.\n>> bbb\n",
            "aaa.\u00a0bbb",
        ],
    )
    def test_extract_token_removes_text_and_whitespace_around_a_copied_token(self, pasted):
        assert extract_token(pasted) == "aaa.bbb"

    @pytest.mark.parametrize(
        "pasted",
        [
            "aaa.bbb=",
            "aaa.bbb==",
            "aaa!bbb",
            "aaa+bbb/c",
            ".aaa.bbb",
            "aaa.bbb.",
            "aaa\x00bbb",
            "aaa\u200bbbb",
            "{}",
            "",
        ],
    )
    def test_extract_token_keeps_invalid_characters_so_that_the_token_is_refused(self, pasted):
        assert extract_token(pasted) == pasted

    @pytest.mark.parametrize(
        "pasted", ['{"token": "a", "more": 1}', '{"token": 5}', '{"tokens": "a"}', "[" * 9000, "{" * 9000]
    )
    def test_extract_token_parses_no_json_except_the_response_of_the_issuer(self, pasted):
        assert extract_token(pasted) == "".join(pasted.split())

    def test_extract_token_does_not_join_two_tokens_into_a_valid_token(self):
        assert extract_token("Bearer aaa, Bearer bbb") == "aaa,Bearerbbb"

    @pytest.mark.parametrize(
        "pasted", [f"Authorization: Bearer {'x' * MAX_PASTED}", "Bearer " * 2800, "\"'" * 9999, "> " * 9999]
    )
    def test_extract_token_takes_less_than_a_second_for_long_text(self, pasted):
        started = time.process_time()
        extract_token(pasted)

        assert time.process_time() - started < 1


class TestFormatValue:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("plain é", "plain é"),
            ("a\x00b", '"a\\u0000b"'),
            ("\u202egnp.exe", '"\\u202egnp.exe"'),
            ("\ud800", '"\\ud800"'),
            (5, "5"),
            (True, "true"),
            (None, "null"),
            ({"a": ["\u202e"]}, '{"a": ["\\u202e"]}'),
            (float("inf"), "Infinity"),
        ],
    )
    def test_format_value_escapes_characters_that_hide_or_reorder_text(self, value, text):
        assert format_value(value) == text

    def test_format_value_truncates_a_long_value(self):
        assert len(format_value("x" * 5000)) < 500
        assert len(format_value(10**3000)) < 500
