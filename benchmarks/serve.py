"""A context manager that runs an application server, and measures the CPU time and the memory of its workers."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
APPLICATION = "benchmarks.wsgi:application"
ASGI_APPLICATION = "benchmarks.asgi:application"
TRIVIAL = "benchmarks.serve:trivial"
_TIMEOUT_SECONDS = 60


def trivial(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer 201 and do nothing else.

    With this WSGI application, the benchmark measures how many requests wrk and gunicorn can process at most.
    """
    start_response("201 Created", [("Content-Type", "application/json"), ("Content-Length", "2")])
    return [b"{}"]


def machine_cpu() -> float:
    """Return the CPU time that the kernel and all processes of the machine have used, in seconds."""
    user, nice, system, _, _, interrupts, soft = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


class Server:
    """A context manager that runs an application server. Environment variables select the server's database.

    Args:
        log: the file for the output of the server.
        application: the import path of the application, for gunicorn.
        workers: the number of worker processes.
        kind: the worker class of gunicorn, or `uvicorn`.
        threads: the number of threads per worker of gunicorn.
        keep_alive: the seconds for which a gthread worker keeps an idle connection open. If 0, the worker closes
            each connection after a response.
        env: additional environment variables of the server.
    """

    def __init__(
        self,
        log: Path,
        *,
        application: str = APPLICATION,
        workers: int = 2,
        kind: str = "sync",
        threads: int = 1,
        keep_alive: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._env = {**os.environ, "BENCHMARK_LOG": str(log), **(env or {})}
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}"
        self._command = (
            self._uvicorn(workers)
            if kind == "uvicorn"
            else self._gunicorn(application, workers, kind, threads, keep_alive)
        )

    # By default, the commands below configure gthread and uvicorn to close each connection after a response, as sync
    # workers do. If connections were kept open, one worker could serve most of the connections.

    def _gunicorn(self, application: str, workers: int, kind: str, threads: int, keep_alive: int) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{self.port}"),
            *("--workers", str(workers), "--worker-class", kind, "--log-level", "warning", "--no-control-socket"),
            *(("--threads", str(threads), "--keep-alive", str(keep_alive)) if kind == "gthread" else ()),
            *(("--config", "python:benchmarks.worker") if application == APPLICATION else ()),
            application,
        ]

    def _uvicorn(self, workers: int) -> list[str]:
        return [
            *(sys.executable, "-m", "uvicorn", "--host", HOST, "--port", str(self.port)),
            *("--workers", str(workers), "--log-level", "warning", "--no-access-log", "--header", "connection:close"),
            ASGI_APPLICATION,
        ]

    def __enter__(self) -> Self:
        with self._log.open("ab") as stream:
            self._popen = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._env,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if isinstance(error, Exception):  # After a signal, which raises SystemExit, the log is not needed.
            sys.stderr.write("".join(self._log.read_text().splitlines(keepends=True)[-40:]))

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection(HOST, self.port, timeout=_TIMEOUT_SECONDS)
                with closing(connection):
                    # Wait for a response, because gunicorn accepts connections before it starts workers.
                    connection.request("GET", "/")
                    connection.getresponse().read()
                return
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command} did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def _stop(self) -> None:
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def suspend(self) -> None:
        """Suspend the server. The kernel still accepts connections, but the server answers no request."""
        os.killpg(self._popen.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._popen.pid, signal.SIGCONT)

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        pid = self._popen.pid
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        # Leave out Python's resource tracker, which uvicorn's parent process also starts.
        return [child for child in children if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]

    def cpu(self) -> float:
        """Return the CPU time that all workers have used so far, in seconds."""
        ticks = 0
        for pid in self.workers:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Return the resident memory of all workers, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.workers)
        return pages * os.sysconf("SC_PAGE_SIZE")
