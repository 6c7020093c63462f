"""Tests of writing refusal counts: the time, the transaction, and the effect of an unavailable database."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.core.wsgi import get_wsgi_application
from django.db import OperationalError, connection, transaction
from django.test import Client, RequestFactory

from instaccess.audit import refusal_counts
from instaccess.models import RefusalCount
from instaccess.web import refusals
from tests.support.clocks import Clock
from tests.support.verifying import by_asgi_server
from tests.web.refusals.helpers import GATEWAY_URL, REAL_TRANSACTIONS, Statements, ask, counted, total, written

pytestmark = pytest.mark.django_db


@pytest.fixture
def due(clock: Clock) -> Clock:
    """Advance the clock by the interval, so that the end of the next request writes the counts."""
    clock.advance(refusals.INTERVAL)
    return clock


@REAL_TRANSACTIONS
class TestWritingRefusalCounts:
    def test_refusal_counts_are_written_after_the_response_and_not_before(self, due, statements):
        seen: list[int] = []
        response = Client().get(GATEWAY_URL)
        assert response.status_code == 401
        assert total() == 1

        # Simulate a WSGI server, which closes the response after sending the response. If the counts were
        # written before the response is closed, the client would wait for the database.
        refusals.counter.reset()
        due.advance(refusals.INTERVAL)
        statements.seen.clear()
        handler = get_wsgi_application()
        answer = handler(RequestFactory().get(GATEWAY_URL).environ, lambda *args: seen.append(len(statements.seen)))
        assert (seen, statements.seen) == ([0], [])
        answer.close()
        assert statements.seen
        assert total() == 2

    def test_refusal_counts_are_written_at_the_end_of_a_request_under_asgi(self, due):
        assert by_asgi_server([("Authorization", "Bearer a.b.c.d.e")]).status_code == 401

        assert written() == {("gateway", "malformed", "", ""): 1}

    def test_end_of_any_request_writes_the_pending_refusal_counts(self, clock, post, access_token):
        ask("opaque")
        assert total() == 0
        clock.advance(refusals.INTERVAL)
        assert post(access_token).status_code == 201

        assert total() == 1

    def test_refusal_counts_are_written_at_most_once_in_ten_seconds(self, due):
        ask()
        ask()
        due.advance(9.875)
        ask()
        assert total() == 1
        due.advance(0.125)
        ask()

        assert total() == 4

    def test_refusal_counter_writes_nothing_if_nothing_was_refused(self, due, post, access_token, statements):
        post(access_token)

        assert statements.seen == []

    def test_refusal_counter_closes_a_connection_that_the_counter_opened(self):
        refusals.counter.count("gateway", "expired")
        connection.close()
        assert refusals.counter.flush() == 1

        assert connection.connection is None

    def test_refusal_counter_keeps_a_connection_that_was_already_open(self):
        connection.ensure_connection()
        refusals.counter.count("gateway", "expired")
        refusals.counter.flush()

        assert connection.connection is not None

    def test_refusal_counts_are_exact_if_threads_count_and_write_concurrently(self, clock):
        def refuse() -> None:
            try:
                for number in range(100):
                    refusals.counter.count("gateway", "revoked", user_uuid=str(number % 3))
                    if number % 25 == 0:
                        refusals.counter.flush()
            finally:
                connection.close()

        threads = [threading.Thread(target=refuse) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refusals.counter.flush()

        assert total() == 1600


class TestRefusalCountsInsideATransaction:
    """Tests of a request that ends inside a transaction, for example in a test case of the host project."""

    def test_end_of_a_request_writes_no_refusal_counts_inside_a_transaction(self, due, statements):
        ask()

        assert statements.seen == []
        assert counted() == {("gateway", "no_credentials", "", ""): 1}

    def test_failed_write_of_refusal_counts_does_not_break_the_surrounding_transaction(self, statements, user):
        refusals.counter.count("gateway", "expired")
        with transaction.atomic():
            statements.failing = True
            assert refusals.counter.flush() == 0
            user.refresh_from_db()
        statements.failing = False

        assert counted() == {("gateway", "expired", "", ""): 1}


@REAL_TRANSACTIONS
class TestRefusalCountsWithAnUnavailableDatabase:
    @pytest.fixture
    def failing_statements(self, due: Clock, statements: Statements) -> Statements:
        statements.failing = True
        return statements

    def test_o1_gateway_and_issuer_answer_401_if_refusal_counts_cannot_be_written(
        self, failing_statements, due, post
    ):
        for _ in range(5):
            assert (ask(), post().status_code) == (401, 401)
            due.advance(5)

    def test_o1_refusal_counts_are_kept_until_the_database_is_available(self, failing_statements, due):
        for _ in range(5):
            ask()
            due.advance(refusals.INTERVAL)
        failing_statements.failing = False
        ask()

        assert written() == {("gateway", "no_credentials", "", ""): 6}

    def test_o1_write_of_refusal_counts_is_retried_every_ten_seconds_while_the_database_is_unavailable(
        self, failing_statements, due
    ):
        for _ in range(100):
            ask()
            due.advance(0.25)

        assert len(failing_statements.seen) == 3

    def test_o1_failure_to_write_refusal_counts_is_logged_once_per_minute(self, failing_statements, due, caplog):
        for _ in range(119):
            ask()
            due.advance(1)

        lines = [record.getMessage() for record in caplog.records if record.name == "instaccess.refusals"]
        assert len(lines) == 2
        assert "could not be written, and are kept for the next write" in lines[0]

    def test_o1_failed_write_of_refusal_counts_writes_no_partial_counts(self, statements):
        def second_update_fails(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
            if sql.startswith("UPDATE") and "expired" in params:
                raise OperationalError("deadlock detected")
            return execute(sql, params, many, context)

        refusals.counter.count("gateway", "bad_claim")
        refusals.counter.count("gateway", "expired")
        with connection.execute_wrapper(second_update_fails):
            assert refusals.counter.flush() == 0
        assert total() == 0

        assert refusals.counter.flush() == 2
        assert total() == 2

    def test_refusal_counts_of_a_row_that_is_deleted_during_the_write_are_not_lost(self, statements):
        def never_inserted(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
            if sql.startswith("INSERT"):
                return execute("SELECT 1", (), many, context)
            return execute(sql, params, many, context)

        refusals.counter.count("gateway", "expired")
        with connection.execute_wrapper(never_inserted):
            assert refusals.counter.flush() == 0

        assert refusals.counter.flush() == 1

    def test_gateway_answers_401_and_keeps_the_counts_if_a_database_router_fails(self, due, settings, caplog):
        settings.DATABASE_ROUTERS = ["tests.web.refusals.test_writing.FailingRouter"]
        assert (ask(), ask()) == (401, 401)

        assert [r.name for r in caplog.records].count("instaccess.refusals") == 1
        settings.DATABASE_ROUTERS = []
        assert counted() == {("gateway", "no_credentials", "", ""): 2}


class FailingRouter:
    """A database router that raises an error for the table of refusal counts."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        if model is RefusalCount:
            raise LookupError("no such tenant")
        return "default"


class OtherDatabaseRouter:
    """A database router that selects another database for the refusal counts."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "elsewhere" if model is RefusalCount else None


class TestTheDatabaseOfTheRefusalCounts:
    def test_refusal_counts_are_written_to_the_database_that_the_router_of_the_project_chooses(self, settings):
        settings.DATABASE_ROUTERS = ["tests.web.refusals.test_writing.OtherDatabaseRouter"]

        assert refusal_counts.rows().db == "elsewhere"
