"""Whether what `make test-services` needs is there: what is missing is one failure with a name, not a flood."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

DATABASES = {
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


def missing() -> list[str]:
    """What is not as it should be, a sentence each."""
    found = []
    for name, what in DATABASES.items():
        if (said := fault(name)) is not None:
            found.append(f"{what}, and it does not answer: {said}")
    if shutil.which(os.environ.get("CHROMIUM") or "chromium") is None:
        found.append("Chromium for the admin's tests: apt install chromium, or CHROMIUM=/path/to/it")
    if shutil.which("wrk") is None:
        found.append("wrk for a trial of the benchmarks: apt install wrk")
    return found


if __name__ == "__main__":
    faults = missing()
    for each in faults:
        sys.stderr.write(f"`make test-services` needs {each}\n")
    sys.exit(bool(faults))
