"""The pairs of Python and Django that the tests run with, and the search for their interpreters.

`noxfile.py` runs the tests with each pair. CI runs `python3 -m tests.support.matrix` first. The command prints the
path of the newest required Python, and then the versions of the other installed Pythons, separated by commas.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DJANGO = {"3.11": "5.2", "3.12": "6.0", "3.13": "6.1", "3.14": "6.1"}
OLDEST = "3.11"
"""The Python version that runs the tests with the oldest allowed packages."""

EXTRAS = ("metrics", "openapi", "ninja", "starlette", "fastapi", "httpx")
"""The extras for servers and clients. The other extras are for contributors."""

OPTIONAL = {"3.14"}
"""Python versions whose session is left out if the version is missing."""


NEWEST = [version for version in DJANGO if version not in OPTIONAL][-1]
"""The Python version with which CI runs everything that needs services."""


class MissingPythonError(Exception):
    """A required Python version is not installed."""


def find_folder(version: str) -> Path | None:
    """Return the folder of a Python that starts, or None.

    A shim of pyenv, which is on PATH for each installed version, starts only if that version is selected.
    """
    name = f"python{version}"
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [Path(each, name) for each in os.environ["PATH"].split(os.pathsep)]
    candidates += [folder / name for folder in sorted(root.glob(f"versions/{version}.*/bin"), reverse=True)]
    for path in candidates:
        if shutil.which(path):
            done = subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False)
            if done.returncode == 0:
                return path.parent
    return None


def find_folders() -> dict[str, Path]:
    """Return the folder of each Python version that can run the tests.

    Raises:
        MissingPythonError: a required version is missing, because a skipped version would look like a success.
    """
    folders = {version: find_folder(version) for version in DJANGO}
    missing = [version for version in DJANGO if folders[version] is None and version not in OPTIONAL]
    if missing:
        raise MissingPythonError(
            "".join(
                f"Python {version} (with venv) is neither on PATH nor installed with pyenv.\n" for version in missing
            )
            + f"Install it, for example: pyenv install {' '.join(missing)}"
        )
    return {version: folder for version, folder in folders.items() if folder is not None}


def main() -> None:
    """Print the versions for CI. A missing version ends the process with an error message."""
    try:
        folders = find_folders()
    except MissingPythonError as error:
        sys.exit(str(error))
    others = ",".join(version for version in folders if version != NEWEST)
    sys.stdout.write(f"{folders[NEWEST] / f'python{NEWEST}'} {others}\n")


if __name__ == "__main__":
    main()
