"""Tests of the limit for log lines about an outage of the database or of another server."""

from __future__ import annotations

import os
import threading

import pytest
from django.core.signals import request_finished
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from instaccess import web
from instaccess.exceptions import AuditError, ConfigError, Reason, SourceUnavailable
from instaccess.logs import get_logger
from instaccess.web import faults
from tests.support.clocks import Clock

# Allow access to the database, because Django's receivers of `request_finished` use the database.
pytestmark = pytest.mark.django_db

logger = get_logger("instaccess.test")

TRACEBACK = "Traceback (most recent call last):\n  …\nOperationalError: gone"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock(frozen=True)
    monkeypatch.setattr(faults, "time", clock)
    return clock


def here(error):
    """Raise and catch an error, so that its traceback contains this function. Returns the error."""
    try:
        raise error
    except type(error) as raised:
        return raised


def there(error):
    """Raise and catch an error, so that its traceback contains this function instead of `here`. Returns the error."""
    try:
        raise error
    except type(error) as raised:
        return raised


def log(error, message="the role failed", *, detail="", to=logger):
    return web.Fault.of(message, error, detail=detail).log(to)


def end_request():
    request_finished.send(sender=None)


class TestOneOutage:
    def test_outage_log_contains_the_first_error_but_no_repetition_within_a_minute(self, caplog, clock):
        assert log(OperationalError("gone"), detail=TRACEBACK)
        clock.advance(59)
        assert not any(log(OperationalError("gone"), detail=TRACEBACK) for _ in range(20))

        assert caplog.messages == [f"the role failed: {TRACEBACK}"]

    def test_outage_log_contains_the_count_of_repetitions_before_the_next_line_after_a_minute(self, caplog, clock):
        for _ in range(4):
            log(OperationalError("gone"))
        clock.advance(60)
        log(OperationalError("gone"))

        first, count, second = caplog.messages
        assert first == second == "the role failed (OperationalError): gone"
        assert count == "the same error occurred 3 more times in 60 seconds (OperationalError): the role failed"

    def test_outage_log_contains_the_count_at_the_end_of_a_request_if_the_outage_is_over(self, caplog, clock):
        for _ in range(4):
            log(OperationalError("gone"))
        end_request()
        assert len(caplog.messages) == 1

        clock.advance(60)
        end_request()
        end_request()

        assert len(caplog.messages) == 2
        assert (caplog.records[1].count, caplog.records[1].levelname) == (3, "ERROR")

    def test_outage_log_contains_the_error_again_and_the_count_long_after_the_first_error(self, caplog, clock):
        for _ in range(3):
            log(OperationalError("gone"))
        clock.advance(1000)

        assert log(OperationalError("gone"))
        assert (caplog.records[1].count, caplog.records[1].seconds) == (2, 1000)

    def test_outage_log_contains_the_count_at_the_end_of_the_first_request_long_after_the_error(self, caplog, clock):
        for _ in range(3):
            log(OperationalError("gone"))
        clock.advance(1000)
        end_request()

        assert (caplog.records[1].count, caplog.records[1].seconds) == (2, 1000)
        assert caplog.records[1].reason == Reason.FAULT

    def test_log_record_of_an_outage_contains_the_file_and_the_function_of_the_caller(self, caplog):
        log(OperationalError("gone"))

        assert (caplog.records[0].filename, caplog.records[0].funcName) == ("test_faults.py", "log")

    def test_outage_log_contains_no_count_for_an_error_without_repetitions(self, caplog, clock):
        log(OperationalError("gone"))
        clock.advance(60)
        end_request()

        assert caplog.messages == ["the role failed (OperationalError): gone"]

    def test_outage_log_counts_every_repetition_in_several_threads(self, caplog, clock):
        def work():
            for _ in range(50):
                log(OperationalError("gone"))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.advance(60)
        end_request()

        assert len(caplog.messages) == 2
        assert caplog.records[1].count == 399

    def test_outage_log_of_a_forked_process_has_no_counts_of_its_parent_and_is_not_locked(self, caplog, clock):
        log(OperationalError("gone"))
        log(OperationalError("gone"))
        with web.outage_log._lock:
            child = os.fork()
            # The exit code is the number of log lines of the child, plus 10 if a line contains a count.
            if child == 0:
                status = 100
                try:
                    caplog.clear()
                    log(OperationalError("gone"))
                    clock.advance(60)
                    end_request()
                    status = len(caplog.messages) + 10 * ("more times" in caplog.text)
                finally:
                    os._exit(status)  # Without it, a failed child would run the remaining tests too.
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 1


class TestAnotherError:
    @pytest.mark.parametrize(
        "other",
        [
            InterfaceError("gone"),
            OperationalError(1021, "Disk full"),
            ProgrammingError("permission denied"),
            SourceUnavailable("the JWKS can't be read"),
        ],
    )
    def test_another_kind_of_error_is_logged_even_within_a_minute(self, caplog, other):
        log(OperationalError("gone"))

        assert log(other)

    def test_same_error_is_logged_again_with_another_message_or_by_another_logger(self):
        log(OperationalError("gone"))

        assert log(OperationalError("gone"), "another role failed")
        assert log(OperationalError("gone"), to=get_logger("instaccess.another"))

    def test_same_error_is_logged_again_if_another_place_in_the_package_raises_the_error(self, caplog, monkeypatch):
        monkeypatch.setattr(faults, "_PACKAGE", os.path.dirname(__file__) + os.sep)
        first, second = here(OperationalError("gone")), there(OperationalError("gone"))

        assert log(first)
        assert log(second)
        assert not log(first)

    def test_outage_log_contains_no_traceback_of_a_second_kind_of_error_within_a_minute(self, caplog):
        another = "Traceback …\n  …\ndjango.db.utils.InterfaceError: the [credential]\nis closed"
        log(OperationalError("gone"), detail=TRACEBACK)
        log(InterfaceError("the connection\nis closed"), detail=another)

        assert caplog.text.count("Traceback") == 1
        assert caplog.messages[1] == "the role failed: django.db.utils.InterfaceError: the [credential] is closed"

    def test_outage_log_contains_a_second_traceback_after_a_minute(self, caplog, clock):
        another = TRACEBACK.replace("Operational", "Interface")
        log(OperationalError("gone"), detail=TRACEBACK)
        clock.advance(59)
        log(InterfaceError("gone"), detail=another)
        clock.advance(1)
        log(InterfaceError("gone"), "another role failed", detail=another)
        clock.advance(1000)
        log(InterfaceError("gone"), "a third role failed", detail=another)

        assert caplog.messages == [
            f"the role failed: {TRACEBACK}",
            "the role failed: django.db.utils.InterfaceError",
            f"another role failed: {another}",
            f"a third role failed: {another}",
        ]

    def test_outage_log_contains_a_complete_one_line_detail_even_after_a_traceback(self, caplog):
        log(OperationalError("gone"), detail=TRACEBACK)
        log(InterfaceError("gone"), detail="the connection is closed")

        assert caplog.messages[1] == "the role failed: the connection is closed"

    @pytest.mark.parametrize(
        "error",
        [ConfigError("REALM is invalid"), ZeroDivisionError(), DataError("too long"), IntegrityError("duplicate")],
    )
    def test_error_that_is_not_an_outage_is_logged_every_time(self, caplog, error):
        assert all(log(error) for _ in range(5))

    def test_error_of_the_app_is_an_outage_if_its_cause_is_an_outage(self, caplog):
        error = AuditError("the audit row was not written")
        error.__cause__ = OperationalError("gone")

        assert log(error)
        assert not log(error)
        assert caplog.records[0].reason == Reason.AUDIT
