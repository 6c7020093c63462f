"""Tests that callers wait only briefly for a slow or unreachable database if separate threads load the value."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection, connections, transaction

from instaccess.exceptions import SourceUnavailable
from instaccess.trust import loading, refreshed
from instaccess.trust.loading import LoadingThread, load_from_database
from instaccess.trust.refreshed import Refreshed
from tests.support.clocks import Clock
from tests.support.servers import wait_until
from tests.trust.test_refreshed import InAThread, Source

pytestmark = pytest.mark.usefixtures("load_in_background")


class SourceInThreads(Source):
    """A `Source` that also records the name of each thread that loads the value."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []

    def __call__(self, last: Any) -> Any:
        self.threads.append(threading.current_thread().name)
        return super().__call__(last)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def source():
    source = SourceInThreads()
    yield source
    if source.gate is not None:
        source.gate.set()


@pytest.fixture
def value(source) -> Refreshed[Any]:
    return Refreshed(source)


@pytest.fixture
def long_patience(monkeypatch) -> None:
    """Let callers wait until a load ends. Callers wait in real time, and loads are slow on a busy machine."""
    monkeypatch.setattr(refreshed, "PATIENCE", 60)


def get(value: Refreshed[Any]) -> Any:
    return value.get(interval=2, max_staleness=60)


@pytest.mark.usefixtures("long_patience")
class TestASuccessfulLoadInASeparateThread:
    def test_the_first_refreshed_value_is_loaded_in_a_separate_thread(self, clock, source, value):
        assert get(value) == 1
        assert source.threads == ["instaccess-loading"]

    def test_refreshed_value_is_loaded_again_in_the_background_before_the_value_is_too_old(
        self, clock, source, value
    ):
        get(value)
        source.gate = threading.Event()
        source.entered.clear()
        clock.now += 1.6

        assert get(value) == 1  # If this call waited for the load, the test would not end.
        assert source.entered.wait(60)
        assert get(value) == 1
        source.gate.set()
        assert wait_until(lambda: get(value), lambda loaded: loaded != 1) == 2
        assert source.loads == 2

    def test_refreshed_value_is_not_loaded_again_while_the_value_is_new(self, clock, source, value):
        for _ in range(15):
            get(value)
            clock.now += 0.1

        assert source.loads == 1

    def test_caller_waits_for_a_load_if_the_value_is_too_old(self, clock, source, value):
        get(value)
        clock.now += 2

        assert get(value) == 2

    def test_error_of_a_load_in_a_separate_thread_reaches_the_caller(self, clock, source, value):
        source.error = OSError("unavailable")
        for _ in range(2):
            with pytest.raises(OSError, match="unavailable"):
                get(value)
        source.error = None

        assert get(value) == 3

    def test_all_loads_of_a_refreshed_value_run_in_the_same_thread(self, clock, source, value):
        identities = set()
        for _ in range(5):
            get(value)
            # The thread accepts the next load only a moment after the caller has the value.
            wait_until(lambda: value._thread._available, bool)
            identities.add(id(value._thread))
            clock.now += 2

        assert len(identities) == 1

    def test_every_call_waits_for_a_new_load_if_the_interval_is_0(self, clock, source, value):
        assert [value.get(interval=0, max_staleness=0) for _ in range(3)] == [1, 2, 3]


class TestALoadThatStalls:
    """Tests of a load from a database that accepts connections and never answers (case G34)."""

    @pytest.fixture(autouse=True)
    def short_patience(self, monkeypatch):
        # LAST_PATIENCE keeps its value, because LAST_PATIENCE also limits the first load, which doesn't stall.
        monkeypatch.setattr(refreshed, "PATIENCE", 0.05)

    @pytest.fixture
    def stalled(self, clock, source, value) -> threading.Event:
        """Load a value, and start a second load, which stalls until the returned event is set."""
        get(value)
        source.gate = gate = threading.Event()
        source.entered.clear()
        clock.now += 2
        assert get(value) == 1
        assert source.entered.wait(60)
        return gate

    def test_g34_callers_get_the_cached_value_immediately_unless_the_value_is_too_old(
        self, clock, source, value, stalled, monkeypatch
    ):
        monkeypatch.setattr(refreshed, "PATIENCE", 3600)
        monkeypatch.setattr(refreshed, "STALLED_SECONDS", 3600)
        monkeypatch.setattr(refreshed, "MAX_STALLED_SECONDS", 3600)
        for _ in range(59):
            assert get(value) == 1  # If this call waited for the load, the test would not end.
            clock.now += 1
        monkeypatch.setattr(refreshed, "PATIENCE", 0.05)
        clock.now += 1.1

        with pytest.raises(SourceUnavailable, match="takes too long"):
            get(value)

    def test_g31_another_thread_loads_the_value_two_seconds_after_the_start_of_a_stalled_load(
        self, clock, source, value, stalled
    ):
        source.gate = None
        clock.now += 1.9
        assert get(value) == 1
        clock.now += 0.2

        assert wait_until(lambda: get(value), lambda loaded: loaded != 1) == 3
        assert source.loads == 3

    def test_late_result_of_a_stalled_load_does_not_replace_a_newer_value(self, clock, source, value, stalled):
        first, source.gate = value._running, None
        clock.now += 2.1
        wait_until(lambda: get(value), lambda loaded: loaded == 3)
        stalled.set()
        wait_until(lambda: first.has_ended, bool)

        assert first.result(0) == 2
        assert get(value) == 3

    def test_pauses_between_new_loading_threads_grow_while_every_load_stalls(self, clock, source, value, stalled):
        started_at = [clock.now]
        for _ in range(1000):
            clock.now += 0.1
            value.get(interval=2, max_staleness=3600)
            if value._stalled == len(started_at):
                started_at.append(clock.now)

        pauses = [round(later - earlier) for earlier, later in itertools.pairwise(started_at)]
        assert pauses == [2, 4, 8, 16, 30, 30]

    def test_only_the_first_caller_waits_long_for_a_stalled_load_if_no_value_is_cached(
        self, clock, source, value, monkeypatch
    ):
        monkeypatch.setattr(refreshed, "LAST_PATIENCE", 0.05)
        source.gate = threading.Event()
        with pytest.raises(SourceUnavailable):
            get(value)
        monkeypatch.setattr(refreshed, "LAST_PATIENCE", 3600)

        with pytest.raises(SourceUnavailable):  # If this call waited for the load, the test would not end.
            get(value)
        source.gate.set()
        assert wait_until(lambda: value._held.value, bool) == 1

    def test_threads_are_not_blocked_while_another_thread_waits_for_a_stalled_load(
        self, clock, source, value, stalled
    ):
        calls = [InAThread(lambda: get(value)) for _ in range(8)]

        assert [call.result for call in calls] == [1] * 8


class TestTheLoadingThread:
    def test_loading_thread_ends_when_the_thread_has_no_work(self, monkeypatch):
        threads: list[threading.Thread] = []

        def work() -> None:
            # Shorten the next wait of the thread. If the first wait were short, the thread could end before `offer`.
            monkeypatch.setattr(loading, "IDLE_SECONDS", 0.01)
            threads.append(threading.current_thread())

        thread = LoadingThread()
        assert thread.offer(work)

        wait_until(lambda: threads and threads[0].is_alive(), lambda alive: alive is False)
        assert not thread.offer(work)

    @pytest.mark.usefixtures("long_patience")
    def test_refreshed_value_is_loaded_by_a_new_thread_after_the_loading_thread_has_ended(
        self, clock, value, monkeypatch
    ):
        monkeypatch.setattr(loading, "IDLE_SECONDS", 0.01)
        assert get(value) == 1
        thread = value._thread
        wait_until(lambda: thread._available, lambda available: not available)
        clock.now += 2

        assert get(value) == 2

    def test_busy_loading_thread_accepts_no_other_work(self):
        thread, gate = LoadingThread(), threading.Event()
        assert thread.offer(lambda: gate.wait(60))

        assert not thread.offer(lambda: None)
        gate.set()

    def test_caller_loads_the_value_if_no_loading_thread_can_be_started(
        self, clock, source, value, monkeypatch, caplog
    ):
        def fail() -> Any:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(refreshed, "LoadingThread", fail)

        assert get(value) == 1
        assert source.threads == [threading.current_thread().name]
        assert "can't start new thread" in caplog.text

    @pytest.mark.django_db
    def test_a_caller_with_an_open_transaction_loads_the_value_with_its_own_connection(self, clock, source):
        value: Refreshed[Any] = Refreshed(source, lambda: "default")
        with transaction.atomic():
            assert get(value) == 1

        assert source.threads == [threading.current_thread().name]

    @pytest.mark.django_db(transaction=True)
    def test_loading_thread_opens_and_closes_its_own_database_connection(self, clock):
        used: list[Any] = []

        def load(last: Any) -> Any:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
            used.append(connections["default"])
            return object()

        value: Refreshed[Any] = Refreshed(load, lambda: "default")
        get(value)

        assert used[0] is not connections["default"]
        # The connection must be closed, because CONN_MAX_AGE is 0 by default.
        assert wait_until(lambda: used[0].connection, lambda open_connection: open_connection is None) is None


class TestADeadConnection:
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    def test_g31_refreshed_value_is_loaded_again_over_a_new_connection_if_the_connection_is_broken(self, error):
        attempts = []

        def load() -> str:
            attempts.append(connection.connection)
            if len(attempts) == 1:
                raise error("server closed the connection unexpectedly")
            return "loaded"

        connection.ensure_connection()
        assert load_from_database(load, "default") == "loaded"
        assert attempts[0] is not None
        assert attempts[1] is None  # The broken connection was closed before the second attempt.

    @pytest.mark.django_db(transaction=True)
    def test_load_from_database_does_not_retry_after_an_error_of_a_new_connection(self):
        attempts = []

        def load() -> None:
            attempts.append(1)
            raise OperationalError("refused")

        connection.close()
        with pytest.raises(OperationalError):
            load_from_database(load, "default")
        assert len(attempts) == 1

    @pytest.mark.django_db
    def test_load_from_database_raises_the_error_of_a_load_inside_a_transaction(self):
        def load() -> None:
            raise OperationalError("gone")

        with pytest.raises(OperationalError):
            load_from_database(load, "default")


class TestTheTimeoutsOfAConnection:
    @staticmethod
    def options(vendor: str, engine: str, **options: Any) -> dict[str, Any]:
        settings = {"ENGINE": f"django.db.backends.{engine}", "OPTIONS": options}
        wrapper: Any = SimpleNamespace(vendor=vendor, settings_dict=settings)
        result: dict[str, Any] = loading._with_timeouts(wrapper).settings_dict["OPTIONS"]
        assert settings["OPTIONS"] == options  # The function must not change the settings of the project.
        return result

    def test_g34_database_connections_of_loading_threads_have_time_limits(self):
        assert self.options("postgresql", "postgresql") == {"connect_timeout": 5}
        assert self.options("mysql", "mysql") == {"connect_timeout": 5, "read_timeout": 5, "write_timeout": 5}
        assert self.options("sqlite", "sqlite3", timeout=20) == {"timeout": 20}

    def test_connection_time_limits_of_the_project_are_kept_for_loading(self):
        assert self.options("postgresql", "postgresql", connect_timeout=1) == {"connect_timeout": 1}

    def test_connection_pool_of_the_project_is_not_used_for_loading(self):
        assert self.options("postgresql", "postgresql", pool=True) == {"connect_timeout": 5}


def _child(value: Refreshed[Any], pipe: Any) -> None:
    pipe.send(value.get(interval=3600, max_staleness=0))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
class TestAForkedProcess:
    def test_g34_child_process_starts_its_own_loading_thread_while_a_load_of_its_parent_stalls(self, source, value):
        context = multiprocessing.get_context("fork")
        assert value.get(interval=3600, max_staleness=0) == 1
        parent_end, child_end = context.Pipe()
        source.gate = threading.Event()
        source.entered.clear()
        waiting = InAThread(lambda: value.get(interval=0, max_staleness=60))
        assert source.entered.wait(60)
        gate, source.gate = source.gate, None
        child = context.Process(target=_child, args=(value, child_end))
        child.start()
        assert parent_end.poll(60)
        assert parent_end.recv() == 3
        child.join()
        child.close()
        gate.set()
        assert waiting.result in {1, 2}
