"""`manage.py demo`: what a newcomer sees first, run as they run it, in a folder and on a port of its own."""

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

from tests.support.demos import SetUp, demo, environment
from tests.support.paths import ROOT
from tests.support.servers import until

KEYS = ["base_url", "access_token", "client_id", "admin_username", "admin_password", "curl"]


def setup_only(folder: Path) -> dict[str, str]:
    done = demo(folder, "--setup-only")
    assert done.returncode == 0, done.stderr
    facts: dict[str, str] = json.loads(done.stdout)
    return facts


def run_curl(command: str) -> str:
    """What the printed line answers in a shell; where there is no curl, what it asks for is done without."""
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
    return tmp_path / "made by the demo"


@pytest.fixture
def folder(set_up_once: SetUp, tmp_path: Path) -> Path:
    """Where the demo was set up before: a copy that is the test's own."""
    return set_up_once.copy_to(tmp_path / "own")


class TestSettingUpOnly:
    def test_prints_one_json_object_of_six_texts_and_nothing_else_on_stdout(self, set_up_once):
        done = set_up_once.done

        assert done.returncode == 0
        assert done.stdout.count("\n") == 1
        facts = json.loads(done.stdout)
        assert list(facts) == KEYS
        assert all(isinstance(value, str) and value for value in facts.values())
        assert facts["base_url"] == "http://127.0.0.1:8000"
        assert facts["access_token"] in facts["curl"]

    def test_makes_a_fresh_access_token_at_each_call_and_keeps_all_the_rest(self, folder):
        first = setup_only(folder)
        keys, tokens = rows(folder, "instaccess_key"), rows(folder, "oauth2_provider_accesstoken")

        second = setup_only(folder)

        assert first["access_token"] != second["access_token"]
        for name in ("base_url", "client_id", "admin_username", "admin_password"):
            assert first[name] == second[name]
        assert rows(folder, "instaccess_key") == keys
        assert rows(folder, "oauth2_provider_accesstoken")[: len(tokens)] == tokens

    def test_keeps_the_password_from_other_users_of_the_machine(self, set_up_once):
        assert (set_up_once.folder / "demo.admin-password").stat().st_mode & 0o777 == 0o600

    def test_follows_the_port(self, folder):
        done = demo(folder, "--setup-only", PORT="8001")

        assert json.loads(done.stdout)["base_url"] == "http://127.0.0.1:8001"


class Served:
    """A demo that runs, and what it said until it was ready."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self.story = ""
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "demo"],
            cwd=ROOT,
            env=environment(folder, PORT=str(port)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_the_story(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.story += line
            if line.startswith("Serving"):
                return
        pytest.fail("the demo ended by itself: " + self.story)

    def paragraph(self, headline: str) -> str:
        """What stands below a headline of the story."""
        match = re.search(rf"^{headline}.*\n((?:.+\n)+)", self.story, re.MULTILINE)
        assert match is not None, self.story
        return match[1]

    def stop(self, number: int) -> str:
        """What it says when it is sent this signal."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]

    def signal_another_thread(self, number: int) -> None:
        """Sends it a signal past its main thread, as soon as that one waits: to which the system may give one too."""
        pid = self.process.pid
        tasks = Path(f"/proc/{pid}/task")
        until(lambda: (tasks / str(pid) / "stat").read_text().rpartition(") ")[2][0], "S".__eq__)
        # The story's requests had threads of their own, of which the last may be about to end.
        both = until(lambda: {int(task.name) for task in tasks.iterdir()}, lambda found: len(found) == 2)
        assert ctypes.CDLL(None).tgkill(pid, *(both - {pid}), number) == 0

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
        started[-1].read_the_story()
        return started[-1]

    yield serve_
    for served in started:
        served.end()


@pytest.fixture
def served(serve: Callable[[], Served]) -> Served:
    return serve()


@pytest.fixture(scope="module")
def told(set_up_once: SetUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that the tests share which only read what it said, or ask it something."""
    served = Served(set_up_once.copy_to(tmp_path_factory.mktemp("told") / "own"))
    try:
        served.read_the_story()
        yield served
    finally:
        served.end()


class TestServing:
    def test_tells_the_story_from_the_question_to_the_claims(self, told):
        answer = json.loads(told.paragraph("The answer, 201"))
        claims = json.loads(told.paragraph("… these claims"))

        assert answer["token"].count(".") == 4
        assert claims["iss"] == "instructure:inst_access"
        assert claims["exp"] - claims["iat"] == 3600

    def test_calls_the_protected_endpoint_through_the_gateway_until_the_token_is_revoked(self, told):
        assert told.paragraph("A reverse proxy asks the gateway").startswith("Authorization: Bearer ey")
        assert json.loads(told.paragraph("The service believes the signed token"))["login_id"] == "admin"
        refusal = told.paragraph("Revoked in the audit, and the gateway refuses it, 401")
        assert json.loads(refusal) == {"errors": [{"message": "Invalid access token."}]}

    def test_keeps_the_log_out_of_the_story(self, told):
        assert "issued jti=" not in told.story
        assert "reason=" not in told.story
        assert "HTTP/1.1" not in told.story

    def test_the_printed_curl_line_gets_another_token(self, told):
        command = told.paragraph("Do it again")
        before = len(rows(told.folder, "instaccess_issuedtoken"))

        answer = run_curl(command)

        assert list(json.loads(answer)) == ["token"]
        assert answer not in told.story
        assert len(rows(told.folder, "instaccess_issuedtoken")) == before + 1

    def test_the_printed_password_opens_the_admin_and_the_audit(self, told):
        match = re.search(r"(\S+/admin/) +user (\S+), password (\S+)", told.story)
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

        assert json.loads(told.paragraph("… these claims"))["jti"] in page
        assert told.base_url in address

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stops_cleanly_when_asked_to(self, served, number):
        rest = served.stop(number)

        assert served.process.returncode == 0
        assert "Stopped. Everything is kept" in rest
        assert "Traceback" not in rest

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stops_cleanly_when_the_system_gives_the_signal_to_another_thread_than_the_one_that_waits(
        self, served, number
    ):
        served.signal_another_thread(number)

        rest = served.process.communicate(timeout=60)[0]

        assert served.process.returncode == 0
        assert "Stopped. Everything is kept" in rest
        assert "Traceback" not in rest

    def test_loses_nothing_when_it_is_run_again(self, serve, folder):
        serve().stop(signal.SIGINT)
        before = rows(folder, "instaccess_issuedtoken")

        serve().stop(signal.SIGINT)

        assert len(before) == 1
        assert rows(folder, "instaccess_issuedtoken")[:1] == before
        assert len(rows(folder, "instaccess_issuedtoken")) == 2


class TestAPortItCannotHave:
    def test_because_somebody_else_listens_is_said_before_anything_is_made(self, new_folder):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]

            done = demo(new_folder, PORT=str(port))

        assert done.returncode == 1
        assert f"Nothing can listen on 127.0.0.1:{port} (Address already in use)" in done.stderr
        assert f"PORT={port + 1} make demo" in done.stderr
        assert not new_folder.exists()

    @pytest.mark.parametrize("port", ["eight thousand", "0", "-1", "65536", "8000.5"])
    def test_because_it_is_no_port_is_said_in_one_line(self, new_folder, port):
        done = demo(new_folder, PORT=port)

        assert done.returncode == 1
        assert done.stderr.startswith("CommandError: The port must be a number from 1 to 65535")
        assert done.stderr.count("\n") == 1
        assert not new_folder.exists()
