"""Tests of how long callers wait for a load that stalls. A simulated clock measures the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from instaccess.exceptions import SourceUnavailable
from instaccess.trust import refreshed
from instaccess.trust.refreshed import Refreshed
from tests.support.clocks import Clock, EventsOnAClock
from tests.support.servers import wait_until
from tests.trust.test_refreshed import Source

pytestmark = pytest.mark.usefixtures("load_in_background")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(refreshed, "time", clock)
    return clock


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    if source.gate is not None:
        source.gate.set()


@pytest.fixture
def value(source: Source, clock: Clock) -> Refreshed[Any]:
    return Refreshed(source)


@pytest.fixture
def stall(source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes all later loads stall, and makes callers wait on the simulated clock."""

    def stall_() -> None:
        source.gate = threading.Event()
        monkeypatch.setattr(refreshed, "threading", EventsOnAClock(clock))

    return stall_


def get(value: Refreshed[Any], *, interval: float = 2) -> Any:
    return value.get(interval=interval, max_staleness=60)


def time_to_get(clock: Clock, value: Refreshed[Any]) -> float:
    """Return the time, in seconds, for which a call waits before the call returns the cached value 1."""
    before = clock.now
    assert get(value) == 1
    return clock.now - before


def time_to_fail(clock: Clock, value: Refreshed[Any]) -> float:
    """Return the time, in seconds, for which a call waits before the call raises SourceUnavailable."""
    before = clock.now
    with pytest.raises(SourceUnavailable, match="takes too long"):
        get(value)
    return clock.now - before


class TestAStalledLoadWithAUsableValue:
    def test_caller_waits_half_a_second_for_a_stalled_load_and_gets_the_cached_value(self, clock, value, stall):
        get(value)
        stall()
        clock.advance(2)

        assert time_to_get(clock, value) == 0.5

    def test_caller_waits_only_until_half_a_second_after_the_start_of_a_stalled_load(self, clock, value, stall):
        get(value)
        stall()
        clock.advance(1.75)
        assert time_to_get(clock, value) == 0  # This call starts a load in the background.
        clock.advance(0.25)

        assert time_to_get(clock, value) == 0.25

    def test_caller_does_not_wait_for_a_stalled_load_within_ten_seconds_after_the_last_wait(
        self, clock, value, stall
    ):
        get(value)
        stall()
        clock.advance(2)
        get(value)
        clock.advance(9.875)

        assert time_to_get(clock, value) == 0

    def test_caller_waits_again_for_a_stalled_load_if_the_last_wait_was_ten_seconds_ago(self, clock, value, stall):
        get(value)
        stall()
        clock.advance(2)
        get(value)
        clock.advance(10)

        assert time_to_get(clock, value) == 0.5

    def test_caller_does_not_wait_for_a_stalled_load_within_ten_seconds_after_a_failed_load(
        self, clock, source, value, stall
    ):
        get(value)
        source.error = OSError("unavailable")
        clock.advance(3)
        assert get(value) == 1
        stall()
        clock.advance(9.875)

        assert time_to_get(clock, value) == 0

    def test_caller_waits_for_a_stalled_load_if_the_last_failed_load_was_ten_seconds_ago(
        self, clock, source, value, stall
    ):
        get(value)
        source.error = OSError("unavailable")
        clock.advance(3)
        assert get(value) == 1
        # On a busy machine, `get` can return before the load fails.
        wait_until(lambda: value._running.has_ended, bool)
        stall()
        clock.advance(10)

        assert time_to_get(clock, value) == 0.5


class TestAStalledLoadWithoutAUsableValue:
    def test_caller_waits_five_seconds_for_the_first_value_and_gets_an_error(self, clock, value, stall):
        stall()

        assert time_to_fail(clock, value) == 5

    def test_caller_waits_half_a_second_for_the_first_value_within_ten_seconds_after_a_failed_wait(
        self, clock, value, stall
    ):
        stall()
        get_fails = time_to_fail(clock, value)
        clock.advance(9.875)

        assert (get_fails, time_to_fail(clock, value)) == (5, 0.5)

    def test_caller_waits_five_seconds_for_a_load_if_the_cached_value_is_too_old(self, clock, value, stall):
        get(value)
        stall()
        clock.advance(62)

        assert time_to_fail(clock, value) == 5

    def test_caller_waits_longer_for_a_load_if_no_value_is_cached(self, clock, source, value, monkeypatch):
        monkeypatch.setattr(refreshed, "PATIENCE", 0)
        source.gate = gate = threading.Event()
        threading.Thread(target=lambda: source.entered.wait(60) and gate.set()).start()

        assert get(value) == 1


class TestARunningLoad:
    @pytest.fixture
    def running(self, clock: Clock, value: Refreshed[Any], stall: Callable[[], None]) -> Any:
        """Load a value, and then start a second load, which stalls. Return the second load."""
        get(value)
        stall()
        clock.advance(1.75)
        get(value)
        return value._running

    def test_caller_waits_for_a_running_load_that_started_exactly_one_interval_ago(self, clock, value, running):
        clock.advance(2)
        get(value)

        assert value._running is running

    def test_caller_neither_uses_nor_replaces_a_running_load_older_than_the_interval(self, clock, value, running):
        clock.advance(0.25)
        before = clock.now
        assert get(value, interval=0) == 1

        assert clock.now - before == 0.25
        assert value._running is running

    def test_running_load_is_replaced_exactly_two_seconds_after_its_start(self, clock, value, running):
        clock.advance(2)
        get(value, interval=1)

        assert value._running is not running

    def test_running_load_is_not_replaced_before_two_seconds_have_passed(self, clock, value, running):
        clock.advance(1.875)
        get(value, interval=1)

        assert value._running is running


class TestAFailedReloadInTheBackground:
    def test_failed_reload_is_not_retried_while_the_cached_value_is_new_enough(self, clock, source, value):
        get(value)
        source.error = OSError("unavailable")
        clock.advance(1.75)
        assert get(value) == 1
        failed = value._running
        wait_until(lambda: failed.has_ended, bool)
        clock.advance(0.125)

        assert get(value) == 1
        assert value._running is failed

    def test_background_reload_starts_as_soon_as_the_interval_has_passed_since_a_failed_load(
        self, clock, source, value, monkeypatch
    ):
        # After the failed load, callers wait only for PATIENCE, and a busy machine may need longer for the next load.
        monkeypatch.setattr(refreshed, "PATIENCE", 60)
        source.error = OSError("unavailable")
        with pytest.raises(OSError, match="unavailable"):
            get(value, interval=1)
        source.error = None
        clock.advance(1)
        loaded = get(value, interval=1)
        last = value._running
        clock.advance(3)

        assert get(value, interval=4) == loaded
        assert value._running is not last
