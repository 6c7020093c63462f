"""A test that follows docs/tutorial.md from an empty folder, with the built wheel, a real nginx and real servers."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import answers, readme, servers, wheels
from tests.support.paths import ROOT

PAGE = readme.page("tutorial.md")
BLOCKS = readme.blocks(PAGE)
NGINX_FOLDER = "/tmp/instaccess-nginx"
INVALID = answers.INVALID[1].decode()
HIDDEN = {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "VIRTUAL_ENV", "INSTACCESS_DATABASE", "PYTHONDONTWRITEBYTECODE"}


class Result(NamedTuple):
    """The result of the tutorial: the output of each block in the first terminal, and the log of the project."""

    outputs: list[str]
    log: str
    package: Path


def replace_ports(text: str, ports: dict[str, int]) -> str:
    for port, free in ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
    return text


def script(folder: Path, ports: dict[str, int]) -> str:
    """Return a script that does what the tutorial says, in the order of the page.

    The script runs each server in the background, and waits until the server accepts connections. A line with a NUL
    character separates the outputs of the blocks. Free ports replace the ports of the tutorial.
    """
    lines = ["set -e", f"trap 'kill $(jobs -p)' EXIT; cd {shlex.quote(str(folder))}"]
    for action, target, documented in BLOCKS:
        code = replace_ports(documented, ports).replace(NGINX_FOLDER, str(folder / "nginx"))
        if action == "run":
            lines += [code, r"printf '\0'"]
        elif action == "serve":
            # The server is the last line. `exec` lets the script end the server and not only the shell.
            *before, command = code.strip().splitlines()
            started = "\n".join([*before, f"exec {command}"])
            lines.append(f"(\n{started}\n) >{target}.log 2>&1 &")
            lines.append(f"until (: </dev/tcp/127.0.0.1/{ports[target]}) 2>/dev/null; do kill -0 $!; sleep 0.1; done")
        else:
            redirect = {"write": ">", "append": ">>"}[action]
            lines.append(f"cat {redirect}{target} <<'END OF THE FILE'\n{code}END OF THE FILE")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def result(wheel: Path) -> Iterator[Result]:
    """Follow the tutorial once, for all tests."""
    ports = {"8000": servers.free_port(), "8080": servers.free_port()}
    # Don't use pytest's temporary directory, because nginx workers that root starts can't enter this directory.
    with tempfile.TemporaryDirectory(prefix="instaccess-tutorial-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        [example] = re.findall(r"\[nginx\.conf\]\((\S+)\)", PAGE)
        # The tutorial asks the user to download this file.
        (folder / "nginx.conf").write_text(replace_ports((ROOT / "docs" / example).read_text(), ports))
        inherited = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        inherited["PATH"] += ":/usr/sbin"
        done = subprocess.run(
            ["bash", "-c", script(folder, ports)],
            env=inherited | wheels.offline_installation(wheel),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        log = (folder / "8000.log").read_text() if (folder / "8000.log").exists() else ""
        assert done.returncode == 0, done.stdout + done.stderr + log
        [package] = folder.glob(".venv/lib/python*/site-packages/instaccess")
        yield Result(done.stdout.split("\0"), log, package)


@pytest.mark.services
class TestTheTutorial:
    def test_tutorial_installs_the_wheel_in_a_separate_environment(self, result):
        assert (result.package / "models.py").exists()
        assert not result.package.is_symlink()

    def test_tutorial_generates_keys_and_passes_the_system_checks(self, result):
        output = result.outputs[1]

        assert "Generated the current signing key" in output
        assert "System check identified no issues" in output

    def test_service_of_the_tutorial_accepts_the_token_through_nginx(self, result):
        issued, accepted = result.outputs[3:5]

        assert issued.startswith('{"token":"')
        assert accepted.startswith('{"hello":"ada","token_id":"')

    def test_tutorial_shows_that_the_service_and_the_gateway_refuse_other_tokens_with_the_documented_reasons(
        self, result
    ):
        assert result.outputs[5] == INVALID * 2
        assert re.findall(r"refused reason=(\w+)", result.log)[:2] == ["still_encrypted", "other_bearer"]
        assert "`still_encrypted` for the first request" in PAGE
        assert "`other_bearer` for the second" in PAGE

    def test_gateway_of_the_tutorial_refuses_the_token_after_the_revocation(self, result):
        *_, revoked, rest = result.outputs

        assert "Revoked 1 live token" in revoked
        assert revoked.endswith(INVALID)
        assert rest == ""
        assert re.findall(r"refused reason=(\w+)", result.log)[2:] == ["revoked"]


class TestTheCountsOfTheTutorial:
    def test_tutorial_counts_its_commands_and_the_changed_settings(self):
        commands = [line for action, _, code in BLOCKS if action in {"run", "serve"} for line in code.splitlines()]
        [settings] = [code for action, target, code in BLOCKS if action == "append" and "settings" in target]
        changed = re.findall(r"^(\w+) \+?=", settings, re.MULTILINE)

        assert f"You ran {len(commands)} commands, and changed {len(changed)} settings" in " ".join(PAGE.split())
        assert changed == ["INSTALLED_APPS", "OAUTH2_PROVIDER"]

    def test_each_block_of_the_tutorial_is_followed_by_the_test(self):
        assert [code for _, _, code in BLOCKS] == [snippet.code for snippet in readme.snippets(PAGE)]
