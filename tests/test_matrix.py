"""Tests of `make test-matrix`: the Python versions of its runs, and the versions that the metadata promises."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.matrix import DJANGO, EXTRAS, OLDEST, OPTIONAL
from tests.support.paths import ROOT
from tests.test_distribution import RUNTIME_EXTRAS

NOXFILE = ROOT / "noxfile.py"
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")


def read_selection() -> Any:
    """Return the constant TESTS of noxfile.py. Reads the source code, because an import of the file needs nox."""
    for node in ast.parse(NOXFILE.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TESTS":
            return ast.literal_eval(node.value)
    raise AssertionError("noxfile.py doesn't assign TESTS")


def classified(prefix: str) -> set[str]:
    lines = CONFIG["metadata"]["classifiers"].split("\n")
    return {line.removeprefix(prefix) for line in lines if re.fullmatch(re.escape(prefix) + r"\d+\.\d+", line)}


class TestTheVersionsInTheMetadata:
    def test_classifiers_name_exactly_the_required_versions_of_the_matrix(self):
        pairs = {python: django for python, django in DJANGO.items() if python not in OPTIONAL}

        assert classified("Programming Language :: Python :: ") == set(pairs)
        assert classified("Framework :: Django :: ") == set(pairs.values())

    def test_oldest_python_and_django_of_the_matrix_are_the_oldest_allowed_versions(self):
        required = CONFIG["options"]["install_requires"].split("\n")

        assert CONFIG["options"]["python_requires"] == f">={OLDEST}"
        [django] = [line for line in required if line.startswith("django >= ")]
        assert re.match(rf"django >= {re.escape(DJANGO[OLDEST])}(?:\.\d+)?(?:,|$)", django)

    def test_matrix_selects_the_same_tests_as_make_test(self):
        makefile = (ROOT / "Makefile").read_text()
        [selection] = re.findall(r'^test: .*\n\t\$\(PYTEST\) -m "(.+)"$', makefile, re.MULTILINE)

        assert read_selection() == ("pytest", "-n", "auto", "--dist", "worksteal", "-m", selection)

    def test_every_package_for_users_has_an_oldest_allowed_version(self):
        texts = [CONFIG["options"]["install_requires"], *(CONFIG["options.extras_require"][each] for each in EXTRAS)]
        required = [line for text in texts for line in text.strip().split("\n")]

        assert [
            line for line in required if not re.fullmatch(r"[a-z0-9_-]+ >= [\d.]+(, < \d+|(, != [\d.]+)+)?", line)
        ] == []

    def test_matrix_runs_the_tests_with_the_oldest_packages_of_every_extra_for_users(self):
        assert set(EXTRAS) == set(RUNTIME_EXTRAS)

    def test_build_requires_the_same_setuptools_in_the_metadata_and_for_the_tests(self):
        [build] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]

        assert f"setuptools >= {build.partition('>=')[2]}" in CONFIG["options.extras_require"]["test"].split("\n")


def install_with_pyenv(home: Path, *versions: str) -> dict[str, str]:
    """Create fake interpreters in the folders of pyenv. Returns variables that hide all other interpreters."""
    for version in versions:
        folder = home / ".pyenv" / "versions" / f"{version}.0" / "bin"
        folder.mkdir(parents=True)
        (folder / f"python{version}").symlink_to(shutil.which("true") or "/bin/true")
    (home / "empty").mkdir()
    return {"PATH": str(home / "empty"), "HOME": str(home)}


class TestTheVersionsOfTheContinuousIntegration:
    """Tests of the versions that `.ci/run` uses."""

    def find_versions(self, home: Path, *versions: str) -> subprocess.CompletedProcess[str]:
        environment = install_with_pyenv(home, *versions)
        command = [sys.executable, "-m", "tests.support.matrix"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def test_newest_required_python_runs_everything_and_the_other_versions_run_on_sqlite(self, tmp_path):
        done = self.find_versions(tmp_path, "3.11", "3.12", "3.13", "3.14")

        newest = tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin" / "python3.13"
        assert done.stdout == f"{newest} 3.11,3.12,3.14\n"

    def test_continuous_integration_fails_if_a_required_python_is_missing(self, tmp_path):
        done = self.find_versions(tmp_path, "3.11", "3.12")

        assert done.returncode != 0
        assert done.stdout == ""
        assert "Python 3.13 (with venv) is neither on PATH nor installed with pyenv." in done.stderr

    def test_continuous_integration_runs_all_tests_on_the_newest_python_and_the_matrix_on_other_versions(self):
        lines = (ROOT / ".ci" / "run").read_text().splitlines()
        commands = [line for line in lines if not line.startswith("#")]

        assert {"versions=$(python3 -m tests.support.matrix)", "export PYTHON", "make test"} <= set(commands)
        assert [line for line in commands if line.startswith("make test-services ")]
        assert [line for line in commands if re.match(r"NOXPYTHON=\$others .*make test-matrix ", line)]


@pytest.mark.services
class TestTheSessionsOfTheMatrix:
    """Tests of the sessions of nox. The tests need nox, which `make test` doesn't install."""

    def list_sessions(self, home: Path, *versions: str) -> subprocess.CompletedProcess[str]:
        environment = install_with_pyenv(home, *versions)
        command = [sys.executable, "-m", "nox", "--noxfile", NOXFILE, "--list"]
        return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)

    def test_each_installed_python_version_has_a_session(self, tmp_path):
        done = self.list_sessions(tmp_path, "3.11", "3.12", "3.13", "3.14")

        assert re.findall(r"tests-([\d.]+)", done.stdout) == ["3.11", "3.12", "3.13", "3.14"]

    def test_matrix_without_python_3_14_leaves_out_the_session_of_python_3_14(self, tmp_path):
        done = self.list_sessions(tmp_path, "3.11", "3.12", "3.13")

        assert done.returncode == 0
        assert re.findall(r"tests-([\d.]+)", done.stdout) == ["3.11", "3.12", "3.13"]

    def test_missing_python_version_fails_and_names_the_command_that_installs_the_version(self, tmp_path):
        done = self.list_sessions(tmp_path, "3.11")

        assert done.returncode != 0
        assert "Python 3.12 (with venv) is neither on PATH nor installed with pyenv." in done.stderr
        assert "pyenv install 3.12 3.13" in done.stderr
