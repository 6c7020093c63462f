"""The sessions of `make test-matrix`: the tests on SQLite, on each supported pair of Python and Django.

One session uses the oldest versions of the required packages that setup.cfg allows. The other sessions use the newest
versions. The Python versions come from PATH, or from pyenv. A missing version is an error, because a skipped session
would look like a success.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
DJANGO = {"3.11": "5.2", "3.12": "6.0", "3.13": "6.1", "3.14": "6.1"}
OLDEST = "3.11"
"""The Python version that runs the tests with the oldest allowed packages."""

OPTIONAL = {"3.14"}
"""Python versions whose session is left out if the version is missing."""

TESTS = ("pytest", "-n", "auto", "--dist", "worksteal", "-m", "not services and not postgresql")


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


def find_versions() -> list[str]:
    """Return the versions for which there is a session. nox finds these versions on PATH afterwards."""
    folders = {version: find_folder(version) for version in DJANGO}
    missing = [version for version in DJANGO if folders[version] is None and version not in OPTIONAL]
    if missing:
        sys.exit(
            "".join(
                f"Python {version} (with venv) is neither on PATH nor installed with pyenv.\n" for version in missing
            )
            + f"Install it, for example: pyenv install {' '.join(missing)}"
        )
    found = {version: folder for version, folder in folders.items() if folder is not None}
    os.environ["PATH"] = os.pathsep.join([*map(str, found.values()), os.environ["PATH"]])
    return list(found)


def requirements(section: str, key: str) -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config[section][key].split("\n")[1:]


def floor(requirement: str) -> str:
    """Return the requirement of the oldest allowed version: `jwcrypto==1.6.1` for `jwcrypto >= 1.6.1, < 2`."""
    name, _, versions = requirement.partition(">=")
    return f"{name.strip()}=={versions.partition(',')[0].strip()}"


nox.options.error_on_missing_interpreters = True
nox.options.default_venv_backend = "venv"


@nox.session(python=find_versions())
def tests(session: nox.Session) -> None:
    """Run the selection of `make test`. Arguments after `--` replace the selection."""
    version = str(session.python)
    if version == OLDEST:
        required = requirements("options", "install_requires") + requirements("options.extras_require", "metrics")
        session.install("--editable", ".[test]", *map(floor, required))
    else:
        # django-guid works with Django 6, but its metadata for Python 3.12 requires Django 5. pip can't ignore this.
        others = [
            each for each in requirements("options.extras_require", "test") if not each.startswith("django-guid")
        ]
        session.install("--editable", ".", *others, f"django=={DJANGO[version]}.*")
        session.install("--no-deps", "django-guid")
    session.run("python", "-m", "pip", "list", "--disable-pip-version-check")
    database = Path(session.create_tmp()).resolve() / "test.sqlite3"
    session.run("python", "-m", *(session.posargs or TESTS), env={"SQLITE_TEST_NAME": str(database)})
