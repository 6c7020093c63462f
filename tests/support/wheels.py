"""Functions that build the wheel of this checkout, and install the wheel without a network."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

_IGNORED = (".*", "build", "dist", "*.egg-info", "__pycache__", "demo.sqlite3*", "demo.admin-password")


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout. The build runs in a copy in `folder`, and doesn't change the checkout."""
    copy = Path(shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*_IGNORED)))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist")]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=300)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


def offline_installation(wheel: Path) -> dict[str, str]:
    """Return environment variables with which `pip install django-instaccess` installs only the wheel.

    The dependencies are the packages of this Python environment. Python doesn't read the .pth files in the folders of
    PYTHONPATH, so the editable installation of this checkout is not visible.
    """
    return {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": ":".join(site.getsitepackages()),
    }
