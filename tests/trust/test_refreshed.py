"""A value that a process reads now and then: how old it gets, who waits for whom, what a failure does."""

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
    """What a snapshot reads: counts, and fails or waits when told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.seen: list[Any] = []
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def __call__(self, last: Any) -> Any:
        self.reads += 1
        number = self.reads
        self.seen.append(last)
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def snapshot(source) -> Refreshed[Any]:
    return Refreshed(source)


class TestTheValue:
    def test_is_read_once_an_interval(self, clock, source, snapshot):
        assert [snapshot.get(interval=2) for _ in range(3)] == [1, 1, 1]
        clock.now += 1.9
        assert snapshot.get(interval=2) == 1
        clock.now += 0.1
        assert snapshot.get(interval=2) == 2

    def test_is_read_every_time_where_the_interval_is_0(self, clock, snapshot):
        assert [snapshot.get(interval=0) for _ in range(3)] == [1, 2, 3]

    def test_is_handed_to_the_next_reading(self, clock, source, snapshot):
        for _ in range(3):
            snapshot.get(interval=0)

        assert source.seen == [None, 1, 2]

    def test_is_read_anew_when_it_was_forgotten(self, clock, source, snapshot):
        snapshot.get(interval=9)
        snapshot.clear_cache()

        assert snapshot.get(interval=9) == 2
        assert source.seen == [None, None]

    def test_is_as_old_as_when_its_reading_began(self, clock, snapshot):
        slow: Refreshed[Any] = Refreshed(lambda last: setattr(clock, "now", clock.now + 5) or object())
        first = slow.get(interval=2)

        assert slow.get(interval=2) is not first


class TestWhileReadingFails:
    def test_the_last_value_serves_for_the_interval_and_the_staleness_and_not_longer(self, clock, source, snapshot):
        snapshot.get(interval=2, max_staleness=60)
        source.error = OSError("away")
        clock.now += 61.9
        assert snapshot.get(interval=2, max_staleness=60) == 1
        clock.now += 0.2
        with pytest.raises(OSError, match="away"):
            snapshot.get(interval=2, max_staleness=60)

    def test_it_is_tried_again_after_each_interval_and_not_at_each_call(self, clock, source, snapshot):
        snapshot.get(interval=2, max_staleness=60)
        source.error = OSError("away")
        for _ in range(100):
            clock.now += 0.2
            snapshot.get(interval=2, max_staleness=60)

        assert 9 <= source.reads <= 11

    def test_it_is_tried_at_each_call_once_there_is_nothing_to_go_on_with(self, clock, source, snapshot):
        source.error = OSError("away")
        for _ in range(3):
            with pytest.raises(OSError, match="away"):
                snapshot.get(interval=2, max_staleness=60)

        assert source.reads == 3

    def test_a_success_ends_it(self, clock, source, snapshot):
        snapshot.get(interval=2, max_staleness=60)
        source.error = OSError("away")
        clock.now += 30
        snapshot.get(interval=2, max_staleness=60)
        source.error = None
        clock.now += 2

        assert snapshot.get(interval=2, max_staleness=60) == 3

    def test_without_staleness_the_error_comes_through_at_once(self, clock, source, snapshot):
        snapshot.get(interval=2)
        source.error = OSError("away")
        clock.now += 2

        with pytest.raises(OSError, match="away"):
            snapshot.get(interval=2)

    def test_it_is_said_in_the_log(self, clock, source, snapshot, caplog):
        snapshot.get(interval=2, max_staleness=60)
        source.error = OSError("away")
        clock.now += 2
        snapshot.get(interval=2, max_staleness=60)

        assert "OSError: away" in caplog.text


class InAThread:
    """A call in a thread of its own; `result` waits for it."""

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


def asked_while_it_is_old(clock: Clock, source: Source, snapshot: Refreshed[Any], *, threads: int) -> list[InAThread]:
    """Threads that ask for a value that is there, and too old; one of them is reading until `source.gate` is set."""
    snapshot.get(interval=2, max_staleness=60)
    clock.now += 50
    source.gate = threading.Event()
    source.entered.clear()
    asking = [InAThread(lambda: snapshot.get(interval=2, max_staleness=60)) for _ in range(threads)]
    assert source.entered.wait(60)
    return asking


class TestThreads:
    def test_o13_go_on_with_the_last_value_when_the_one_that_reads_takes_too_long(
        self, clock, source, snapshot, monkeypatch
    ):
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 0.05)
        (reading,) = asked_while_it_is_old(clock, source, snapshot, threads=1)

        # This one does not hang, or the test would.
        assert snapshot.get(interval=2, max_staleness=60) == 1
        source.gate.set()
        assert reading.result == 2
        assert source.reads == 2

    def test_o13_after_one_has_waited_in_vain_the_next_do_not_wait(self, clock, source, snapshot, monkeypatch):
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 0.05)
        (reading,) = asked_while_it_is_old(clock, source, snapshot, threads=1)
        snapshot.get(interval=2, max_staleness=60)
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 3600)

        # This one does not hang, or the test would.
        assert snapshot.get(interval=2, max_staleness=60) == 1
        source.gate.set()
        assert reading.result == 2

    def test_o13_give_up_when_there_is_nothing_to_go_on_with(self, clock, source, snapshot, monkeypatch):
        monkeypatch.setattr("instaccess.trust.refreshed.LAST_PATIENCE", 0.05)
        source.gate = threading.Event()
        reading = InAThread(lambda: snapshot.get(interval=2))
        assert source.entered.wait(60)

        with pytest.raises(SourceUnavailable):
            snapshot.get(interval=2)
        source.gate.set()
        assert reading.result == 1

    def test_never_get_an_older_value_while_a_healthy_source_is_read(self, clock, source, snapshot, monkeypatch):
        """A revoked token would pass with it: many requests at a quiet gateway, and one of them reads."""
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 60)
        asking = asked_while_it_is_old(clock, source, snapshot, threads=8)
        source.gate.set()

        assert [each.result for each in asking] == [2] * 8
        assert source.reads == 2

    def test_wait_for_a_reading_that_is_soon_done(self, clock, source, snapshot, monkeypatch):
        monkeypatch.setattr("instaccess.trust.refreshed.PATIENCE", 60)
        both = asked_while_it_is_old(clock, source, snapshot, threads=2)
        source.gate.set()

        assert [each.result for each in both] == [2, 2]
        assert source.reads == 2

    def test_wait_for_the_first_value_which_is_read_once_for_all(self, clock, source, snapshot):
        source.gate = threading.Event()
        waiting = [InAThread(lambda: snapshot.get(interval=2, max_staleness=60)) for _ in range(8)]
        assert source.entered.wait(60)
        source.gate.set()

        assert [each.result for each in waiting] == [1] * 8
        assert source.reads == 1

    def test_that_have_waited_for_a_reading_that_failed_get_errors_not_a_value_made_up(self, clock, source, snapshot):
        source.gate, source.error = threading.Event(), OSError("away")
        waiting = [InAThread(lambda: snapshot.get(interval=2, max_staleness=60)) for _ in range(4)]
        assert source.entered.wait(60)
        source.gate.set()

        assert all(isinstance(each.result, OSError) for each in waiting)

    def test_are_not_locked_out_by_a_value_that_is_forgotten_while_it_is_read(self, clock, source, snapshot):
        source.gate = threading.Event()
        reading = InAThread(lambda: snapshot.get(interval=2))
        assert source.entered.wait(60)
        snapshot.clear_cache()
        gate, source.gate = source.gate, None

        assert snapshot.get(interval=2) == 2
        gate.set()
        assert reading.result == 1
        assert snapshot.get(interval=2) == 2


def _child(snapshot: Refreshed[Any], pipe: Any) -> None:
    pipe.send(snapshot.get(interval=3600))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
class TestAFork:
    def test_starts_without_the_parents_value_and_without_its_lock(self, source, snapshot):
        context = multiprocessing.get_context("fork")
        assert snapshot.get(interval=3600) == 1
        ours, theirs = context.Pipe()
        with snapshot._lock:  # as if a thread were reading at the fork
            child = context.Process(target=_child, args=(snapshot, theirs))
            child.start()
        assert ours.poll(60)
        assert ours.recv() == 2
        child.join()
        child.close()
        assert snapshot.get(interval=3600) == 1
