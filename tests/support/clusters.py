"""PostgreSQL servers that a test starts: a primary, and replicas of the primary."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import servers

SUPERUSER = "postgres"


def find_programs() -> Path | None:
    """Return the folder of the latest PostgreSQL's server programs. Debian doesn't add this folder to PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Cluster:
    """A running PostgreSQL server, without a password for local connections."""

    def __init__(self, folder: Path, name: str) -> None:
        self.data, self.port = folder / name, 0
        self._log = folder / f"{name}.log"
        self._process: servers.Process | None = None

    def initialize(self) -> None:
        _run("initdb", "--auth=trust", f"--username={SUPERUSER}", "--no-sync", f"--pgdata={self.data}")

    def copy_from(self, primary: Cluster) -> None:
        """Copy the data of a primary, so that this server becomes a replica."""
        source = [f"--host={servers.HOST}", f"--port={primary.port}", f"--username={SUPERUSER}"]
        _run("pg_basebackup", *source, "--checkpoint=fast", "--write-recovery-conf", f"--pgdata={self.data}")

    def start(self) -> None:
        self.port = servers.free_port()
        options = {"port": self.port, "listen_addresses": servers.HOST, "unix_socket_directories": "", "fsync": "off"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = _command("postgres", "-D", str(self.data), *arguments)
        self._process = servers.Process(command, port=self.port, log=self._log, env=dict(os.environ), cwd=Path("/"))
        servers.wait_until(self._accepts_connections, bool)

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as superuser, each in its own transaction. Returns the rows of the last statement."""
        import psycopg  # `make test` collects this file, but doesn't install the driver.

        with psycopg.connect(**self.connection, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def connection(self) -> dict[str, str]:
        return {"host": servers.HOST, "port": str(self.port), "user": SUPERUSER, "dbname": "postgres"}

    def stop(self) -> None:
        if self._process is not None:
            _run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self.data}")
            self._process.kill()

    def _accepts_connections(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:  # Connect again, because the server is still starting.
            return False
        return True


@contextmanager
def clusters(*names: str) -> Iterator[list[Cluster]]:
    """Run a primary and replicas of the primary until the end of the `with` block."""
    folder = Path(tempfile.mkdtemp(prefix="instaccess-postgresql-"))
    primary, *replicas = [Cluster(folder, name) for name in names]
    try:
        if os.getuid() == 0:  # PostgreSQL refuses to run as root.
            shutil.chown(folder, SUPERUSER)
        primary.initialize()
        primary.start()
        for replica in replicas:
            replica.copy_from(primary)
            replica.start()
        yield [primary, *replicas]
    finally:
        for cluster in (*replicas, primary):
            cluster.stop()
        shutil.rmtree(folder)


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
