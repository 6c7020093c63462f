"""Tests of the threads of health checks: each check has at most one thread, for any number of probes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from instaccess.monitoring import Finding, Status
from instaccess.monitoring.probes import Check
from tests.support.servers import PATIENCE, wait_until


class StallingCheck:
    """A check that ends when the test releases the check, and that counts its calls."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.calls = 0

    def __call__(self) -> Finding:
        self.calls += 1
        self.released.wait()
        return Finding(values={"calls": self.calls})


@pytest.fixture
def function() -> Iterator[StallingCheck]:
    function = StallingCheck()
    yield function
    function.released.set()


@pytest.fixture
def check(function: StallingCheck) -> Check:
    return Check("stalling", function, roles=["issuer"], required=True)


def threads() -> int:
    return sum(thread.name == "instaccess-monitoring-stalling" for thread in threading.enumerate())


def patient() -> float:
    return time.monotonic() + PATIENCE


class TestACheckThatStalls:
    def test_later_probes_of_a_stalling_check_report_the_pending_check_and_start_no_thread(self, check, function):
        for _ in range(50):
            finding = check.finding(check.start(), time.monotonic())
            assert (finding.status, finding.detail) == (Status.ERROR, "no answer yet")

        assert (function.calls, threads()) == (1, 1)

    def test_simultaneous_probes_of_a_check_share_one_thread(self, check, function):
        with ThreadPoolExecutor(20) as pool:
            runs = list(pool.map(lambda _: check.start(), range(20)))
        function.released.set()

        assert len(set(runs)) == 1
        assert {check.finding(run, patient()).values["calls"] for run in runs} == {1}

    def test_probe_runs_a_check_again_after_the_check_has_ended(self, check, function):
        pending = check.start()
        function.released.set()
        assert check.finding(pending, patient()).values == {"calls": 1}

        assert check.finding(check.start(), patient()).values == {"calls": 2}
        wait_until(threads, lambda count: count == 0)


class TestACheckWithoutAThread:
    def test_health_check_reports_an_error_if_no_thread_can_be_started(self, check, monkeypatch):
        def fail(self: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)

        finding = check.finding(check.start(), patient())

        assert (finding.status, finding.detail) == (Status.ERROR, "an unexpected error occurred (RuntimeError)")


class TestACheckThatFails:
    def test_failure_of_a_health_check_that_is_not_required_is_a_warning(self):
        check = Check("failing", lambda: 1 / 0, roles=["issuer"], required=False)  # type: ignore[arg-type,return-value]

        finding = check.finding(check.start(), patient())

        assert finding == Finding(Status.WARNING, "an unexpected error occurred (ZeroDivisionError)")

    def test_health_check_that_returns_none_has_the_status_ok(self):
        check = Check("silent", lambda: None, roles=["issuer"], required=True)

        assert check.finding(check.start(), patient()) == Finding()
