"""Tests that run the code and the command of docs/oauth2.md, from the application to an InstAccess token."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command
from django.test import Client
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess import users
from instaccess.conf import SCOPE
from instaccess.models import IssuedToken
from tests.support import readme
from tests.support.snippets import code_of, run, shell_lines

OAUTH2 = readme.page("oauth2.md")
HOST = "canvas.example.edu"


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


@pytest.mark.django_db
class TestTheGuideToAccessTokens:
    @pytest.fixture
    def application(self) -> Any:
        """Run the documented command, and return the application that the command creates."""
        [line] = shell_lines(OAUTH2)
        python, manage, command, *arguments = shlex.split(line)
        assert (python, manage) == ("python", "manage.py")
        call_command(command, *arguments)
        return get_application_model().objects.get(client_id="timetable")

    @pytest.fixture
    def code(self, application: Any, user: Any, client: Client) -> tuple[str, str]:
        """Log in and allow the access at the documented URL. Returns the authorization code and the PKCE verifier."""
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

    def test_documented_settings_offer_the_issuing_scope_but_do_not_grant_the_scope_by_default(self):
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

    def test_authorization_code_with_another_verifier_gets_no_access_token(self, documented, code):
        with pytest.raises(AssertionError, match="invalid_grant"):
            documented.get_access_token(code[0], "another verifier of at least forty-three characters")

        assert not get_access_token_model().objects.exists()
