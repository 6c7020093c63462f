"""Tests of the client with a real issuer, gateway and service behind nginx with the example configuration."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from instaccess.client import AccessTokenRefused, EndpointNotFound, HttpxAuth, InstAccess, RequestsAuth
from tests.client.helpers import Clock, source
from tests.support import servers
from tests.support.demos import SetUp
from tests.support.proxies import Proxy, Site, start_nginx

pytestmark = pytest.mark.services

SELF = "/api/v1/users/self"


class Campus:
    """The site of the proxy tests behind nginx."""

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        self.site = Site(folder, set_up)
        self._nginx = start_nginx(self.site, servers.free_port())
        self.url = f"http://{servers.HOST}:{self._nginx.port}"
        self.proxy = Proxy("nginx", self._nginx.port, self.site)

    def source(self, clock: Clock | None = None, **options: Any) -> InstAccess:
        """Return a source of tokens with an access token that no other test uses."""
        return source(self.url, clock, access_token=self.site.access_tokens["ada"].pop(), **options)

    @property
    def audit_rows(self) -> int:
        with closing(sqlite3.connect(self.site.folder / "demo.sqlite3")) as connection:
            [(count,)] = connection.execute("SELECT COUNT(*) FROM instaccess_issuedtoken").fetchall()
        return int(count)

    def revoke_signing_key(self) -> None:
        """Revoke the current signing key, and wait until the issuer and the gateway use the next key."""
        refused = self.proxy.issue("boole")
        keys = json.loads(self.site.manage("instaccess_keys", "list", "--json"))
        [kid] = [key["kid"] for key in keys if key["use"] == "sig" and key["status"] == "current"]
        self.site.manage("instaccess_keys", "revoke", "--kid", kid, "--reason", "laptop stolen")
        servers.wait_until(lambda: self._use(refused), lambda status: status == 401)
        servers.wait_until(lambda: self._use(self.proxy.issue("boole")), lambda status: status == 200)

    def _use(self, token: str) -> int:
        return self.proxy.call("GET", SELF, token).status

    def close(self) -> None:
        self._nginx.kill()
        self.site.close()


@pytest.fixture(scope="module")
def campus(set_up_once: SetUp) -> Iterator[Campus]:
    # Don't use pytest's temporary directory, because nginx workers that root starts can't enter this directory.
    with tempfile.TemporaryDirectory(prefix="instaccess-client-") as name:
        Path(name).chmod(0o755)
        campus = Campus(Path(name), set_up_once)
        yield campus
        campus.close()


class TestBehindNginx:
    def test_sixteen_threads_use_one_token_with_one_audit_row(self, campus):
        access, before = campus.source(), campus.audit_rows
        together = threading.Barrier(16)

        def call() -> str:
            together.wait()
            return str(requests.get(campus.url + SELF, auth=RequestsAuth(access), timeout=60).json()["login_id"])

        with ThreadPoolExecutor(16) as pool:
            names = [future.result() for future in [pool.submit(call) for _ in range(16)]]

        assert (names, campus.audit_rows - before) == (["ada"] * 16, 1)

    def test_tasks_of_httpx_use_one_token_with_one_audit_row(self, campus):
        access, before = campus.source(), campus.audit_rows

        async def story() -> list[str]:
            async with httpx.AsyncClient(base_url=campus.url, auth=HttpxAuth(access), timeout=60) as client:
                answers = await asyncio.gather(*(client.get(SELF) for _ in range(16)))
            return [str(answer.json()["login_id"]) for answer in answers]

        assert (asyncio.run(story()), campus.audit_rows - before) == (["ada"] * 16, 1)

    def test_clients_of_a_revoked_key_get_a_new_token_and_see_no_401(self, campus):
        access = campus.source()
        auth = RequestsAuth(access)
        first = requests.get(campus.url + SELF, auth=auth, timeout=60)
        campus.revoke_signing_key()
        before = campus.audit_rows

        answer = requests.get(campus.url + SELF, auth=auth, timeout=60)
        with httpx.Client(auth=HttpxAuth(access)) as client:
            later = client.get(campus.url + SELF)

        assert (first.status_code, answer.status_code, later.status_code) == (200, 200, 200)
        assert [each.status_code for each in answer.history] == [401]
        assert campus.audit_rows - before == 1

    def test_client_waits_as_long_as_the_throttle_of_the_issuer_says(self, campus):
        clock = Clock()
        access = campus.source(clock)
        issuer = campus.site.service_process.port
        other = campus.site.start_server("issuer-with-empty-buckets")
        # The buckets of the other issuer are empty, as the bucket would be after the wait.
        clock.on_sleep = lambda: campus.site.issuer.retarget(other.port)
        try:
            for _ in range(4):
                access.token()
                clock.advance(3600)
        finally:
            campus.site.issuer.retarget(issuer)
            other.kill()

        # The bucket leaks while the test runs, so the time can be a second shorter.
        assert len(clock.slept) == 1
        assert 1 <= clock.slept[0] <= 20

    def test_masquerade_that_is_not_allowed_is_an_error(self, campus):
        from instaccess.client import InvalidAsUserID

        with pytest.raises(InvalidAsUserID):
            campus.source(as_user_id=1).token()

    def test_unknown_access_token_is_refreshed(self, campus):
        fresh = campus.site.access_tokens["ada"].pop()
        access = source(campus.url, access_token="unknown", refresh=lambda: fresh)

        assert requests.get(campus.url + SELF, auth=RequestsAuth(access), timeout=60).status_code == 200

    def test_unknown_access_token_and_wrong_base_url_are_errors(self, campus):
        with pytest.raises(AccessTokenRefused):
            source(campus.url, access_token="unknown").token()
        with pytest.raises(EndpointNotFound):
            source(f"{campus.url}/other", access_token="unknown").token()
