"""Functions that run a script of another project in a new process.

A new process is needed because Django reads some settings only when a process starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT


def run(module: str, *, settings: str, folder: Path, rsa_pool: Any) -> Any:
    """Run `python -m module` with keys. Returns the JSON value in the last line of the output.

    Standard input contains three private JWKs. `folder` contains the database and is part of PYTHONPATH.
    """
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": settings,
        "SUBPROJECT_DATABASE": str(folder / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return _run_module(module, environment, json.dumps([dict(rsa_pool.take()) for _ in range(3)]))


def run_with_question(module: str, *, settings: str, question: Any, database: str | None = None) -> Any:
    """Run `python -m module` with a question. Returns the JSON value in the last line of the output.

    The environment variable SUBPROJECT_QUESTION contains the question as JSON. `database` is the kind of database,
    such as `postgresql`. By default, the kind is the same as in the tests.
    """
    environment = {
        **os.environ,
        **({} if database is None else {"INSTACCESS_DATABASE": database}),
        "DJANGO_SETTINGS_MODULE": settings,
        "SUBPROJECT_QUESTION": json.dumps(question),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return _run_module(module, environment, "")


def _run_module(module: str, environment: dict[str, str], stdin: str) -> Any:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", module],
        env=environment,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def set_up(database: str = "default") -> None:
    """Set up Django, create the tables and import the keys from standard input. Subprojects call this function.

    Args:
        database: the alias of the database in which the tables are created.
    """
    import django

    django.setup()
    from django.core.management import call_command

    from instaccess.models import Key
    from tests.support import key_texts

    call_command("migrate", database=database, verbosity=0, interactive=False)
    slots = [
        (Key.Use.SIGNING, Key.Status.CURRENT),
        (Key.Use.SIGNING, Key.Status.FUTURE),
        (Key.Use.ENCRYPTION, Key.Status.CURRENT),
    ]
    for private, (use, status) in zip(json.load(sys.stdin), slots, strict=True):
        key_texts.import_key(json.dumps(private), use=use, status=status, with_private=True)


def print_result(facts: Any) -> None:
    """Print the result as the last line of the output. Scripts of subprojects call this function."""
    sys.stdout.write(json.dumps(facts) + "\n")
