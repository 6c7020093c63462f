"""The ASGI application as a server drives it: in one event loop, held up and looked into where a test says."""

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
"""Seconds after which what does not happen is taken for hung: a guard, not a measure."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange(ApplicationCommunicator):
    """One request on its way through the application."""

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
        """The body, or a piece of it."""
        await self.send_input({"type": "http.request", "body": body, "more_body": more})

    async def hang_up(self) -> None:
        """The client goes away, and Django has noticed: of its tasks only the one that clears up is left."""
        await self.send_input({"type": "http.disconnect"})
        async with asyncio.timeout(PATIENCE):
            while asyncio.all_tasks() - {asyncio.current_task(), self.future}:
                await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """What comes back, and the end of the request."""
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
    """Those who have come to a step and wait there."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self._arrivals = threading.Semaphore(0)
        self._released = threading.Event()

    def wait(self) -> None:
        self.threads.append(threading.get_ident())
        self._arrivals.release()
        assert self._released.wait(PATIENCE), "nobody let it go on: is the event loop held up as well?"

    async def reached(self, count: int = 1) -> None:
        """So many have come there, one by one or all at once."""
        for _ in range(count):
            assert await asyncio.to_thread(self._arrivals.acquire, timeout=PATIENCE)

    def release(self) -> None:
        self._released.set()


@contextmanager
def held(path: str, *, after: bool = False) -> Iterator[Held]:
    """Whoever calls this function is held up there, before or after its work, until released: at the latest at the
    end of the `with`."""
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
    """Whose functions run where, in a `with` in the event loop: names of modules."""

    def __init__(self) -> None:
        self.in_the_loop: set[str] = set()
        self.elsewhere: set[str] = set()

    def __enter__(self) -> Footprints:
        self._loop = threading.get_ident()
        # The garbage collector would run what is left of others in whichever thread calls for it.
        gc.collect()
        gc.disable()
        threading.setprofile(self._note)  # for threads that are started from now on
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()

    def _note(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            found = self.in_the_loop if threading.get_ident() == self._loop else self.elsewhere
            found.add(frame.f_globals.get("__name__", ""))
