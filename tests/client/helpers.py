"""A clock that a test controls, a server whose responses a test defines, and a report of an exception."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from instaccess.client import InstAccess
from instaccess.client.issuing import PATH
from tests.support import servers
from tests.support.paths import ROOT

ACCESS_TOKEN = "an-oauth2-access-token-of-ada-lovelace"
TOKENS = [f"header.{'secret-key-of-token'}.iv.text-{number}.tag" for number in range(9)]


class Clock:
    """A clock that advances only if the client sleeps, or if the test calls `advance`.

    Attributes:
        slept: the duration of each sleep, in seconds.
        on_sleep: a function that is called at the start of each sleep.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep()
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Site:
    """A server with an issuing endpoint and a service. By default, the service accepts only the latest token.

    Attributes:
        issued: the number of issued tokens.
        access_tokens: the Authorization header of each request to the issuer.
        calls: the method, the path, the Authorization header and the body of each request to the service.
        refusals: the responses of the issuer to the next requests. Each response is a status, a body and headers.
        redirects: the URL to which the service redirects a request, by path.
        accepts: the function that returns whether the service accepts a token.
    """

    def __init__(self) -> None:
        self.issued = 0
        self.access_tokens: list[str | None] = []
        self.calls: list[tuple[str, str, str | None, bytes]] = []
        self.refusals: list[tuple[int, bytes, dict[str, str]]] = []
        self.redirects: dict[str, str] = {}
        self.accepts: Callable[[str], bool] = lambda token: token == TOKENS[self.issued - 1]
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        authorization = handler.headers.get("Authorization")
        if handler.path == PATH:
            self.access_tokens.append(authorization)
            if self.refusals:
                status, text, headers = self.refusals.pop(0)
                return servers.reply(handler, status, text, **headers)
            self.issued += 1
            return servers.reply(handler, 201, json.dumps({"token": TOKENS[self.issued - 1]}).encode())
        self.calls.append((handler.command, handler.path, authorization, body))
        if handler.path in self.redirects:
            return servers.reply(handler, 302, Location=self.redirects[handler.path])
        if not self.accepts((authorization or "").removeprefix("Bearer ")):
            return servers.reply(handler, 401, b'{"errors":[{"message":"Invalid access token."}]}')
        return servers.reply(handler, 200, b'{"name":"Ada Lovelace","login_id":"ada"}')

    def revoke(self) -> None:
        """Let the service refuse all tokens that were issued until now, and accept tokens that are issued later."""
        revoked = set(TOKENS[: self.issued])
        self.accepts = lambda token: token in TOKENS and token not in revoked


@contextmanager
def running(site: Site) -> Iterator[Site]:
    with servers.scripted_server(site.answer) as server:
        site.url = server.base_url
        yield site


def source(url: str, clock: Clock | None = None, **options: Any) -> InstAccess:
    """Return a client that uses `clock`, so that the test doesn't wait in real time."""
    clock = clock or Clock()
    if "refresh" not in options:
        options.setdefault("access_token", ACCESS_TOKEN)
    return InstAccess(url, clock=clock, sleep=clock.sleep, **options)


def report(error: BaseException) -> str:
    """Return what an error reporter can print, with the variables of all frames except the frames of the tests.

    The function skips the frames of the tests, because the tests themselves have the secrets in variables.
    """
    captured = traceback.TracebackException.from_exception(error, capture_locals=True)
    captured.stack = traceback.StackSummary.from_list(
        frame for frame in captured.stack if str(ROOT / "tests") not in frame.filename
    )
    assert captured.stack
    return "".join(captured.format()) + repr(error) + repr(vars(error))
