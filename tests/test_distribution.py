"""Tests of `make dist`: reproducible packages, their checks, the SBOM, the extras, and host projects with the wheel.

These tests download packages from the package index, and pyright from npm.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import requests

from tests.client.helpers import ACCESS_TOKEN, Site, running
from tests.service import page_examples
from tests.service.helpers import USER, good, invalid
from tests.service.page_examples import ACCOUNT, EXAMPLES
from tests.support import distribution, readme, servers
from tests.support.answers import INVALID
from tests.support.distribution import BuildError, build_packages, check_packages, install, write_sbom
from tests.support.paths import ROOT
from tests.support.tokens import TokenFactory

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
    """Install the wheel and its dependencies into a new virtual environment. Returns the path of its interpreter."""
    return install(wheel, tmp_path_factory.mktemp("host") / "venv")


@pytest.fixture(scope="module")
def host_with_extras(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with the extras for servers and clients. Returns the path of the interpreter to use."""
    return install(wheel, tmp_path_factory.mktemp("host-with-extras") / "venv", *RUNTIME_EXTRAS)


def hashes(files: tuple[Path, Path]) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}


def pip(python: Path, *arguments: str) -> str:
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_environment(**variables: str) -> dict[str, str]:
    """Return an environment without the variables through which a program could find this checkout."""
    hidden = {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "VIRTUAL_ENV", "INSTACCESS_DATABASE"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    return inherited | {"PYTHONDONTWRITEBYTECODE": "1"} | variables


def run_python(python: Path, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=servers.PATIENCE,
        check=False,
    )


class TestReproducibleBuilds:
    def test_build_in_another_folder_and_with_another_umask_creates_identical_packages(self, packages, tmp_path):
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

    def test_build_outside_a_git_clone_fails_with_an_error_that_names_the_fix(self, tmp_path, monkeypatch):
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
    def test_extras_for_servers_and_clients_install_the_packages_that_their_modules_need(
        self, host_with_extras, tmp_path
    ):
        code = f"import {', '.join(RUNTIME_EXTRAS.values())}, instaccess; print(instaccess.__file__)"
        # Set DJANGO_SETTINGS_MODULE, because django-ninja reads Django's settings when it is imported.
        settings = "django.conf.global_settings"
        done = run_python(host_with_extras, "-c", code, cwd=tmp_path, DJANGO_SETTINGS_MODULE=settings)
        assert done.stderr == ""
        assert Path(done.stdout.strip()).is_relative_to(host_with_extras.parent.parent)

    def test_newest_packages_of_all_extras_for_contributors_can_be_installed_together(self, wheel, host):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        extras = set(config["options.extras_require"]) - set(RUNTIME_EXTRAS)
        output = pip(host, "install", "--dry-run", f"{wheel}[{','.join(sorted(extras))}]")

        assert extras >= {"test", "services", "docs", "browser", "bench", "dist", "mutants"}
        assert "Would install" in output


class Service(NamedTuple):
    """A service of the documentation, and the way to start it.

    Attributes:
        files: the content of each file by file name, or the folder that contains the files.
        command: the arguments of Python that start the service, with the placeholders {host} and {port}.
        extras: true if the service needs an extra and an ASGI server, false if the service needs only the wheel.
        path: the path of a view that answers with the uuid of the user.
        answer: the response of this view to a token of `USER` in `ACCOUNT`.
        variables: the environment variables that the settings of the project need.
    """

    files: Mapping[str, str] | Path
    command: Sequence[str]
    extras: bool = False
    path: str = "/profile/"
    answer: Mapping[str, str] = MappingProxyType({"user": USER})
    variables: Mapping[str, str] = MappingProxyType({})


RUNSERVER = ("-m", "django", "runserver", "--noreload", "{host}:{port}")
WSGI_SERVER = """
from wsgiref.simple_server import make_server
from application import application
make_server("{host}", {port}, application).serve_forever()
"""
UVICORN = ("-m", "uvicorn", "--host", "{host}", "--port", "{port}")
SERVICES = {
    "any Python program": Service(page_examples.WSGI, ("-c", WSGI_SERVER)),
    "plain Django": Service(EXAMPLES["django"].files, RUNSERVER),
    "Django REST framework": Service(
        ROOT / "examples" / "service",
        RUNSERVER,
        path="/api/v1/whoami",
        answer={"user": USER, "account": ACCOUNT},
        variables={
            "SECRET_KEY": "k" * 50,
            "ALLOWED_HOSTS": servers.HOST,
            "ACCOUNT_UUID": ACCOUNT,
            "ALLOW_HTTP_URLS": "1",
        },
    ),
    "django-ninja": Service(EXAMPLES["ninja"].files, (*UVICORN, *EXAMPLES["ninja"].application), extras=True),
    "Starlette": Service(EXAMPLES["starlette"].files, (*UVICORN, *EXAMPLES["starlette"].application), extras=True),
    "FastAPI": Service(EXAMPLES["fastapi"].files, (*UVICORN, *EXAMPLES["fastapi"].application), extras=True),
}


def block_import(name: str, folder: Path) -> None:
    """Make imports of a package fail in programs that run in `folder`, as if the package weren't installed."""
    (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not installed')\n")


@pytest.fixture(scope="module")
def pythons(host: Path, host_with_extras: Path) -> dict[bool, Path]:
    """Return two interpreters: False has only the wheel, and True also has the extras and an ASGI server."""
    pip(host_with_extras, "install", "--quiet", "uvicorn")
    return {False: host, True: host_with_extras}


class TestTheServicesOfTheDocumentation:
    """Tests with real servers, in an environment that contains the wheel and no file of this checkout."""

    @pytest.fixture
    def token_factory(self, rsa_pool: Any) -> TokenFactory:
        return TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))

    @pytest.fixture(params=SERVICES)
    def service(
        self, request: pytest.FixtureRequest, pythons: dict[bool, Path], token_factory: TokenFactory, tmp_path: Path
    ) -> Iterator[Callable[[str], requests.Response]]:
        """Start a service. Yields a function that requests its view with an Authorization header."""
        service = SERVICES[request.param]
        with page_examples.running_jwks_server(token_factory) as jwks_server:
            variables = {**service.variables, "ISSUER_URL": jwks_server.base_url}
            if isinstance(service.files, Path):
                shutil.copytree(service.files, tmp_path / "project")
                variables["DJANGO_SETTINGS_MODULE"] = f"{service.files.name}_project.settings"
            else:
                (tmp_path / "project").mkdir()
                for name, code in service.files.items():
                    (tmp_path / "project" / name).write_text(page_examples.with_url(code, jwks_server))
                if "settings.py" in service.files:
                    variables["DJANGO_SETTINGS_MODULE"] = "settings"
                else:
                    block_import("rest_framework", tmp_path / "project")
            port = servers.free_port()
            process = servers.Process(
                [
                    str(pythons[service.extras]),
                    *(argument.format(host=servers.HOST, port=port) for argument in service.command),
                ],
                port=port,
                log=tmp_path / "log",
                env=clean_environment(**variables),
                cwd=tmp_path / "project",
            )
            url = f"http://{servers.HOST}:{port}{service.path}"
            try:
                yield lambda token: requests.get(url, headers={"Authorization": token}, timeout=servers.PATIENCE)
            finally:
                process.kill()

    def test_service_with_the_installed_wheel_accepts_a_valid_token_and_refuses_all_other_tokens(
        self, service, token_factory, request
    ):
        valid = good(token_factory, acct=ACCOUNT, sub=USER)
        refused = invalid(token_factory, valid, acct=ACCOUNT)

        answer = service(valid)
        refusals = [service(token) for token in refused]

        assert (answer.status_code, answer.json()) == (200, SERVICES[request.node.callspec.params["service"]].answer)
        assert [(each.status_code, each.content, each.headers.get("WWW-Authenticate")) for each in refusals] == [
            INVALID
        ] * 4

    @pytest.mark.parametrize("extras", [False, True])
    def test_environment_of_the_services_imports_the_package_from_the_wheel(self, pythons, extras, tmp_path):
        code = "import json, sys, instaccess; print(json.dumps([instaccess.__file__, sys.path[1:]]))"
        file, path = json.loads(run_python(pythons[extras], "-c", code, cwd=tmp_path).stdout)

        assert Path(file).is_relative_to(pythons[extras].parent.parent)
        assert not [each for each in path if Path(each).is_relative_to(ROOT)]


CLIENTS = {
    "requests": (False, "ada\n"),
    "token": (False, "5\n"),
    "httpx": (True, "ada ada ada ada\n"),
}
"""For each snippet of docs/client.md, whether the snippet needs the extra `httpx`, and the expected output."""


@pytest.mark.parametrize("name", CLIENTS)
class TestTheClientsOfTheDocumentation:
    """Tests of programs with the wheel but without Django, which call an issuer and a service over HTTP."""

    def run(self, name: str, pythons: dict[bool, Path], folder: Path, site: Site) -> subprocess.CompletedProcess[str]:
        snippets = readme.snippets(readme.page("client.md"))
        (folder / "example.py").write_text(snippets[list(CLIENTS).index(name)].code)
        block_import("django", folder)
        variables = {"BASE_URL": site.url, "ACCESS_TOKEN": ACCESS_TOKEN}
        return run_python(pythons[CLIENTS[name][0]], "-W", "error", "example.py", cwd=folder, **variables)

    def test_client_with_the_installed_wheel_gets_and_uses_a_token(self, name, pythons, tmp_path):
        with running(Site()) as site:
            done = self.run(name, pythons, tmp_path, site)

        assert (done.returncode, done.stdout, done.stderr) == (0, CLIENTS[name][1], "")

    def test_client_with_the_installed_wheel_reports_an_invalid_access_token(self, name, pythons, tmp_path):
        status, body, challenge = INVALID
        site = Site()
        site.refusals = [(status, body, {"WWW-Authenticate": challenge})] * 9

        with running(site):
            done = self.run(name, pythons, tmp_path, site)

        assert (done.returncode, done.stdout) == (1, "")
        assert "instaccess.client.errors.AccessTokenRefused: " in done.stderr


@pytest.fixture(scope="module")
def project(host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a host project that uses the Python API of this package.

    Install the type stubs that the developers of such a project would install: for Django, Django REST framework
    and requests.
    """
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
