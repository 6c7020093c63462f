"""`manage.py demo` in a folder of its own. To make tables, keys, an admin and an access token takes it three seconds:
once for all who need a project that has them (the fixture `set_up_once`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def environment(folder: Path, **variables: str) -> dict[str, str]:
    ours = {"PORT", "INSTACCESS_DATABASE", "INSTACCESS_SETTINGS", "SQLITE_NAME"}
    inherited = {n: v for n, v in os.environ.items() if n not in ours and not n.lower().endswith("_proxy")}
    return inherited | {"DEMO_DIR": str(folder), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | variables


def demo(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "demo", *args],
        cwd=ROOT,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class SetUp:
    """Where the demo was set up, and what it said. Not to be written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = demo(folder, "--setup-only")

    @property
    def facts(self) -> dict[str, str]:
        assert self.done.returncode == 0, self.done.stderr
        facts: dict[str, str] = json.loads(self.done.stdout)
        return facts

    def copy_to(self, folder: Path) -> Path:
        """The same in a folder that is the caller's own; it may be there already."""
        assert self.done.returncode == 0, self.done.stderr
        folder.mkdir(exist_ok=True)
        for file in self.folder.iterdir():
            shutil.copy2(file, folder)
        return folder
