"""Tests of an audit log into which no row can be inserted (case O18), on SQLite with a limited file size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import OperationalError, connection
from django.db.models import CharField
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

from instaccess import audit
from instaccess.audit import writability
from instaccess.audit.checks import check_insert
from instaccess.audit.row_ids import row_id
from instaccess.models import IssuedToken
from tests.support.failing import failing_after


def messages() -> list[CheckMessage]:
    return [each for each in run_checks(databases=["default"]) if each.id == "instaccess.E062"]


def scalar(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
class TestAFullDatabase:
    @pytest.fixture
    def limit(self, initial_keys: Any, access_token: Any) -> Iterator[Callable[[bool], None]]:
        """Return a function that limits the size of the database to its current size, or removes the limit."""

        def limit_(on: bool) -> None:
            scalar(f"PRAGMA max_page_count = {scalar('PRAGMA page_count') if on else 2**30}")

        with connection.cursor() as cursor:
            cursor.execute("VACUUM")  # Remove free pages, because SQLite would fill free pages first.
        limit_(True)
        yield limit_
        limit_(False)

    def fill(self, post: Callable[..., Any], access_token: Any) -> Any:
        """Request tokens until a request fails. The last pages of the database have space for some rows."""
        return next(answer for _ in range(200) if (answer := post(access_token)).status_code != 201)

    def test_o18_issuer_with_a_full_database_answers_503_and_issues_tokens_again_when_there_is_space(
        self, limit, post, access_token, caplog
    ):
        answer = self.fill(post, access_token)
        assert answer.status_code == 503
        assert "database or disk is full" in caplog.text

        limit(False)
        assert post(access_token).status_code == 201

    def test_o18_system_check_reports_a_full_database_and_adds_no_row_to_the_audit_log(self, limit):
        [message] = messages()
        assert "No row can be inserted into the audit log in the database 'default'" in message.msg
        assert "database or disk is full" in message.msg
        assert not IssuedToken.objects.exists()

    def test_o18_health_check_detects_a_full_database_after_a_token_could_not_be_issued(
        self, limit, post, access_token
    ):
        audit.check_writable()  # This check inserts no row, because no insert has failed yet.

        self.fill(post, access_token)
        for _ in range(2):
            with pytest.raises(OperationalError, match="full"):
                audit.check_writable()

        limit(False)
        audit.check_writable()
        limit(True)
        audit.check_writable()


@pytest.mark.django_db(transaction=True)
class TestTryInsert:
    def test_try_insert_inserts_rows_larger_than_a_page_and_keeps_no_row(self):
        sizes = []

        def measure(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            sizes.append(sum(len(str(param)) for param in params or ()))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(measure):
            assert messages() == []

        assert max(sizes) > 16 * 1024
        assert not IssuedToken.objects.exists()

    def test_try_insert_fills_every_text_column_to_its_maximum_length_and_uses_valid_ids(self):
        seen: list[dict[str, Any]] = []

        def read(execute: Any, sql: str, *args: Any) -> Any:
            result = execute(sql, *args)
            if sql.startswith("INSERT"):
                seen.extend(IssuedToken.objects.values())
            return result

        with connection.execute_wrapper(read):
            writability.try_insert()

        columns: list[Any] = IssuedToken._meta.concrete_fields
        texts = {each.attname: each.max_length for each in columns if isinstance(each, CharField)}
        assert {name: len(seen[0][name]) for name in texts} == texts
        assert [each["id"] for each in seen] == [row_id(each["issued_at"], each["jti"]) for each in seen]

    def test_try_insert_sends_no_signal(self):
        sent = []

        def receive(**kwargs: Any) -> None:
            sent.append(kwargs)

        post_save.connect(receive, sender=IssuedToken)
        try:
            writability.try_insert()
        finally:
            post_save.disconnect(receive, sender=IssuedToken)

        assert sent == []

    def test_health_check_inserts_no_row_after_the_recorded_failure_was_reset(self):
        writability.record_failure()
        writability.reset()

        with CaptureQueriesContext(connection) as queries:
            audit.check_writable()
        assert not any("VALUES" in query["sql"] for query in queries.captured_queries)

    def test_system_check_inserts_no_row_into_a_database_that_the_caller_does_not_name(self):
        with connection.execute_wrapper(lambda *args: pytest.fail("a query ran")):
            assert check_insert(databases=None) == check_insert(databases=["other"]) == []

    def test_system_check_accepts_a_database_without_the_table_because_migrate_runs_the_check_first(self):
        with connection.schema_editor() as editor:
            editor.alter_db_table(IssuedToken, "instaccess_issuedtoken", "instaccess_issuedtoken_away")
        try:
            assert messages() == []
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(IssuedToken, "instaccess_issuedtoken_away", "instaccess_issuedtoken")


@pytest.mark.django_db
class TestAnUnusableDatabase:
    def test_health_checks_fail_if_the_database_answers_no_query(self):
        for check in (audit.check_database, audit.check_writable):
            with failing_after(0), pytest.raises(OperationalError):
                check()
