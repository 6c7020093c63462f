"""Tests of unmodified Canvas clients that send requests to a real nginx with the example configuration.

`OF_THE_ISSUER` and `OF_THE_GATEWAY` list the exception that each client raises after each response, as in
docs/clients.md.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support import readme, servers
from tests.support.answers import (
    BAD_REQUEST,
    CHALLENGE,
    INSUFFICIENT_SCOPE,
    INVALID,
    INVALID_AS_USER_ID,
    JWT_FROM_JWT,
    METHOD_NOT_ALLOWED,
    UNAUTHENTICATED,
    UNAVAILABLE,
)
from tests.support.clients import CLIENTS, FOLDER, Client, Outcome
from tests.support.demos import SetUp
from tests.support.proxies import Answer, Proxy, Site, start_nginx
from tests.support.tokens import b64

pytestmark = pytest.mark.services

PAGE = readme.page("clients.md")
ISSUE = "inst_access_tokens"
SELF = "users/self"


@dataclass(frozen=True)
class Refusal:
    """A request, its response, and the exception that each client raises.

    Attributes:
        case: the case, as in docs/clients.md.
        answer: the status, the body and the challenge of the response, as in docs/wire-contract.md.
        raised: the name of the exception of each client, in the order of `CLIENTS`.
        token: the name of the bearer token in `Campus.tokens`.
        server: the name of the server in `SERVERS`.
    """

    case: str
    answer: tuple[int, bytes, str | None]
    raised: tuple[str, str, str, str]
    token: str
    method: str = "POST"
    endpoint: str = ISSUE
    params: dict[str, Any] = field(default_factory=dict)
    server: str = "usual"

    def raised_by(self, client: str) -> str:
        return dict(zip(CLIENTS, self.raised, strict=True))[client]

    def expected(self, client: str) -> Outcome:
        """Return the expected outcome for a client: the name of the exception, and its message or its response."""
        raised = self.raised_by(client)
        status, body, _ = self.answer
        match raised:
            case "InvalidAccessToken" | "Unauthorized":
                return Outcome(raised=raised, content=json.loads(body)["errors"])
            case "RateLimitExceeded":
                return Outcome(raised=raised, content="Rate Limit Exceeded. X-Rate-Limit-Remaining: 0.0")
            case "CanvasException":
                return Outcome(raised=raised, content=f"Encountered an error: status code {status}")
            case "CanvasApiResponseError":
                return Outcome(raised=raised, content=[status, body.decode()])
            case "Forbidden" | "BadRequest":
                return Outcome(raised=raised, content=body.decode())
        return Outcome(raised=raised)


WITH_CHALLENGE = ("InvalidAccessToken", "InvalidAccessToken", "InvalidAccessToken", "CanvasApiResponseError")
WITHOUT_CHALLENGE = ("Unauthorized", "Unauthorized", "Unauthorized", "CanvasApiResponseError")
OTHER = ("CanvasException", "CanvasException", "CanvasException", "CanvasApiResponseError")
REPEATS = "repeats the request every second"
IMPOSSIBLE = "–"
"""The table cell of a client that can't send the request."""

FULL_BUCKET = {"THROTTLE_COST": 1_000_000, "THROTTLE_LEAK": 1}
SERVERS: dict[str, dict[str, Any]] = {
    "usual": {},
    "throttled with 429": FULL_BUCKET,
    "throttled with 403": FULL_BUCKET | {"THROTTLE_STATUS": 403},
    "without private keys": {"KEY_ENCRYPTION_KEYS": ["A" * 43]},
}
"""The INSTACCESS settings of each server."""

EXPIRED = (401, b'{"errors":[{"message":"Expired access token.","expired_at":"2026-01-01T00:00:00Z"}]}', CHALLENGE)
THROTTLED_429 = (429, b"429 Too Many Requests (Rate Limit Exceeded)\n", None)
THROTTLED_403 = (403, b"403 Forbidden (Rate Limit Exceeded)\n", None)

OF_THE_ISSUER = [
    Refusal("No `Authorization` header", UNAUTHENTICATED, (*WITH_CHALLENGE[:3], IMPOSSIBLE), "none"),
    Refusal("Empty access token", INVALID, WITH_CHALLENGE, "empty"),
    Refusal("Unknown access token", INVALID, WITH_CHALLENGE, "unknown"),
    Refusal("Access token of an inactive user", INVALID, WITH_CHALLENGE, "inactive"),
    Refusal("Access token without a user", INVALID, WITH_CHALLENGE, "without user"),
    Refusal("Expired access token that can be refreshed", INVALID, WITH_CHALLENGE, "refreshable"),
    Refusal("Access token that has expired permanently", EXPIRED, WITH_CHALLENGE, "expired"),
    Refusal("Encrypted InstAccess token", INVALID, WITH_CHALLENGE, "encrypted"),
    Refusal("Modified signed InstAccess token", INVALID, WITH_CHALLENGE, "modified signed"),
    Refusal(
        "Valid signed InstAccess token",
        JWT_FROM_JWT,
        ("Forbidden", "Forbidden", "Forbidden", "CanvasApiResponseError"),
        "signed",
    ),
    Refusal("Access token without the scope", INSUFFICIENT_SCOPE, WITHOUT_CHALLENGE, "without scope"),
    Refusal(
        "Masquerade that is not allowed", INVALID_AS_USER_ID, WITHOUT_CHALLENGE, "ada", params={"as_user_id": "1"}
    ),
    Refusal(
        "Over the rate limit",
        THROTTLED_429,
        ("CanvasException", "CanvasException", "RateLimitExceeded", "CanvasApiResponseError"),
        "hasty",
        server="throttled with 429",
    ),
    Refusal(
        "Over the rate limit, with `THROTTLE_STATUS` 403",
        THROTTLED_403,
        ("RateLimitExceeded", "RateLimitExceeded", "Forbidden", REPEATS),
        "hasty",
        server="throttled with 403",
    ),
    Refusal("Issuer without a usable key", UNAVAILABLE, OTHER, "ada", server="without private keys"),
    Refusal("Another method", METHOD_NOT_ALLOWED, OTHER, "ada", method="PUT"),
    Refusal(
        "More parameters than Django accepts",
        BAD_REQUEST,
        ("BadRequest", "BadRequest", "BadRequest", "CanvasApiResponseError"),
        "ada",
        endpoint=f"{ISSUE}?{'a&' * 1001}",
    ),
]


def at_the_gateway(case: str, token: str) -> Refusal:
    return Refusal(case, INVALID, WITH_CHALLENGE, token, "GET", SELF)


OF_THE_GATEWAY = [
    Refusal("No `Authorization` header", INVALID, (*WITH_CHALLENGE[:3], IMPOSSIBLE), "none", "GET", SELF),
    at_the_gateway("Empty InstAccess token", "empty"),
    at_the_gateway("Unknown token", "unknown"),
    at_the_gateway("Access token instead of an InstAccess token", "ada"),
    at_the_gateway("Signed InstAccess token", "signed"),
    at_the_gateway("Modified InstAccess token", "modified"),
    at_the_gateway("InstAccess token in a non-canonical encoding", "non-canonical"),
    at_the_gateway("Expired InstAccess token", "expired encrypted"),
    at_the_gateway("Revoked InstAccess token", "revoked"),
    Refusal(
        "Gateway without a usable key", UNAVAILABLE, OTHER, "encrypted", "GET", SELF, server="without private keys"
    ),
]
REFUSALS = [*OF_THE_ISSUER, *OF_THE_GATEWAY]


# `manage.py shell` runs this script, which creates tokens in the database of the site.
_MAKE_TOKENS = """
import json, secrets, time
from datetime import datetime, timedelta, timezone
from django.contrib.auth import get_user_model
from oauth2_provider.models import get_access_token_model, get_application_model, get_refresh_token_model
from instaccess import issuer, users as instaccess_users
from instaccess.conf import SCOPE
users = get_user_model().objects
ada, boole, admin = (users.get(username=name) for name in ("ada", "boole", "admin"))
users.filter(pk=ada.pk).update(first_name="Ada", last_name="Lovelace")
application = get_application_model().objects.get()
now = datetime.now(timezone.utc)
access_tokens = {}
for name, columns in {
    "inactive": {"user": users.create_user("inactive", is_active=False)},
    "without user": {"user": None},
    "refreshable": {"expires": now - timedelta(hours=1)},
    "expired": {"expires": datetime(2026, 1, 1, tzinfo=timezone.utc)},
    "without scope": {"scope": "read"},
    "hasty": {},
    **{f"admin {number}": {"user": admin} for number in range(8)},
}.items():
    access_tokens[name] = get_access_token_model().objects.create(**{
        "user": ada, "application": application, "token": secrets.token_urlsafe(32), "scope": SCOPE,
        "expires": now + timedelta(hours=1), **columns,
    })
get_refresh_token_model().objects.create(
    user=ada, application=application, token=secrets.token_urlsafe(32), access_token=access_tokens["refreshable"],
)
_, expired_encrypted = issuer.issue(
    user=ada, origin=issuer.Origin(canvas_domain="canvas.example.edu"), now=time.time() - 7200
)
print(json.dumps({
    "tokens": {name: token.token for name, token in access_tokens.items()} | {"expired encrypted": expired_encrypted},
    "users": {user.username: {"id": user.pk, "uuid": instaccess_users.user_uuid(user)} for user in (ada, boole)},
}))
"""


class Campus:
    """The site of the proxy tests, with a token of each kind, and with a server for each entry of `SERVERS`."""

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        self.site = Site(folder, set_up)
        self._processes: list[servers.Process] = []
        self._ports: dict[str, int] = {}
        try:
            made = json.loads(self.site.manage("shell", "--no-imports", "-c", _MAKE_TOKENS).splitlines()[-1])
            self.users: dict[str, dict[str, Any]] = made["users"]
            self.tokens = self._tokens(made["tokens"])
            self.admin_tokens = [token for name, token in made["tokens"].items() if name.startswith("admin")]
            """The access tokens of a user who may masquerade.

            Use each token only once, because the throttle could refuse a second request with the same token.
            """
        except BaseException:
            self.close()
            raise

    def _tokens(self, tokens: dict[str, Any]) -> dict[str, str | None]:
        """Return the given tokens and tokens that need a running issuer, by name."""
        proxy = Proxy("nginx", self.port("usual"), self.site)
        encrypted, revoked = proxy.issue("curry"), proxy.issue("curry")
        signed = self.decrypt(encrypted)
        self.revoke(revoked)
        return tokens | {
            "none": None,
            "empty": "",
            "unknown": "no-such-access-token",
            "ada": self.site.access_tokens["ada"].pop(),
            "encrypted": encrypted,
            "modified": encrypted[:-8] + "AAAAAAAA",
            "non-canonical": encrypted + "=",
            "revoked": revoked,
            "signed": signed,
            "modified signed": signed[:-8] + "AAAAAAAA",
        }

    def port(self, name: str) -> int:
        """Return the port of the nginx for a server. The first call with a name starts the server and its nginx."""
        if name not in self._ports:
            port = servers.free_port()
            server = None
            if settings := SERVERS[name]:
                server = self.site.start_server(name, **settings)
                self._processes.append(server)
            self._processes.append(start_nginx(self.site, port, server))
            self._ports[name] = port
            if "THROTTLE_COST" in settings:
                # Fill the bucket with one request, so that the issuer refuses the next request.
                Proxy("nginx", port, self.site).call("POST", f"/api/v1/{ISSUE}", self.tokens["hasty"])
        return self._ports[name]

    def decrypt(self, token: str) -> str:
        """Return the signed token that the gateway forwards for an encrypted token."""
        answer = self._ask_gateway(token)
        assert answer.status == 204
        return str(answer.headers["Authorization"].removeprefix("Bearer "))

    def revoke(self, token: str) -> None:
        """Revoke an encrypted token, and wait until the gateway refuses the token."""
        payload = self.decrypt(token).split(".")[1]
        jti = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"]
        self.site.manage("instaccess_tokens", "revoke", "--jti", jti, "--reason", "laptop stolen")
        servers.wait_until(lambda: self._ask_gateway(token).status, lambda status: status == 401)

    def _ask_gateway(self, token: str) -> Answer:
        gateway = Proxy("gateway", self.site.gateway_process.port, self.site)
        answer: Answer = gateway.call("GET", "/internal/gateway/verify", token)
        return answer

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self.site.close()


@pytest.fixture(scope="module")
def campus(set_up_once: SetUp) -> Iterator[Campus]:
    # Don't use pytest's temporary directory, which only its owner can enter. If root starts nginx, the workers run as
    # another user.
    with tempfile.TemporaryDirectory(prefix="instaccess-clients-") as name:
        Path(name).chmod(0o755)
        campus = Campus(Path(name), set_up_once)
        yield campus
        campus.close()


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, campus: Campus) -> Iterator[Client]:
    client = Client(request.param, campus.site.folder / "client.log")
    yield client
    client.kill()


@pytest.fixture
def tap(campus: Campus) -> Iterator[Callable[[str], servers.WireTap]]:
    """Return a function that starts a wire tap, which records the requests to the nginx of the given server."""
    taps: list[servers.WireTap] = []

    def start(name: str = "usual") -> servers.WireTap:
        taps.append(servers.WireTap(campus.port(name)))
        return taps[-1]

    yield start
    for each in taps:
        each.close()


def url(tap: servers.WireTap) -> str:
    return f"http://{servers.HOST}:{tap.port}"


class TestATokenFromIssueToRevocation:
    def test_client_gets_a_token_and_uses_the_token_until_the_token_is_revoked(self, client, campus, tap):
        base_url = url(tap())
        access_token = campus.site.access_tokens["ada"].pop()

        issued = client.call(base_url=base_url, token=access_token, method="POST", endpoint=ISSUE)
        token = issued.returned["token"]
        use = {"base_url": base_url, "token": token, "method": "GET", "endpoint": SELF}
        accepted = client.call(**use)
        campus.revoke(token)
        refused = client.call(**use)

        assert list(issued.returned) == ["token"]
        assert token.count(".") == 4
        user = {"name": "Ada Lovelace", "sortable_name": "Lovelace, Ada", "login_id": "ada", **campus.users["ada"]}
        assert {name: accepted.returned[name] for name in user} == user
        assert refused == at_the_gateway("revoked", "revoked").expected(client.name)

    def test_client_gets_a_token_for_another_user(self, client, campus, tap):
        base_url, boole = url(tap()), campus.users["boole"]["id"]

        issued = client.call(
            base_url=base_url,
            token=campus.admin_tokens.pop(),
            method="POST",
            endpoint=ISSUE,
            params={"as_user_id": boole},
        )
        accepted = client.call(base_url=base_url, token=issued.returned["token"], method="GET", endpoint=SELF)

        assert accepted.returned["login_id"] == "boole"

    @pytest.mark.parametrize("client", ["@kth/canvas-api 5.1"], indirect=True)
    def test_issuer_ignores_as_user_id_in_a_json_body_and_issues_a_token_for_the_caller(self, client, campus, tap):
        base_url, boole = url(tap()), campus.users["boole"]["id"]

        issued = client.call(
            base_url=base_url,
            token=campus.admin_tokens.pop(),
            method="POST",
            endpoint=ISSUE,
            json_body={"as_user_id": boole},
        )
        accepted = client.call(base_url=base_url, token=issued.returned["token"], method="GET", endpoint=SELF)

        assert accepted.returned["login_id"] == "admin"


class TestTheTablesOfRefusals:
    @pytest.mark.parametrize(
        ("title", "refusals"),
        [("A client requests a token", OF_THE_ISSUER), ("A client uses a token", OF_THE_GATEWAY)],
    )
    def test_page_of_clients_contains_the_tables_of_refusals_in_this_file(self, title, refusals):
        section = readme.section(title, PAGE)
        header = next(line for line in section.splitlines() if line.startswith("|"))
        [rows] = readme.tables(section)

        assert [cell.strip() for cell in header.strip("|").split("|")] == ["case", "status", *CLIENTS]
        assert [[cell.removeprefix("`").removesuffix("`") for cell in row[2:]] for row in rows] == [
            list(refusal.raised) for refusal in refusals
        ]
        assert [(row[0], int(row[1])) for row in rows] == [(refusal.case, refusal.answer[0]) for refusal in refusals]

    @pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.case)
    def test_response_to_each_refused_request_is_the_response_in_the_wire_contract(self, refusal, campus):
        proxy = Proxy("nginx", campus.port(refusal.server), campus.site)
        path = f"/api/v1/{refusal.endpoint}?{urlencode(refusal.params)}".rstrip("?")

        answer = proxy.call(refusal.method, path, campus.tokens[refusal.token])

        assert (answer.status, answer.body, answer.headers["WWW-Authenticate"]) == refusal.answer

    @pytest.mark.parametrize(
        ("client", "refusal"),
        [
            pytest.param(client, refusal, id=f"{client}-{refusal.case}")
            for client in CLIENTS
            for refusal in REFUSALS
            if refusal.raised_by(client) != IMPOSSIBLE
        ],
        indirect=["client"],
    )
    def test_client_raises_the_exception_in_the_table_of_refusals(self, client, refusal, campus, tap):
        front = tap(refusal.server)

        client.begin(
            base_url=url(front),
            token=campus.tokens[refusal.token],
            method=refusal.method,
            endpoint=refusal.endpoint,
            params=refusal.params,
        )
        servers.wait_until(lambda: client.has_ended() or len(front.requests) > 2, bool)

        if refusal.raised_by(client.name) == REPEATS:
            assert not client.has_ended()
            client.kill()
        else:
            assert client.outcome() == refusal.expected(client.name)
            assert len(front.requests) == 1


class TestTheRequestForAToken:
    def test_client_sends_the_headers_that_the_page_of_clients_contains(self, client, campus, tap):
        [rows] = readme.tables(readme.section("What each client sends", PAGE))
        accept, content_type, place = {name: cells for name, *cells in rows}[client.name]
        front = tap()

        client.call(base_url=url(front), token="no-such-access-token", method="POST", endpoint=ISSUE)

        assert front.requests == [f"POST /api/v1/{ISSUE} HTTP/1.1"]
        assert front.headers("Authorization") == ["Bearer no-such-access-token"]
        assert front.headers("Accept") == readme.code(accept)
        assert front.headers("Content-Type") == readme.code(content_type)
        assert front.headers("Content-Length") == ["0"]

        front.clear()
        params = {"as_user_id": 5}
        client.call(base_url=url(front), token="no-such-access-token", method="POST", endpoint=ISSUE, params=params)

        query, body = {"query": ("?as_user_id=5", b""), "form": ("", b"as_user_id=5")}[place]
        assert front.requests == [f"POST /api/v1/{ISSUE}{query} HTTP/1.1"]
        assert front.sent.endswith(b"\r\n\r\n" + body)


class TestTheInstalledClients:
    VERSIONS = {client: version for client, _, version in readme.tables(PAGE)[0]}

    def test_page_of_clients_lists_every_client_of_the_tests(self):
        assert list(self.VERSIONS) == list(CLIENTS)

    @pytest.mark.parametrize("name", [name for name in CLIENTS if name.startswith("canvasapi")])
    def test_source_files_of_the_installed_canvasapi_are_unmodified(self, name):
        """Compare the hash of each source file, so that the results apply to every installation of this version."""
        [installed] = distributions(name="canvasapi", path=[str(FOLDER / name.replace(" ", "-"))])
        sources = [file for file in installed.files or [] if file.suffix == ".py"]

        assert installed.version == self.VERSIONS[name]
        assert sources
        for file in sources:
            recorded = file.hash
            assert recorded is not None
            assert recorded.mode == "sha256"
            assert b64(hashlib.sha256(Path(str(file.locate())).read_bytes()).digest()) == recorded.value

    def test_kth_canvas_api_has_the_documented_version(self):
        package = json.loads((FOLDER / "node/node_modules/@kth/canvas-api/package.json").read_text())

        assert package["version"] == self.VERSIONS["@kth/canvas-api 5.1"]
