"""Tests of the export of the audit log: every row once, in constant memory, and without formulas."""

from __future__ import annotations

import csv
import io
import json
import logging
import tracemalloc
import unicodedata
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from instaccess import users
from instaccess.audit.export import COLUMNS, Export, Format, as_csv, as_json_lines, safe_cell
from instaccess.keys import ring
from instaccess.models import IssuedToken
from tests.support.failing import failing_after

NOW = datetime(2026, 11, 23, 12, 0, 0, 700_000, tzinfo=UTC)


def export(file_format: Format = Format.JSON_LINES, **options: Any) -> Export:
    rows = options.pop("rows", None)
    return Export(IssuedToken.objects.all() if rows is None else rows, file_format, by="auditor", **options)


def read(chunks: Any) -> list[dict[str, Any]]:
    """Parse the chunks of an export as JSON Lines. Returns one object per row."""
    text = "".join(chunks)
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def many(count: int) -> None:
    """Create audit rows without foreign keys, for tokens that were issued one second apart."""
    IssuedToken.objects.bulk_create(
        [
            IssuedToken(
                jti=uuid.uuid4(),
                user_uuid=str(uuid.uuid4()),
                account_uuid="3f1c",
                canvas_domain="canvas.example.edu",
                signing_kid="s",
                user_agent="Mozilla/5.0 (X11; Linux x86_64) " * 4,
                issued_at=NOW - timedelta(seconds=number),
                expires_at=NOW + timedelta(hours=1),
                mac="k.m",
            )
            for number in range(count)
        ],
        batch_size=500,
    )


@pytest.mark.django_db
class TestAnExportedRow:
    def test_exported_row_contains_every_column(self, row, user, application):
        grace = get_user_model().objects.create_user("grace")
        each = row(
            real_user=grace,
            real_user_uuid=users.user_uuid(grace),
            access_token_pk="7",
            issued_at=NOW,
            expires_at=NOW + timedelta(hours=1),
            revoked_at=NOW + timedelta(minutes=1),
            revoked_by="root",
            revocation_reason="laptop lost",
        )

        [fact] = read(export())

        assert fact == {
            "id": str(each.pk),
            "jti": str(each.jti),
            "status": "revoked",
            "user": "ada",
            "user_name": "ada",
            "user_uuid": each.user_uuid,
            "actor": "grace",
            "actor_name": "grace",
            "actor_uuid": users.user_uuid(grace),
            "application": "LTI tool",
            "client_id": application.client_id,
            "access_token_pk": "7",
            "account_uuid": "3f1c",
            "canvas_domain": "canvas.example.edu",
            "ip_address": "192.0.2.7",
            "user_agent": "client/1.0",
            "issued_at": "2026-11-23T12:00:00Z",
            "expires_at": "2026-11-23T13:00:00Z",
            "signing_kid": "s",
            "encryption_kid": "e",
            "revoked_at": "2026-11-23T12:01:00Z",
            "revoked_by": "root",
            "revocation_reason": "laptop lost",
            "mac": each.mac,
            "names_mac": each.names_mac,
        }
        assert list(fact) == list(COLUMNS)

    def test_exported_row_contains_the_same_values_in_csv_as_in_json(self, row):
        row(client_id="")

        header, line = read_csv("".join(export(Format.CSV)))
        [fact] = read(export())

        assert header == list(COLUMNS)
        assert line == ["" if value is None else str(value) for value in fact.values()]

    def test_exported_columns_are_all_columns_of_the_table_and_the_status(self):
        # If you add a column to the table, add the column to COLUMNS, or exclude the column here and give the reason.
        columns = {field.name.replace("real_user", "actor") for field in IssuedToken._meta.concrete_fields}
        assert columns | {"status"} == set(COLUMNS)

    def test_exported_row_contains_the_status_of_the_token_at_the_given_time(self, row):
        for expires_at in (NOW, NOW + timedelta(seconds=1)):
            row(issued_at=NOW - timedelta(minutes=1), expires_at=expires_at)

        assert [fact["status"] for fact in read(export(now=NOW))] == ["live", "expired"]

    def test_exported_row_contains_uuid_and_client_id_after_user_and_application_were_deleted(
        self, row, user, application
    ):
        each = row()
        user.delete()
        application.delete()

        [fact] = read(export())

        assert (fact["user"], fact["application"]) == (None, None)
        assert (fact["user_uuid"], fact["client_id"]) == (each.user_uuid, each.client_id)

    def test_exported_row_contains_no_name_of_a_user_whose_uuid_does_not_match_the_row(self, row, user):
        grace = get_user_model().objects.create_user("grace")
        user_without_uuid = get_user_model().objects.create_user("without a uuid")
        users.user_uuid(grace)
        row(user=grace, real_user=user_without_uuid, real_user_uuid="another uuid")

        [fact] = read(export())

        assert (fact["user"], fact["actor"]) == (None, None)
        assert fact["user_uuid"] == users.user_uuid(user)

    def test_exported_row_contains_the_user_name_if_a_user_model_field_contains_the_uuid(self, row, user, settings):
        settings.INSTACCESS = {"USER_UUID_FIELD": "email"}
        user.email = "ada@example.edu"
        user.save()
        row(user_uuid="ada@example.edu")
        row(user_uuid="aaa@example.edu")
        row(user_uuid="zzz@example.edu")

        assert [fact["user"] for fact in read(export())] == [None, None, "ada"]

    def test_exported_row_contains_no_name_of_an_application_whose_client_id_does_not_match_the_row(
        self, row, application
    ):
        each = row()
        application.client_id = "another"
        application.save()

        [fact] = read(export())

        assert (fact["application"], fact["client_id"]) == (None, each.client_id)

    def test_exported_row_has_times_in_utc_in_every_time_zone_of_the_project(self, row, settings):
        settings.TIME_ZONE = "Pacific/Auckland"
        row(issued_at=NOW, expires_at=NOW + timedelta(hours=1))

        assert read(export())[0]["issued_at"] == "2026-11-23T12:00:00Z"

    def test_a1_exported_row_contains_no_token_private_key_or_password(self, initial_keys, access_token, post, user):
        token = post(access_token).json()["token"]
        secrets = {access_token.token, user.password, token, *token.split(".")[1:]}
        for key in ring.current_ring().keys:
            secrets |= {key.private().reveal()[member] for member in ("d", "p", "q", "dp", "dq", "qi")}

        for file_format in Format:
            text = "".join(export(file_format))

            assert str(IssuedToken.objects.get().jti) in text
            assert [secret for secret in secrets if secret in text] == []


@pytest.mark.django_db
class TestTheExportedRows:
    def test_export_with_any_batch_size_contains_every_row_once_and_the_latest_row_first(self, row):
        made = [row(issued_at=NOW - timedelta(seconds=number // 3)) for number in range(11)]
        expected = sorted(made, key=lambda each: (each.issued_at, each.pk), reverse=True)

        for size in (1, 2, 3, 4, 11, 12):
            assert [fact["id"] for fact in read(export(batch=size))] == [str(each.pk) for each in expected]

    def test_export_contains_the_latest_rows_first_for_any_order_of_the_queryset(self, row):
        made = [row(age=age) for age in (0, 10, 20)]

        facts = read(export(rows=IssuedToken.objects.order_by("jti"), batch=2))

        assert [fact["id"] for fact in facts] == [str(each.pk) for each in made]

    def test_export_runs_one_query_per_batch_without_offset(self, row):
        for _ in range(7):
            row()

        with CaptureQueriesContext(connection) as queries:
            facts = read(export(batch=2))

        statements = [query["sql"].upper() for query in queries.captured_queries]
        assert len(facts) == 7
        assert len(statements) == 4
        assert not any("OFFSET" in statement or "PASSWORD" in statement for statement in statements)

    def test_export_contains_only_the_rows_of_the_queryset(self, row):
        wanted = [row(client_id="one") for _ in range(3)]
        row(client_id="other")

        facts = read(export(rows=IssuedToken.objects.filter(client_id="one"), batch=2))

        assert {fact["id"] for fact in facts} == {str(each.pk) for each in wanted}

    def test_export_without_rows_contains_only_the_csv_header(self):
        assert "".join(export(Format.JSON_LINES)) == ""
        assert read_csv("".join(export(Format.CSV))) == [list(COLUMNS)]

    def test_export_needs_constant_memory_for_any_number_of_rows(self):
        def peak(count: int) -> int:
            rows = IssuedToken.objects.filter(issued_at__gt=NOW - timedelta(seconds=count))
            tracemalloc.start()
            try:
                assert sum(text.count("\r\n") for text in export(Format.CSV, rows=rows, batch=100)) == count + 1
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        many(5_000)
        peak(500)  # Fill the caches, so that the first measurement doesn't include their memory.

        assert peak(5_000) < 1.2 * peak(500)


@pytest.mark.django_db
class TestExportWhileRowsChange:
    @pytest.fixture
    def made(self, row):
        return [row(age=number) for number in range(6)]

    def test_export_contains_every_older_row_once_if_rows_are_added_during_the_export(self, row, made):
        chunks = iter(export(batch=2))
        seen = read([next(chunks)])
        row()
        row(age=0.5)

        seen += read(chunks)

        assert [fact["id"] for fact in seen] == [str(each.pk) for each in made]

    def test_export_contains_every_remaining_row_once_if_rows_are_pruned_during_the_export(self, made):
        chunks = iter(export(batch=2))
        seen = read([next(chunks)])
        # Simulate a prune that deletes the last row that was read and a row that was not read yet.
        IssuedToken.objects.filter(pk__in=[made[1].pk, made[3].pk]).delete()

        seen += read(chunks)

        assert [fact["id"] for fact in seen] == [str(made[number].pk) for number in (0, 1, 2, 4, 5)]


@pytest.mark.django_db
class TestExportWithAFailingDatabase:
    @pytest.mark.parametrize("file_format", Format)
    def test_export_ends_with_a_line_that_reports_an_incomplete_file_if_the_database_fails(
        self, row, file_format, caplog
    ):
        for _ in range(5):
            row()
        chunks = iter(export(file_format, batch=2))

        with failing_after(1):
            text = next(chunks) + next(chunks)
            with pytest.raises(OperationalError):
                next(chunks)

        last = text.splitlines()[-1]
        assert "INCOMPLETE: the export failed after 2 rows." in last
        if file_format is Format.CSV:
            assert [len(line) for line in read_csv(text)] == [len(COLUMNS)] * 3 + [1]
        else:
            assert set(json.loads(last)) == {"incomplete"}
        assert "export failed by=" in caplog.text
        assert "complete by" not in caplog.text

    @pytest.mark.parametrize("file_format", Format)
    def test_export_yields_nothing_if_the_first_query_fails(self, row, file_format):
        row()

        with failing_after(0), pytest.raises(OperationalError):
            next(iter(export(file_format)))


@pytest.mark.django_db
class TestTheLogOfAnExport:
    @pytest.fixture(autouse=True)
    def _caught(self, caplog):
        caplog.set_level(logging.INFO, logger="instaccess.audit")

    def test_export_logs_its_start_with_the_user_and_the_filters_and_logs_its_end(self, row, caplog):
        for _ in range(3):
            row()
        chunks = iter(export(batch=2, filters={"status": "live\nforged"}))
        assert caplog.messages == []

        next(chunks)

        [begun] = caplog.messages
        assert begun == 'export started by=\'auditor\' format=jsonl filters={"status": "live\\nforged"}'
        list(chunks)
        assert caplog.messages[1:] == ["export complete by='auditor' rows=3"]

    def test_aborted_export_logs_the_number_of_exported_rows(self, row, caplog):
        for _ in range(3):
            row()
        chunks: Any = iter(export(batch=2))
        next(chunks)

        chunks.close()

        assert caplog.messages[1:] == ["export aborted by='auditor' rows=2"]


# Don't import these characters from the package. If a character is missing there, the tests must fail.
FORMULA = "=+-@"
INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202e\u2060\ufeff"


def starts_a_formula(cell: str) -> bool:
    for char in cell:
        if char in INVISIBLE or char == '"' or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp", "Zs"}:
            continue
        return unicodedata.normalize("NFKC", char)[0] in FORMULA
    return False


def symbols(text: str) -> str:
    """Return the text without apostrophes, and with a visible symbol instead of each control character."""
    replaced = []
    for char in text:
        if char < " ":
            replaced.append(chr(0x2400 + ord(char)))
        elif char == "\x7f":
            replaced.append("\u2421")
        elif char in "\u2028\u2029" or unicodedata.category(char) in {"Cc", "Cs"}:
            replaced.append("\ufffd")
        elif char != "'":
            replaced.append(char)
    return "".join(replaced)


any_char = st.characters(exclude_categories=())
nasty = st.text(st.one_of(st.sampled_from("=+-@;,'\"\t\r\n\0 \ufeff\uff1d\uff0b\uff0d\uff20\ud800\u2028x"), any_char))


def record(*texts: str) -> list[Any]:
    return [1, *texts, *[None] * (len(COLUMNS) - 1 - len(texts))]


class TestSafeCell:
    @pytest.mark.parametrize("char", [*"=+-@", *"\uff1d\uff0b\uff0d\uff20", "\t", "\r", "\n"], ids=ascii)
    @pytest.mark.parametrize("before", ["", " ", "\u3000", "\ufeff", " \u200b ", '"'], ids=ascii)
    def test_safe_cell_adds_an_apostrophe_before_a_formula(self, char, before):
        text = f"{before}{char}1+1"

        if not before or char not in "\t\r\n":
            assert safe_cell(text) == "'" + symbols(text)

    def test_safe_cell_adds_an_apostrophe_before_every_unicode_variant_of_a_formula_character(self):
        spellings = [char for char in map(chr, range(0x110000)) if starts_a_formula(char)]

        assert len(spellings) > len("=+-@") * 2
        assert [char for char in spellings if not safe_cell(char + "1").startswith("'")] == []

    @pytest.mark.parametrize("text", ["x;=1", "x; ;\t=1", 'x;"=1"', ";;=1", "=1;=1"])
    def test_safe_cell_adds_an_apostrophe_before_a_formula_after_a_semicolon(self, text):
        assert not any(starts_a_formula(part) for part in safe_cell(text).split(";"))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "42",
            "192.0.2.7",
            "2001:db8::7",
            "94b8b54d-aff3-4846-ab72-8345207a2d20",
            "2026-11-23T12:00:00Z",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
            "a=b; c@d",
            "Łukasz \N{GRINNING FACE} 李",
            "' or 1=1",
        ],
    )
    def test_safe_cell_does_not_change_a_harmless_string(self, text):
        assert safe_cell(text) == text

    @given(nasty)
    def test_safe_cell_never_returns_a_formula_and_keeps_all_printable_characters(self, text):
        cell = safe_cell(text)

        assert not starts_a_formula(cell)
        assert not any(starts_a_formula(part) for part in cell.split(";"))
        assert cell[:1] not in {"\t", "\r", "\n"}
        assert cell.replace("'", "") == symbols(text)

    def test_safe_cell_takes_linear_time_for_long_runs_of_ignored_characters(self):
        # A regular expression that backtracks would take minutes for these strings.
        for text in ("\t" * 100_000, "; " * 100_000, '"' * 100_000 + "x", " " * 100_000 + "="):
            assert len(safe_cell(text)) <= len(text) + 2


class TestAsCsv:
    @given(st.lists(st.tuples(nasty, nasty), max_size=5))
    def test_a5_as_csv_returns_one_line_per_record_with_one_cell_per_column(self, values):
        text = as_csv([record(*texts) for texts in values])

        assert text.encode().decode() == text
        assert text.splitlines(keepends=True) == [line + "\r\n" for line in text.split("\r\n")[:-1]]
        assert read_csv(text) == [
            ["1", *map(safe_cell, texts), *[""] * (len(COLUMNS) - 1 - len(texts))] for texts in values
        ]

    @given(st.lists(st.tuples(nasty, nasty), max_size=5))
    def test_as_csv_returns_no_formula_if_semicolons_separate_cells(self, values):
        text = as_csv([record(*texts) for texts in values])

        for line in csv.reader(io.StringIO(text, newline=""), delimiter=";"):
            assert not any(starts_a_formula(cell) for cell in line)
        assert not any(starts_a_formula(cell) for line in text.splitlines() for cell in line.split(";"))


class TestAsJsonLines:
    @given(st.lists(st.tuples(nasty, nasty), max_size=5))
    def test_a5_as_json_lines_returns_one_line_per_record_with_unchanged_values(self, values):
        text = as_json_lines([record(*texts) for texts in values])

        assert text.isascii()
        assert [list(json.loads(line).values()) for line in text.splitlines()] == [record(*texts) for texts in values]


@pytest.mark.django_db
class TestHostileUserAgents:
    AGENTS = ['=cmd|"/C calc"!A0', 'x";=1+1;"', "<script>alert(1)</script>", "a\r\nb,c\n", "\u2028\u0085\t-1", "'"]

    def test_a5_hostile_user_agents_are_exported_safely_as_csv_and_as_json_lines(self, row):
        agents = {row(user_agent=agent).pk: agent for agent in self.AGENTS}

        lines = read_csv("".join(export(Format.CSV)))[1:]
        facts = read(export())

        column = COLUMNS.index("user_agent")
        assert {int(line[0]): line[column] for line in lines} == {pk: safe_cell(text) for pk, text in agents.items()}
        assert {int(fact["id"]): fact["user_agent"] for fact in facts} == agents
