"""The unmodified canvasapi client behind a real nginx with the example configuration."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import servers
from tests.support.demos import SetUp
from tests.support.paths import ROOT
from tests.support.proxies import Site, start_nginx
from tests.support.tokens import b64

if TYPE_CHECKING:
    from canvasapi import Canvas

pytestmark = [
    pytest.mark.services,
    # Allow HTTP, because the connection stays on this host.
    pytest.mark.filterwarnings("ignore:Canvas may respond unexpectedly when making requests to HTTP:UserWarning"),
]

ENDPOINT = "inst_access_tokens"

# `manage.py shell` runs this script, which creates access tokens in the database of the site.
_MAKE_TOKENS = """
import json, secrets
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model
from instaccess import users as instaccess_users
from instaccess.conf import SCOPE
users = get_user_model().objects
ada, boole = users.get(username="ada"), users.get(username="boole")
users.filter(pk=ada.pk).update(first_name="Ada", last_name="Lovelace")
hour = timedelta(hours=1)
made = {"ada": ada.pk, "boole": boole.pk, "uuid": instaccess_users.user_uuid(ada)}
for name, columns in {
    "ada's": {}, "expired": {"expires": timezone.now() - hour}, "without scope": {"scope": "read"},
    "without user": {"user": None}, "hasty": {}, "admin's": {"user": users.get(username="admin")}, "revoked": {},
}.items():
    made[name] = secrets.token_urlsafe(32)
    get_access_token_model().objects.create(**{
        "user": ada, "application": get_application_model().objects.get(), "token": made[name], "scope": SCOPE,
        "expires": timezone.now() + hour, **columns,
    })
print(json.dumps(made))
"""


class Campus:
    """The site of the proxy tests behind nginx, with access tokens of every kind."""

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        self.base_url = f"http://{servers.HOST}:{port}"
        self.made: dict[str, Any] = json.loads(
            site.manage("shell", "--no-imports", "-c", _MAKE_TOKENS).splitlines()[-1]
        )

    def canvas(self, token: str, base_url: str = "") -> Canvas:
        import canvasapi

        return canvasapi.Canvas(base_url or self.base_url, token)

    def issue(self, token: str, *, base_url: str = "", method: str = "POST", **request: Any) -> Any:
        """Send a request to the issuing endpoint with canvasapi's requester."""
        requester: Any = vars(self.canvas(token, base_url))["_Canvas__requester"]
        return requester.request(method, ENDPOINT, **request)

    def token(self, name: str = "ada's", **request: Any) -> str:
        """Exchange the access token with this name for an InstAccess token."""
        response = self.issue(self.made[name], **request)
        assert response.status_code == 201
        text: str = response.json()["token"]
        return text

    def decrypted(self, token: str) -> str:
        """Return the signed token that the gateway forwards for an encrypted token."""
        connection = HTTPConnection(servers.HOST, self.site.gateway_process.port, timeout=servers.PATIENCE)
        try:
            connection.request("GET", "/internal/gateway/verify", headers={"Authorization": f"Bearer {token}"})
            header = connection.getresponse().headers["Authorization"]
        finally:
            connection.close()
        return str(header.removeprefix("Bearer "))


@pytest.fixture(scope="module")
def campus(set_up_once: SetUp) -> Iterator[Campus]:
    # Don't use pytest's temporary directory, which only its owner can enter. If root starts nginx, the workers run as
    # another user.
    with tempfile.TemporaryDirectory(prefix="instaccess-canvasapi-") as name:
        Path(name).chmod(0o755)
        site = Site(Path(name), set_up_once)
        port = servers.free_port()
        nginx = start_nginx(site, port)
        yield Campus(site, port)
        nginx.kill()
        site.close()


@pytest.fixture
def start_server(campus: Campus) -> Iterator[Any]:
    """Return a function that starts the test project with other settings and returns its base URL."""
    started: list[servers.Process] = []

    def start(**instaccess: Any) -> str:
        port = servers.free_port()
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi", "--bind", f"{servers.HOST}:{port}"]
        env = campus.site.env | {"INSTACCESS_SETTINGS": json.dumps(instaccess)}
        log = campus.site.folder / f"server-{port}.log"
        started.append(servers.Process(command, port=port, log=log, env=env, cwd=ROOT))
        return f"http://{servers.HOST}:{port}"

    yield start
    for process in started:
        process.kill()


class TestGetCurrentUser:
    def test_get_current_user_works_with_an_inst_access_token(self, campus):
        user = campus.canvas(campus.token()).get_current_user()

        assert (user.id, user.name, user.uuid) == (campus.made["ada"], "Ada Lovelace", campus.made["uuid"])
        assert (user.sortable_name, user.login_id) == ("Lovelace, Ada", "ada")

    def test_get_current_user_returns_the_subject_of_a_masquerade(self, campus):
        token = campus.token("admin's", as_user_id=campus.made["boole"])

        assert campus.canvas(token).get_current_user().login_id == "boole"

    def test_every_refusal_of_the_gateway_raises_invalid_access_token(self, campus):
        from canvasapi.exceptions import InvalidAccessToken

        good = campus.token("admin's")
        refused = ["opaque", campus.made["ada's"], good[:-8] + "AAAAAAAA", good + "=", campus.decrypted(good)]
        for token in refused:
            with pytest.raises(InvalidAccessToken) as raised:
                campus.canvas(token).get_current_user()
            assert raised.value.message == [{"message": "Invalid access token."}]

    def test_a_revoked_token_raises_invalid_access_token(self, campus):
        from canvasapi.exceptions import InvalidAccessToken

        canvas = campus.canvas(campus.token("revoked"))
        canvas.get_current_user()
        row = json.loads(campus.site.manage("instaccess_tokens", "list", "--user", "ada", "--limit", "1", "--json"))[
            0
        ]
        campus.site.manage("instaccess_tokens", "revoke", "--jti", row["jti"], "--reason", "laptop stolen")

        def get_error() -> Any:
            try:
                canvas.get_current_user()
            except InvalidAccessToken as error:
                return error
            return None

        assert servers.wait_until(get_error, bool).message == [{"message": "Invalid access token."}]


class TestIssueErrors:
    """Each answer of `docs/wire-contract.md` §1 raises the same canvasapi exception as Canvas's answer."""

    def issue_error(self, campus: Campus, name: str, **request: Any) -> Exception:
        from canvasapi.exceptions import CanvasException

        with pytest.raises(CanvasException) as raised:
            campus.issue(campus.made.get(name, name), **request)
        return raised.value

    def test_a_request_without_credentials_raises_invalid_access_token(self, campus):
        error = self.issue_error(campus, "ada's", use_auth=False)

        assert (type(error).__name__, error.message) == (
            "InvalidAccessToken",
            [{"message": "user authorization required"}],
        )

    @pytest.mark.parametrize("name", ["no such token", "without user"])
    def test_an_access_token_that_is_unknown_or_has_no_user_raises_invalid_access_token(self, campus, name):
        error = self.issue_error(campus, name)

        assert (type(error).__name__, error.message) == ("InvalidAccessToken", [{"message": "Invalid access token."}])

    def test_an_encrypted_inst_access_token_raises_invalid_access_token(self, campus):
        error = self.issue_error(campus, campus.token("admin's"))

        assert (type(error).__name__, error.message) == ("InvalidAccessToken", [{"message": "Invalid access token."}])

    def test_an_expired_access_token_raises_invalid_access_token(self, campus):
        error = self.issue_error(campus, "expired")

        [message] = error.message
        assert (type(error).__name__, message["message"]) == ("InvalidAccessToken", "Expired access token.")

    def test_an_access_token_without_the_scope_raises_unauthorized(self, campus):
        error = self.issue_error(campus, "without scope")

        message = [{"message": "Insufficient scopes on access token."}]
        assert (type(error).__name__, error.message) == ("Unauthorized", message)

    def test_a_forbidden_masquerade_raises_unauthorized(self, campus):
        error = self.issue_error(campus, "hasty", as_user_id=campus.made["boole"])

        assert (type(error).__name__, error.message) == ("Unauthorized", "Invalid as_user_id")

    def test_a_signed_inst_access_token_raises_forbidden(self, campus):
        error = self.issue_error(campus, campus.decrypted(campus.token("admin's")))

        body = '{"error":"cannot generate a JWT when authorized by a JWT"}'
        assert (type(error).__name__, error.message) == ("Forbidden", body)

    def test_too_many_requests_raise_rate_limit_exceeded(self, campus, start_server):
        base_url = start_server()
        for _ in range(3):
            assert campus.issue(campus.made["hasty"], base_url=base_url).status_code == 201

        # Repeat requests until one is throttled, because the bucket leaks between requests on a slow machine.
        error = servers.wait_until(lambda: self.try_issue(campus, "hasty", base_url=base_url), bool)

        assert type(error).__name__ == "RateLimitExceeded"
        assert error.message == "Rate Limit Exceeded. X-Rate-Limit-Remaining: 0.0"

    def test_too_many_requests_raise_forbidden_if_the_throttle_status_is_403(self, campus, start_server):
        base_url = start_server(THROTTLE_STATUS=403)

        error = servers.wait_until(lambda: self.try_issue(campus, "hasty", base_url=base_url), bool)

        assert type(error).__name__ == "Forbidden"
        assert error.message == "403 Forbidden (Rate Limit Exceeded)\n"

    def try_issue(self, campus: Campus, name: str, **request: Any) -> Any:
        from canvasapi.exceptions import CanvasException

        try:
            campus.issue(campus.made[name], **request)
        except CanvasException as error:
            return error
        return None

    def test_a_server_side_error_raises_the_general_exception(self, campus, start_server):
        error = self.issue_error(campus, "ada's", base_url=start_server(CLAIMS_HOOK="no.such.hook"))

        assert (type(error).__name__, error.message) == (
            "CanvasException",
            "Encountered an error: status code 503",
        )

    def test_another_method_raises_the_general_exception(self, campus):
        error = self.issue_error(campus, "ada's", method="PUT")

        assert (type(error).__name__, error.message) == (
            "CanvasException",
            "Encountered an error: status code 405",
        )

    def test_more_parameters_than_django_accepts_raise_bad_request(self, campus):
        error = self.issue_error(campus, "ada's", _url=f"{campus.base_url}/api/v1/{ENDPOINT}?{'a&' * 1001}")

        assert (type(error).__name__, error.message) == ("BadRequest", '{"errors":[{"message":"Bad request."}]}')


class TestTheInstalledClient:
    def test_canvasapi_is_unmodified(self):
        """These tests apply to every installation of canvasapi, because none of its files is changed here."""
        files = distribution("canvasapi").files or []
        sources = [file for file in files if file.suffix == ".py"]

        assert sources
        for file in sources:
            recorded = file.hash
            assert recorded is not None
            assert recorded.mode == "sha256"
            assert digest(Path(os.fspath(file.locate()))) == recorded.value


def digest(path: Path) -> str:
    return b64(hashlib.sha256(path.read_bytes()).digest())
