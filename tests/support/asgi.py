"""Functions and classes that run the ASGI application in one event loop, block threads and record where code runs."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

PATIENCE = 60
"""The time after which a test fails instead of waiting forever, in seconds."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange(ApplicationCommunicator):
    """A request to the ASGI application, and the response."""

    def __init__(
        self, method: str, path: str, bearer: str = "", *, application: Callable[..., Any] | None = None
    ) -> None:
        headers = [(b"host", b"testserver")]
        if bearer:
            headers.append((b"authorization", f"Bearer {bearer}".encode()))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.7", 4711),
        }
        super().__init__(application or get_asgi_application(), scope)

    async def send(self, body: bytes = b"", *, more: bool = False) -> None:
        """Send the body of the request, or a part of the body if `more` is true."""
        await self.send_input({"type": "http.request", "body": body, "more_body": more})

    async def disconnect(self) -> None:
        """Disconnect the client. Waits until only the current task and the task of the application remain."""
        await self.send_input({"type": "http.disconnect"})
        async with asyncio.timeout(PATIENCE):
            while asyncio.all_tasks() - {asyncio.current_task(), self.future}:
                await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """Wait for the end of the request. Returns the response."""
        start = await self.receive_output(PATIENCE)
        body = (await self.receive_output(PATIENCE))["body"]
        await self.wait(PATIENCE)
        return Answer(start["status"], {n.decode(): v.decode() for n, v in start["headers"]}, body)

    @property
    def is_answered(self) -> bool:
        return not self.output_queue.empty()


async def ask(method: str, path: str, bearer: str = "") -> Answer:
    exchange = Exchange(method, path, bearer)
    await exchange.send()
    return await exchange.answer()


class Held:
    """Threads that are blocked at a step until the test releases the threads."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self._arrivals = threading.Semaphore(0)
        self._released = threading.Event()

    def wait(self) -> None:
        self.threads.append(threading.get_ident())
        self._arrivals.release()
        assert self._released.wait(PATIENCE), "the thread was not released: is the event loop blocked?"

    async def reached(self, count: int = 1) -> None:
        """Wait until `count` more threads have reached the step."""
        for _ in range(count):
            assert await asyncio.to_thread(self._arrivals.acquire, timeout=PATIENCE)

    def release(self) -> None:
        self._released.set()


@contextmanager
def held(path: str, *, after: bool = False) -> Iterator[Held]:
    """Block all callers of a function until the test releases the yielded object or the context ends.

    Args:
        path: the import path of the function.
        after: whether to block callers after the function has run, instead of before.
    """
    owner_path, name = path.rsplit(".", 1)
    owner = pkgutil.resolve_name(owner_path)
    original, holding = getattr(owner, name), Held()

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        if not after:
            holding.wait()
        result = original(*args, **kwargs)
        if after:
            holding.wait()
        return result

    setattr(owner, name, step)
    try:
        yield holding
    finally:
        holding.release()
        setattr(owner, name, original)


class Footprints:
    """A context manager that records which modules run in the event loop, and which modules run in worker threads."""

    def __init__(self) -> None:
        self.in_the_loop: set[str] = set()
        self.elsewhere: set[str] = set()

    def __enter__(self) -> Footprints:
        self._loop = threading.get_ident()
        # Collect garbage now, so that finalizers of earlier tests don't run in a recorded thread.
        gc.collect()
        gc.disable()
        # `threading.setprofile` covers only threads that start later, so the current thread needs `sys.setprofile`.
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()

    def _note(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            modules = self.in_the_loop if threading.get_ident() == self._loop else self.elsewhere
            modules.add(frame.f_globals.get("__name__", ""))
