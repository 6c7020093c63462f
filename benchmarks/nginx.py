"""nginx servers for a benchmark: a proxy with the example configuration, and a service behind the proxy."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .serve import HOST, ROOT

EXAMPLE = ROOT / "examples/nginx/nginx.conf"
_TIMEOUT_SECONDS = 60
_MEMORY = Path("/dev/shm")

# The service answers immediately, so the figures show the cost of the proxy and of the gateway.
_SERVICE = """
daemon off;
worker_processes auto;
pid nginx.pid;
error_log error.log;
events { worker_connections 1024; }
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    access_log off;
    server {
        listen 127.0.0.1:PORT;
        location / { return 200 "$http_authorization"; }
    }
}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(folder: Path) -> Iterator[int]:
    """Run nginx as a service that answers with the Authorization header that it received. Yields the port."""
    port = free_port()
    with _run(_SERVICE.replace("PORT", str(port)), folder, port):
        yield port


@contextmanager
def example(folder: Path, *, gateway: int, service: int, authenticates: bool = True) -> Iterator[str]:
    """Run nginx with the example configuration. Yields the URL of a path of the service.

    Args:
        folder: the working directory of nginx, which this function creates.
        gateway, service: the ports to which nginx forwards requests.
        authenticates: whether nginx asks the gateway about each request.
    """
    port = free_port()
    text = _substitute(EXAMPLE.read_text(), "listen 127.0.0.1:8080;", f"listen {HOST}:{port};")
    for name, target in (("gateway", gateway), ("service", service)):
        block = f"upstream {name} {{\n        server 127.0.0.1:"
        text = _substitute(text, f"{block}8000 ", f"{block}{target} ")
    if not authenticates:
        text = _substitute(text, "auth_request /_gateway;", "")
        text = _substitute(text, "auth_request_set $authorization $upstream_http_authorization;", "")
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as memory:
        folder.mkdir()
        (folder / "decisions").symlink_to(memory)
        with _run(text, folder, port):
            yield f"http://{HOST}:{port}/api/v1/benchmark"


def _substitute(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise RuntimeError(f"{EXAMPLE} contains {old!r} {text.count(old)} times")
    return text.replace(old, new)


@contextmanager
def _run(text: str, folder: Path, port: int) -> Iterator[None]:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    program = shutil.which("nginx", path=path)
    if program is None:
        raise SystemExit("nginx is not installed: `apt-get install --no-install-recommends nginx-light`")
    folder.mkdir(exist_ok=True)
    # If root starts nginx, the workers run as another user, who must be able to enter the directories.
    for directory in (folder.parent, folder):
        directory.chmod(0o755)
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_up(process, folder, port)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], folder: Path, port: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        with suppress(OSError), closing(socket.create_connection((HOST, port), timeout=1)):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            log = folder / "error.log"
            raise RuntimeError(f"nginx did not start:\n{log.read_text() if log.exists() else ''}")
        time.sleep(0.05)
