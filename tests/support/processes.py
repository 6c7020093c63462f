"""Real processes that work on the test database of this run: warm, told what to do, held or killed where a test says.

They come from multiprocessing's fork server, which has Django loaded and no connection open: a process of its own
for each worker, a tenth of a second each.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import pkgutil
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import django
from django.apps import apps
from django.db import connections
from django.test import override_settings
from jwcrypto.jwk import JWK

from tests.support import checked_keys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
if not apps.ready:  # in the fork server; pytest-django has done it in the test's own process
    django.setup()

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.processes", "tests.support.tasks", "testproject.urls"])

PATIENCE = 120
"""Seconds after which a process that says nothing is taken for hung: a guard, not a measure."""

_STOP = None

# How testproject/settings.py is told another database's name.
_NAME_VARIABLES = {"sqlite": "SQLITE_NAME", "postgresql": "PGDATABASE", "mysql": "MARIADB_DATABASE"}


class KilledError(Exception):
    """The process ended without an answer."""


class TaskError(Exception):
    """The task raised; the text is its traceback."""


def environment() -> dict[str, str]:
    """Environment in which `manage.py` and an application server work on this run's test database."""
    connection = connections["default"]
    name = str(connection.settings_dict["NAME"])
    return {**os.environ, _NAME_VARIABLES[connection.vendor]: name, "PYTHONUNBUFFERED": "1"}


class Worker:
    """One process. It does one task after another and remembers in between what a server process would.

    Args:
        settings: INSTACCESS as this process has it.
        keys: RSA keys for whatever it generates, in turn.
        barrier: where it meets the others once `tasks.meet_at` has been done.
    """

    def __init__(self, *, settings: dict[str, Any], keys: Iterable[JWK] = (), barrier: Any = None) -> None:
        self._pipe, childs_end = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_obey,
            args=(
                childs_end,
                connections["default"].settings_dict["NAME"],
                settings,
                [key.export_private() for key in keys],
                checked_keys.passed(),
                barrier,
            ),
            daemon=True,
        )
        self._process.start()
        childs_end.close()

    def tell(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task of `tests/support/tasks.py`."""
        self._pipe.send((task.__name__, args))

    def answer(self) -> Any:
        """What the task returned. Raises KilledError or TaskError."""
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
        """Do a task and wait for its answer."""
        self.tell(task, *args)
        return self.answer()

    def finish(self) -> Any:
        """Tell a task that goes on until told otherwise that it is enough; returns its answer."""
        self._pipe.send(_STOP)
        return self.answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process.close()


def together(workers: list[Worker], task: Callable[..., Any], *args: Any) -> list[Any]:
    """One task in all of them at once."""
    for worker in workers:
        worker.tell(task, *args)
    return [worker.answer() for worker in workers]


class Crew:
    """The workers of one test."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._barriers: list[Any] = []  # all of them: one that is forgotten is gone before its workers have it

    def start(self, count: int = 1, *, keys: Iterable[Iterable[JWK]] = (), **settings: Any) -> list[Worker]:
        """New processes that can meet each other; `keys` holds each one's own, `settings` is INSTACCESS."""
        self._barriers.append(_CONTEXT.Barrier(count))
        theirs = list(keys) or [()] * count
        made = [Worker(settings=settings, keys=theirs[i], barrier=self._barriers[-1]) for i in range(count)]
        self._workers += made
        return made

    def somebody_waits(self) -> bool:
        """Whether one of those started last has come to where they meet."""
        return bool(self._barriers[-1].n_waiting)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


# What stands below runs in the worker.

_pipe: Any = None
_barrier: Any = None


def told_to_stop() -> bool:
    """Whether `Worker.finish` was called."""
    return bool(_pipe.poll())


def patch(path: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace `package.module.function` or `package.module.Class.method` in this process by what `wrap` makes."""
    owner_path, name = path.rsplit(".", 1)
    owner = pkgutil.resolve_name(owner_path)
    setattr(owner, name, wrap(getattr(owner, name)))


def meet() -> None:
    """Wait until all workers that were started together are here."""
    _barrier.wait(PATIENCE)


def kill_myself() -> None:
    """End as under `kill -9` or the kernel's out-of-memory killer: no `finally`, no rollback, no goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)


def _obey(
    pipe: Any, database: str, settings: dict[str, Any], keys: list[str], passed: set[int], barrier: Any
) -> None:
    global _pipe, _barrier
    _pipe, _barrier = pipe, barrier
    logging.disable(logging.CRITICAL)  # twenty processes' log lines are nobody's help; what matters is answered
    connections["default"].settings_dict["NAME"] = database
    ready_made = iter([JWK.from_json(key) for key in keys])

    def generate_jwk(use: str) -> JWK:
        key = next(ready_made)
        key["use"] = str(use)
        return key

    patch("instaccess.trust.generate_jwk", lambda original: generate_jwk)
    patch("jwcrypto.jwk.JWK._rsa_pri", lambda original: checked_keys.load)
    checked_keys.trust(passed)
    tasks = importlib.import_module("tests.support.tasks")
    with override_settings(INSTACCESS=settings):
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                return
            if order is _STOP:
                continue
            name, args = order
            try:
                answer = (True, getattr(tasks, name)(*args))
            except Exception:
                answer = (False, traceback.format_exc())
            pipe.send(answer)
