"""Whether the databases of `make test-services` answer: one that does not is one failure with a name, not a flood."""

from __future__ import annotations

import os
import subprocess
import sys

SERVICES = {
    "postgresql": "PostgreSQL (PGHOST, PGUSER, PGPASSWORD)",
    "mariadb": "MariaDB (MARIADB_HOST, MARIADB_USER, MARIADB_PASSWORD)",
}

# The test database is made from there, so that is what must answer; the test project's own need not exist.
_ASK = "import django; django.setup(); from django.db import connection; connection._nodb_cursor().__enter__()"


def fault(database: str) -> str | None:
    """What the database driver says, or None where the server answers."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        env={**os.environ, "INSTACCESS_DATABASE": database, "DJANGO_SETTINGS_MODULE": "testproject.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    return next((line for line in reversed(done.stderr.splitlines()) if "Error: " in line), done.stderr)


if __name__ == "__main__":
    faults = {name: said for name in SERVICES if (said := fault(name)) is not None}
    for name, said in faults.items():
        sys.stderr.write(f"`make test-services` needs {SERVICES[name]}, and it does not answer: {said}\n")
    sys.exit(bool(faults))
