"""Tests of `manage.py demo`. The demo runs in a separate process, and writes its data to a new folder."""

from __future__ import annotations

import ctypes
import json
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from instaccess.monitoring import background
from tests.support.demos import SetUp, demo, environment
from tests.support.paths import ROOT
from tests.support.servers import PATIENCE, wait_until, wait_until_asleep

KEYS = ["base_url", "access_token", "client_id", "admin_username", "admin_password", "curl"]


def setup_only(folder: Path) -> dict[str, str]:
    done = demo(folder, "--setup-only")
    assert done.returncode == 0, done.stderr
    setup: dict[str, str] = json.loads(done.stdout)
    return setup


def run_curl(command: str) -> str:
    """Run a printed curl command in a shell, and return the output.

    If curl isn't installed, send the request from Python.
    """
    if shutil.which("curl"):
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True).stdout
    curl, dash_x, method, dash_h, header, url = shlex.split(command)
    assert (curl, dash_x, dash_h) == ("curl", "-X", "-H")
    request = urllib.request.Request(url, method=method, headers=dict([header.split(": ")]))
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def rows(folder: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "demo.sqlite3")) as database:
        return database.execute(f"SELECT * FROM {table}").fetchall()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def new_folder(tmp_path: Path) -> Path:
    return tmp_path / "created by the demo"


@pytest.fixture
def folder(set_up_once: SetUp, tmp_path: Path) -> Path:
    """Return a copy of the folder in which the demo was set up. The test may change the copy."""
    return set_up_once.copy_to(tmp_path / "own")


class TestSetUpOnly:
    def test_setup_only_option_writes_exactly_one_json_object_with_six_strings_to_stdout(self, set_up_once):
        done = set_up_once.done

        assert done.returncode == 0
        assert done.stdout.count("\n") == 1
        setup = json.loads(done.stdout)
        assert list(setup) == KEYS
        assert all(isinstance(value, str) and value for value in setup.values())
        assert setup["base_url"] == "http://127.0.0.1:8000"
        assert setup["access_token"] in setup["curl"]

    def test_setup_only_creates_a_new_access_token_in_each_run_and_keeps_all_other_data(self, folder):
        first = setup_only(folder)
        keys, tokens = rows(folder, "instaccess_key"), rows(folder, "oauth2_provider_accesstoken")

        second = setup_only(folder)

        assert first["access_token"] != second["access_token"]
        for name in ("base_url", "client_id", "admin_username", "admin_password"):
            assert first[name] == second[name]
        assert rows(folder, "instaccess_key") == keys
        assert rows(folder, "oauth2_provider_accesstoken")[: len(tokens)] == tokens

    def test_only_the_owner_may_read_the_password_file_of_the_demo(self, set_up_once):
        assert (set_up_once.folder / "demo.admin-password").stat().st_mode & 0o777 == 0o600

    def test_demo_uses_the_port_in_the_environment_variable_port(self, folder):
        done = demo(folder, "--setup-only", PORT="8001")

        assert json.loads(done.stdout)["base_url"] == "http://127.0.0.1:8001"


class Served:
    """A running demo, and the output that the demo prints before it waits for requests."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "demo"],
            cwd=ROOT,
            env=environment(folder, PORT=str(port)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if line.startswith("Serving"):
                return
        pytest.fail("the demo ended unexpectedly: " + self.output)

    def paragraph(self, headline: str) -> str:
        """Return the text below a headline of the output."""
        match = re.search(rf"^{headline}.*\n((?:.+\n)+)", self.output, re.MULTILINE)
        assert match is not None, self.output
        return match[1]

    def stop(self, number: int) -> str:
        """Send a signal to the demo and return the rest of its output."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]

    def signal_another_thread(self, number: int) -> None:
        """Send a signal to a thread that is not the main thread, as soon as the main thread waits.

        A signal to a process can arrive in any of its threads.
        """
        pid = self.process.pid
        tasks = Path(f"/proc/{pid}/task")
        wait_until_asleep(pid)
        # Wait until two threads remain, because the thread of the last request might not have ended yet.
        threads = wait_until(lambda: {int(task.name) for task in tasks.iterdir()}, lambda ids: len(ids) == 2)
        assert ctypes.CDLL(None).tgkill(pid, *(threads - {pid}), number) == 0

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[[], Served]]:
    started: list[Served] = []

    def serve_() -> Served:
        started.append(Served(folder))
        started[-1].read_output()
        return started[-1]

    yield serve_
    for served in started:
        served.end()


@pytest.fixture
def served(serve: Callable[[], Served]) -> Served:
    return serve()


@pytest.fixture(scope="module")
def shared_demo(set_up_once: SetUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield one running demo for all tests that only read its output or send requests."""
    served = Served(set_up_once.copy_to(tmp_path_factory.mktemp("shared") / "own"))
    try:
        served.read_output()
        yield served
    finally:
        served.end()


class TestARunningDemo:
    def test_demo_shows_the_steps_from_the_request_to_the_claims(self, shared_demo):
        answer = json.loads(shared_demo.paragraph("The issuer answers 201"))
        claims = json.loads(shared_demo.paragraph("Claims of the signed token"))

        assert answer["token"].count(".") == 4
        assert claims["iss"] == "instructure:inst_access"
        assert claims["exp"] - claims["iat"] == 3600

    def test_demo_shows_that_the_gateway_accepts_the_token_until_the_revocation(self, shared_demo):
        assert shared_demo.paragraph("The gateway answers a reverse proxy").startswith("Authorization: Bearer ey")
        assert json.loads(shared_demo.paragraph("The service accepts the signed token"))["login_id"] == "admin"
        refusal = shared_demo.paragraph("After the token is revoked, the gateway refuses the token: 401")
        assert json.loads(refusal) == {"errors": [{"message": "Invalid access token."}]}

    def test_demo_shows_no_log_lines_between_the_steps(self, shared_demo):
        assert "issued jti=" not in shared_demo.output
        assert "reason=" not in shared_demo.output
        assert "HTTP/1.1" not in shared_demo.output

    def test_demo_prints_a_curl_command_that_gets_another_token(self, shared_demo):
        command = shared_demo.paragraph("Request another token")
        before = len(rows(shared_demo.folder, "instaccess_issuedtoken"))

        answer = run_curl(command)

        assert list(json.loads(answer)) == ["token"]
        assert answer not in shared_demo.output
        assert len(rows(shared_demo.folder, "instaccess_issuedtoken")) == before + 1

    def test_demo_prints_a_password_that_gives_access_to_the_audit_log_in_the_admin(self, shared_demo):
        match = re.search(r"(\S+/admin/) +user (\S+), password (\S+)", shared_demo.output)
        assert match is not None
        address, username, password = match.groups()
        cookies = CookieJar()
        browser = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(cookies)
        )
        browser.open(address, timeout=30).read()
        csrf = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
        audit = urllib.parse.urlsplit(address).path + "instaccess/issuedtoken/"
        form = {"username": username, "password": password, "csrfmiddlewaretoken": csrf, "next": audit}

        page = browser.open(address + "login/", urllib.parse.urlencode(form).encode(), timeout=30).read().decode()

        assert json.loads(shared_demo.paragraph("Claims of the signed token"))["jti"] in page
        assert shared_demo.base_url in address

    def test_demo_prints_a_command_that_fills_the_audit_log(self, served):
        [command] = re.findall(r"^  (\S+ manage\.py instaccess_tokens seed .*)$", served.output, re.MULTILINE)

        subprocess.run(shlex.split(command), cwd=ROOT, env=environment(served.folder), timeout=120, check=True)

        assert len(rows(served.folder, "instaccess_issuedtoken")) == 2001

    def test_commands_and_pages_that_the_demo_names_for_the_next_steps_exist(self, shared_demo):
        text = shared_demo.paragraph("Where to look next")
        targets = re.findall(r"`make ([a-z-]+)`", text)

        assert targets == ["demo-nginx", "docs"]
        assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
        assert re.findall(r"docs/\S+\.md", text) == ["docs/tutorial.md", "docs/index.md"]
        assert all((ROOT / page).exists() for page in re.findall(r"docs/\S+\.md", text))


class TestTheFirstPageOfTheDemo:
    # Commit the keys, because the health check reads the keys in another thread, which can't read uncommitted rows.
    @pytest.mark.django_db(transaction=True)
    def test_view_site_link_of_the_admin_leads_to_a_page_with_working_links(
        self, admin_client, initial_keys, monkeypatch
    ):
        # Let the probe wait until its checks end, because a busy machine is slow.
        monkeypatch.setattr(background, "ANSWER_SECONDS", PATIENCE)
        admin = admin_client.get("/admin/").content.decode()
        [site] = re.findall(r'<a href="([^"]+)">View site</a>', admin)

        page = admin_client.get(site)
        links = re.findall(r'href="([^"]+)"', page.content.decode())

        assert page.status_code == 200
        assert len(links) == 5
        assert {link: admin_client.get(link).status_code for link in links} == dict.fromkeys(links, 200)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_demo_stops_without_an_error_after_a_signal(self, served, number):
        rest = served.stop(number)

        assert served.process.returncode == 0
        assert "Stopped. All data is kept" in rest
        assert "Traceback" not in rest

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_demo_stops_without_an_error_after_a_signal_to_another_thread(self, served, number):
        served.signal_another_thread(number)

        rest = served.process.communicate(timeout=60)[0]

        assert served.process.returncode == 0
        assert "Stopped. All data is kept" in rest
        assert "Traceback" not in rest

    def test_demo_keeps_all_audit_rows_when_the_demo_runs_again(self, serve, folder):
        serve().stop(signal.SIGINT)
        before = rows(folder, "instaccess_issuedtoken")

        serve().stop(signal.SIGINT)

        assert len(before) == 1
        assert rows(folder, "instaccess_issuedtoken")[:1] == before
        assert len(rows(folder, "instaccess_issuedtoken")) == 2


class TestAnImportedEncryptionKey:
    """Tests of a demo that can't decrypt its own tokens, because only a separate gateway has the private key."""

    def manage(self, folder: Path, *args: str) -> str:
        return subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=ROOT,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def test_demo_without_the_private_key_names_the_steps_that_are_left_out_and_continues(
        self, serve, folder, rsa_pool
    ):
        public_key = folder / "gateway.pem"
        public_key.write_bytes(rsa_pool.take("enc").export_to_pem())
        imported = self.manage(
            folder, "instaccess_keys", "import", "--use", "enc", "--file", str(public_key), "--json"
        )
        kid = json.loads(imported)["kid"]
        self.manage(folder, "instaccess_keys", "activate", "--kid", kid, "--force")

        served = serve()

        assert kid in served.paragraph("Header of the encrypted token")
        advice = served.paragraph("This demo can't show the signed token, the gateway and the service")
        assert "instaccess_keys generate --use enc" in advice
        assert served.paragraph("The admin shows the audit log and the keys")
        assert "Traceback" not in served.output + served.stop(signal.SIGINT)


class TestAnUnusablePort:
    def test_demo_reports_a_port_used_by_another_process_and_creates_no_folder(self, new_folder):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]

            done = demo(new_folder, PORT=str(port))

        assert done.returncode == 1
        assert f"The demo can't listen on 127.0.0.1:{port} (Address already in use)" in done.stderr
        assert f"PORT={port + 1} make demo" in done.stderr
        assert not new_folder.exists()

    @pytest.mark.parametrize("port", ["eight thousand", "0", "-1", "65536", "8000.5"])
    def test_demo_reports_an_invalid_port_number_in_one_line(self, new_folder, port):
        done = demo(new_folder, PORT=port)

        assert done.returncode == 1
        assert done.stderr.startswith("CommandError: The port must be a number from 1 to 65535")
        assert done.stderr.count("\n") == 1
        assert not new_folder.exists()
