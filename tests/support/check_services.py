"""A script that checks whether the database servers and the programs for `make test-services` are available.

The script reports each missing server or program before the tests start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support import clusters
from tests.support.pgbouncer import find_program

DATABASES = {
    "postgresql": "PostgreSQL (PGHOST, PGUSER, PGPASSWORD)",
    "mariadb": "MariaDB (MARIADB_HOST, MARIADB_USER, MARIADB_PASSWORD)",
}

# Connect to the database server without selecting a database, because the database of the test project might not
# exist. Django also connects in this way before Django creates the test database.
_CONNECT = "import django; django.setup(); from django.db import connection; connection._nodb_cursor().__enter__()"


def find_error(database: str) -> str | None:
    """Connect to a database server. Returns the error message of the driver, or None if the server answers."""
    result = subprocess.run(
        [sys.executable, "-c", _CONNECT],
        env={**os.environ, "INSTACCESS_DATABASE": database, "DJANGO_SETTINGS_MODULE": "testproject.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 0:
        return None
    return next((line for line in reversed(result.stderr.splitlines()) if "Error: " in line), result.stderr)


def find_missing() -> list[str]:
    """Return a message with a hint for each database server that doesn't answer and for each missing program."""
    missing = []
    for name, description in DATABASES.items():
        if (error := find_error(name)) is not None:
            missing.append(f"{description}, but the server does not answer: {error}")
    if shutil.which(os.environ.get("CHROMIUM") or "chromium") is None:
        missing.append("Chromium for the tests of the admin: run `apt install chromium`, or set CHROMIUM to its path")
    if shutil.which("wrk") is None:
        missing.append("wrk for the tests of the benchmarks: run `apt install wrk`")
    if shutil.which("systemd-analyze") is None:
        missing.append("systemd-analyze for the tests of the units for systemd: run `apt install systemd`")
    if shutil.which("promtool") is None or shutil.which("prometheus") is None:
        missing.append("Prometheus and promtool for the tests of the metrics: run `apt install prometheus`")
    if find_program() is None:
        missing.append("PgBouncer for the tests of connection pools: run `apt install pgbouncer`")
    if clusters.find_programs() is None:
        missing.append("the server programs of PostgreSQL, such as initdb: run `apt install postgresql`")
    if shutil.which("redis-server") is None:
        missing.append("redis-server for the tests of a killed Redis server: run `apt install redis-server`")
    for program, package in {"pg_dump": "postgresql-client", "mariadb-dump": "mariadb-client"}.items():
        if shutil.which(program) is None:
            missing.append(f"{program} for the tests of restored dumps: run `apt install {package}`")
    return missing


if __name__ == "__main__":
    problems = find_missing()
    for problem in problems:
        sys.stderr.write(f"`make test-services` needs {problem}\n")
    sys.exit(bool(problems))
