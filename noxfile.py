"""The sessions of `make test-matrix`: the tests on SQLite, on each supported pair of Python and Django.

One session installs the oldest versions that setup.cfg allows for the required packages and for the extras for users.
The other sessions install the newest versions. `tests/support/matrix.py` contains the pairs, and finds the Python
versions on PATH or under pyenv.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
# `make test-matrix` starts nox in this folder, but nox also accepts the path of this file.
sys.path.insert(0, str(ROOT))

from tests.support import matrix

TESTS = ("pytest", "-n", "auto", "--dist", "worksteal", "-m", "not services and not postgresql")


def find_versions() -> list[str]:
    """Return the Python versions for which there is a session. Adds their folders to PATH, so that nox finds them."""
    try:
        folders = matrix.find_folders()
    except matrix.MissingPythonError as error:
        sys.exit(str(error))
    os.environ["PATH"] = os.pathsep.join([*map(str, folders.values()), os.environ["PATH"]])
    return list(folders)


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
    """Run the same tests as `make test`. Arguments after `--` replace the pytest command."""
    version = str(session.python)
    if version == matrix.OLDEST:
        required = requirements("options", "install_requires")
        for extra in matrix.EXTRAS:
            required += requirements("options.extras_require", extra)
        session.install("--editable", ".[test]", *map(floor, required))
    else:
        # django-guid works with Django 6, but its metadata for Python 3.12 requires Django 5. pip can't ignore this
        # requirement.
        others = [
            each for each in requirements("options.extras_require", "test") if not each.startswith("django-guid")
        ]
        session.install("--editable", ".", *others, f"django=={matrix.DJANGO[version]}.*")
        session.install("--no-deps", "django-guid")
    session.run("python", "-m", "pip", "list", "--disable-pip-version-check")
    database = Path(session.create_tmp()).resolve() / "test.sqlite3"
    session.run("python", "-m", *(session.posargs or TESTS), env={"SQLITE_TEST_NAME": str(database)})
