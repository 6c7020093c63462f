"""Real servers on 127.0.0.1: server processes, HTTP servers with scripted responses, and wire taps.

A wire tap records the traffic to a server. Further functions find a free port, and wait until a condition holds.
"""

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
"""The time after which a test fails if a server doesn't start or respond, in seconds."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(call: Callable[[], T], accept: Callable[[T], bool]) -> T:
    """Repeat a call until `accept` returns true for the result. Returns this result.

    Raises:
        TimeoutError: `accept` did not return true within PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not accept(result := call()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the last result was {result!r}")
        threading.Event().wait(0.02)
    return result


def wait_until_asleep(pid: int) -> None:
    """Wait until the main thread of a process sleeps, for example in a system call that reads from a terminal."""
    stat = Path(f"/proc/{pid}/task/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(") ")[2][0], "S".__eq__)


class Process:
    """A server in a separate process group. The constructor waits until the port accepts connections.

    `log` is the file with the output of the server.
    """

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

    @property
    def pid(self) -> int:
        return self._popen.pid

    def suspend(self) -> None:
        """Suspend the server. The kernel still accepts connections, but the server answers no request."""
        os.killpg(self._popen.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._popen.pid, signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's main process, as systemd and Kubernetes do."""
        self._popen.send_signal(number)

    def stop(self) -> None:
        """Send TERM to the server's main process, and wait until this process has ended."""
        self._popen.terminate()
        self._popen.wait(PATIENCE)

    @property
    def workers(self) -> set[int]:
        """The process ids of the server's worker processes."""
        pid = self._popen.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


class WireTap:
    """A TCP forwarder in front of a server, which records all bytes that clients send to the server."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._sent: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self.resets = False
        """Whether the wire tap resets every connection as soon as a request arrives."""
        self.may_answer: Callable[[bytearray], bool] = lambda sent: True
        """The function that returns whether the client has sent enough bytes for the response to be forwarded.

        A server may answer and close the connection before it has read the body. The proxy then stops sending the
        body, so the wire tap would record only a part of the body.
        """
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
                complete = threading.Event()
                # With MariaDB, forward the server's messages immediately, because MariaDB sends the first message.
                if self.may_answer(sent):
                    complete.set()
                back = threading.Thread(target=_forward_answers, args=(server, client, complete), daemon=True)
                back.start()
                self._forward_requests(client, server, sent, complete)
                back.join()

    def _forward_requests(
        self, client: socket.socket, server: socket.socket, sent: bytearray, complete: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                sent += data
                # Clear the event at the start of each request, because a client may send several requests over one
                # connection.
                (complete.set if self.may_answer(sent) else complete.clear)()
                # Ignore a closed connection, because the wire tap has already recorded the bytes.
                with suppress(OSError):
                    server.sendall(data)
        complete.set()
        _disconnect(client, server)

    def retarget(self, port: int) -> None:
        """Forward new connections to the given port, and close all existing connections."""
        self._target = port
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def clear(self) -> None:
        """Delete all recorded bytes."""
        for sent in self._sent:
            sent.clear()

    @property
    def sent(self) -> bytes:
        """All recorded bytes that clients have sent to the server."""
        return b"".join(bytes(sent) for sent in self._sent)

    @property
    def connections(self) -> int:
        """The number of recorded connections to the server."""
        return len(self._sent)

    @property
    def requests(self) -> list[str]:
        """The request lines of all recorded requests."""
        return [line.decode() for line in re.findall(rb"(?m)^([A-Z]+ [^ \r\n]+ HTTP/1\.[01])\r$", self.sent)]

    def headers(self, name: str) -> list[str]:
        """Return the values of a header in all recorded requests. Underscores in `name` also match hyphens."""
        pattern = re.escape(name).replace("_", "-").replace(r"\-", "-").replace("-", "[-_]")
        return [v.decode() for v in re.findall(rb"(?mi)^" + pattern.encode() + rb":[ \t]*([^\r\n]*)\r$", self.sent)]

    def close(self) -> None:
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _forward_answers(server: socket.socket, client: socket.socket, complete: threading.Event) -> None:
    with suppress(OSError):
        while data := server.recv(65536):
            complete.wait(PATIENCE)
            client.sendall(data)
    complete.wait(PATIENCE)
    _disconnect(client, server)


def _disconnect(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@dataclass
class ReceivedRequest:
    """A request that a scripted server has received. `path` doesn't contain the query string."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


@dataclass
class ScriptedServer:
    """An HTTP server with real sockets. The test defines the responses.

    Attributes:
        answer: the function that answers a request. Its argument is the request handler.
        requests: all requests that the server has received.
    """

    answer: Callable[[BaseHTTPRequestHandler], None]
    requests: list[ReceivedRequest] = field(default_factory=list)
    base_url: str = ""

    def answer_with(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer every later request with the given response."""
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
def scripted_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[ScriptedServer]:
    """Run a scripted server in a thread until the context ends. Yields the server."""
    script = ScriptedServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            script.requests.append(ReceivedRequest(self.command, path, query, dict(self.headers)))
            with suppress(OSError):
                script.answer(self)

        do_POST = do_GET

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
