"""Tests that run the code and the commands of docs/oauth2.md, docs/local-development.md and docs/api.md."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command
from django.test import Client, override_settings
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess import users
from instaccess.conf import SCOPE
from instaccess.conf import checks as conf_checks
from instaccess.models import IssuedToken
from tests.support import readme

OAUTH2 = readme.page("oauth2.md")
LOCAL = readme.page("local-development.md")
API = readme.page("api.md")
HOST = "canvas.example.edu"


def code_of(page: str, text: str) -> str:
    """Return the only Python snippet of a page that contains a text."""
    [code] = [each.code for each in readme.snippets(page) if each.language == "python" and text in each.code]
    return code


def shell_lines(page: str) -> list[str]:
    return [line for each in readme.snippets(page) if each.language == "sh" for line in each.lines]


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a snippet, and return its names."""
    exec(code, names)
    return names


class Requests:
    """A replacement for the library `requests` that sends the requests of a snippet to Django's test client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def post(self, url: str, *, timeout: float, data: Any = None, headers: Any = None) -> Any:
        assert timeout
        answer: Any = self._client.post(urlsplit(url).path, data, headers=headers, HTTP_HOST=urlsplit(url).hostname)

        def raise_for_status() -> None:
            assert answer.status_code < 400, answer.content

        answer.raise_for_status = raise_for_status
        return answer


def send(client: Client, command: str, **variables: str) -> Any:
    """Send the request of a documented curl command, with these values of its variables."""
    for name, value in variables.items():
        command = command.replace(f"${name}", value)
    assert "$" not in command
    words = shlex.split(command)
    url = urlsplit(words[-1])
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    header, value = words[words.index("-H") + 1].split(": ")
    return client.generic(method, f"{url.path}?{url.query}", headers={header: value}, HTTP_HOST=url.hostname or "")


@pytest.mark.django_db
class TestTheGuideToAccessTokens:
    @pytest.fixture
    def application(self) -> Any:
        """Run the documented command, and return its application."""
        [line] = shell_lines(OAUTH2)
        python, manage, command, *arguments = shlex.split(line)
        assert (python, manage) == ("python", "manage.py")
        call_command(command, *arguments)
        return get_application_model().objects.get(client_id="timetable")

    @pytest.fixture
    def code(self, application: Any, user: Any, client: Client) -> tuple[str, str]:
        """Open the documented authorization page and agree. Returns the authorization code and the verifier."""
        names = run(code_of(OAUTH2, "code_challenge"))
        client.force_login(user)
        url = urlsplit(names["authorization_url"])
        page = client.get(f"{url.path}?{url.query}", HTTP_HOST=HOST)
        form = {field.name: field.value() or "" for field in page.context["form"]} | {"allow": "Authorize"}
        answer: Any = client.post(f"{url.path}?{url.query}", form, HTTP_HOST=HOST)
        query = parse_qs(urlsplit(answer.url).query)
        assert answer.url.startswith("https://timetable.example/callback?")
        assert query["state"] == [names["state"]]
        return query["code"][0], names["verifier"]

    @pytest.fixture
    def documented(self) -> Any:
        """Return the two functions of the guide. The functions send requests to Django."""
        names: dict[str, Any] = {}
        for text in ("def get_access_token", "def get_inst_access_token"):
            names |= run(code_of(OAUTH2, text))
        requests = Requests(Client())
        for name in ("get_access_token", "get_inst_access_token"):
            names[name].__globals__["requests"] = requests
        return SimpleNamespace(**names)

    def test_documented_settings_offer_the_scope_but_not_by_default(self):
        provider = run(code_of(OAUTH2, "DEFAULT_SCOPES"))["OAUTH2_PROVIDER"]

        assert SCOPE in provider["SCOPES"]
        assert provider["DEFAULT_SCOPES"] == ["read"]

    def test_documented_url_contains_the_documented_encoding_of_the_scope(self):
        url = run(code_of(OAUTH2, "code_challenge"))["authorization_url"]
        [encoded] = [each.code.strip() for each in readme.snippets(OAUTH2) if each.language == "text"]

        assert encoded in urlsplit(url).query.split("&")
        assert "|" not in url

    def test_documented_steps_lead_from_the_authorization_page_to_an_inst_access_token(
        self, documented, code, user, application, initial_keys
    ):
        access_token = documented.get_access_token(*code)
        token = documented.get_inst_access_token(access_token["access_token"])

        assert {"access_token", "refresh_token", "expires_in", "scope"} <= access_token.keys()
        assert access_token["scope"] == SCOPE
        assert token.count(".") == 4
        assert IssuedToken.objects.get().client_id == "timetable"
        assert IssuedToken.objects.get().user_uuid == users.user_uuid(user)

    def test_code_without_the_verifier_gives_no_access_token(self, documented, code):
        with pytest.raises(AssertionError, match="invalid_grant"):
            documented.get_access_token(code[0], "another verifier of at least forty-three characters")

        assert not get_access_token_model().objects.exists()


@pytest.mark.django_db
class TestTheGuideToDevelopmentWithoutAGateway:
    SIGNED, USE, VERIFY = shell_lines(LOCAL)

    def settings(self) -> Any:
        names = run(code_of(LOCAL, "ALLOW_UNENCRYPTED"))
        assert names["DEBUG"] is True
        return override_settings(DEBUG=True, INSTACCESS=names["INSTACCESS"])

    def test_documented_settings_pass_the_system_checks(self):
        with self.settings():
            assert conf_checks.check_settings() == []

    def test_service_accepts_the_token_of_the_documented_request(self, client, access_token, user, initial_keys):
        with self.settings():
            signed = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]

        assert signed.count(".") == 2
        assert send(client, self.USE, SIGNED_TOKEN=signed).json()["login_id"] == user.get_username()

    def test_documented_request_gets_an_encrypted_token_without_the_setting(self, client, access_token, initial_keys):
        token = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]

        assert token.count(".") == 4

    def test_encrypted_token_is_refused_by_a_service_with_the_documented_reason(
        self, client, access_token, initial_keys, caplog
    ):
        token = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]

        assert send(client, self.USE, SIGNED_TOKEN=token).status_code == 401
        [reason] = [record.reason for record in caplog.records if record.name == "instaccess.service"]
        assert f"the reason `{reason}`" in " ".join(LOCAL.split())

    def test_gateway_answers_the_documented_request_with_the_signed_token(
        self, client, access_token, user, initial_keys
    ):
        token = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]
        answer = send(client, self.VERIFY, INST_ACCESS_TOKEN=token)
        signed = answer.headers["Authorization"].removeprefix("Bearer ")

        assert answer.status_code == 204
        assert send(client, self.USE, SIGNED_TOKEN=signed).json()["login_id"] == user.get_username()

    def test_documented_test_of_a_view_passes(self, user):
        run(code_of(LOCAL, "force_authenticate"))["test_user_sees_their_own_name"](user)

    def test_documented_test_with_a_real_token_passes(self, user, client):
        # pytest refuses to call a fixture like a function.
        names = run(code_of(LOCAL, "def signed_token").replace("@pytest.fixture\n", ""))

        names["test_service_accepts_a_token"](client, names["signed_token"](None, user))


@pytest.mark.django_db
class TestThePageOfThePythonApi:
    def test_documented_function_issues_a_token(self, user, initial_keys):
        token = run(code_of(API, "def issue_for"))["issue_for"](user)

        assert token.count(".") == 4
        assert IssuedToken.objects.count() == 1

    def test_documented_function_revokes_the_tokens_of_a_user(self, user, initial_keys):
        run(code_of(API, "def issue_for"))["issue_for"](user)

        revoked = run(code_of(API, "def revoke_all"))["revoke_all"](users.user_uuid(user))

        assert revoked == 1
        assert IssuedToken.objects.get().revocation_reason == "contract ended"

    def test_names_on_the_page_of_the_python_api_exist(self):
        for module, name in re.findall(r":: (instaccess(?:\.[a-z]+)+)\.(\w+)$", API, re.MULTILINE):
            assert getattr(__import__(module, fromlist=[name]), name), name
