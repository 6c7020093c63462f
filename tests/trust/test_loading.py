"""Tests of a thread that loads values: when the thread ends, and when its database connections are closed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections

from instaccess.trust import loading
from instaccess.trust.loading import DatabaseThread, LoadingThread
from tests.support.servers import wait_until


def run(thread: LoadingThread, function: Callable[[], Any]) -> Any:
    """Run a function in the thread, wait until the thread accepts the next function, and return the result."""
    results: list[Any] = []
    assert thread.offer(lambda: results.append(function()))
    wait_until(lambda: thread._available, bool)
    return results[0]


class TestALoadingThreadWithoutWork:
    def test_loading_thread_ends_after_ten_seconds_without_work(self, monkeypatch):
        waited: list[float | None] = []

        class Queue(queue.SimpleQueue[Any]):
            def get(self, block: bool = True, timeout: float | None = None) -> Any:
                waited.append(timeout)
                return super().get(timeout=60 if len(waited) == 1 else 0.01)

        monkeypatch.setattr(queue, "SimpleQueue", Queue)
        threads: list[threading.Thread] = []
        assert LoadingThread().offer(lambda: threads.append(threading.current_thread()))
        wait_until(lambda: threads and threads[0].is_alive(), lambda alive: alive is False)

        assert waited == [10, 10]

    def test_loading_thread_does_not_delay_the_exit_of_the_process(self):
        assert run(LoadingThread(), threading.current_thread).daemon

    def test_loading_thread_runs_a_function_that_is_offered_when_the_thread_is_about_to_end(self, monkeypatch):
        timed_out, ran = threading.Event(), threading.Event()

        class Queue(queue.SimpleQueue[Any]):
            """A queue that stores a function only after the thread has stopped waiting for a function.

            The first wait of the thread ends as soon as a caller offers a function, and finds no function.
            """

            def get(self, block: bool = True, timeout: float | None = None) -> Any:
                if not timed_out.is_set():
                    wait_until(lambda: not thread[0]._available, bool)
                    timed_out.set()
                    raise queue.Empty
                return super().get(timeout=0.01)

            def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
                assert timed_out.wait(60)
                super().put(item)

        class Thread(LoadingThread):
            def __init__(self) -> None:
                thread.append(self)
                super().__init__()

        thread: list[LoadingThread] = []
        monkeypatch.setattr(queue, "SimpleQueue", Queue)
        assert Thread().offer(ran.set)

        assert ran.wait(60)


@pytest.mark.django_db(transaction=True)
class TestTheConnectionOfALoadingThread:
    @pytest.fixture
    def persistent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 3600)

    @pytest.fixture
    def thread(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseThread]:
        monkeypatch.setattr(loading, "IDLE_SECONDS", 3600)
        thread = DatabaseThread()
        yield thread
        # Close the connections, because PostgreSQL can't drop a test database that has open connections.
        run(thread, connections.close_all)

    def connect(self) -> tuple[Any, Any]:
        """Connect to the database, and return Django's connection and the connection of the driver."""
        own = connections["default"]
        own.ensure_connection()
        return own, own.connection

    def test_connection_is_closed_after_each_function_if_connections_are_not_persistent(self, thread):
        own, _ = run(thread, self.connect)

        assert own.connection is None

    @pytest.mark.usefixtures("persistent")
    def test_persistent_connection_is_used_for_the_next_function(self, thread):
        assert run(thread, self.connect) == run(thread, self.connect)

    @pytest.mark.usefixtures("persistent")
    def test_persistent_connection_that_is_too_old_is_not_used_for_the_next_function(self, thread):
        own, first = run(thread, self.connect)
        own.close_at = 0  # Simulate that the maximum age has passed while the thread had no work.

        assert run(thread, self.connect)[1] is not first

    @pytest.mark.usefixtures("persistent")
    def test_persistent_connection_is_closed_when_the_thread_ends(self, monkeypatch):
        used: list[Any] = []

        def work() -> None:
            # Shorten the next wait of the thread. If the first wait were short, the thread could end before `offer`.
            monkeypatch.setattr(loading, "IDLE_SECONDS", 0.01)
            used.append(self.connect()[0])

        assert DatabaseThread().offer(work)

        assert wait_until(lambda: used and used[0].connection, lambda open_: open_ is None) is None

    def test_loading_thread_runs_the_next_function_even_if_its_connection_cannot_be_closed(self, thread, caplog):
        def fail() -> None:
            raise OperationalError("the socket is broken")

        def break_connection() -> threading.Thread:
            own, _ = self.connect()
            own.close_if_unusable_or_obsolete = fail
            return threading.current_thread()

        first = run(thread, break_connection)

        assert run(thread, threading.current_thread) is first
        assert "could not be closed (OperationalError): the socket is broken" in caplog.text

    @pytest.mark.sqlite
    def test_connection_does_not_use_the_connection_pool_of_the_project(self, monkeypatch):
        monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "pool", True)

        # The thread can connect only if Django doesn't pass the option `pool`, because SQLite's driver refuses the
        # option.
        assert run(DatabaseThread(), self.connect)[1] is not None
