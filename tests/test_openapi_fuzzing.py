"""Tests that compare the responses of the running demo with docs/openapi.yaml, on many generated requests.

schemathesis generates valid and invalid requests from the schema. The status, the content type, the headers and the
body of each response must match the schema. The server is a separate process with a database.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import servers
from tests.support.demos import SetUp, environment
from tests.support.openapi import PAGE
from tests.support.paths import ROOT

pytestmark = pytest.mark.services

VERIFY = "/internal/gateway/verify"
EXAMPLES = 40
UNTHROTTLED: dict[str, Any] = {"THROTTLE_LIMIT": None}
LOST_KEY = {"KEY_ENCRYPTION_KEYS": [base64.urlsafe_b64encode(bytes(32)).decode()]}


class Demo:
    """The demo in a separate process, with an access token."""

    def __init__(self, folder: Path, access_token: str, command: str, settings: dict[str, Any]) -> None:
        port = servers.free_port()
        self.access_token = access_token
        self.base_url = f"http://{servers.HOST}:{port}"
        # `demo` requests a token when it starts, and fails if no key is usable. `runserver` only serves the demo.
        arguments = ["demo"] if command == "demo" else ["runserver", "--noreload", f"{servers.HOST}:{port}"]
        env = environment(folder, PORT=str(port), INSTACCESS_SETTINGS=json.dumps(settings))
        self.process = servers.Process(
            [sys.executable, "manage.py", *arguments], port=port, log=folder / "demo.log", env=env, cwd=ROOT
        )

    def signed_token(self) -> str:
        """Request a token, and return the signed token in the answer of the gateway."""
        encrypted = self._request("POST", "/api/v1/inst_access_tokens", self.access_token).json()["token"]
        return self._request("GET", VERIFY, encrypted).headers["Authorization"].removeprefix("Bearer ")

    def _request(self, method: str, path: str, bearer: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {bearer}"}
        return requests.request(method, self.base_url + path, headers=headers, timeout=servers.PATIENCE)


@pytest.fixture
def serve(set_up_once: SetUp, tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def serve_(command: str = "demo", **settings: Any) -> Demo:
        folder = set_up_once.copy_to(tmp_path / "demo")
        started.append(Demo(folder, set_up_once.facts["access_token"], command, settings))
        return started[-1]

    yield serve_
    for demo in started:
        demo.process.kill()


def fuzz(demo: Demo, token: str | None, folder: Path, *, path: str = "", unavailable: bool = False) -> set[int]:
    """Run schemathesis, which must report no problem. Returns the statuses of the responses to POST.

    All checks run except `negative_data_rejection`, because the contract says that a body that can't be parsed counts
    as empty. If `unavailable` is true, a 503 is not reported as a problem. The examples are the same in each run.
    """
    report = folder / "requests.har"
    schema = PAGE
    if path:
        schema = folder / "openapi.yaml"
        schema.write_text(PAGE.read_text().replace("  /api/v1/inst_access_tokens:\n", f"  {path}:\n"))
    excluded = ["negative_data_rejection", *(["not_a_server_error"] if unavailable else [])]
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", str(schema), "--url", demo.base_url),
        *("--checks", "all", "--exclude-checks", ",".join(excluded), "--continue-on-failure", "--no-color"),
        *("--max-examples", str(EXAMPLES), "--generation-deterministic"),
        *("--report", "har", "--report-har-path", str(report)),
    ]
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    entries = json.loads(report.read_text())["log"]["entries"]
    return {entry["response"]["status"] for entry in entries if entry["request"]["method"] == "POST"}


class TestTheRunningDemo:
    def test_responses_to_a_valid_access_token_match_the_schema(self, serve, tmp_path):
        demo = serve(**UNTHROTTLED)

        assert fuzz(demo, demo.access_token, tmp_path) >= {201, 401}

    def test_responses_to_a_valid_access_token_match_the_schema_at_the_path_with_json(self, serve, tmp_path):
        demo = serve(**UNTHROTTLED)

        assert fuzz(demo, demo.access_token, tmp_path, path="/api/v1/inst_access_tokens.json") >= {201, 401}

    def test_responses_to_an_access_token_over_the_rate_limit_match_the_schema(self, serve, tmp_path):
        demo = serve()

        assert fuzz(demo, demo.access_token, tmp_path) >= {201, 429}

    @pytest.mark.parametrize("token", [None, "unknown"])
    def test_responses_to_invalid_credentials_match_the_schema(self, token, serve, tmp_path):
        assert fuzz(serve(), token, tmp_path) == {401}

    def test_responses_to_a_signed_inst_access_token_match_the_schema(self, serve, tmp_path):
        demo = serve()

        assert fuzz(demo, demo.signed_token(), tmp_path) >= {403}

    def test_responses_of_an_issuer_without_usable_keys_match_the_schema(self, serve, tmp_path):
        demo = serve("runserver", **UNTHROTTLED, **LOST_KEY)

        assert fuzz(demo, demo.access_token, tmp_path, unavailable=True) >= {503}
