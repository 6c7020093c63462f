"""Threads that load values in the background, and a retry for database connections that are dead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import Error as DbError
from django.db import InterfaceError, OperationalError, close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import database_errors
from ..logs import get_logger

logger = get_logger("instaccess.snapshot")

T = TypeVar("T")

IDLE_SECONDS = 10
"""The time, in seconds, after which an idle thread ends and closes its database connections."""

TIMEOUT = 5
"""The time limit, in seconds, for connecting to a database. On MariaDB, also the limit for each read and write.

Without the limit, a thread could wait forever for a database that accepts connections but never answers.
"""


class LoadingThread:
    """A daemon thread that runs one function at a time.

    The functions must not query a database. The thread doesn't read Django's settings, so a process without settings
    can use the thread.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._available = True
        threading.Thread(target=self._run, name="instaccess-loading", daemon=True).start()

    def offer(self, function: Callable[[], None]) -> bool:
        """Start a function in the thread, without waiting for the function to end.

        Args:
            function: the function to run. The function must not raise an error.

        Returns False, and doesn't start the function, if the thread is busy or has ended.
        """
        with self._lock:
            if not self._available:
                return False
            self._available = False
        self._work.put(function)
        return True

    def _run(self) -> None:
        self._before_all()
        while True:
            try:
                function = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._available:
                        self._available = False
                        break
                continue  # Run the function that a caller has offered after `get` timed out.
            self._around_each()
            function()
            self._around_each()
            with self._lock:
                self._available = True
        self._after_all()

    def _before_all(self) -> None:
        """Prepare the thread before its first function runs. Subclasses override this method."""

    def _around_each(self) -> None:
        """Clean up before and after each function. Subclasses override this method."""

    def _after_all(self) -> None:
        """Clean up before the thread ends. Subclasses override this method."""


class DatabaseThread(LoadingThread):
    """A loading thread with separate database connections, for functions that query a database."""

    def _before_all(self) -> None:
        open_own_connections()

    def _around_each(self) -> None:
        # Close connections that are too old, as Django does before and after a request.
        _close_old_connections()

    def _after_all(self) -> None:
        connections.close_all()


def open_own_connections() -> None:
    """Replace this thread's database connections with connections that give up connecting after `TIMEOUT` seconds.

    On MariaDB, each read and write has the same limit. SQLite has no limit, and limits in DATABASES take precedence.
    Other threads are not affected, because each thread has separate connections in Django.
    """
    for alias in connections:
        connections[alias] = _with_timeouts(connections.create_connection(alias))


def _close_old_connections() -> None:
    try:
        close_old_connections()
    except DbError as error:
        # Don't let the error end the thread, because callers wait for the function that the thread runs.
        logger.warning(
            "a database connection could not be closed (%(error)s): %(detail)s",
            error=type(error).__name__,
            detail=database_errors.describe(error),
        )


def _with_timeouts(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    """Limit the duration of connection attempts, unless DATABASES sets limits. Returns the connection.

    The project's connection pool is not used, because request threads may hold all connections of the pool while the
    database doesn't answer.
    """
    limits: dict[str, Any] = {}
    if connection.vendor == "postgresql":
        limits = {"connect_timeout": TIMEOUT}
    elif connection.settings_dict["ENGINE"] == "django.db.backends.mysql":
        limits = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "write_timeout": TIMEOUT}
    options = {**limits, **connection.settings_dict["OPTIONS"]}
    options.pop("pool", None)
    connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
    return connection


def load_from_database(load: Callable[[], T], alias: str) -> T:
    """Call a function that queries a database, and return its result. If the connection is dead, retry once.

    A persistent connection is dead after a restart of the database, for example. Django detects a dead connection
    only when a query fails. Without the retry, a gateway would use its old deny list until the next load, and would
    accept recently revoked tokens.

    Args:
        load: the function. Its errors are raised, except the first error of a dead connection.
        alias: the alias of the database.
    """
    connection = connections[alias]
    was_open = connection.connection is not None
    try:
        return load()
    except (InterfaceError, OperationalError) as error:
        if not was_open or connection.in_atomic_block:
            raise
        logger.info(
            "the database connection is dead, so a new connection is opened (%(error)s)",
            error=type(error).__name__,
            database=alias,
        )
        connection.close()
        return load()
