"""Functions that run `manage.py demo` in a separate folder.

A setup with tables, keys, an admin user and an access token takes three seconds. The fixture `set_up_once` therefore
shares one setup between all tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment variables for a demo in `folder`, without variables of the test run and of proxies."""
    excluded = {"PORT", "INSTACCESS_DATABASE", "INSTACCESS_SETTINGS", "SQLITE_NAME"}
    inherited = {n: v for n, v in os.environ.items() if n not in excluded and not n.lower().endswith("_proxy")}
    return inherited | {"DEMO_DIR": str(folder), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | variables


def demo(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py demo` until the command ends. Returns the completed process."""
    return subprocess.run(
        [sys.executable, "manage.py", "demo", *args],
        cwd=ROOT,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def manage(*args: str, env: dict[str, str]) -> str:
    """Run a `manage.py` command, which must succeed. Returns the standard output."""
    completed = subprocess.run(
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


class SetUp:
    """A demo that was set up once: its folder and its output. Tests must not write to the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = demo(folder, "--setup-only")

    @property
    def facts(self) -> dict[str, str]:
        assert self.done.returncode == 0, self.done.stderr
        facts: dict[str, str] = json.loads(self.done.stdout)
        return facts

    def copy_to(self, folder: Path) -> Path:
        """Copy the files of the demo to a folder to which the test may write. Returns the folder."""
        assert self.done.returncode == 0, self.done.stderr
        folder.mkdir(exist_ok=True)
        for file in self.folder.iterdir():
            shutil.copy2(file, folder)
        return folder
