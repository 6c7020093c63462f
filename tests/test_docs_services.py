"""Tests that run the examples in docs/services-without-drf.md with the JWKS URL of a test server."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
import requests

from instaccess import exceptions, service
from instaccess.service import Verifier
from tests.service.helpers import ADMIN, USER, good, invalid, jwks
from tests.service.page_examples import (
    ACCOUNT,
    BACKEND,
    EXAMPLES,
    JWKS_URL,
    TEXT,
    WSGI,
    Example,
    running_jwks_server,
    with_url,
)
from tests.support import readme, servers
from tests.support.answers import CHALLENGE, INVALID, UNAUTHENTICATED, UNAVAILABLE
from tests.support.paths import ROOT
from tests.support.tokens import TokenFactory

FORBIDDEN = (403, b'{"errors":[{"message":"The access token does not allow this request."}]}', None)


@pytest.fixture
def token_factory(rsa_pool: Any) -> TokenFactory:
    return TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))


@pytest.fixture
def jwks_server(token_factory: TokenFactory) -> Iterator[servers.ScriptedServer]:
    with running_jwks_server(token_factory) as server:
        yield server


class Running:
    """A running example.

    Attributes:
        statuses: the statuses of all responses.
    """

    def __init__(self, base_url: str, log: Path) -> None:
        self.base_url, self._log = base_url, log
        self.statuses: list[int] = []

    def get(self, path: str, authorization: str | None = None) -> requests.Response:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = requests.get(self.base_url + path, headers=headers, timeout=servers.PATIENCE)
        self.statuses.append(response.status_code)
        return response

    def get_first(self, path: str, authorization: str) -> requests.Response:
        """Send the first request with a valid token. Repeat the request while the response is a 503.

        The first request fetches the keys, and the fetch can exceed its time limit on a busy machine.
        """
        return servers.wait_until(lambda: self.get(path, authorization), lambda response: response.status_code != 503)

    def log(self) -> str:
        return self._log.read_text()


def run(example: Example, jwks_server: servers.ScriptedServer, folder: Path) -> Iterator[Running]:
    for name, code in example.files.items():
        (folder / name).write_text(with_url(code, jwks_server))
    port = servers.free_port()
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    if "settings.py" in example.files:
        environment["DJANGO_SETTINGS_MODULE"] = "settings"
    process = servers.Process(
        [sys.executable, "-m", "uvicorn", "--host", servers.HOST, "--port", str(port), *example.application],
        port=port,
        log=folder / "log",
        env={**environment, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
    )
    try:
        yield Running(f"http://{servers.HOST}:{port}", folder / "log")
    finally:
        process.kill()


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest, jwks_server: servers.ScriptedServer, tmp_path: Path) -> Iterator[Running]:
    yield from run(EXAMPLES[request.param], jwks_server, tmp_path)


def parts(response: requests.Response) -> tuple[int, bytes, str | None]:
    assert response.headers["Content-Type"].partition(";")[0] == "application/json"
    return response.status_code, response.content, response.headers.get("WWW-Authenticate")


class TestTheExamples:
    def test_example_accepts_a_valid_token_and_refuses_every_other_request_as_in_the_wire_contract(
        self, example, jwks_server, token_factory
    ):
        valid = good(token_factory, acct=ACCOUNT, sub=USER)
        refused = invalid(token_factory, valid, acct=ACCOUNT)

        assert example.get_first("/profile/", valid).json() == {"user": USER}
        assert [parts(example.get("/profile/", token)) for token in refused] == [INVALID] * 4
        assert parts(example.get("/profile/")) == UNAUTHENTICATED
        # Only the first request fetches the keys, and each fetch that exceeded its time limit caused a 503.
        assert len(jwks_server.requests) <= 1 + example.statuses.count(503)
        assert "Traceback" not in example.log()
        assert valid.rpartition(".")[2] not in example.log()

    def test_example_with_a_condition_refuses_the_token_of_a_masquerade(self, example, token_factory):
        own = good(token_factory, acct=ACCOUNT, sub=USER)
        masquerade = good(token_factory, acct=ACCOUNT, sub=USER, masq_sub=ADMIN, masq_shard=1)

        assert example.get_first("/password/", own).json() == {"user": USER}
        assert example.get("/profile/", masquerade).json() == {"user": USER}
        assert parts(example.get("/password/", masquerade)) == FORBIDDEN

    def test_c3_example_answers_503_if_the_jwks_url_is_faulty_and_recovers(self, example, jwks_server, token_factory):
        jwks_server.answer_with(500)
        response = example.get("/profile/", good(token_factory, acct=ACCOUNT))
        assert (parts(response), response.headers["Retry-After"]) == (UNAVAILABLE, "10")

        jwks_server.answer_with(200, jwks(token_factory.signing))
        # Soon after a failure, a request waits only half a second for the keys. On a busy machine, that is too short.
        valid = good(token_factory, acct=ACCOUNT)
        servers.wait_until(lambda: example.get("/profile/", valid).status_code, (200).__eq__)


class TestTheOtherExamples:
    @pytest.mark.parametrize("name", ["django", "ninja"])
    def test_c17_example_without_contrib_auth_and_without_django_rest_framework_passes_the_system_checks(
        self, name, tmp_path
    ):
        for file, code in EXAMPLES[name].files.items():
            (tmp_path / file).write_text(code)

        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", "check"],
            cwd=tmp_path,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=servers.PATIENCE,
            check=False,
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert "no issues" in done.stdout

    def test_c17_django_example_without_contrib_auth_answers_requests_without_credentials(
        self, jwks_server, token_factory, tmp_path
    ):
        for running in run(EXAMPLES["django"], jwks_server, tmp_path):
            assert running.get("/everybody/").json() == {"authenticated": False}
            valid = good(token_factory, acct=ACCOUNT)
            assert running.get_first("/everybody/", valid).json() == {"authenticated": True}
            assert parts(running.get("/everybody/", good(token_factory))) == INVALID

    def test_example_with_the_backend_of_starlette_authenticates_all_requests(
        self, jwks_server, token_factory, tmp_path
    ):
        for running in run(Example(BACKEND, ["application:app"]), jwks_server, tmp_path):
            valid = good(token_factory, acct=ACCOUNT, sub=USER)
            assert running.get_first("/profile/", valid).json() == {"user": USER}
            assert running.get("/everybody/").json() == {"authenticated": False}
            assert running.get("/everybody/", "Bearer opaque").json() == {"authenticated": False}
            assert running.get("/profile/").status_code == 401
            assert parts(running.get("/everybody/", good(token_factory))) == INVALID

    def test_wsgi_example_accepts_and_refuses_tokens_as_in_the_wire_contract(self, jwks_server, token_factory):
        [code] = WSGI.values()
        names: dict[str, Any] = {}
        exec(with_url(code, jwks_server), names)

        def ask(authorization: str | None) -> tuple[str, bytes, str | None]:
            environ: dict[str, Any] = {} if authorization is None else {"HTTP_AUTHORIZATION": authorization}
            setup_testing_defaults(environ)
            started: list[Any] = []
            [body] = names["application"](environ, lambda *arguments: started.extend(arguments))
            return started[0], body, dict(started[1]).get("WWW-Authenticate")

        valid = good(token_factory, acct=ACCOUNT, sub=USER)
        # The first request fetches the keys, and the fetch can exceed its time limit on a busy machine.
        answer = servers.wait_until(lambda: ask(valid), lambda answer: answer[0] != "503 Service Unavailable")
        assert answer[:2] == ("200 OK", json.dumps({"user": USER}, separators=(",", ":")).encode())
        for refused in (None, "Bearer opaque", good(token_factory)):
            assert ask(refused) == ("401 Unauthorized", INVALID[1], CHALLENGE)
        jwks_server.answer_with(500)
        exec(with_url(code, jwks_server), names)
        assert ask(good(token_factory, acct=ACCOUNT))[:2] == ("503 Service Unavailable", UNAVAILABLE[1])


class TestThePageOfServicesWithoutDRF:
    def test_table_of_arguments_lists_each_argument_of_the_verifier_with_its_default(self):
        rows = readme.tables(readme.section("Any Python program", TEXT))[0]
        documented = {readme.code(name)[0]: default for name, _, default in rows}
        parameters = {name: parameter.default for name, parameter in inspect.signature(Verifier).parameters.items()}

        assert documented.keys() == parameters.keys()
        assert documented.pop("jwks_url") == "required"
        verifier = Verifier(jwks_url=JWKS_URL)
        for name, default in documented.items():
            value = ast.literal_eval(readme.code(default)[0])
            assert value == (verifier._values.accepted_issuers if name == "issuers" else parameters[name])

    def test_errors_in_the_table_of_errors_exist_in_the_package(self):
        rows = readme.tables(readme.section("Any Python program", TEXT))[1]

        for name in (name for row in rows for name in readme.code(row[0])):
            assert issubclass(getattr(exceptions, name), exceptions.InstAccessError)

    def test_names_on_the_page_of_services_without_drf_exist(self):
        for name in re.findall(r"`instaccess\.service\.([A-Za-z]+)`", TEXT):
            assert hasattr(service, name)
        for module, name in re.findall(r"`instaccess\.service\.([a-z]+)\.([A-Za-z]+)`", TEXT):
            assert hasattr(__import__(f"instaccess.service.{module}", fromlist=[name]), name)
