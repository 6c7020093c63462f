"""Runs a script in a project of its own, in a process of its own: settings that Django reads once, at its start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT


def run(module: str, *, settings: str, folder: Path, rsa_pool: Any) -> Any:
    """What `python -m module` says on its last line, as JSON. It reads three private JWKs from its stdin.

    `folder` is for its database and is on its path.
    """
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": settings,
        "SUBPROJECT_DATABASE": str(folder / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return _said(module, environment, json.dumps([dict(rsa_pool.take()) for _ in range(3)]))


def ask(module: str, *, settings: str, question: Any) -> Any:
    """What `python -m module` says on its last line, as JSON; the question is in SUBPROJECT_QUESTION, as JSON too."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": settings,
        "SUBPROJECT_QUESTION": json.dumps(question),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return _said(module, environment, "")


def _said(module: str, environment: dict[str, str], stdin: str) -> Any:
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


def set_up() -> None:
    """In the script: Django, the tables, and the keys that `run` handed over."""
    import django

    django.setup()
    from django.core.management import call_command

    from instaccess.keys import provision
    from instaccess.models import Key

    call_command("migrate", verbosity=0, interactive=False)
    slots = [
        (Key.Use.SIGNING, Key.Status.CURRENT),
        (Key.Use.SIGNING, Key.Status.FUTURE),
        (Key.Use.ENCRYPTION, Key.Status.CURRENT),
    ]
    for private, (use, status) in zip(json.load(sys.stdin), slots, strict=True):
        provision.import_key(json.dumps(private), use=use, status=status, with_private=True)


def say(facts: Any) -> None:
    """In the script: the result, as the last line."""
    sys.stdout.write(json.dumps(facts) + "\n")
