"""A benchmark of the time that this package adds to the start of a process with Django and django-oauth-toolkit.

    python -m benchmarks.startup [--starts 15]

The benchmark measures CPU time, with all files in the page cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from typing import Any

from . import sections, timing
from .serve import ROOT

WITH, WITHOUT = "with instaccess", "without"

# This script does the work of a worker before the first request: importing the apps and URLs, and registering the
# system checks.
_START = """
import sys, time
begun = time.process_time()
from django.conf import settings
ours = sys.argv[1] == "with instaccess"
settings.configure(
    SECRET_KEY="x" * 50,
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
        "django.contrib.sessions", "django.contrib.messages", "rest_framework", "oauth2_provider"]
        + ["instaccess"] * ours,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    OAUTH2_PROVIDER={"SCOPES": {"read": "Read"}},
)
import django
django.setup()
import oauth2_provider.urls, oauth2_provider.contrib.rest_framework, rest_framework.views
from django.contrib import admin
admin.site.urls
if ours:
    import instaccess.urls
assert ("instaccess.issuer.views" in sys.modules) is ours
print(time.process_time() - begun)
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--starts", type=int, default=15, help="number of starts with and without the package")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="instaccess-benchmark-") as folder:
        # Store the compiled modules, as in installed packages, so that a start doesn't compile the modules again.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def start(kind: str) -> float:
            command = [sys.executable, "-c", _START, kind]
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
            return float(done.stdout) * 1000

        times: dict[str, list[float]] = {WITH: [], WITHOUT: []}
        for number in range(options.starts + 1):
            for kind, values in times.items():
                took = start(kind)
                if number:  # Ignore the first start, which compiles the modules.
                    values.append(took)
    added = [with_ - without for with_, without in zip(times[WITH], times[WITHOUT], strict=True)]
    return {
        "CPU milliseconds": {kind: timing.spread(values, 1) for kind, values in times.items()},
        "added, ms": timing.spread(added, 1),
    }


def show(result: dict[str, Any]) -> str:
    rows = [[kind, timing.ranged(values, 0)] for kind, values in result["CPU milliseconds"].items()]
    rows.append(["added", timing.ranged(result["added, ms"], 0)])
    return timing.table("Start of a process with Django, DRF and django-oauth-toolkit", ["", "CPU, ms"], rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
