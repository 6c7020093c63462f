"""Tests of the functions that classify and describe database errors, with the errors of real databases."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection, connections, transaction

from instaccess import database_errors
from instaccess.models import KeyLock

SECRET = "correct-horse-battery"


def fail(statement):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db
class TestNeedsMigration:
    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT 1 FROM no_such_table_here",
            "SELECT no_such_column FROM instaccess_key",
            "INSERT INTO instaccess_key (no_such_column) VALUES (1)",
        ],
    )
    def test_a_missing_table_or_column_needs_a_migration(self, statement):
        with pytest.raises(DatabaseError) as caught:
            fail(statement)

        assert database_errors.needs_migration(caught.value)

    @pytest.mark.parametrize("statement", ["SELEC 1", "SELECT no_such_function(1)"])
    def test_syntax_error_or_unknown_function_in_a_statement_needs_no_migration(self, statement):
        with pytest.raises(DatabaseError) as caught:
            fail(statement)

        assert not database_errors.needs_migration(caught.value)

    def test_an_error_about_a_duplicate_row_is_classified_neither_as_a_missing_migration_nor_as_an_outage(self):
        KeyLock.objects.get_or_create(pk=1)
        with pytest.raises(IntegrityError) as caught, transaction.atomic():
            KeyLock.objects.create(pk=1)

        assert not database_errors.needs_migration(caught.value)
        assert not database_errors.is_outage(caught.value)

    def test_an_unreachable_database_is_an_outage_and_needs_no_migration(self, tmp_path):
        away = connections.create_connection("default")
        settings = away.settings_dict
        options = {**settings["OPTIONS"]}
        options.pop("pool", None)
        away.settings_dict = {**settings, "HOST": "127.0.0.1", "PORT": "1", "OPTIONS": options}
        if away.vendor == "sqlite":
            away.settings_dict["NAME"] = tmp_path / "no such folder" / "database"

        with pytest.raises(OperationalError) as caught:
            away.ensure_connection()

        assert database_errors.is_outage(caught.value)
        assert not database_errors.needs_migration(caught.value)


class TestDescribe:
    def test_describe_joins_the_lines_of_a_database_message(self):
        error = OperationalError('connection to "db" failed: Connection refused\n\tIs the server running?\n')

        assert (
            database_errors.describe(error) == 'connection to "db" failed: Connection refused Is the server running?'
        )

    @pytest.mark.parametrize(
        "text",
        [
            f"invalid dsn postgresql://ada:{SECRET}@db/app",
            f"bad option: host=db password={SECRET} port=x",
            f"bad option: host=db password='{SECRET} ' port=x",
            f"bad option: passwd = {SECRET}",
        ],
    )
    def test_describe_hides_a_password_in_a_connection_string(self, text):
        described = database_errors.describe(OperationalError(text))

        assert SECRET not in described
        assert "[password]" in described

    @pytest.mark.parametrize(
        "database", [{"PASSWORD": SECRET}, {"OPTIONS": {"passwd": SECRET}}, {"OPTIONS": {"password": SECRET}}]
    )
    def test_describe_hides_the_password_of_the_database_from_password_or_options_in_the_settings(
        self, monkeypatch, database
    ):
        monkeypatch.setitem(connections.settings, "default", {**connections.settings["default"], **database})

        assert SECRET not in database_errors.describe(OperationalError(f"missing = after {SECRET!r}"))

    def test_describe_does_not_change_a_message_of_mariadb_about_a_password(self):
        text = "(1045, \"Access denied for user 'ada'@'localhost' (using password: YES)\")"

        assert database_errors.describe(OperationalError(text)) == text
