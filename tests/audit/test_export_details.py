"""Tests of details of the export: media types, rows of the same second, control characters, and deleted users."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from instaccess.audit import Export, Format
from instaccess.audit.export import COLUMNS, as_csv, safe_cell
from instaccess.audit.row_ids import first_id
from instaccess.models import IssuedToken

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class TestTheFormats:
    def test_media_type_of_csv_names_the_charset_and_the_header(self):
        assert Format.CSV.content_type == "text/csv; charset=utf-8; header=present"

    def test_media_type_of_json_lines_is_application_jsonl(self):
        assert Format.JSON_LINES.content_type == "application/jsonl"


class TestCsv:
    def test_export_as_csv_quotes_every_cell_and_ends_each_line_with_crlf(self):
        record = ["7", 'say "hi"', None, *[""] * (len(COLUMNS) - 3)]

        assert as_csv([record, record]) == ('"7","say ""hi""",""' + ',""' * (len(COLUMNS) - 3) + "\r\n") * 2


class TestControlCharacters:
    @pytest.mark.parametrize(
        ("char", "symbol"),
        [
            ("\x00", "\u2400"),
            ("\x1f", "\u241f"),
            ("\x7f", "\u2421"),
            ("\x80", "\ufffd"),
            ("\x9f", "\ufffd"),
            ("\u2028", "\ufffd"),
            ("\ud800", "\ufffd"),
        ],
        ids=ascii,
    )
    def test_safe_cell_replaces_a_control_character_with_its_symbol(self, char, symbol):
        assert safe_cell(f"a{char}b") == f"a{symbol}b"

    @pytest.mark.parametrize("char", [" ", "~", "\xa0"], ids=ascii)
    def test_safe_cell_keeps_the_characters_next_to_the_ranges_of_control_characters(self, char):
        assert safe_cell(f"a{char}b\t") == f"a{char}b\u2409"


@pytest.mark.django_db
class TestRowsOfTheSameSecond:
    def test_export_contains_each_row_once_if_the_ids_are_not_in_the_order_of_issue(self, row):
        order = [(900, 1), (500, 3), (500, 2), (100, 4)]
        rows = [
            row(id=first_id(NOON) + number, issued_at=NOON + timedelta(milliseconds=milliseconds))
            for milliseconds, number in order
        ]

        for size in (1, 2, 3):
            lines = "".join(Export(IssuedToken.objects.all(), Format.JSON_LINES, by="auditor", batch=size))
            exported = [json.loads(line)["id"] for line in lines.splitlines()]
            assert exported == [str(each.pk) for each in rows]


@pytest.mark.django_db
class TestARowOfADeletedUser:
    def test_export_contains_no_user_for_a_row_whose_user_uuid_is_the_string_none(self, row):
        row(user=None, user_uuid="None", jti=uuid.uuid4())

        [line] = "".join(Export(IssuedToken.objects.all(), Format.JSON_LINES, by="auditor")).splitlines()
        assert json.loads(line)["user"] is None
