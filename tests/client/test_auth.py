"""Tests of the authentication for requests and httpx: the header, the repeated request, bodies and redirects."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from instaccess.client import AccessTokenRefused, ForeignOrigin, HttpxAuth, InstAccess, RequestsAuth
from tests.client.helpers import ACCESS_TOKEN, TOKENS, Site, report, running, source
from tests.support.paths import ROOT

Send = Callable[..., int]


class OneWay:
    """A body of four bytes that can be read only once, like a pipe."""

    def __init__(self) -> None:
        self._rest = b"text"

    def __len__(self) -> int:
        return 4

    def read(self, size: int = -1) -> bytes:
        data, self._rest = self._rest, b""
        return data

    def __iter__(self) -> Iterator[bytes]:
        yield self.read()


async def pieces(body: OneWay) -> AsyncIterator[bytes]:
    yield body.read()


def by_requests(access: InstAccess, method: str, url: str, body: Any = None) -> int:
    with requests.Session() as session:
        session.auth = RequestsAuth(access)
        return session.request(method, url, data=body, timeout=60).status_code


def by_httpx(access: InstAccess, method: str, url: str, body: Any = None) -> int:
    with httpx.Client(auth=HttpxAuth(access), follow_redirects=True) as client:
        headers = {"Content-Length": "4"} if isinstance(body, OneWay) else {}
        return client.request(method, url, content=body, headers=headers).status_code


def by_async_httpx(access: InstAccess, method: str, url: str, body: Any = None) -> int:
    content = pieces(body) if isinstance(body, OneWay) else body
    headers = {"Content-Length": "4"} if isinstance(body, OneWay) else {}

    async def story() -> int:
        async with httpx.AsyncClient(auth=HttpxAuth(access), follow_redirects=True) as client:
            return (await client.request(method, url, content=content, headers=headers)).status_code

    return asyncio.run(story())


@pytest.fixture(params=[by_requests, by_httpx, by_async_httpx])
def send(request: pytest.FixtureRequest) -> Send:
    sender: Send = request.param
    return sender


@pytest.fixture
def other() -> Iterator[Site]:
    """Yield a server of another origin that accepts any request."""
    site = Site()
    site.accepts = lambda token: True
    with running(site):
        yield site


class TestRequests:
    def test_request_contains_the_token_and_later_requests_contain_the_same_token(self, site, send):
        access = source(site.url)

        statuses = [send(access, "GET", f"{site.url}/a"), send(access, "POST", f"{site.url}/b", b"text")]

        assert (statuses, site.issued) == ([200, 200], 1)
        assert site.calls == [
            ("GET", "/a", f"Bearer {TOKENS[0]}", b""),
            ("POST", "/b", f"Bearer {TOKENS[0]}", b"text"),
        ]

    def test_request_is_repeated_once_with_a_new_token_and_the_same_body_after_a_401(self, site, send):
        access = source(site.url)
        send(access, "GET", f"{site.url}/a")
        site.revoke()
        site.calls.clear()

        assert send(access, "POST", f"{site.url}/b", b"text") == 200
        assert site.calls == [
            ("POST", "/b", f"Bearer {TOKENS[0]}", b"text"),
            ("POST", "/b", f"Bearer {TOKENS[1]}", b"text"),
        ]

    def test_second_401_is_returned_to_the_caller_and_the_token_is_not_renewed_for_30_seconds(
        self, site, send, clock
    ):
        access = source(site.url, clock)
        site.accepts = lambda token: False

        statuses = [send(access, "GET", f"{site.url}/a") for _ in range(3)]
        issued = site.issued
        clock.advance(30)
        send(access, "GET", f"{site.url}/a")

        assert (statuses, issued, site.issued) == ([401] * 3, 2, 3)

    def test_request_with_a_body_that_cannot_be_sent_again_is_not_repeated_but_the_token_is_renewed(self, site, send):
        access = source(site.url)
        send(access, "GET", f"{site.url}/a")
        site.revoke()
        site.calls.clear()

        statuses = [send(access, "POST", f"{site.url}/b", OneWay()), send(access, "GET", f"{site.url}/c")]

        assert statuses == [401, 200]
        assert [path for _, path, _, _ in site.calls] == ["/b", "/c"]

    def test_library_requests_sends_a_file_again_from_its_beginning(self, site, tmp_path):
        access = source(site.url)
        access.token()
        site.revoke()
        (tmp_path / "body").write_text("text")

        with (tmp_path / "body").open("rb") as body:
            assert by_requests(access, "POST", f"{site.url}/b", body) == 200
        assert [body for *_, body in site.calls] == [b"text", b"text"]

    def test_refused_access_token_after_a_401_raises_an_error_that_contains_no_token(self, site, send):
        access = source(site.url)
        send(access, "GET", f"{site.url}/a")
        site.revoke()
        site.refusals = [(401, b'{"errors":[{"message":"Invalid access token."}]}', {})]

        with pytest.raises(AccessTokenRefused) as caught:
            send(access, "GET", f"{site.url}/a")

        assert not any(secret in report(caught.value) for secret in (ACCESS_TOKEN, TOKENS[0]))


class TestOtherServers:
    def test_request_to_another_origin_is_refused_before_a_token_is_requested(self, site, other, send):
        with pytest.raises(ForeignOrigin, match=r"pass\s+origins=\['http://127.0.0.1:"):
            send(source(site.url), "GET", f"{other.url}/a")

        assert (other.calls, site.issued) == ([], 0)

    def test_request_to_an_allowed_origin_contains_the_token(self, site, other, send):
        assert send(source(site.url, origins=[other.url]), "GET", f"{other.url}/a") == 200
        assert other.calls[0][2] == f"Bearer {TOKENS[0]}"

    def test_redirect_to_another_origin_does_not_forward_the_token_even_if_the_origin_answers_401(
        self, site, other, send
    ):
        site.redirects["/a"] = f"{other.url}/b"
        other.accepts = lambda token: False

        assert send(source(site.url), "GET", f"{site.url}/a") == 401
        assert [(path, authorization) for _, path, authorization, _ in other.calls] == [("/b", None)]
        assert (site.issued, other.issued) == (1, 0)

    def test_redirect_within_the_origin_keeps_the_token_and_only_the_refused_request_is_repeated(self, site, send):
        access = source(site.url)
        access.token()
        site.redirects["/a"] = "/b"
        site.revoke()

        assert send(access, "POST", f"{site.url}/a", b"text") == 200
        assert [(method, path) for method, path, _, _ in site.calls] == [("POST", "/a"), ("GET", "/b"), ("GET", "/b")]


class TestWithoutDjango:
    def test_client_works_without_django_and_without_httpx(self, site):
        program = (
            "import sys\n"
            "for name in ('django', 'rest_framework', 'oauth2_provider', 'httpx', 'jwcrypto'):\n"
            "    sys.modules[name] = None  # makes importing it fail\n"
            "import requests\n"
            "from instaccess.client import InstAccess, RequestsAuth\n"
            f"access = InstAccess({site.url!r}, access_token='secret')\n"
            f"print(requests.get({site.url + '/a'!r}, auth=RequestsAuth(access), timeout=60).json()['name'])\n"
        )

        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "Ada Lovelace\n", "")
