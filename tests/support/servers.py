"""Real servers on 127.0.0.1 for tests: processes, scripted HTTP servers, and taps that count what passes a wire."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
PATIENCE = 60
"""Seconds after which a server that does not come up is taken for broken: a guard, not a measure."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def until(ask: Callable[[], T], good: Callable[[T], bool]) -> T:
    """The first good answer, asked for again and again."""
    deadline = time.monotonic() + PATIENCE
    while not good(answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {answer!r}")
        threading.Event().wait(0.02)
    return answer


class Process:
    """A server in a process group of its own, up when its port answers. Its output is in `log`."""

    def __init__(self, command: list[str], *, port: int, log: Path, env: dict[str, str], cwd: Path) -> None:
        self.port, self.log = port, log
        with log.open("wb") as stream:
            self._popen = subprocess.Popen(
                command, env=env, cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.kill()
            raise

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._popen.args!r} did not come up:\n{self.log.read_text()}")
            threading.Event().wait(0.02)

    def freeze(self) -> None:
        """It goes on accepting connections, for the kernel does that, and answers nothing."""
        os.killpg(self._popen.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._popen.pid, signal.SIGCONT)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


class Tap:
    """Stands before a server, hands on every byte both ways, and keeps what was sent towards it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._sent: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self.resets = False
        """Whether every connection ends with a TCP reset as soon as a request comes."""
        self.has_heard: Callable[[bytearray], bool] = lambda sent: True
        """Whether so much has been sent that an answer may be handed back. A server may answer, and hang up, without
        having read the body, and a proxy then stops sending it."""
        self._listener = socket.create_server((HOST, 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            sent = bytearray()
            self._sent.append(sent)
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client, sent), daemon=True).start()

    def _serve(self, client: socket.socket, sent: bytearray) -> None:
        with client:
            if self.resets:
                sent += client.recv(65536)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            try:
                server = socket.create_connection((HOST, self._target), timeout=PATIENCE)
            except OSError:
                return
            self._sockets.append(server)
            with server:
                server.settimeout(None)
                heard = threading.Event()
                back = threading.Thread(target=_answer, args=(server, client, heard), daemon=True)
                back.start()
                self._ask(client, server, sent, heard)
                back.join()

    def _ask(self, client: socket.socket, server: socket.socket, sent: bytearray, heard: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                sent += data
                # Connections are used again: what was heard of the last request says nothing of this one.
                (heard.set if self.has_heard(sent) else heard.clear)()
                with suppress(OSError):  # the server has hung up; what comes is kept all the same
                    server.sendall(data)
        heard.set()
        _hang_up(client, server)

    def retarget(self, port: int) -> None:
        """From now on, before another server: what is connected is cut off."""
        self._target = port
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def forget(self) -> None:
        """Count from here."""
        for sent in self._sent:
            sent.clear()

    @property
    def sent(self) -> bytes:
        """All that was sent towards the server."""
        return b"".join(bytes(sent) for sent in self._sent)

    @property
    def connections(self) -> int:
        """How many have been made to the server."""
        return len(self._sent)

    @property
    def requests(self) -> list[str]:
        """The request lines."""
        return [line.decode() for line in re.findall(rb"(?m)^([A-Z]+ [^ \r\n]+ HTTP/1\.[01])\r$", self.sent)]

    def headers(self, name: str) -> list[str]:
        """Every value of a header in all the requests; underscores and hyphens are alike here."""
        pattern = re.escape(name).replace("_", "-").replace(r"\-", "-").replace("-", "[-_]")
        return [v.decode() for v in re.findall(rb"(?mi)^" + pattern.encode() + rb":[ \t]*([^\r\n]*)\r$", self.sent)]

    def close(self) -> None:
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _answer(server: socket.socket, client: socket.socket, heard: threading.Event) -> None:
    with suppress(OSError):
        while data := server.recv(65536):
            heard.wait(PATIENCE)
            client.sendall(data)
    heard.wait(PATIENCE)
    _hang_up(client, server)


def _hang_up(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@dataclass
class Asked:
    """A request that a scripted server got."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Scripted:
    """An HTTP server that answers as a test says, with real sockets: `answer` gets the request handler."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    asked: list[Asked] = field(default_factory=list)
    base_url: str = ""

    def says(self, status: int, body: bytes = b"", **headers: str) -> None:
        """From now on, this answer to everything."""
        self.answer = lambda handler: reply(handler, status, body, **headers)


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    with suppress(OSError):
        handler.wfile.write(body)


@contextmanager
def scripted(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Scripted]:
    """A scripted server in a thread, for the length of a `with`."""
    script = Scripted(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append(Asked(self.command, self.path, dict(self.headers)))
            with suppress(OSError):
                script.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *args: Any) -> None:
            pass

    server = Server((HOST, 0), Handler)
    script.base_url = f"http://{HOST}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
