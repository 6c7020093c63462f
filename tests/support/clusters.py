"""PostgreSQL servers that a test starts: a primary, and replicas of the primary."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support import servers

SUPERUSER = "postgres"
WAL_SEGMENT = 1024 * 1024
"""The size of each write-ahead log file, in bytes. The server would crash if `limit_files` set a smaller limit."""


def find_programs() -> Path | None:
    """Return the folder with the server programs of the latest PostgreSQL. Debian doesn't add this folder to PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Cluster:
    """A PostgreSQL server that accepts local connections without a password."""

    def __init__(self, folder: Path, name: str) -> None:
        self.data, self.port = folder / name, 0
        self._log = folder / f"{name}.log"
        self._process: servers.Process | None = None

    def initialize(self) -> None:
        size = f"--wal-segsize={WAL_SEGMENT // 1024**2}"
        _run("initdb", "--auth=trust", f"--username={SUPERUSER}", "--no-sync", size, f"--pgdata={self.data}")

    def copy_files(self, data: Path) -> None:
        """Copy the data files of a stopped server, so that this server starts with the same data."""
        subprocess.run(["cp", "--archive", str(data), str(self.data)], check=True)

    def copy_from(self, primary: Cluster) -> None:
        """Copy the data of a primary, so that this server becomes a replica."""
        source = [f"--host={servers.HOST}", f"--port={primary.port}", f"--username={SUPERUSER}"]
        _run("pg_basebackup", *source, "--checkpoint=fast", "--write-recovery-conf", f"--pgdata={self.data}")

    def start(self) -> None:
        """Start the server. After a stop, the server uses the same port again."""
        self.port = self.port or servers.free_port()
        options = {"port": self.port, "listen_addresses": servers.HOST, "unix_socket_directories": "", "fsync": "off"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = _command("postgres", "-D", str(self.data), *arguments)
        self._process = servers.Process(command, port=self.port, log=self._log, env=dict(os.environ), cwd=Path("/"))
        servers.wait_until(self._accepts_connections, bool)

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as superuser, each in its own transaction. Returns the rows of the last statement."""
        # Import the driver here, because `make test` imports this file but doesn't install the driver.
        import psycopg

        with psycopg.connect(**self.connection, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def connection(self) -> dict[str, str]:
        return {"host": servers.HOST, "port": str(self.port), "user": SUPERUSER, "dbname": "postgres"}

    @property
    def log(self) -> str:
        """The log lines since the last start."""
        return self._log.read_text()

    def stop(self, mode: str = "immediate") -> None:
        if self._process is not None:
            self.resume()
            _run("pg_ctl", "stop", f"--mode={mode}", f"--pgdata={self.data}")
            self._process.kill()
            self._process = None

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL, as if the host had crashed."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.kill()
        self._process = None

    def suspend(self) -> None:
        """Suspend all processes of the server. The kernel still accepts connections, but no query is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def promote(self) -> None:
        """Make this replica a primary, and wait until it is a primary."""
        _run("pg_ctl", "promote", f"--pgdata={self.data}")

    def limit_files(self, size: int | None) -> None:
        """Make new connections fail when they write more than `size` bytes to a file. None removes the limit.

        The server gets an error from the kernel, as for a full disk.
        """
        assert self._process is not None
        # Change only the soft limit. The empty string after the colon keeps the hard limit.
        limit = f"--fsize={'unlimited' if size is None else size}:"
        _run(shutil.which("prlimit") or "prlimit", f"--pid={self._process.pid}", limit)

    def _signal(self, number: int) -> None:
        """Send a signal to the main process, and then to its children, which have process groups of their own."""
        assert self._process is not None
        for pid in (self._process.pid, *_children(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _accepts_connections(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:  # Connect again, because the server is still starting.
            return False
        return True


@contextmanager
def clusters(*names: str, template: Path | None = None) -> Iterator[list[Cluster]]:
    """Run a primary and replicas of the primary until the end of the `with` block.

    Args:
        template: the data folder of a stopped server, which is copied to the primary. By default, the primary is
            empty.
    """
    folder = Path(tempfile.mkdtemp(prefix="instaccess-postgresql-"))
    primary, *replicas = [Cluster(folder, name) for name in names]
    try:
        if os.getuid() == 0:
            # Run PostgreSQL as another user, because PostgreSQL refuses to run as root.
            shutil.chown(folder, SUPERUSER)
        if template is None:
            primary.initialize()
        else:
            primary.copy_files(template)
        primary.start()
        for replica in replicas:
            replica.copy_from(primary)
            replica.start()
        yield [primary, *replicas]
    finally:
        for cluster in (*replicas, primary):
            cluster.stop()
        shutil.rmtree(folder)


def _children(pid: int) -> list[int]:
    """Return the ids of the child processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        # A process that has ended since the search has no such file.
        with suppress(OSError):
            # The name of the program is in parentheses and can contain spaces. The state and the parent's id follow.
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def _command(program: str, *arguments: str) -> list[str]:
    command = [str((find_programs() or Path()) / program), *arguments]
    if os.getuid() != 0:
        return command
    group = pwd.getpwnam(SUPERUSER).pw_gid
    return ["setpriv", f"--reuid={SUPERUSER}", f"--regid={group}", "--clear-groups", *command]


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        _command(program, *arguments), cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
