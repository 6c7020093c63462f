"""Tests of the wheel: its files, and a new project that follows docs/installation.md and issues a token."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support import readme
from tests.support.paths import ROOT

INSTALLATION = readme.section("Installation", readme.page("installation.md"))
SHIPPED = {".py", ".typed", ".html", ".txt", ".po", ".mo", ".css", ".js"}

# These settings are needed because docs/installation.md assumes a project with DRF and django-oauth-toolkit.
HOST_SETTINGS = """
INSTALLED_APPS += ["rest_framework", "oauth2_provider"]
OAUTH2_PROVIDER = {"SCOPES": {"read": "Read"}, "DEFAULT_SCOPES": ["read"]}
"""
HOST_URLS = """
from django.urls import include

urlpatterns += [path("o/", include("oauth2_provider.urls"))]
"""

A_CLIENT = """
import datetime, json, pathlib
import instaccess
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone
from instaccess.models import IssuedToken
from oauth2_provider.models import AccessToken, Application

user = get_user_model().objects.create_user("ada")
application = Application.objects.create(
    name="tool", client_type="confidential", authorization_grant_type="authorization-code",
    redirect_uris="https://tool.example/",
)
AccessToken.objects.create(
    user=user, application=application, token="secret", scope="url:POST|/api/v1/inst_access_tokens",
    expires=timezone.now() + datetime.timedelta(hours=1),
)
answer = Client(SERVER_NAME="localhost").post(
    "/api/v1/inst_access_tokens", headers={"Authorization": "Bearer secret"}
)
print(json.dumps({
    "status": answer.status_code,
    "body": answer.json(),
    "rows": IssuedToken.objects.filter(user=user, application=application).count(),
    "instaccess": str(pathlib.Path(instaccess.__file__).parent),
}))
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command without the environment variables of this checkout, and return its output."""
    hidden = {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "VIRTUAL_ENV", "INSTACCESS_DATABASE"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, cwd=cwd, env=inherited | variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout without build results. A build in the copy doesn't change the checkout."""
    ignored = (".*", "build", "dist", "*.egg-info", "__pycache__", "demo.sqlite3*", "demo.admin-password")
    return Path(
        shutil.copytree(ROOT, tmp_path_factory.mktemp("tree") / "checkout", ignore=shutil.ignore_patterns(*ignored))
    )


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=tree)
    [wheel] = (tree / "dist").glob("*.whl")
    return wheel


class TestTheWheel:
    def test_wheel_contains_exactly_the_files_of_the_package(self, tree, wheel):
        files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

        in_tree = {
            path.relative_to(tree).as_posix()
            for path in (tree / "instaccess").rglob("*")
            if path.suffix in SHIPPED or path.name == "py.typed"
        }
        assert files == in_tree

    def test_wheel_includes_every_type_of_file_in_the_package(self, tree):
        suffixes = {path.suffix or path.name for path in (tree / "instaccess").rglob("*") if path.is_file()}

        assert suffixes <= SHIPPED

    @pytest.mark.parametrize(
        "name",
        [
            "instaccess/py.typed",
            "instaccess/migrations/0001_initial.py",
            "instaccess/management/commands/instaccess_init.py",
        ],
    )
    def test_wheel_contains_the_type_marker_the_migrations_and_the_commands(self, wheel, name):
        assert name in zipfile.ZipFile(wheel).namelist()

    def test_metadata_of_the_wheel_contains_the_name_the_licence_and_the_readme(self, wheel):
        archive = zipfile.ZipFile(wheel)
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()

        assert "Name: django-instaccess\n" in metadata
        assert "Requires-Python: >=3.11\n" in metadata
        assert "License-File: LICENSE\n" in metadata
        assert metadata.endswith(readme.TEXT)


class TestTheSourceDistribution:
    def test_source_distribution_contains_all_tracked_files(self, tree):
        run(sys.executable, "-m", "build", "--sdist", "--no-isolation", cwd=tree)
        [sdist] = (tree / "dist").glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archived = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

        assert {name for name in tracked.split() if not name.startswith(".")} <= archived
        assert not {name for name in archived if name.startswith((".", "build/", "dist/")) or name.endswith(".pyc")}


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a virtual environment that finds the dependencies and pip through a .pth file, and return its folder.

    This test doesn't use the network, and installing pip takes six seconds. A .pth file only adds its paths to
    sys.path. Python doesn't read .pth files in these paths, so the editable install of this checkout is not visible.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder


class TestInstallationOfTheWheel:
    def test_new_project_issues_a_token_after_the_documented_steps(self, tmp_path, venv, wheel):
        python = str(venv / "bin" / "python")
        activated = {
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheel.parent),
            "PIP_NO_DEPS": "1",
            "PIP_IGNORE_INSTALLED": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        run(python, "-m", "django", "startproject", "host", ".", cwd=tmp_path)
        append(tmp_path / "host" / "settings.py", HOST_SETTINGS)
        append(tmp_path / "host" / "urls.py", HOST_URLS)

        install, settings, urls, commands, _ = readme.snippets(INSTALLATION)
        run("sh", "-e", "-c", install.code, cwd=tmp_path, **activated)
        append(tmp_path / "host" / "settings.py", settings.code)
        append(tmp_path / "host" / "urls.py", urls.code)
        output = run("sh", "-e", "-c", commands.code, cwd=tmp_path, **activated)

        assert "Generated the current signing key" in output
        assert "System check identified no issues (0 silenced)." in output
        answer = json.loads(run(python, "manage.py", "shell", "-v", "0", "-c", A_CLIENT, cwd=tmp_path))
        assert answer["status"] == 201
        assert answer["body"]["token"].count(".") == 4
        assert answer["rows"] == 1
        assert Path(answer["instaccess"]).is_relative_to(venv)

    def test_documented_installation_needs_two_lines_of_settings_and_one_line_of_urls(self):
        settings, urls = (snippet.lines for snippet in readme.snippets(INSTALLATION) if snippet.language == "python")

        assert len(settings) == 2
        assert [line for line in urls if line and "import " not in line] == [urls[-1]]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write("\n" + text)
