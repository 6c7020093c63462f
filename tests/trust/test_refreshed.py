"""Tests of a cached value that is reloaded: its age, the threads that wait for a load, and failed loads."""

from __future__ import annotations

import multiprocessing
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from instaccess.exceptions import SourceUnavailable
from instaccess.trust.refreshed import Refreshed
from tests.support.clocks import Clock


class Source:
    """A `load` function that counts its calls. The test can set an `error` to raise, and a `gate` to wait for."""

    def __init__(self) -> None:
        self.loads = 0
        self.last_values: list[Any] = []
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def __call__(self, last: Any) -> Any:
        self.loads += 1
        number = self.loads
        self.last_values.append(last)
        gate = self.gate  # Read the gate first, because a test may remove the gate as soon as `entered` is set.
        self.entered.set()
        if gate is not None:
            assert gate.wait(60)
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def frozen_clock(monkeypatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr("instaccess.trust.refreshed.time", clock)
    return clock


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def value(source) -> Refreshed[Any]:
    return Refreshed(source)


class TestTheAgeOfARefreshedValue:
    def test_refreshed_value_is_loaded_once_per_interval(self, clock, source, value):
        assert [value.get(interval=2, max_staleness=0) for _ in range(3)] == [1, 1, 1]
        clock.now += 1.9
        assert value.get(interval=2, max_staleness=0) == 1
        clock.now += 0.1
        assert value.get(interval=2, max_staleness=0) == 2

    def test_refreshed_value_is_loaded_on_every_call_if_the_interval_is_0(self, clock, value):
        assert [value.get(interval=0, max_staleness=0) for _ in range(3)] == [1, 2, 3]

    def test_load_function_receives_the_last_value_of_a_refreshed_value(self, clock, source, value):
        for _ in range(3):
            value.get(interval=0, max_staleness=0)

        assert source.last_values == [None, 1, 2]

    def test_refreshed_value_is_loaded_again_after_its_cache_was_cleared(self, clock, source, value):
        value.get(interval=9, max_staleness=0)
        value.clear_cache()

        assert value.get(interval=9, max_staleness=0) == 2
        assert source.last_values == [None, None]

    def test_age_of_a_refreshed_value_counts_from_the_start_of_its_load(self, clock, value):
        slow: Refreshed[Any] = Refreshed(lambda last: setattr(clock, "now", clock.now + 5) or object())
        first = slow.get(interval=2, max_staleness=0)

        assert slow.get(interval=2, max_staleness=0) is not first

    def test_age_and_cached_value_are_none_before_the_first_load(self, value):
        assert (value.age, value.cached) == (None, None)

    def test_age_is_the_time_since_the_load_and_an_old_value_stays_cached(self, frozen_clock, value):
        value.get(interval=2, max_staleness=0)
        frozen_clock.advance(90)

        assert (value.age, value.cached) == (90, 1)


class TestTheExactTimesOfARefreshedValue:
    def test_value_is_loaded_again_as_soon_as_its_age_reaches_the_interval(self, frozen_clock, value):
        value.get(interval=2, max_staleness=0)
        frozen_clock.advance(2)

        assert value.get(interval=2, max_staleness=0) == 2

    def test_value_is_loaded_on_each_call_if_the_interval_is_0_even_if_no_time_passes(
        self, frozen_clock, source, value
    ):
        assert [value.get(interval=0, max_staleness=0) for _ in range(3)] == [1, 2, 3]
        assert source.last_values == [None, 1, 2]
        assert value.cached == 3

    def test_value_is_too_old_as_soon_as_its_age_reaches_the_interval_plus_the_staleness(
        self, frozen_clock, source, value
    ):
        value.get(interval=2, max_staleness=60)
        source.error = OSError("unavailable")
        frozen_clock.advance(62)

        with pytest.raises(OSError, match="unavailable"):
            value.get(interval=2, max_staleness=60)

    def test_failed_load_is_retried_as_soon_as_the_interval_has_passed(self, frozen_clock, source, value):
        value.get(interval=2, max_staleness=60)
        source.error = OSError("unavailable")
        frozen_clock.advance(10)
        value.get(interval=2, max_staleness=60)
        frozen_clock.advance(1.75)
        value.get(interval=2, max_staleness=60)
        assert source.loads == 2
        frozen_clock.advance(0.25)
        value.get(interval=2, max_staleness=60)

        assert source.loads == 3


class TestAFailedLoadOfARefreshedValue:
    def test_cached_value_is_returned_after_a_failed_load_until_interval_and_staleness_have_passed(
        self, clock, source, value
    ):
        value.get(interval=2, max_staleness=60)
        source.error = OSError("unavailable")
        clock.now += 61.9
        assert value.get(interval=2, max_staleness=60) == 1
        clock.now += 0.2
        with pytest.raises(OSError, match="unavailable"):
            value.get(interval=2, max_staleness=60)

    def test_failed_load_is_retried_once_per_interval_while_a_value_is_cached(self, clock, source, value):
        value.get(interval=2, max_staleness=60)
        source.error = OSError("unavailable")
        for _ in range(100):
            clock.now += 0.2
            value.get(interval=2, max_staleness=60)

        assert 9 <= source.loads <= 11

    def test_failed_load_is_retried_on_every_call_if_no_value_was_ever_loaded(self, clock, source, value):
        source.error = OSError("unavailable")
        for _ in range(3):
            with pytest.raises(OSError, match="unavailable"):
                value.get(interval=2, max_staleness=60)

        assert source.loads == 3

    def test_successful_load_after_a_failed_load_replaces_the_cached_value(self, clock, source, value):
        value.get(interval=2, max_staleness=60)
        source.error = OSError("unavailable")
        clock.now += 30
        value.get(interval=2, max_staleness=60)
        source.error = None
        clock.now += 2

        assert value.get(interval=2, max_staleness=60) == 3

    def test_the_error_of_a_failed_load_is_raised_if_the_staleness_is_0(self, clock, source, value):
        value.get(interval=2, max_staleness=0)
        source.error = OSError("unavailable")
        clock.now += 2

        with pytest.raises(OSError, match="unavailable"):
            value.get(interval=2, max_staleness=0)

    def test_failed_load_of_a_refreshed_value_is_logged(self, clock, source, value, caplog):
        value.get(interval=2, max_staleness=60)
        source.error = OSError("unavailable")
        clock.now += 2
        value.get(interval=2, max_staleness=60)

        assert "(OSError): unavailable" in caplog.text


class InAThread:
    """A call in a separate thread. The property `result` waits for the end of the call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:
            self._result = error

    @property
    def result(self) -> Any:
        self._thread.join(60)
        return self._result


def get_stale_value(clock: Clock, source: Source, value: Refreshed[Any], *, threads: int) -> list[InAThread]:
    """Start threads that request an outdated value. One thread loads the value until the test sets `source.gate`."""
    value.get(interval=2, max_staleness=60)
    clock.now += 50
    source.gate = threading.Event()
    source.entered.clear()
    calls = [InAThread(lambda: value.get(interval=2, max_staleness=60)) for _ in range(threads)]
    assert source.entered.wait(60)
    return calls


class LockOfTwoThreads:
    """A lock that blocks the first thread until a second thread also tries to acquire the lock."""

    def __init__(self) -> None:
        self._lock, self._barrier = threading.Lock(), threading.Barrier(2, timeout=60)

    def __enter__(self) -> None:
        self._barrier.wait()
        self._lock.acquire()

    def __exit__(self, *args: Any) -> None:
        self._lock.release()


class TestThreadsThatShareARefreshedValue:
    def test_two_threads_that_decide_to_load_at_the_same_time_share_one_load(self, clock, source, value):
        value._lock = LockOfTwoThreads()
        both = [InAThread(lambda: value.get(interval=2, max_staleness=0)) for _ in range(2)]

        assert [each.result for each in both] == [1, 1]
        assert source.loads == 1

    def test_o13_threads_use_the_cached_value_if_the_loading_thread_takes_too_long(
        self, clock, source, value, monkeypatch
    ):
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 0.05)
        monkeypatch.setattr("instaccess.trust.refreshed.LAST_PATIENCE", 3600)
        (loading,) = get_stale_value(clock, source, value, threads=1)

        # If this call waited for the loading thread, the test would not end.
        assert value.get(interval=2, max_staleness=60) == 1
        source.gate.set()
        assert loading.result == 2
        assert source.loads == 2

    def test_o13_thread_does_not_wait_for_a_load_after_another_thread_has_waited_without_a_result(
        self, clock, source, value, monkeypatch
    ):
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 0.05)
        (loading,) = get_stale_value(clock, source, value, threads=1)
        value.get(interval=2, max_staleness=60)
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 3600)

        # If this call waited for the loading thread, the test would not end.
        assert value.get(interval=2, max_staleness=60) == 1
        source.gate.set()
        assert loading.result == 2

    def test_o13_thread_stops_waiting_for_a_slow_load_and_gets_an_error_if_no_value_is_cached(
        self, clock, source, value, monkeypatch
    ):
        monkeypatch.setattr("instaccess.trust.refreshed.LAST_PATIENCE", 0.05)
        source.gate = threading.Event()
        loading = InAThread(lambda: value.get(interval=2, max_staleness=0))
        assert source.entered.wait(60)

        with pytest.raises(SourceUnavailable):
            value.get(interval=2, max_staleness=0)
        source.gate.set()
        assert loading.result == 1

    def test_waiting_threads_get_the_new_value_if_the_load_succeeds(self, clock, source, value, monkeypatch):
        """The threads must wait, because the cached deny list lacks the tokens that were revoked after its load."""
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 60)
        calls = get_stale_value(clock, source, value, threads=8)
        source.gate.set()

        assert [each.result for each in calls] == [2] * 8
        assert source.loads == 2

    def test_thread_waits_for_the_new_value_if_the_load_of_another_thread_ends_soon(
        self, clock, source, value, monkeypatch
    ):
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 60)
        both = get_stale_value(clock, source, value, threads=2)
        source.gate.set()

        assert [each.result for each in both] == [2, 2]
        assert source.loads == 2

    def test_threads_share_one_load_of_the_first_value(self, clock, source, value):
        source.gate = threading.Event()
        waiting = [InAThread(lambda: value.get(interval=2, max_staleness=60)) for _ in range(8)]
        assert source.entered.wait(60)
        source.gate.set()

        assert [each.result for each in waiting] == [1] * 8
        assert source.loads == 1

    def test_threads_that_waited_for_a_failed_load_get_the_error_of_the_load(self, clock, source, value):
        source.gate, source.error = threading.Event(), OSError("unavailable")
        waiting = [InAThread(lambda: value.get(interval=2, max_staleness=60)) for _ in range(4)]
        assert source.entered.wait(60)
        source.gate.set()

        assert all(isinstance(each.result, OSError) for each in waiting)

    def test_clearing_the_cache_during_a_load_does_not_block_other_threads(self, clock, source, value):
        source.gate = threading.Event()
        loading = InAThread(lambda: value.get(interval=2, max_staleness=0))
        assert source.entered.wait(60)
        value.clear_cache()
        gate, source.gate = source.gate, None

        assert value.get(interval=2, max_staleness=0) == 2
        gate.set()
        assert loading.result == 1
        assert value.get(interval=2, max_staleness=0) == 2


def _child(value: Refreshed[Any], pipe: Any) -> None:
    pipe.send(value.get(interval=3600, max_staleness=0))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
class TestAForkedProcess:
    def test_child_process_starts_without_the_cached_value_and_the_lock_of_its_parent(self, source, value):
        context = multiprocessing.get_context("fork")
        assert value.get(interval=3600, max_staleness=0) == 1
        parent_end, child_end = context.Pipe()
        # Hold the lock during the fork, as a thread of a real parent process can do. The child process must not wait
        # for the lock, because no thread of the child process would release the lock.
        with value._lock:
            child = context.Process(target=_child, args=(value, child_end))
            child.start()
        assert parent_end.poll(60)
        assert parent_end.recv() == 2
        child.join()
        child.close()
        assert value.get(interval=3600, max_staleness=0) == 1
