"""Tests of the escaping of text for each character set. `test_unstorable_characters.py` uses real databases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaccess import charsets
from instaccess.models import IssuedToken

COLUMN: Any = IssuedToken._meta.get_field("revocation_reason")
LIMIT = COLUMN.max_length

ESCAPED = [
    ("mysql", "utf8mb4", "Łé😱", "Łé😱"),
    ("mysql", "utf8mb3", "Łé😱", "Łé\\U0001f631"),
    ("mysql", "latin1", "Łé€", "\\u0141é€"),
    ("mysql", "koi8r", "Łé", "\\u0141\\xe9"),
    ("postgresql", "UTF8", "Łé😱", "Łé😱"),
    ("postgresql", "LATIN1", "Łé€", "\\u0141é\\u20ac"),
    ("postgresql", "LATIN9", "Łé€", "\\u0141é€"),
    ("postgresql", "WIN1252", "Łé€", "\\u0141é€"),
    ("postgresql", "SQL_ASCII", "Łé", "\\u0141\\xe9"),
    ("postgresql", "KOI8R", "Łé", "\\u0141\\xe9"),
]


@pytest.fixture
def use_charset(monkeypatch):
    """Return a function that sets the character set of all columns."""

    def use(vendor: str, charset: str) -> None:
        codecs = {charsets._CODECS[vendor].get(charset, "ascii")}
        monkeypatch.setattr(charsets, "_find_codecs", lambda column, using: codecs)

    return use


def fit(text: str) -> str:
    return charsets.fit(text, COLUMN, using="default")


def can_store(text: str) -> bool:
    return charsets.can_store(text, COLUMN, using="default")


class TestFit:
    @pytest.mark.parametrize(("vendor", "charset", "text", "escaped"), ESCAPED)
    def test_fit_escapes_only_the_characters_that_the_character_set_lacks(
        self, use_charset, vendor, charset, text, escaped
    ):
        use_charset(vendor, charset)

        assert fit(text) == escaped

    @pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
    def test_fit_replaces_nul_and_lone_surrogates(self, use_charset, text):
        use_charset("mysql", "utf8mb4")
        assert fit(text) == "a\N{REPLACEMENT CHARACTER}b"

        use_charset("postgresql", "LATIN1")
        assert fit(text) == "a\\ufffdb"

    @pytest.mark.parametrize("prefix", range(12))
    def test_fit_never_cuts_an_escape_sequence(self, use_charset, prefix):
        use_charset("mysql", "utf8mb3")

        escaped = fit("a" * prefix + "😱" * LIMIT)

        assert escaped == "a" * prefix + "\\U0001f631" * ((LIMIT - prefix) // 10)

    @given(text=st.text(max_size=600))
    def test_fit_returns_a_string_that_can_be_stored_and_that_a_second_fit_does_not_change(self, text):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(charsets, "_find_codecs", lambda column, using: {"cp1252", charsets._PLANE_0})
            escaped = fit(text)

            assert len(escaped) <= LIMIT
            assert can_store(escaped)
            assert fit(escaped) == escaped

    def test_fit_and_can_store_do_not_read_the_character_set_for_ascii_text(self, monkeypatch):
        monkeypatch.setattr(charsets, "_find_codecs", None)

        assert fit("x" * 300) == "x" * LIMIT
        assert can_store("x" * 300)


class TestCanStore:
    @pytest.mark.parametrize(
        ("vendor", "charset", "text", "stored"),
        [
            ("mysql", "utf8mb3", "Łé", True),
            ("mysql", "utf8mb3", "😱", False),
            ("postgresql", "LATIN1", "é", True),
            ("postgresql", "LATIN1", "Ł", False),
            ("postgresql", "SQL_ASCII", "Łé😱", True),
            ("postgresql", "UTF8", "a\0b", False),
            ("mysql", "utf8mb4", "\ud800", False),
        ],
    )
    def test_can_store_returns_whether_the_column_can_contain_the_text(
        self, use_charset, vendor, charset, text, stored
    ):
        use_charset(vendor, charset)

        assert can_store(text) is stored
