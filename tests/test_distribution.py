"""Tests of `make dist`: reproducible packages, their checks, the SBOM, the extras, and the types for host projects.

These tests install packages from the package index, and pyright comes from npm.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import distribution
from tests.support.distribution import BuildError, build_packages, check_packages, install, write_sbom
from tests.support.paths import ROOT

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("distribution")]

RUNTIME_EXTRAS = {
    "metrics": "prometheus_client",
    "openapi": "drf_spectacular",
    "ninja": "ninja",
    "starlette": "instaccess.service.starlette",
    "fastapi": "instaccess.service.fastapi",
    "httpx": "instaccess.client.httpx_auth",
}
"""The extras for servers and clients, with a module that needs the extra. The other extras are for contributors."""

HOST_SETTINGS = """
INSTALLED_APPS += ["rest_framework", "oauth2_provider", "instaccess"]
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["instaccess.service.InstAccessAuthentication"]}
"""

HOST_CODE = '''
"""A host project that uses the Python API of the app."""

import time
from typing import assert_type

from django.contrib.auth.models import User
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from instaccess import audit, exceptions, issuer, keys, service, warmup
from instaccess.models import IssuedToken
from instaccess.service import InstAccessAuthentication
from instaccess.tokens import Claims


class CourseView(APIView):
    authentication_classes = [InstAccessAuthentication]

    def get(self, request: Request) -> Response:
        claims: object = request.auth
        if isinstance(claims, Claims):
            assert_type(claims.user_uuid, str)
        return Response()


def issue_for(user: User) -> str:
    origin = issuer.Origin(canvas_domain="canvas.example.edu")
    row, token = issuer.issue(user=user, origin=origin, now=time.time())
    assert_type(token, str)
    assert_type(row, IssuedToken)
    return token


def describe(error: exceptions.InstAccessError) -> str:
    return str(error.code)


assert_type(warmup.warm_up(), None)
NAMES = (audit.revoke, keys.keks_for_revocation, service.TokenUser)
'''

WRONG_CODE = """
from instaccess import issuer

issuer.Origin(canvas_domain=7)
"""


def clone(folder: Path) -> Path:
    """Clone the last commit of this checkout into a folder."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("packages")
    return build_packages(clone(folder / "clone"), folder)


@pytest.fixture(scope="module")
def wheel(packages: tuple[Path, Path]) -> Path:
    return packages[1]


@pytest.fixture(scope="module")
def host(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and its dependencies into a new virtual environment. Returns its Python."""
    return install(wheel, tmp_path_factory.mktemp("host") / "venv")


def hashes(files: tuple[Path, Path]) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}


def pip(python: Path, *arguments: str) -> str:
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestReproducibleBuilds:
    def test_second_build_in_another_folder_and_with_another_umask_returns_the_same_bytes(self, packages, tmp_path):
        tree = clone(tmp_path / "another folder" / "clone")
        for path in tree.rglob("*.py"):
            os.utime(path, (1_000_000_000, 1_000_000_000))
        umask = os.umask(0o077)
        try:
            again = build_packages(tree, tmp_path)
        finally:
            os.umask(umask)

        assert [path.name for path in again] == [path.name for path in packages]
        assert [path.read_bytes() == old.read_bytes() for path, old in zip(again, packages, strict=True)] == [
            True,
            True,
        ]

    def test_build_without_a_commit_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

        with pytest.raises(BuildError, match="Run this command in a clone"):
            build_packages(tmp_path, tmp_path)


class TestTheChecksOfThePackages:
    def test_twine_pyroma_and_check_wheel_contents_find_no_problem(self, packages):
        check_packages(*packages)

    def test_wheel_with_files_outside_the_package_is_refused(self, packages, tmp_path):
        sdist, wheel = packages
        broken = tmp_path / wheel.name
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(broken, "w") as new:
            new.writestr("tests/__init__.py", "")
            for name in old.namelist():
                listed = b"tests/__init__.py,,\n" if name.endswith(".dist-info/RECORD") else b""
                new.writestr(name, old.read(name) + listed)

        with pytest.raises(BuildError, match="tests"):
            check_packages(sdist, broken)


class TestTheSoftwareBillOfMaterials:
    def test_sbom_describes_the_wheel_and_lists_every_installed_dependency(self, wheel, host):
        document = json.loads(write_sbom(wheel, host).read_text())
        # The host's Python has no pip, and contains only the wheel and the packages that the wheel requires.
        installed = {package["name"].lower() for package in json.loads(pip(host, "list", "--format", "json"))}

        subject = document["metadata"]["component"]
        assert subject["name"] == distribution.NAME
        assert subject["hashes"] == [{"alg": "SHA-256", "content": sha256(wheel.read_bytes()).hexdigest()}]
        assert {each["name"].lower() for each in document["components"]} | {distribution.NAME} == installed
        assert {"django", "jwcrypto", "cryptography", "requests"} <= installed
        assert "pytest" not in installed

    def test_sbom_contains_no_path_of_the_machine_that_built_the_wheel(self, wheel, host):
        text = write_sbom(wheel, host).read_text()

        assert "file://" not in text
        assert str(host.parent) not in text


class TestTheExtras:
    def test_extras_for_servers_and_clients_install_the_packages_that_their_modules_need(self, wheel, tmp_path):
        python = install(wheel, tmp_path / "venv")
        pip(python, "install", "--quiet", f"{wheel}[{','.join(RUNTIME_EXTRAS)}]")

        code = f"import {', '.join(RUNTIME_EXTRAS.values())}, instaccess; print(instaccess.__file__)"
        # django-ninja reads Django's settings when it is imported.
        environment = os.environ | {"DJANGO_SETTINGS_MODULE": "django.conf.global_settings"}
        done = subprocess.run(
            [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert Path(done.stdout.strip()).is_relative_to(tmp_path)

    def test_newest_packages_of_all_other_extras_can_be_installed_together(self, wheel, host):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        extras = set(config["options.extras_require"]) - set(RUNTIME_EXTRAS)
        output = pip(host, "install", "--dry-run", f"{wheel}[{','.join(sorted(extras))}]")

        assert extras >= {"test", "services", "docs", "browser", "bench", "dist", "mutants"}
        assert "Would install" in output


@pytest.fixture(scope="module")
def project(host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a host project that uses the API, with the stubs of Django that its developers would install."""
    pip(host, "install", "--quiet", "django-stubs", "djangorestframework-stubs", "types-requests")
    folder = tmp_path_factory.mktemp("project")
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    create = (host, "-m", "django", "startproject", "host", folder)
    subprocess.run(create, cwd=folder, env=environment, check=True)
    with (folder / "host" / "settings.py").open("a") as file:
        file.write(HOST_SETTINGS)
    (folder / "host" / "api.py").write_text(HOST_CODE)
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    return folder


class TestTheTypesInAHostProject:
    def mypy(self, project, host, name):
        command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", host, "--config-file", "", name)
        return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False).stdout

    def pyright(self, project, host, name):
        command = (sys.executable, "-m", "pyright", "--pythonpath", host, name)
        return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False).stdout

    def test_strict_mypy_accepts_the_project(self, project, host):
        assert "Success: no issues found" in self.mypy(project, host, "host/api.py")

    def test_strict_pyright_accepts_the_project(self, project, host):
        assert "0 errors, 0 warnings" in self.pyright(project, host, "host/api.py")

    @pytest.mark.parametrize("checker", ["mypy", "pyright"])
    def test_type_checker_reports_a_value_of_the_wrong_type(self, project, host, checker):
        (project / "host" / "wrong.py").write_text(WRONG_CODE)

        output = getattr(self, checker)(project, host, "host/wrong.py")

        assert "canvas_domain" in output
        assert "error" in output
