"""Counts of refusals are written: when, in which transaction, and if the database is away."""

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
from tests.support.verifying import by_the_wire_of_asgi
from tests.web.refusals.helpers import GATEWAY_URL, REAL_TRANSACTIONS, Statements, ask, counted, total, written

pytestmark = pytest.mark.django_db


@pytest.fixture
def due(clock: Clock) -> Clock:
    """The next request that ends writes."""
    clock.pass_(refusals.INTERVAL)
    return clock


@REAL_TRANSACTIONS
class TestWriting:
    def test_happens_when_a_request_ends_and_not_while_it_is_answered(self, due, statements):
        seen: list[int] = []
        response = Client().get(GATEWAY_URL)
        assert response.status_code == 401
        assert total() == 1

        # The same as a server does it: the answer is complete, and only then closed.
        refusals.counter.reset()
        due.pass_(refusals.INTERVAL)
        statements.seen.clear()
        handler = get_wsgi_application()
        answer = handler(RequestFactory().get(GATEWAY_URL).environ, lambda *args: seen.append(len(statements.seen)))
        assert (seen, statements.seen) == ([0], [])
        answer.close()
        assert statements.seen
        assert total() == 2

    def test_happens_under_asgi_as_well(self, due):
        assert by_the_wire_of_asgi([("Authorization", "Bearer a.b.c.d.e")]).status_code == 401

        assert written() == {("gateway", "malformed", "", ""): 1}

    def test_is_done_by_whichever_request_ends_next(self, clock, post, access_token):
        ask("opaque")
        assert total() == 0
        clock.pass_(refusals.INTERVAL)
        assert post(access_token).status_code == 201

        assert total() == 1

    def test_waits_for_ten_seconds_after_the_last_one(self, due):
        ask()
        ask()
        due.pass_(refusals.INTERVAL - 0.001)
        ask()
        assert total() == 1
        due.pass_(0.001)
        ask()

        assert total() == 4

    def test_costs_nothing_where_nothing_was_refused(self, due, post, access_token, statements):
        post(access_token)

        assert statements.seen == []

    def test_closes_the_connection_that_it_had_to_open(self):
        refusals.counter.count("gateway", "expired")
        connection.close()
        assert refusals.counter.flush() == 1

        assert connection.connection is None

    def test_leaves_one_open_that_was_open(self):
        connection.ensure_connection()
        refusals.counter.count("gateway", "expired")
        refusals.counter.flush()

        assert connection.connection is not None

    def test_is_exact_when_threads_count_and_write_at_once(self, clock):
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


class TestInsideSomebodysTransaction:
    """Such as that of a test of the project around us."""

    def test_the_end_of_a_request_writes_nothing(self, due, statements):
        ask()

        assert statements.seen == []
        assert counted() == {("gateway", "no_credentials", "", ""): 1}

    def test_a_failure_leaves_the_transaction_as_it_was(self, statements, user):
        refusals.counter.count("gateway", "expired")
        with transaction.atomic():
            statements.failing = True
            assert refusals.counter.flush() == 0
            user.refresh_from_db()
        statements.failing = False

        assert counted() == {("gateway", "expired", "", ""): 1}


@REAL_TRANSACTIONS
class TestWithoutTheDatabase:
    @pytest.fixture
    def away(self, due: Clock, statements: Statements) -> Statements:
        statements.failing = True
        return statements

    def test_o1_answers_are_as_ever(self, away, due, post):
        for _ in range(5):
            assert (ask(), post().status_code) == (401, 401)
            due.pass_(5)

    def test_o1_nothing_that_was_counted_is_lost(self, away, due):
        for _ in range(5):
            ask()
            due.pass_(refusals.INTERVAL)
        away.failing = False
        ask()

        assert written() == {("gateway", "no_credentials", "", ""): 6}

    def test_o1_it_is_tried_once_in_ten_seconds(self, away, due):
        for _ in range(100):
            ask()
            due.pass_(0.25)

        assert len(away.seen) == 3

    def test_o1_the_log_says_so_once_a_minute(self, away, due, caplog):
        for _ in range(119):
            ask()
            due.pass_(1)

        lines = [record.getMessage() for record in caplog.records if record.name == "instaccess.refusals"]
        assert len(lines) == 2
        assert "not written, kept for later" in lines[0]

    def test_o1_no_half_of_it_is_written(self, statements):
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

    def test_a_row_deleted_meanwhile_is_not_lost(self, statements):
        def never_inserted(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
            if sql.startswith("INSERT"):
                return execute("SELECT 1", (), many, context)
            return execute(sql, params, many, context)

        refusals.counter.count("gateway", "expired")
        with connection.execute_wrapper(never_inserted):
            assert refusals.counter.flush() == 0

        assert refusals.counter.flush() == 1

    def test_a_router_that_fails_fails_no_request(self, due, settings, caplog):
        settings.DATABASE_ROUTERS = ["tests.web.refusals.test_writing.Lost"]
        assert (ask(), ask()) == (401, 401)

        assert [r.name for r in caplog.records].count("instaccess.refusals") == 1
        settings.DATABASE_ROUTERS = []
        assert counted() == {("gateway", "no_credentials", "", ""): 2}


class Lost:
    """A database router that knows nobody's way."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        if model is RefusalCount:
            raise LookupError("no such tenant")
        return "default"


class Elsewhere:
    """A database router that sends counts to another database."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "elsewhere" if model is RefusalCount else None


class TestTheDatabase:
    def test_is_the_one_that_the_projects_router_writes_to(self, settings):
        settings.DATABASE_ROUTERS = ["tests.web.refusals.test_writing.Elsewhere"]

        assert refusal_counts.rows().db == "elsewhere"
