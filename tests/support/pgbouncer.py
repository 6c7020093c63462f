"""A real PgBouncer, which forwards connections to the PostgreSQL server of the test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from tests.support import servers
from tests.support.paths import ROOT

SERVERS = 3
"""The number of connections from PgBouncer to PostgreSQL."""

# Successive transactions run on different connections to PostgreSQL. A client that relies on the state of a
# connection therefore fails.
_CONFIG = """
[databases]
* = {server}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 100
server_round_robin = 1
{options}
"""


def find_program() -> str | None:
    """Return the path of PgBouncer. Debian installs PgBouncer in a folder that only root has in PATH."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def _open_all_connections(port: int) -> None:
    """Make PgBouncer open all its connections to PostgreSQL: run one transaction per connection at the same time.

    PgBouncer opens a connection only when all open connections are busy. The transactions of a test, which run one
    after another, would therefore all use the same connection.
    """
    # Import the driver here, because `make test` imports this file but doesn't install the driver.
    import psycopg

    settings = connections["default"].settings_dict
    clients = [
        psycopg.connect(host=servers.HOST, port=port, dbname=settings["NAME"], user=settings["USER"])
        for _ in range(SERVERS)
    ]
    for client in clients:
        client.execute("SELECT 1")
    for client in clients:
        client.commit()
        client.close()


@contextmanager
def pgbouncer(folder: Path, *, server_port: str = "", options: str = "") -> Iterator[int]:
    """Run PgBouncer in transaction mode, for all databases of the server. Yields the port of PgBouncer.

    Args:
        server_port: the port of PostgreSQL. By default, the port of the test run's server.
        options: additional lines of the configuration.
    """
    settings = connections["default"].settings_dict
    server = {
        "host": settings["HOST"],
        "port": server_port or os.environ.get("PGPORT", "5432"),
        "user": settings["USER"],
        "password": settings["PASSWORD"],
    }
    port = servers.free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            server=" ".join(f"{name}={value}" for name, value in server.items() if value),
            host=servers.HOST,
            port=port,
            servers=SERVERS,
            options=options,
        )
    )
    # Run PgBouncer as another user, because PgBouncer refuses to run as root.
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = servers.Process(
        [find_program() or "pgbouncer", *user, str(config)],
        port=port,
        log=folder / "pgbouncer.log",
        env=dict(os.environ),
        cwd=ROOT,
    )
    try:
        _open_all_connections(port)
        yield port
    finally:
        process.kill()
