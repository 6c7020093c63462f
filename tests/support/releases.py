"""Functions that create a second release of the app, and run `manage.py` commands of this release.

The commands run on the test database, which this process also uses.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import processes
from tests.support.paths import ROOT

_ADDED_COLUMNS = """

for _name, _model in list(globals().items()):
    if isinstance(_model, type) and issubclass(_model, models.Model) and _model.__module__ == __name__:
        if not _model._meta.abstract:
            _model.add_to_class("added_later", models.CharField(max_length=20, db_default="default", editable=False))
"""


class Release:
    """A release of the app in a separate folder.

    Args:
        folder: the folder that contains the package `instaccess`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_line(self, line: str) -> str:
        """Run a documented line such as `NAME=value python manage.py check`, and return its output."""
        words = shlex.split(line)
        start = words.index("python")
        assert words[start + 1] == "manage.py"
        variables = dict(word.split("=", 1) for word in words[:start])
        return self.manage(*words[start + 2 :], **variables)

    def manage(self, *arguments: str, **variables: str) -> str:
        """Run a `manage.py` command, which must succeed, and return its output.

        Keyword arguments are environment variables.
        """
        completed = self.run(*arguments, **variables)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a `manage.py` command of this release on the test database, and return the ended process."""
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        settings = {"DJANGO_SETTINGS_MODULE": "testproject.settings", "PYTHONPATH": path}
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=self.folder,
            env=processes.environment() | settings | variables,
            capture_output=True,
            text=True,
            timeout=processes.PATIENCE,
            check=False,
        )


def next_release(folder: Path) -> Release:
    """Create and return a release that adds a column with a database default to every table of this release."""
    shutil.copytree(ROOT / "instaccess", folder / "instaccess", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "instaccess" / "models.py").open("a") as models:
        models.write(_ADDED_COLUMNS)
    release = Release(folder)
    assert release.manage("shell", "--no-imports", "-c", "import instaccess; print(instaccess.__file__)").startswith(
        str(folder)
    )
    release.manage("makemigrations", "instaccess", "--name", "added_later")
    return release
