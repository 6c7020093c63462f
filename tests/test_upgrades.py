"""Tests of two releases on one database, and of the rules for migrations in docs/upgrades.md."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations.loader import MigrationLoader

from instaccess.models import IssuedToken, Key
from tests.support import readme, releases
from tests.support.migration_policy import find_incompatible_operations
from tests.support.paths import ROOT

VERIFY = "/internal/gateway/verify"
PAGE = readme.page("upgrades.md")
FIRST = ("instaccess", "0001_initial")


FROZEN = {
    "0001_initial": "ec2e2cd683cbd4d78418767c5c44a0e84574d884377e68789fabb6063bfa138b",
}
"""The SHA-256 digest of each migration that may no longer change. Add each migration in the commit of its release."""


def new_text() -> models.Field[Any, Any]:
    """Return the column `mac` of keys with a different help text."""
    field = Key._meta.get_field("mac").clone()
    field.help_text = "Another text."
    return field


def find_problems(operation: Any) -> list[str]:
    """Return the problems that the rules find in a second migration that consists of `operation`."""
    migration = migrations.Migration("0002_change", "instaccess")
    migration.operations = [operation]
    return list(find_incompatible_operations(migration, MigrationLoader(None).project_state(FIRST)))


def get_columns(table: str) -> set[str]:
    with connection.cursor() as cursor:
        return {column.name for column in connection.introspection.get_table_description(cursor, table)}


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> releases.Release:
    """Create and return a release that adds a column with a database default to every table."""
    return releases.next_release(tmp_path_factory.mktemp("next_release"))


@pytest.fixture
def upgraded(empty_gateway_caches: None, next_release: releases.Release) -> Iterator[releases.Release]:
    """Migrate the database with the next release, and yield the next release. The tests run this release."""
    try:
        next_release.manage("migrate", "--verbosity", "0")
        assert "added_later" in get_columns(IssuedToken._meta.db_table) & get_columns(Key._meta.db_table)
        yield next_release
    finally:
        next_release.manage("migrate", *FIRST, "--verbosity", "0")


@pytest.mark.django_db(transaction=True)
class TestTwoReleasesOnOneDatabase:
    @pytest.fixture
    def issue(self, post: Any, access_token: Any) -> Any:
        """Return a function that issues a token through the endpoint of this release."""

        def issue_() -> str:
            response = post(access_token)
            assert response.status_code == 201, response.content
            return str(response.json()["token"])

        return issue_

    @pytest.fixture
    def verify(self, client: Any) -> Any:
        """Return a function that sends a token to the gateway of this release, and returns the status."""
        return lambda token: client.get(VERIFY, headers={"Authorization": f"Bearer {token}"}).status_code

    def test_this_release_issues_verifies_rotates_and_revokes_on_the_tables_of_the_next_release(
        self, issue, verify, user, upgraded
    ):
        token = issue()
        assert verify(token) == 204

        call_command("instaccess_keys", "rotate", "--force", verbosity=0)
        call_command("instaccess_tokens", "seal", verbosity=0)
        call_command("instaccess_tokens", "verify", verbosity=0)
        assert verify(issue()) == 204

        call_command("instaccess_tokens", "revoke", "--user", user.username, "--reason", "laptop lost", verbosity=0)
        assert IssuedToken.objects.filter(revoked_at=None).count() == 0

    def test_each_release_reads_the_rows_and_keys_of_the_other_release(self, issue, verify, upgraded):
        issue()
        upgraded.manage("instaccess_keys", "rotate", "--force")
        upgraded.manage("instaccess_tokens", "seal")

        assert verify(issue()) == 204
        call_command("instaccess_tokens", "verify", verbosity=0)
        assert "No tampering found in 2 rows." in upgraded.manage("instaccess_tokens", "verify")
        upgraded.manage("check", "--database", "default", "--fail-level", "ERROR")

    def test_next_release_reports_a_database_error_and_no_modified_row_if_verify_runs_before_migrate(
        self, issue, empty_gateway_caches, next_release
    ):
        issue()

        verified = next_release.run("instaccess_tokens", "verify")

        assert verified.returncode == 1
        assert "added_later" in verified.stderr
        assert "Run `python manage.py migrate`." in verified.stderr
        assert "modified" not in verified.stdout + verified.stderr

    def test_downgrade_keeps_all_rows_and_keys(self, issue, verify, upgraded):
        token = issue()
        before = list(Key.objects.order_by("pk").values())

        upgraded.manage("migrate", *FIRST, "--verbosity", "0")

        assert "added_later" not in get_columns(IssuedToken._meta.db_table)
        assert list(Key.objects.order_by("pk").values()) == before
        assert verify(token) == 204
        assert verify(issue()) == 204
        call_command("instaccess_tokens", "verify", verbosity=0)

    def test_documented_commands_upgrade_downgrade_and_remove_the_app(self, issue, upgraded):
        issue()
        outputs = {line: upgraded.run_line(line) for snippet in readme.snippets(PAGE) for line in snippet.lines}
        try:
            assert "No tampering found in 1 rows." in outputs["python manage.py instaccess_tokens verify"]
            assert len((upgraded.folder / "audit-log.jsonl").read_text().splitlines()) == 1
            assert IssuedToken._meta.db_table not in connection.introspection.table_names()
        finally:
            upgraded.manage("migrate", "--verbosity", "0")


class TestTheRulesForMigrations:
    def test_every_migration_after_the_first_is_compatible_with_the_previous_release(self):
        loader = MigrationLoader(None)
        problems = [
            problem
            for node, migration in loader.disk_migrations.items()
            if node[0] == "instaccess" and node != FIRST
            for problem in find_incompatible_operations(migration, loader.project_state(node, at_end=False))
        ]

        assert problems == []

    def test_migrations_are_unchanged_since_their_release(self):
        folder = ROOT / "instaccess" / "migrations"

        assert {name: sha256((folder / f"{name}.py").read_bytes()).hexdigest() for name in FROZEN} == FROZEN

    @pytest.mark.parametrize(
        "operation",
        [
            migrations.AddField("key", "note", models.CharField(max_length=20)),
            migrations.AddField("key", "note", models.CharField(max_length=20, default="text")),
            migrations.RemoveField("key", "mac"),
            migrations.RenameField("key", "mac", "code"),
            migrations.AlterField("key", "mac", models.CharField(max_length=10)),
            migrations.DeleteModel("Key"),
            migrations.RunPython(lambda apps, schema_editor: None),
            migrations.RunSQL("DELETE FROM instaccess_key"),
        ],
        ids=lambda operation: operation.describe(),
    )
    def test_migration_rules_refuse_an_operation_that_breaks_the_previous_release_or_a_downgrade(
        self, operation: Any
    ):
        assert len(find_problems(operation)) == 1

    @pytest.mark.parametrize(
        "operation",
        [
            migrations.AddField("key", "note", models.CharField(max_length=20, db_default="")),
            migrations.AddField("key", "note", models.CharField(max_length=20, null=True)),
            migrations.AlterField("key", "mac", new_text()),
            migrations.AddIndex("key", models.Index(fields=["status"], name="instaccess_key_status")),
            migrations.CreateModel("Note", [("id", models.BigAutoField(primary_key=True))]),
            migrations.RunPython(migrations.RunPython.noop, migrations.RunPython.noop),
        ],
        ids=lambda operation: operation.describe(),
    )
    def test_migration_rules_accept_an_operation_that_both_releases_can_work_with(self, operation: Any):
        assert find_problems(operation) == []
