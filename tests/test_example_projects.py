"""Tests that run the projects in examples/gateway and examples/service, and projects made by `startproject`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support import readme, servers
from tests.support.demos import SetUp, manage
from tests.support.demos import environment as demo_environment
from tests.support.nodes import call
from tests.support.paths import ROOT
from tests.support.proxies import Answer

SECRET = "0123456789abcdef0123456789abcdef"
ACCOUNT = "0c1b3e1c-2f0e-4c5b-9a51-6f3d1f6f2a10"
VERIFY, WHOAMI = "/internal/gateway/verify", "/api/v1/whoami"
EXAMPLES = ["gateway", "service"]


def environment(**variables: str) -> dict[str, str]:
    """Return an environment without the settings of the test run, in which the package can be imported."""
    hidden = {"DJANGO_SETTINGS_MODULE", "INSTACCESS_DATABASE"}
    inherited = {name: value for name, value in demo_environment(Path()).items() if name not in hidden}
    return inherited | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | variables


def ask(process: servers.Process, path: str, token: str | None = None) -> Answer:
    """Send a request to an example project. Repeat the request while the response is a 503. Returns the response.

    The first request fetches the keys and the deny list from the issuer, and a readiness probe runs all checks. On a
    busy machine, both can exceed their time limits.
    """
    return servers.wait_until(lambda: call(process.port, "GET", path, token), lambda answer: answer.status != 503)


def run(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )


class Deployment:
    """An issuer, and copies of the two example projects with the environment that their READMEs describe."""

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        self._folder, self._issuer_folder = folder, set_up.copy_to(folder / "issuer")
        self._processes: list[servers.Process] = []
        self.access_token = set_up.facts["access_token"]
        settings = {"SERVICE_SECRETS": [SECRET], "ACCOUNT_UUID": ACCOUNT}
        env = demo_environment(self._issuer_folder, INSTACCESS_SETTINGS=json.dumps(settings))
        self.issuer = self._start("issuer", ["testproject.wsgi"], ROOT, env)
        common = {
            "SECRET_KEY": "d" * 25 + "0123456789abcdefghijklmnop",
            "ALLOWED_HOSTS": servers.HOST,
            "ISSUER_URL": f"http://{servers.HOST}:{self.issuer.port}",
            "ALLOW_HTTP_URLS": "1",
        }
        self.env = {
            "gateway": environment(DECRYPTION_KEYS=self._export_key(env), SERVICE_SECRET=SECRET, **common),
            "service": environment(ACCOUNT_UUID=ACCOUNT, **common),
        }
        for name in EXAMPLES:
            shutil.copytree(ROOT / "examples" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.gateway, self.service = (self.start_example(name) for name in EXAMPLES)

    def _export_key(self, env: dict[str, str]) -> str:
        keys = json.loads(manage("instaccess_keys", "list", "--json", env=env))
        [kid] = [key["kid"] for key in keys if key["use"] == "enc"]
        path = self._folder / "gateway.pem"
        path.write_text(manage("instaccess_keys", "export", "--kid", kid, "--private", "--yes", env=env))
        return str(path)

    def _start(self, name: str, arguments: list[str], cwd: Path, env: dict[str, str]) -> servers.Process:
        port = servers.free_port()
        command = [sys.executable, "-m", "gunicorn", *arguments, "--bind", f"{servers.HOST}:{port}"]
        process = servers.Process(command, port=port, log=self._folder / f"{name}.log", env=env, cwd=cwd)
        self._processes.append(process)
        return process

    def start_example(self, name: str) -> servers.Process:
        """Start an example with the command of its README, on a free port."""
        [_, [program, *arguments]] = [shlex.split(line) for line in commands(name)]
        assert program == "gunicorn"
        del arguments[arguments.index("--bind") : arguments.index("--bind") + 2]
        return self._start(name, arguments, self._folder / name, self.env[name])

    def check(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the check command in the README of an example, with an added option so that warnings are failures."""
        [[program, *arguments], _] = [shlex.split(line) for line in commands(name)]
        assert program == "python"
        env = self.env[name] | variables
        return run(*arguments, "--fail-level", "WARNING", cwd=self._folder / name, env=env)

    def close(self) -> None:
        for process in self._processes:
            process.kill()


def commands(name: str) -> list[str]:
    """Return the lines of the shell snippet in the README of an example."""
    [snippet] = readme.snippets((ROOT / "examples" / name / "README.md").read_text())
    return snippet.lines


@pytest.fixture(scope="module")
def deployment(set_up_once: SetUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("deployment"), set_up_once)
    yield deployment
    deployment.close()


@pytest.mark.services
class TestTheExampleProjects:
    @pytest.mark.parametrize("name", EXAMPLES)
    def test_documented_check_of_an_example_project_reports_nothing(self, deployment, name):
        # Use an https URL as in production, because the check would report the http URL of this test's issuer.
        done = deployment.check(name, ISSUER_URL="https://canvas.internal", ALLOW_HTTP_URLS="")

        assert (done.returncode, done.stdout) == (0, "System check identified no issues (4 silenced).\n"), done.stderr

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_readme_of_an_example_project_lists_each_variable_of_the_environment(self, name):
        folder = ROOT / "examples" / name
        [rows] = readme.tables((folder / "README.md").read_text())
        settings = (folder / f"{name}_project/settings.py").read_text()

        assert {readme.code(row[0])[0] for row in rows} == set(re.findall(r'environ(?:\[|\.get\()"(\w+)"', settings))

    def test_real_token_passes_the_example_gateway_and_the_example_service(self, deployment):
        issued = call(deployment.issuer.port, "POST", "/api/v1/inst_access_tokens", deployment.access_token)

        decided = ask(deployment.gateway, VERIFY, issued.json["token"])
        signed = decided.headers["Authorization"].removeprefix("Bearer ")
        answer = ask(deployment.service, WHOAMI, signed)

        assert (issued.status, decided.status, answer.status) == (201, 204, 200)
        assert answer.json["account"] == ACCOUNT

    def test_c17_request_without_a_token_gets_a_401_from_both_example_projects(self, deployment):
        answers = [call(deployment.gateway.port, "GET", VERIFY), call(deployment.service.port, "GET", WHOAMI)]

        assert [(answer.status, answer.headers["WWW-Authenticate"]) for answer in answers] == [
            (401, 'Bearer realm="canvas-lms"')
        ] * 2

    def test_example_projects_answer_the_probes_of_load_balancers(self, deployment):
        processes = {"gateway": deployment.gateway, "service": deployment.service}

        for role, process in processes.items():
            assert ask(process, f"/internal/health/ready?role={role}").status == 200

    def test_example_gateway_logs_the_reason_of_a_refusal_and_no_token(self, deployment):
        assert call(deployment.gateway.port, "GET", VERIFY, "a.b.c.d.secret-of-the-client").status == 401

        log = deployment.gateway.log.read_text()
        assert re.search(r"WARNING instaccess\S* refused reason=\w+|INFO instaccess\S* refused reason=\w+", log)
        assert "secret-of-the-client" not in log

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_error_names_a_missing_environment_variable_of_an_example_project(self, deployment, name):
        env = {key: value for key, value in deployment.env[name].items() if key != "ISSUER_URL"}
        done = run("manage.py", "check", cwd=deployment._folder / name, env=env)

        assert "KeyError: 'ISSUER_URL'" in done.stderr


_ASK = """
import json, sys
from django.core.wsgi import get_wsgi_application
from django.test import Client
get_wsgi_application()
answer = Client(SERVER_NAME="localhost", raise_request_exception=False).get(sys.argv[1])
print(json.dumps(answer.status_code))
"""
_VIEW = """
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
class WhoAmI(APIView):
    permission_classes = [IsAuthenticated]
    def get(self, request): return Response({"user": request.auth.user_uuid})
"""


class StartedProject:
    """A project made by `startproject`, with the apps and the URLs that the table of roles lists for a role.

    Args:
        assign: how the settings list the apps of the role: "+=" keeps the apps of `startproject`, "=" replaces them.
    """

    def __init__(self, folder: Path, role: str, assign: str) -> None:
        self._folder, self._role = folder, role
        assert run("-m", "django", "startproject", "project", ".", cwd=folder, env=environment()).returncode == 0
        key = rsa.generate_private_key(65537, 2048)
        (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "public.pem").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        apps, includes = self._role_row()
        settings = {"VERIFICATION_KEYS": [str(folder / "public.pem")]}
        if role == "gateway":
            url = "https://canvas.example.edu/internal/services/revocations"
            settings |= {"DECRYPTION_KEYS": [str(folder / "key.pem")], "DENY_LIST": url, "SERVICE_SECRETS": [SECRET]}
        self.add_settings(f"INSTALLED_APPS {assign} {apps!r}\nINSTACCESS = {settings!r}\n")
        if role == "service":
            classes = ["instaccess.service.InstAccessAuthentication"]
            self.add_settings(f"REST_FRAMEWORK = {{'DEFAULT_AUTHENTICATION_CLASSES': {classes}}}\n")
        # Replace the URLs of `startproject`, because the URLs of the admin fail if the admin's app isn't installed.
        head = "from django.urls import include, path\n" + _VIEW * (role == "service")
        lines = [f'    path("", include("{name}")),' for name in includes]
        lines += [f'    path("{WHOAMI[1:]}", WhoAmI.as_view()),'] * (role == "service")
        (folder / "project/urls.py").write_text(head + "\nurlpatterns = [\n" + "\n".join(lines) + "\n]\n")

    def _role_row(self) -> tuple[list[str], list[str]]:
        """Return the apps and the included URLconfs that the table of roles lists for the role."""
        table = readme.tables(readme.section("Choose the roles", readme.page("installation.md")))[0]
        [row] = [row for row in table if row[0] == self._role]
        return readme.code(row[1]), re.findall(r'`include\("([\w.]+)"\)`', row[3])

    def add_settings(self, text: str) -> None:
        with (self._folder / "project/settings.py").open("a") as stream:
            stream.write(text)

    def check(self) -> set[str]:
        """Return the ids of the errors that `manage.py check` reports."""
        done = run("manage.py", "check", cwd=self._folder, env=environment())
        return set(re.findall(r"instaccess\.E\d+", done.stderr))

    def ask(self) -> tuple[int | None, str]:
        """Start the project as a WSGI server does, and send a request without a token.

        Returns the status, or None if the project doesn't start, and the error output.
        """
        path = VERIFY if self._role == "gateway" else WHOAMI
        env = environment(DJANGO_SETTINGS_MODULE="project.settings")
        done = run("-c", _ASK, path, cwd=self._folder, env=env | {"PYTHONPATH": os.pathsep.join([".", str(ROOT)])})
        return (json.loads(done.stdout) if done.returncode == 0 else None), done.stderr


@pytest.mark.parametrize("role", EXAMPLES)
class TestAProjectMadeByStartproject:
    def test_c17_project_that_adds_the_apps_of_a_role_starts_and_answers_401_without_a_token(self, role, tmp_path):
        project = StartedProject(tmp_path, role, "+=")

        assert project.check() == set()
        assert project.ask()[0] == 401

    def test_c17_check_names_settings_to_change_in_a_project_that_has_only_the_apps_of_a_role(self, role, tmp_path):
        project = StartedProject(tmp_path, role, "=")
        expected = {"gateway": {"instaccess.E063"}, "service": {"instaccess.E061", "instaccess.E063"}}

        before, started = project.check(), project.ask()
        project.add_settings('MIDDLEWARE = [each for each in MIDDLEWARE if ".auth." not in each]\n')
        if role == "service":
            project.add_settings('REST_FRAMEWORK["UNAUTHENTICATED_USER"] = None\n')

        assert (before, started[0]) == (expected[role], None)
        assert (project.check(), project.ask()[0]) == (set(), 401)
