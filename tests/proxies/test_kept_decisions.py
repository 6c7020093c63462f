"""Tests of case G35: nginx keeps decisions of the gateway, with the unchanged example and with each server.

These tests use a separate site, because they revoke keys. Caddy, Envoy and Traefik can't keep decisions.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from instaccess.conf import KEEPING_SLACK, REVOCATION_SECONDS
from tests.proxies.helpers import INVALID, SELF, UNAVAILABLE, bearer
from tests.support import servers
from tests.support.answers import unverified_parts
from tests.support.demos import SetUp
from tests.support.proxies import Change, Proxy, Site, start_nginx, substitute, unchanged

pytestmark = pytest.mark.services

ZONE = "keys_zone=decisions:1m max_size=64m"
KEY = 'proxy_cache_key "$proxy_host $http_authorization";'


class Setting(NamedTuple):
    """The server and the times of a gateway. The sum of the times is the largest that the system checks accept."""

    server: str
    kept: int
    deny_list: int


@pytest.fixture(scope="module")
def own_site(set_up_once: SetUp) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="instaccess-proxies-") as name:
        Path(name).chmod(0o755)
        site = Site(Path(name), set_up_once)
        yield site
        site.close()


@pytest.fixture(scope="module", params=[Setting("gunicorn", 1, 2), Setting("hypercorn", 3, 0)], ids=str)
def setting(request: pytest.FixtureRequest) -> Setting:
    setting: Setting = request.param
    assert setting.deny_list + setting.kept + KEEPING_SLACK == REVOCATION_SECONDS
    return setting


@pytest.fixture(scope="module")
def gateway(own_site: Site, setting: Setting) -> Iterator[servers.Process]:
    """Start a gateway that lets a proxy keep its decisions, and answers 503 as soon as its deny list is too old."""
    process = own_site.start_server(
        f"keeping-{setting.server}",
        setting.server,
        KEEP_DECISION_SECONDS=setting.kept,
        DENY_LIST_SECONDS=setting.deny_list,
        MAX_STALENESS=0,
    )
    yield process
    process.kill()


@pytest.fixture(scope="module")
def nginx(own_site: Site) -> Iterator[Proxy]:
    port = servers.free_port()
    process = start_nginx(own_site, port)
    yield Proxy("nginx", port, own_site)
    process.kill()


@pytest.fixture
def site(own_site: Site, gateway: servers.Process) -> Site:
    own_site.gateway.retarget(gateway.port)
    own_site.clear()
    return own_site


@pytest.fixture
def proxy(nginx: Proxy, site: Site) -> Proxy:
    return nginx


@pytest.fixture
def start(site: Site) -> Iterator[Any]:
    """Return a function that starts a separate nginx with a changed configuration."""
    processes = []

    def start_(change: Change) -> Proxy:
        port = servers.free_port()
        processes.append(start_nginx(site, port, change=change))
        return Proxy("nginx", port, site)

    yield start_
    for process in processes:
        process.kill()


def is_asked(proxy: Proxy, token: str, method: str = "GET") -> bool:
    """Send a request that must be accepted, and return whether nginx asked the gateway."""
    proxy.site.gateway.clear()
    assert proxy.call(method, SELF, token).status == 200
    return bool(proxy.site.gateway.requests)


def use_kept_decision(proxy: Proxy, token: str, method: str = "GET") -> None:
    """Send requests until nginx uses a kept decision. On a slow machine, a decision can expire before its use."""
    servers.wait_until(lambda: is_asked(proxy, token, method), lambda asked: not asked)


def find_mistakes(proxy: Proxy, users: tuple[str, ...] = ("ada", "boole")) -> list[Any]:
    """Send requests of several users in parallel. Returns each response with a wrong user or an unexpected status."""
    tokens = {user: proxy.issue(user) for user in users}
    mistakes: list[Any] = []

    def ask(user: str) -> None:
        for number in range(40):
            answer = proxy.call(("GET", "HEAD")[number % 4 == 3], SELF, tokens[user])
            if answer.status != 200 or (answer.body and answer.json["login_id"] != user):
                mistakes.append((user, answer))
            if number % 10 == 0 and proxy.call("GET", SELF, tokens[user][:-1]).status != 401:
                mistakes.append((user, "accepted with another token"))
            if number % 10 == 5 and proxy.call("GET", SELF).status != 401:
                mistakes.append((user, "accepted without a token"))

    threads = [threading.Thread(target=ask, args=(user,)) for user in users * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return mistakes


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Prevent the workers of nginx from writing files to a folder, as a full file system does."""
    before = folder.stat()
    # If root starts nginx, the user of the workers owns the folder, and could restore the permission to write.
    os.chown(folder, os.getuid(), -1)
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(before.st_mode & 0o777)
        os.chown(folder, before.st_uid, -1)


class TestAKeptDecision:
    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    def test_g35_nginx_does_not_ask_the_gateway_again_while_nginx_keeps_a_decision(self, proxy, method):
        use_kept_decision(proxy, proxy.issue("ada"), method)

    def test_g35_service_gets_one_authorization_header_for_the_first_and_for_kept_decisions(self, proxy, site):
        token = proxy.issue("ada")
        use_kept_decision(proxy, token)

        received = site.service.headers("Authorization")
        assert len(received) > 1
        assert len(set(received)) == 1
        assert bearer(received[0]).count(".") == 2
        assert token.encode() not in site.service.sent

    def test_g35_nginx_keeps_a_decision_only_for_the_exact_bytes_of_the_authorization_header(self, proxy, site):
        token = proxy.issue("ada")
        use_kept_decision(proxy, token)
        site.service.clear()

        for authorization in (f"Bearer {token[:-1]}", f"Bearer {token}A", f"Basic {token}", f"Bearer {token} x"):
            assert proxy.call("GET", SELF, Authorization=authorization).status == 401
        assert site.service.requests == []

    def test_g35_nginx_never_uses_the_decision_about_one_user_for_another_user(self, proxy):
        assert find_mistakes(proxy) == []

    def test_g35_nginx_with_an_incomplete_cache_key_never_uses_a_decision_for_another_user(self, start):
        # Without the header `Vary` of the gateway, nginx would use one decision for all users.
        assert find_mistakes(start(lambda text: substitute(text, KEY, 'proxy_cache_key "incomplete";'))) == []

    def test_g35_nginx_uses_no_expired_decision_even_if_the_gateway_is_unavailable(self, proxy, site, gateway):
        token = proxy.issue("ada")
        use_kept_decision(proxy, token)
        site.gateway.resets = True
        # `retarget` also closes kept-alive connections, so that nginx can't ask the gateway over such a connection.
        site.gateway.retarget(gateway.port)
        try:
            answer = servers.wait_until(lambda: proxy.call("GET", SELF, token), lambda answer: answer.status != 200)
        finally:
            site.gateway.resets = False

        assert (answer.status, answer.body) == (503, UNAVAILABLE)

    def test_g35_only_nginx_may_read_the_kept_decisions(self, proxy, site):
        folder = site.folder / f"nginx-{proxy.port}" / "decisions"
        token = proxy.issue("ada")

        def read_modes() -> set[int]:
            assert proxy.call("GET", SELF, token).status == 200
            modes = set()
            for path in folder.iterdir():
                with suppress(FileNotFoundError):
                    modes.add(path.stat().st_mode & 0o777)
            return modes

        assert servers.wait_until(read_modes, bool) == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_g35_log_files_of_the_site_contain_no_token_of_a_kept_decision(self, proxy, site):
        token = proxy.issue("ada")
        use_kept_decision(proxy, token)
        signed = bearer(site.service.headers("Authorization")[0])

        for path in site.folder.rglob("*.log"):
            assert token not in path.read_text()
            assert signed not in path.read_text()


class TestADecisionThatMayNotBeKept:
    def test_g35_nginx_keeps_no_decision_by_default(self, nginx, own_site):
        own_site.gateway.retarget(own_site.gateway_process.port)
        token = nginx.issue("ada")

        assert [is_asked(nginx, token) for _ in range(3)] == [True] * 3

    def test_g35_nginx_never_keeps_a_401(self, proxy, site):
        wrong = proxy.issue("ada")[:-8] + "AAAAAAAA"

        answers = [proxy.call("GET", SELF, wrong) for _ in range(3)]
        assert [(answer.status, answer.body) for answer in answers] == [(401, INVALID)] * 3
        assert len(site.gateway.requests) == 3
        assert site.service.requests == []

    def test_g35_nginx_never_keeps_a_503(self, proxy, site):
        broken = site.start_server("broken", DECRYPTION_KEYS=["/missing.pem"], KEEP_DECISION_SECONDS=1)
        site.gateway.retarget(broken.port)
        try:
            token = proxy.issue("ada")
            answers = [proxy.call("GET", SELF, token) for _ in range(3)]
        finally:
            broken.kill()

        assert [(answer.status, answer.body) for answer in answers] == [(503, UNAVAILABLE)] * 3
        assert len(site.gateway.requests) == 3
        assert site.service.requests == []

    def test_g35_nginx_never_keeps_the_decision_about_an_opaque_bearer_token(self, proxy, site):
        passing = site.start_server("passing", OTHER_BEARERS="pass", KEEP_DECISION_SECONDS=1)
        site.gateway.retarget(passing.port)
        try:
            for _ in range(3):
                proxy.call("GET", SELF, "opaque")
        finally:
            passing.kill()

        assert len(site.gateway.requests) == 3
        assert site.service.headers("Authorization") == ["Bearer opaque"] * 3


class TestTheEndOfADecision:
    def last_accepted(self, proxy: Proxy, token: str) -> float:
        """Send requests until a request is refused. Returns the seconds until the last accepted request was sent."""
        start, last = time.monotonic(), 0.0

        def ask() -> int:
            nonlocal last
            sent = time.monotonic() - start
            status = proxy.call("GET", SELF, token).status
            last = sent if status == 200 else last
            return status

        servers.wait_until(ask, lambda status: status == 401)
        return last

    def test_g35_nginx_refuses_a_revoked_token_within_five_seconds_despite_a_kept_decision(self, proxy, site):
        token, other = proxy.issue("ada"), proxy.issue("ada")
        use_kept_decision(proxy, token)
        jti = unverified_parts(site.service.headers("Authorization")[0])["jti"]

        site.manage("instaccess_tokens", "revoke", "--jti", jti, "--reason", "lost")

        assert self.last_accepted(proxy, token) < REVOCATION_SECONDS
        assert proxy.call("GET", SELF, other).status == 200

    def test_g35_nginx_refuses_all_tokens_of_a_revoked_user_within_five_seconds(self, proxy, site):
        other = proxy.issue("ada")
        # Wait for an accepted token, because a revocation by an earlier test also covers tokens that are issued
        # within the same second.
        token = servers.wait_until(
            lambda: proxy.issue("curry"), lambda token: proxy.call("GET", SELF, token).status == 200
        )
        use_kept_decision(proxy, token)

        site.manage("instaccess_tokens", "revoke", "--user", "curry", "--reason", "left")

        assert self.last_accepted(proxy, token) < REVOCATION_SECONDS
        assert proxy.call("GET", SELF, other).status == 200

    def test_g35_nginx_refuses_all_tokens_of_a_revoked_key_within_five_seconds(self, proxy, site):
        token = proxy.issue("ada")
        use_kept_decision(proxy, token)
        kid = unverified_parts(site.service.headers("Authorization")[0])["kid"]

        site.manage("instaccess_keys", "revoke", "--kid", kid, "--reason", "stolen")

        assert self.last_accepted(proxy, token) < REVOCATION_SECONDS
        # Wait until the issuer's JWKS no longer contains the revoked key, because the issuer then signs with the next
        # key.
        issuer = Proxy("none", site.service_process.port, site)
        servers.wait_until(
            lambda: issuer.call("GET", "/internal/services/jwks").body, lambda jwks: kid.encode() not in jwks
        )
        use_kept_decision(proxy, proxy.issue("ada"))

    def test_g35_nginx_uses_no_decision_after_the_expiry_of_the_token(self, proxy, site, setting):
        lifetime = setting.kept + KEEPING_SLACK + 3
        issuer = site.start_server("short-lived", LIFETIME=lifetime)
        try:
            token = Proxy("none", issuer.port, site).issue("ada")
        finally:
            issuer.kill()
        assert proxy.call("GET", SELF, token).status == 200
        expires_at = unverified_parts(site.service.headers("Authorization")[0])["exp"]
        late = []

        def ask() -> float:
            site.service.clear()
            after_expiry = time.time() - expires_at
            proxy.call("GET", SELF, token)
            if after_expiry >= 0 and site.service.requests:
                late.append(after_expiry)
            return after_expiry

        servers.wait_until(ask, lambda after_expiry: after_expiry > setting.kept + 1)
        assert late == []


class TestAFullCache:
    def test_g35_nginx_uses_no_decision_about_another_user_while_the_cache_is_full(self, start):
        small = start(lambda text: substitute(text, ZONE, "keys_zone=decisions:32k max_size=1k"))
        # Overfill the zone, which has room for 250 keys and also contains the keys of refused tokens.
        for number in range(400):
            assert small.call("GET", SELF, f"{number}.b.c.d.e").status == 401

        assert find_mistakes(small) == []

    def test_g35_request_never_passes_as_another_user_if_nginx_cannot_write_its_decision(self, start, site):
        proxy = start(unchanged)
        tokens = {user: proxy.issue(user) for user in ("ada", "boole")}
        with unwritable(site.folder / f"nginx-{proxy.port}" / "decisions"):
            for user, token in [*tokens.items()] * 3:
                with suppress(RemoteDisconnected):
                    answer = proxy.call("GET", SELF, token)
                    assert answer.status == 503 or answer.json["login_id"] == user

        for user, token in tokens.items():
            use_kept_decision(proxy, token)
            assert proxy.call("GET", SELF, token).json["login_id"] == user
