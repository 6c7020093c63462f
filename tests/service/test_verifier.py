"""Tests of the verification of an Authorization header without a web framework."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine

from instaccess.exceptions import (
    ConfigError,
    ForeignToken,
    InstAccessError,
    InvalidToken,
    NoToken,
    SourceUnavailable,
    TokenExpired,
)
from instaccess.service import Verifier
from instaccess.tokens import Claims
from instaccess.trust import refreshed, remote_jwks
from tests.service.helpers import USER, SlowFetch, good, issued, jwks, now, public
from tests.support import forks, servers
from tests.support.answers import CHALLENGE
from tests.support.clocks import Clock
from tests.support.paths import ROOT
from tests.support.tokens import ISSUER, TokenFactory, b64, claims, signed_by_pyjwt

ACCOUNT = claims()["acct"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(refreshed, "time", clock)
    monkeypatch.setattr(remote_jwks, "time", clock)
    return clock


@pytest.fixture
def make(server: servers.ScriptedServer) -> Callable[..., Verifier]:
    return lambda **arguments: Verifier(**{"jwks_url": f"{server.base_url}/jwks", "allow_http": True, **arguments})


def verify(verifier: Verifier, authorization: str | None) -> Claims:
    return verifier.verify(authorization)


def averify(verifier: Verifier, authorization: str | None) -> Claims:
    return asyncio.run(verifier.averify(authorization))


both = pytest.mark.parametrize("verify", [verify, averify])


class TestAnAcceptedToken:
    @both
    def test_verifier_returns_the_claims_of_a_valid_token(self, make, token_factory, verify):
        found = verify(make(), good(token_factory, sub=USER, region="eu", color="blue"))

        assert (found.user_uuid, found.account_uuid, found.region, found.extra) == (
            USER,
            ACCOUNT,
            "eu",
            {"color": "blue"},
        )

    @both
    def test_verifier_accepts_a_token_without_a_kid_because_canvas_sends_such_tokens(
        self, make, token_factory, verify
    ):
        token = signed_by_pyjwt(claims(now()), token_factory.signing)

        assert verify(make(), f"bearer  {token}").account_uuid == ACCOUNT

    @pytest.mark.parametrize("collection", [list, tuple, set, frozenset])
    def test_verifier_accepts_a_token_of_each_issuer_and_of_no_other_issuer(self, make, token_factory, collection):
        verifier = make(issuers=collection(["https://canvas.example", "https://lms.example"]))

        assert verifier.verify(good(token_factory, iss="https://lms.example")).issuer == "https://lms.example"
        with pytest.raises(ForeignToken):
            verifier.verify(good(token_factory))

    def test_verifier_accepts_a_token_until_its_exp_plus_the_leeway(self, make, token_factory):
        at = 1_800_000_000
        verifier, token = make(leeway=5), good(token_factory, iat=at - 100, exp=at)

        with time_machine.travel(at + 4, tick=False):
            assert verifier.verify(token).expires_at == at
        with time_machine.travel(at + 5, tick=False), pytest.raises(TokenExpired):
            verifier.verify(token)

    def test_verifiers_of_one_process_have_independent_arguments(self, make, token_factory):
        ours, theirs = make(account=ACCOUNT), make(account="theirs", issuers=["https://canvas.example"])

        assert ours.verify(good(token_factory)).issuer == ISSUER
        assert (
            theirs.verify(good(token_factory, acct="theirs", iss="https://canvas.example")).account_uuid == "theirs"
        )
        with pytest.raises(InvalidToken):
            theirs.verify(good(token_factory, iss="https://canvas.example"))


class TestARefusedToken:
    REFUSALS = [
        (lambda make: None, NoToken, "no_credentials"),
        (lambda make: "", NoToken, "no_credentials"),
        (lambda make: "Basic YTpi", NoToken, "malformed_header"),
        (lambda make: "Bearer a b", NoToken, "malformed_header"),
        (lambda make: "Bearer opaque", ForeignToken, "foreign_issuer"),
        (lambda make: "Bearer a.b.c", ForeignToken, "foreign_issuer"),
        (lambda make: good(make, iss="https://accounts.example.com"), ForeignToken, "foreign_issuer"),
        (lambda make: good(make, iat=now() - 3600, exp=now()), TokenExpired, "expired"),
        (lambda make: good(make, acct="theirs"), InvalidToken, "wrong_account"),
        (lambda make: good(make, sub=5), InvalidToken, "bad_claim"),
        (lambda make: "Bearer " + make.token(iat=now(), exp=now() + 60), InvalidToken, "still_encrypted"),
        (lambda make: "Bearer " + make.signed(claims(now()), alg="RS256", typ="at+jwt"), InvalidToken, "wrong_type"),
        (lambda make: good(make)[:-8] + "AAAAAAAA", InvalidToken, "bad_signature"),
    ]

    @both
    @pytest.mark.parametrize(("header", "error", "reason"), REFUSALS, ids=range(len(REFUSALS)))
    def test_error_of_a_refused_token_has_the_reason(self, make, token_factory, verify, header, error, reason):
        with pytest.raises(InvalidToken) as refused:
            verify(make(account=ACCOUNT), header(token_factory))

        assert (type(refused.value), refused.value.code) == (error, reason)

    def test_error_has_the_ids_of_the_token_only_if_its_signature_is_valid(self, make, token_factory):
        verifier = make(account="ours")
        with pytest.raises(InvalidToken) as verified:
            verifier.verify(good(token_factory, jti="the-id", sub=USER, client_id=7))
        with pytest.raises(InvalidToken) as unverified:
            verifier.verify(good(token_factory, jti="the-id")[:-8] + "AAAAAAAA")

        assert (verified.value.jti, verified.value.user_uuid, verified.value.client_id) == ("the-id", USER, "7")
        assert (unverified.value.jti, unverified.value.user_uuid) == ("", "")

    @both
    @pytest.mark.parametrize("status", [200, 500])
    def test_no_variable_of_this_package_contains_the_token_when_an_error_reaches_the_caller(
        self, make, server, token_factory, verify, status
    ):
        server.answer_with(status, jwks(token_factory.signing))
        authorization = good(token_factory, acct="theirs")
        token = authorization.split()[1]
        with pytest.raises(InstAccessError) as refused:
            verify(make(account="ours"), authorization)

        values = [
            repr(frame.f_locals)
            for frame, _ in traceback.walk_tb(refused.value.__traceback__)
            if "/instaccess/" in frame.f_code.co_filename
        ]
        assert values
        assert not any(token in text for text in values)
        assert (refused.value.__cause__, refused.value.__context__) == (None, None)


class TestTheKeysOfAVerifier:
    def test_verifier_fetches_the_jwks_once_for_many_tokens(self, make, server, token_factory, clock):
        verifier = make()
        for _ in range(5):
            verifier.verify(good(token_factory))

        assert len(server.requests) == 1

    @both
    def test_c4_verifier_fetches_the_jwks_once_per_30_seconds_for_invented_kids(
        self, make, server, token_factory, clock, verify
    ):
        verifier = make()
        verifier.verify(good(token_factory))
        _, payload, signature = token_factory.signed(claims(now())).split(".")
        for number in range(20):
            header = b64(json.dumps({"typ": "JWT", "alg": "RS256", "kid": f"invented-{number}"}).encode())
            with pytest.raises(InvalidToken):
                verify(verifier, f"Bearer {header}.{payload}.{signature}")

        assert len(server.requests) == 2

    @both
    @pytest.mark.parametrize("with_kid", [True, False])
    def test_c14_verifier_fetches_the_jwks_for_a_token_that_is_signed_with_a_new_key(
        self, make, server, token_factory, clock, rsa_pool, verify, with_kid
    ):
        verifier = make()
        verifier.verify(good(token_factory))
        successor = TokenFactory(rsa_pool.take("sig"), token_factory.encryption)
        server.answer_with(200, jwks(token_factory.signing, successor.signing))
        token = successor.signed(claims(now()), **({} if with_kid else {"kid": ...}))

        assert verify(verifier, f"Bearer {token}").account_uuid == ACCOUNT

    @both
    def test_c3_verifier_uses_the_cached_keys_for_max_staleness_while_the_jwks_url_is_faulty(
        self, make, server, token_factory, clock, verify
    ):
        verifier = make(max_staleness=100)
        verifier.verify(good(token_factory))
        server.answer_with(500)
        clock.now += remote_jwks.JWKS_SECONDS + 99
        assert verify(verifier, good(token_factory)).account_uuid == ACCOUNT

        clock.now += 2
        with pytest.raises(SourceUnavailable, match="answered 500"):
            verify(verifier, good(token_factory))

    def test_foreign_token_causes_no_fetch_of_the_jwks(self, make, server):
        with pytest.raises(ForeignToken):
            make().verify("Bearer opaque")

        assert server.requests == []


@pytest.mark.usefixtures("load_in_background")
class TestAVerifierThatIsShared:
    def test_threads_share_one_fetch_of_the_jwks(self, make, server, token_factory):
        verifier, token = make(), good(token_factory)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: verifier.verify(token).account_uuid, range(32)))

        assert found == [ACCOUNT] * 32
        assert len(server.requests) == 1

    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_forked_process_can_use_the_verifier_of_its_parent(self, make, token_factory):
        verifier, token = make(), good(token_factory)
        verifier.verify(token)
        keys = verifier._keys.load()

        # Hold the lock during the fork, as another thread of the parent can. The child must not wait for the lock.
        assert forks.run_in_child(keys._jwks._lock, lambda: verifier.verify(token).account_uuid) == ACCOUNT

    def test_verifier_works_in_successive_event_loops(self, make, server, token_factory):
        verifier = make()

        assert [averify(verifier, good(token_factory)).account_uuid for _ in range(3)] == [ACCOUNT] * 3
        assert len(server.requests) == 1


class NoThreads(ThreadPoolExecutor):
    """An executor that raises AssertionError instead of running a function in a thread."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a thread was used")


@pytest.mark.usefixtures("load_in_background")
class TestTheEventLoop:
    @pytest.fixture(autouse=True)
    def long_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a request wait longer for a reload, because a busy machine may need more than a second."""
        monkeypatch.setattr(remote_jwks, "PATIENCE", 10)

    def test_event_loop_runs_other_tasks_while_the_jwks_is_fetched(self, make, server, token_factory):
        fetch = SlowFetch(server, token_factory.signing)

        async def other_task() -> None:
            await fetch.begun()
            fetch.let_go()

        async def main() -> Claims:
            async with asyncio.timeout(servers.PATIENCE):
                found, _ = await asyncio.gather(make().averify(good(token_factory)), other_task())
            return found

        assert asyncio.run(main()).account_uuid == ACCOUNT

    def test_tokens_with_a_new_key_wait_for_the_same_fetch(self, make, server, token_factory, clock, rsa_pool):
        successor = TokenFactory(rsa_pool.take("sig"), token_factory.encryption)
        verifier = make()
        verifier.verify(good(token_factory))
        fetch = SlowFetch(server, token_factory.signing, successor.signing)

        async def later() -> Claims:
            await fetch.begun()
            asyncio.get_running_loop().call_soon(fetch.let_go)
            return await verifier.averify(good(successor))

        async def main() -> list[Claims]:
            async with asyncio.timeout(servers.PATIENCE):
                return await asyncio.gather(verifier.averify(good(successor)), later())

        assert [found.account_uuid for found in asyncio.run(main())] == [ACCOUNT] * 2
        assert len(server.requests) == 2

    def test_no_thread_is_used_for_a_token_if_its_key_is_cached(self, make, token_factory):
        verifier = make()

        async def main() -> list[str]:
            await verifier.averify(good(token_factory))
            asyncio.get_running_loop().set_default_executor(NoThreads())
            return [(await verifier.averify(good(token_factory))).account_uuid for _ in range(5)]

        assert asyncio.run(main()) == [ACCOUNT] * 5

    def test_c4_no_thread_is_used_for_invented_kids_during_the_cooldown(self, make, server, token_factory, clock):
        verifier = make()
        forged = "Bearer " + token_factory.signed(claims(now()), kid="invented")

        async def main() -> None:
            for attempt in range(20):
                if attempt == 1:
                    asyncio.get_running_loop().set_default_executor(NoThreads())
                with pytest.raises(InvalidToken):
                    await verifier.averify(forged)

        verifier.verify(good(token_factory))
        asyncio.run(main())

        assert len(server.requests) == 2


class TestAWrongArgument:
    URL = "https://canvas.example.edu/internal/services/jwks"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"jwks_url": "http://canvas.example.edu/jwks"}, "argument jwks_url .* https:// URL .* allow_http"),
            ({"jwks_url": "http://127.0.0.1/jwks"}, "argument jwks_url .* https:// URL"),
            ({"jwks_url": "https://ada:secret@canvas.example.edu/jwks"}, "without user name or password"),
            ({"jwks_url": "canvas.example.edu"}, "https:// URL"),
            ({"jwks_url": None}, "https:// URL"),
            ({"jwks_url": ["a key"]}, "https:// URL"),
            ({"issuers": ISSUER}, "argument issuers .* a list of one or more strings"),
            ({"issuers": []}, "argument issuers .* a list of one or more strings"),
            ({"issuers": [7]}, "argument issuers .* a list of one or more strings"),
            ({"account": ""}, "argument account .* 1 to 255 characters"),
            ({"account": 5}, "argument account .* 1 to 255 characters"),
            ({"leeway": -1}, r"argument leeway .* an integer from 0 to 300 \(it is -1\)"),
            ({"leeway": 301}, "argument leeway .* an integer from 0 to 300"),
            ({"leeway": 1.5}, "argument leeway .* an integer from 0 to 300"),
            ({"max_staleness": 3601}, "argument max_staleness .* an integer from 0 to 3600"),
            ({"realm": 'a"b'}, "argument realm .* printable ASCII"),
            ({"allow_http": "yes"}, "argument allow_http .* True or False"),
        ],
        ids=str,
    )
    def test_c10_error_of_a_wrong_argument_names_the_argument_and_the_accepted_values(self, arguments, message):
        with pytest.raises(ConfigError, match=message) as refused:
            Verifier(**{"jwks_url": self.URL, **arguments})

        assert "secret" not in str(refused.value)
        assert "INSTACCESS" not in str(refused.value)

    def test_challenge_of_a_verifier_contains_the_realm(self):
        assert Verifier(jwks_url=self.URL).challenge() == CHALLENGE
        assert Verifier(jwks_url=self.URL, realm="our-lms").challenge() == 'Bearer realm="our-lms"'

    def test_verifier_with_an_https_url_fetches_nothing_before_the_first_token(self):
        Verifier(jwks_url="https://host.invalid/jwks")


class TestAVerifierWithTheSettings:
    def test_verifier_from_settings_uses_the_keys_and_the_account_in_the_settings(self, token_factory, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [public(token_factory)], "ACCOUNT_UUID": "ours"}
        verifier = Verifier.from_settings()

        assert verifier.verify(good(token_factory, acct="ours")).account_uuid == "ours"
        assert averify(verifier, good(token_factory, acct="ours")).account_uuid == "ours"
        with pytest.raises(InvalidToken):
            verifier.verify(good(token_factory))
        settings.INSTACCESS = {"VERIFICATION_KEYS": [public(token_factory)], "ACCOUNT_UUID": ACCOUNT}
        assert verifier.verify(good(token_factory)).account_uuid == ACCOUNT

    def test_verifier_from_settings_uses_the_jwks_url_in_the_settings(self, server, token_factory, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": f"{server.base_url}/jwks", "ALLOW_HTTP_URLS": True}
        verifier = Verifier.from_settings()

        assert averify(verifier, good(token_factory)).account_uuid == ACCOUNT
        assert verifier.verify(good(token_factory)).account_uuid == ACCOUNT
        assert len(server.requests) == 1

    @pytest.mark.django_db(transaction=True)
    def test_verifier_from_settings_uses_the_keys_in_the_database(self, initial_keys, user):
        verifier, token = Verifier.from_settings(), issued(user)

        # Load the keys in this thread first. If another thread loaded the keys, the connection of that thread would
        # stay open after the test.
        assert verifier.verify(token).issuer == ISSUER
        assert averify(verifier, token).issuer == ISSUER


PROGRAM = """
import asyncio, json, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

body, authorization = sys.stdin.read().split("\\n")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()

from instaccess.exceptions import InvalidToken
from instaccess.service import Verifier
from instaccess.trust import loading

loading.IDLE_SECONDS = 0.01
verifier = Verifier(jwks_url=f"http://127.0.0.1:{server.server_port}/jwks", allow_http=True)
users = [verifier.verify(authorization).user_uuid, asyncio.run(verifier.averify(authorization)).user_uuid]
try:
    verifier.verify(authorization[:-8] + "AAAAAAAA")
except InvalidToken as refused:
    reason = refused.code
for thread in threading.enumerate():
    if thread.name == "instaccess-loading":
        thread.join(60)

from django.conf import settings
loaded = [name for name in ("rest_framework", "oauth2_provider", "instaccess.models") if name in sys.modules]
print(json.dumps([users, reason, loaded, settings.configured]))
"""


class TestAProcessWithoutDjangoSettings:
    def test_verifier_needs_neither_django_settings_nor_django_rest_framework(self, token_factory):
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            cwd=ROOT,
            env=environment,
            input=f"{jwks(token_factory.signing).decode()}\n{good(token_factory, sub=USER)}",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == [[USER, USER], "bad_signature", [], False]
