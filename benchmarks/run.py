"""A command that runs all benchmarks, prints tables, and updates benchmarks/results.json and docs/speed.md.

    python -m benchmarks.run [--database both] [--seconds 1] [--rounds 15] [--ten-million] [--issues 100000]

The command requires PostgreSQL (PGHOST, PGUSER, PGPASSWORD as in the tests), Redis (REDIS_URL), and Debian's packages
wrk and nginx-light. `--only` selects parts (http, behind_nginx, servers, crypto, tamper, growth, long_work,
revocation, memory, startup) or endpoints (ours, nothing, …). The results of a selection are written only to
`--output`. The command never fails because of slow results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import (
    behind_nginx,
    crypto,
    growth,
    long_work,
    memory,
    over_http,
    report,
    revocation,
    sections,
    servers,
    startup,
    tamper,
)
from .report import RESULTS
from .serve import ROOT
from .stage import VENDORS, psql

QUIET = 0.7
"""The load average above which other processes probably use the machine."""
PACKAGES = (
    *("Django", "djangorestframework", "django-oauth-toolkit", "jwcrypto", "cryptography", "gunicorn", "uvicorn"),
    *("psycopg", "psycopg-pool", "redis", "djangorestframework-simplejwt", "django-rest-knox", "joserfc", "Authlib"),
)
# Each value contains the module of a part, and whether the part runs on every database. Each part runs in its own
# process, because Django can be set up only once per process.
PARTS = {
    "http": ("over_http", True),
    "behind_nginx": ("behind_nginx", False),
    "servers": ("servers", False),
    "crypto": ("crypto", False),
    "tamper": ("tamper", True),
    "growth": ("growth", False),
    "long_work": ("long_work", False),
    "revocation": ("revocation", False),
    "memory": ("memory", False),
    "startup": ("startup", False),
}
_OPTIONS = {
    "http": ("seconds", "rounds", "workers"),
    "behind_nginx": ("seconds", "nginx_rounds"),
    "servers": ("seconds", "servers_rounds"),
    "crypto": ("crypto_rounds",),
    "tamper": ("tamper_rounds",),
    "growth": ("growth_rounds", "ten_million"),
    "long_work": ("long_rows", "ten_million"),
    "revocation": ("seconds", "revocation_rounds", "listed", "tokens_of_user"),
    "memory": ("issues",),
    "startup": ("starts",),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve"
    )
    for part in (over_http, behind_nginx, servers, crypto, tamper, growth, long_work, revocation, memory, startup):
        part.arguments(parser)
    parser.add_argument("--database", choices=[*VENDORS, "both"], default="both")
    parser.add_argument("--only", default="", help="names of parts or endpoints, separated by commas")
    parser.add_argument("--output", type=Path, help="write the figures to this file, as JSON")
    options = parser.parse_args()
    sections.exit_on_signals()
    vendors = VENDORS if options.database == "both" else (options.database,)
    wanted = set(filter(None, options.only.split(",")))
    named = ",".join(sorted(wanted - PARTS.keys()))
    chosen = wanted & PARTS.keys() | ({"http"} if named else set()) or PARTS.keys()

    if (load := os.getloadavg()[0]) > QUIET:
        print(f"Load average {load:.1f}: other processes use this machine, so only the ratios are meaningful.")
    results: dict[str, Any] = machine(vendors)
    for part, (module, everywhere) in PARTS.items():
        if part not in chosen:
            continue
        arguments = _arguments(part, options) + (["--only", named] if part == "http" and named else [])
        if everywhere:
            results[part] = {vendor: run(module, [*arguments, "--database", vendor]) for vendor in vendors}
        else:
            results[part] = run(module, arguments + (["--database", vendors[-1]] if part == "memory" else []))
    output = options.output or (None if wanted or options.database != "both" else RESULTS)
    if output:
        output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if output == RESULTS:
        report.write(results)


def _arguments(part: str, options: argparse.Namespace) -> list[str]:
    arguments = []
    for name in _OPTIONS[part]:
        value = getattr(options, name)
        if isinstance(value, list):
            arguments += [word for each in value for word in (f"--{name.replace('_', '-')}", str(each))]
        elif value is True:
            arguments.append(f"--{name.replace('_', '-')}")
        elif value is not False and value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    return arguments


def run(module: str, arguments: list[str]) -> Any:
    """Run a part of the benchmarks in its own process, which prints a table. Returns the figures."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--output", file.name]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                code = process.wait()
            except SystemExit:
                # The end of the `with` block waits until the process has stopped its server and dropped its database.
                process.terminate()
                raise
        if code:
            raise SystemExit(f"benchmarks.{module} failed ({code})")
        return json.load(file)


def machine(vendors: tuple[str, ...]) -> dict[str, Any]:
    """Return the date, the CPU and the number of cores of the machine, and the versions of the packages."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    description: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    if "postgresql" in vendors:
        description["postgresql"] = psql("SHOW server_version")[0][0].split()[0]
    return description


if __name__ == "__main__":
    main()
