"""Worker processes on the test database. A test can start, block and kill each process.

The fork server of multiprocessing forks the workers. In the fork server, Django is loaded but no connection is open,
so a worker starts within a tenth of a second.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import pkgutil
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import django
from django.apps import apps
from django.db import connections
from django.test import override_settings
from jwcrypto.jwk import JWK

from instaccess.tokens import PrivateKey
from tests.support import checked_keys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
if not apps.ready:  # Set Django up in the fork server. In the test process, pytest-django has set Django up.
    django.setup()

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.processes", "tests.support.tasks", "testproject.urls"])

PATIENCE = 120
"""The time after which a process that doesn't answer counts as blocked, in seconds."""

_STOP = None

# testproject/settings.py reads the name of the database from the environment variable for its vendor.
_NAME_VARIABLES = {"sqlite": "SQLITE_NAME", "postgresql": "PGDATABASE", "mysql": "MARIADB_DATABASE"}


class KilledError(Exception):
    """An error that reports that the process was killed before it returned the result of its task."""


class TaskError(Exception):
    """An error that reports that a task failed.

    The message is the traceback of the exception that the task raised, or the exit code if the process ended.
    """


def environment() -> dict[str, str]:
    """Return the environment variables with which another process uses the test database."""
    connection = connections["default"]
    name = str(connection.settings_dict["NAME"])
    return {**os.environ, _NAME_VARIABLES[connection.vendor]: name, "PYTHONUNBUFFERED": "1"}


class Worker:
    """A process that runs tasks one after another and keeps its caches between the tasks, like a server process.

    Args:
        settings: the value of the setting INSTACCESS in this process.
        keys: the RSA keys that this process uses, in this order, instead of generating keys.
        barrier: the barrier at which the workers wait for each other in the tasks `meet` and `meet_at`.
    """

    def __init__(self, *, settings: dict[str, Any], keys: Iterable[JWK] = (), barrier: Any = None) -> None:
        self._pipe, child_pipe = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_run_tasks,
            args=(
                child_pipe,
                connections["default"].settings_dict["NAME"],
                settings,
                [key.export_private() for key in keys],
                checked_keys.valid_keys(),
                barrier,
            ),
            daemon=True,
        )
        self._process.start()
        child_pipe.close()

    def start_task(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task of `tests/support/tasks.py`, and return before the task ends."""
        self._pipe.send((task.__name__, args))

    def answer(self) -> Any:
        """Wait for the end of the task. Returns the result. Raises KilledError, TaskError or TimeoutError."""
        if not self._pipe.poll(PATIENCE):
            raise TimeoutError(f"no answer from process {self._process.pid}")
        try:
            done, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(PATIENCE)
            if self._process.exitcode == -signal.SIGKILL:
                raise KilledError from None
            raise TaskError(f"exit code {self._process.exitcode}") from None
        if not done:
            raise TaskError(value)
        return value

    def ask(self, task: Callable[..., Any], *args: Any) -> Any:
        """Run a task of `tests/support/tasks.py` in the worker. Returns the result."""
        self.start_task(task, *args)
        return self.answer()

    def finish(self) -> Any:
        """Stop a task that runs until this call. Returns the result of the task."""
        self._pipe.send(_STOP)
        return self.answer()

    def close(self) -> None:
        """Kill the worker process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process.close()


def together(workers: list[Worker], task: Callable[..., Any], *args: Any) -> list[Any]:
    """Run a task in all workers at the same time. Returns the results in the order of the workers."""
    for worker in workers:
        worker.start_task(task, *args)
    return [worker.answer() for worker in workers]


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait for at most `seconds` seconds. Returns whether the condition became true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Crew:
    """The worker processes of one test."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        # Keep a reference to every barrier, so that no barrier is deleted before its workers receive the barrier.
        self._barriers: list[Any] = []

    def start(self, count: int = 1, *, keys: Iterable[Iterable[JWK]] = (), **settings: Any) -> list[Worker]:
        """Start and return `count` workers that can wait for each other at a barrier.

        Args:
            keys: the RSA keys of each worker.
            settings: the values of the setting INSTACCESS in the workers.
        """
        self._barriers.append(_CONTEXT.Barrier(count))
        key_lists = list(keys) or [()] * count
        started = [Worker(settings=settings, keys=key_lists[i], barrier=self._barriers[-1]) for i in range(count)]
        self._workers += started
        return started

    def any_worker_waits(self) -> bool:
        """Return whether a worker of the latest call of `start` waits at the barrier."""
        return bool(self._barriers[-1].n_waiting)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


# The functions below run in the worker process.

_pipe: Any = None
_barrier: Any = None


def stop_requested() -> bool:
    """Return whether the test has called `Worker.finish` for this process."""
    return bool(_pipe.poll())


def patch(path: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function or method in this worker process with the result of `wrap`.

    Args:
        path: `package.module.function` or `package.module.Class.method`.
    """
    owner_path, name = path.rsplit(".", 1)
    owner = pkgutil.resolve_name(owner_path)
    setattr(owner, name, wrap(getattr(owner, name)))


def meet() -> None:
    """Wait until all workers of the same call of `Crew.start` have called this function."""
    _barrier.wait(PATIENCE)


def kill_this_process() -> None:
    """Kill this process with SIGKILL, like the out-of-memory killer. No `finally` block and no rollback runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def _run_tasks(
    pipe: Any, database: str, settings: dict[str, Any], keys: list[str], valid_keys: set[int], barrier: Any
) -> None:
    global _pipe, _barrier
    _pipe, _barrier = pipe, barrier
    # Disable logging, because the interleaved log of twenty processes is unreadable, and the tests use only the
    # results of the tasks.
    logging.disable(logging.CRITICAL)
    connections["default"].settings_dict["NAME"] = database
    pregenerated = iter([JWK.from_json(key) for key in keys])

    def generate_key(use: str) -> PrivateKey:
        key = next(pregenerated)
        key["use"] = str(use)
        return PrivateKey(key)

    patch("instaccess.trust.generate_key", lambda original: generate_key)
    patch("jwcrypto.jwk.JWK._rsa_pri", lambda original: checked_keys.load)
    checked_keys.skip_validation(valid_keys)
    tasks = importlib.import_module("tests.support.tasks")
    with override_settings(INSTACCESS=settings):
        while True:
            try:
                message = pipe.recv()
            except EOFError:
                return
            if message is _STOP:
                continue
            name, args = message
            try:
                answer = (True, getattr(tasks, name)(*args))
            except Exception:
                answer = (False, traceback.format_exc())
            pipe.send(answer)
