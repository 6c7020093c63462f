"""Tests of the exact limits of the refusal counter, and of its actions at the exit of a process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from instaccess.exceptions import Reason
from instaccess.web import refusals
from tests.web.refusals.helpers import counted

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)


class Table:
    """A table of refusal counts in memory. A test can make the table unavailable."""

    def __init__(self) -> None:
        self.written, self.attempts = 0, 0
        self.available = True
        self.name = "database"

    def connection(self) -> Any:
        self.attempts += 1
        if not self.available:
            raise OperationalError("unavailable")
        return SimpleNamespace(
            connection=object(), settings_dict={"NAME": self.name}, in_atomic_block=False, close=lambda: None
        )

    def add(self, counts: Any) -> None:
        self.written += sum(counts.values())

    def trim(self) -> bool:
        return True


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def counter(table: Table, clock: Any, monkeypatch: pytest.MonkeyPatch) -> refusals.RefusalCounter:
    """Return a refusal counter that writes to a table in memory."""
    counter = refusals.RefusalCounter()
    counter._table = table
    return counter


def end_request(counter: refusals.RefusalCounter) -> None:
    counter._write_when_due()


def exit_process(counter: refusals.RefusalCounter) -> None:
    counter._write_at_exit()


class TestTheEndOfARequest:
    def test_counter_does_not_use_the_database_if_nothing_was_refused(self, counter, table, clock):
        clock.advance(10)
        end_request(counter)

        assert table.attempts == 0

    def test_counter_does_not_use_the_database_again_before_ten_seconds_have_passed(self, counter, table, clock):
        counter.count("gateway", Reason.EXPIRED)
        end_request(counter)  # The first call reads the name of the database, for the comparison at exit.
        assert (table.attempts, table.written) == (1, 0)
        counter.count("gateway", Reason.EXPIRED)
        clock.advance(9.875)
        end_request(counter)

        assert (table.attempts, table.written) == (1, 0)

    @pytest.mark.parametrize("seconds", [10, 11, 1000])
    def test_counter_writes_as_soon_as_ten_seconds_have_passed(self, counter, table, clock, seconds):
        counter.count("gateway", Reason.EXPIRED)
        clock.advance(seconds)
        end_request(counter)

        assert table.written == 1

    def test_end_of_a_request_does_not_wait_while_another_thread_writes_counts(self, counter, table, clock):
        counter.count("gateway", Reason.EXPIRED)
        clock.advance(10)
        with counter._lock:
            end_request(counter)  # If this call waited, the test would not end.
        assert table.written == 0
        end_request(counter)

        assert table.written == 1

    def test_counter_writes_several_times_without_an_error(self, counter, table, clock, caplog):
        for _ in range(3):
            counter.count("gateway", Reason.EXPIRED)
            clock.advance(10)
            end_request(counter)

        assert table.written == 3
        assert caplog.records == []


class TestTheExitOfAProcess:
    def test_counts_are_written_at_exit_even_after_a_successful_write(self, counter, table, clock, caplog):
        for expected in (1, 2):
            counter.count("gateway", Reason.EXPIRED)
            end_request(counter)
            exit_process(counter)
            assert table.written == expected
        assert caplog.records == []

    def test_counter_does_not_use_the_database_at_exit_if_nothing_is_pending(self, counter, table):
        exit_process(counter)

        assert table.attempts == 0

    def test_counts_are_not_written_at_exit_if_the_last_write_has_failed(self, counter, table, clock):
        counter.count("gateway", Reason.EXPIRED)
        end_request(counter)
        table.available = False
        assert counter.flush() == 0
        attempts = table.attempts
        exit_process(counter)

        assert table.attempts == attempts

    def test_exit_of_a_process_does_not_wait_while_another_thread_writes_counts(self, counter, table):
        counter.count("gateway", Reason.EXPIRED)
        end_request(counter)
        with counter._lock:
            exit_process(counter)  # If this call waited, the test would not end.

        assert table.written == 0

    @pytest.mark.parametrize("name", ["a database", "the database", "database2"])
    def test_counts_are_not_written_at_exit_to_a_database_with_another_name(self, counter, table, name):
        counter.count("gateway", Reason.EXPIRED)
        end_request(counter)
        table.name = name
        exit_process(counter)

        assert table.written == 0

    def test_failed_write_at_exit_is_logged_and_raises_no_error(self, counter, table, caplog):
        counter.count("gateway", Reason.EXPIRED)
        end_request(counter)
        table.available = False
        exit_process(counter)

        assert "(OperationalError): unavailable" in caplog.text
        table.available = True
        assert counter.flush() == 1


class TestTheLogOfFailedWrites:
    def test_failed_write_is_logged_again_as_soon_as_a_minute_has_passed(self, counter, table, clock, caplog):
        counter.count("gateway", Reason.EXPIRED)
        table.available = False
        lines = []
        for seconds in (0, 59.875, 0.125, 1000):
            clock.advance(seconds)
            counter.flush()
            lines.append(len(caplog.records))

        assert lines == [1, 1, 2, 3]


class TestAWriteWithoutCounts:
    def test_flush_does_not_use_the_database_if_there_are_no_counts(self, counter, table):
        assert counter.flush() == 0
        assert table.attempts == 0


class TestTheAgeOfPendingCounts:
    def test_count_is_kept_for_24_hours_if_the_count_cannot_be_written(self, counter, table, time_machine):
        time_machine.move_to(NOW, tick=False)
        counter.count("gateway", Reason.EXPIRED)
        time_machine.shift(timedelta(hours=23))
        counter.count("gateway", Reason.EXPIRED)
        time_machine.shift(timedelta(hours=1))
        counter.count("gateway", Reason.EXPIRED)  # The counter drops the first count, which is 24 hours old.

        assert counter.flush() == 2


class TestTheLengthOfAnId:
    def test_client_and_user_are_counted_if_their_ids_have_at_most_255_characters(self):
        refusals.counter.count("gateway", Reason.EXPIRED, client_id="c" * 255, user_uuid="u" * 255)
        refusals.counter.count("gateway", Reason.EXPIRED, client_id="c" * 256, user_uuid="u" * 256)

        assert counted() == {("gateway", "expired", "c" * 255, "u" * 255): 1, ("gateway", "expired", "", ""): 1}
