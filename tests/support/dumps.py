"""Functions that dump, restore and copy the test database with the tools of each database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from django.db import connections

from instaccess.keys import ring


def dump(path: Path) -> None:
    """Write a dump of the test database to a new file."""
    _TOOLS[connections["default"].vendor][0](path)


def restore(path: Path) -> None:
    """Replace the contents of the test database with a dump, and clear the cached keys of this process."""
    connections.close_all()
    _TOOLS[connections["default"].vendor][1](path)
    ring.clear_cache()


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database file that no process has open.

    Delete the journals of the target first, because SQLite could apply an old journal to the copy.
    """
    for journal in ("-wal", "-shm", "-journal"):
        Path(f"{target}{journal}").unlink(missing_ok=True)
    shutil.copyfile(source, target)


def copy_sqlite_online(source: Path, target: Path) -> None:
    """Copy a database file that processes have open, with SQLite's statement `VACUUM INTO`."""
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("VACUUM INTO ?", [str(target)])


def _dump_sqlite(path: Path) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [str(path)])


def _restore_sqlite(path: Path) -> None:
    copy_sqlite(path, Path(connections["default"].settings_dict["NAME"]))


def _postgresql(*command: str) -> None:
    settings = connections["default"].settings_dict
    env = {
        **os.environ,
        "PGHOST": settings["HOST"],
        "PGPORT": str(settings["PORT"]),
        "PGUSER": settings["USER"],
        "PGPASSWORD": settings["PASSWORD"],
        "PGDATABASE": settings["NAME"],
    }
    _run(*command, env={name: value for name, value in env.items() if value})


def _dump_postgresql(path: Path) -> None:
    _postgresql("pg_dump", "--clean", "--if-exists", f"--file={path}")


def _restore_postgresql(path: Path) -> None:
    _postgresql("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", f"--file={path}")


def _mariadb(program: str) -> list[str]:
    settings = connections["default"].settings_dict
    options = [f"--host={settings['HOST']}", f"--user={settings['USER']}"]
    if settings["PORT"]:
        options.append(f"--port={settings['PORT']}")
    if settings["PASSWORD"]:
        options.append(f"--password={settings['PASSWORD']}")
    return [program, *options]


def _dump_mariadb(path: Path) -> None:
    name = connections["default"].settings_dict["NAME"]
    _run(*_mariadb("mariadb-dump"), "--single-transaction", f"--result-file={path}", name)


def _restore_mariadb(path: Path) -> None:
    name = connections["default"].settings_dict["NAME"]
    _run(*_mariadb("mariadb"), f"--execute=SOURCE {path}", name)


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


_TOOLS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "sqlite": (_dump_sqlite, _restore_sqlite),
    "postgresql": (_dump_postgresql, _restore_postgresql),
    "mysql": (_dump_mariadb, _restore_mariadb),
}
