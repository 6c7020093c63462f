"""Tests of the system check for timeouts of the database (case O18), on each database."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection

from instaccess.audit.checks import check_statement_timeout, check_timeouts

pytestmark = pytest.mark.django_db(transaction=True)

MISSING = {"postgresql": ["connect_timeout"], "mysql": ["connect_timeout", "read_timeout"], "sqlite": []}
COMPLETE = {
    "postgresql": {"connect_timeout": 2},
    "mysql": {"connect_timeout": 2, "read_timeout": 5},
    "sqlite": {},
}


@pytest.fixture(autouse=True)
def no_timeout_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGCONNECT_TIMEOUT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def set_options(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the connection options of the database until the end of the test."""

    def set_options_(options: Any) -> None:
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", dict(options))

    return set_options_


def named(databases: list[str] | None = None) -> list[str]:
    """Return the names of the timeouts that the checks report."""
    messages = check_timeouts(databases=databases) + check_statement_timeout(databases=databases)
    assert {message.id for message in messages} <= {"instaccess.W036"}
    names = ("connect_timeout", "read_timeout", "statement_timeout")
    return [name for name in names for message in messages if f"no {name}" in message.msg]


class TestTimeoutsOfTheDatabase:
    def test_o18_deployment_check_names_each_timeout_that_the_database_lacks(self, set_options):
        set_options({})

        assert named() == MISSING[connection.vendor]

    def test_deployment_check_accepts_a_database_with_timeouts_and_runs_no_query(self, set_options):
        set_options(COMPLETE[connection.vendor])

        with connection.execute_wrapper(lambda *args: pytest.fail("a query ran")):
            assert named() == []

    @pytest.mark.postgresql
    @pytest.mark.parametrize("name", ["PGCONNECT_TIMEOUT", "PGSERVICE"])
    def test_deployment_check_accepts_an_environment_variable_that_can_set_a_timeout(
        self, set_options, monkeypatch, name
    ):
        set_options({})
        monkeypatch.setenv(name, "2")

        assert named() == []

    @pytest.mark.postgresql
    def test_deployment_check_does_not_query_statement_timeout_if_the_caller_names_no_database(self, set_options):
        """If the check didn't have the tag `database`, Django 6.1 would pass every database to the check.

        `manage.py check --deploy` would then run a query, although the operator named no database.
        """
        set_options(COMPLETE["postgresql"])

        messages = run_checks(include_deployment_checks=True)

        assert "instaccess.W036" not in {message.id for message in messages}

    @pytest.mark.postgresql
    def test_o18_deployment_check_queries_statement_timeout_of_a_database_that_the_caller_names(self, set_options):
        set_options(COMPLETE["postgresql"])
        assert named(["default"]) == ["statement_timeout"]
        assert named(["other"]) == []

        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 5000")
        try:
            assert named(["default"]) == []
        finally:
            connection.close()
