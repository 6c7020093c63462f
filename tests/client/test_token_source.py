"""Tests of `InstAccess`: caching, renewal and waiting."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from instaccess.client import (
    AccessTokenRefused,
    InvalidArgument,
    IssuerUnavailable,
    RateLimited,
)
from tests.client.helpers import ACCESS_TOKEN, TOKENS, source

INVALID = (401, b'{"errors":[{"message":"Invalid access token."}]}', {"WWW_Authenticate": "Bearer"})
TOO_MANY = b"429 Too Many Requests (Rate Limit Exceeded)\n"


class TestTheCache:
    def test_client_uses_a_token_until_a_minute_before_its_expiry(self, site, clock):
        access = source(site.url, clock)

        first = access.token()
        clock.advance(3539)
        still = access.token()
        clock.advance(1)
        renewed = access.token()

        assert [first, still, renewed] == [TOKENS[0], TOKENS[0], TOKENS[1]]

    def test_client_renews_a_token_with_a_short_lifetime_after_three_quarters_of_the_lifetime(self, site, clock):
        access = source(site.url, clock, lifetime=60)

        access.token()
        clock.advance(44.5)
        still = access.token()
        clock.advance(0.5)

        assert (still, access.token()) == (TOKENS[0], TOKENS[1])

    def test_client_sends_the_access_token_and_no_other_credentials(self, site, monkeypatch, tmp_path):
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login mallory password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

        source(site.url).token()

        assert site.access_tokens == [f"Bearer {ACCESS_TOKEN}"]


class TestParallelRenewals:
    def test_one_thread_requests_the_token_and_all_threads_get_the_token(self, site):
        access = source(site.url)
        together = threading.Barrier(16, timeout=60)

        def get() -> str:
            together.wait()
            return access.token()

        with ThreadPoolExecutor(16) as pool:
            tokens = [future.result() for future in [pool.submit(get) for _ in range(16)]]

        assert (set(tokens), site.issued) == ({TOKENS[0]}, 1)

    def test_tasks_share_one_renewal_and_a_cancelled_task_does_not_stop_the_renewal(self, site):
        access = source(site.url)

        async def story() -> list[str]:
            first, *others = [asyncio.create_task(access.async_token()) for _ in range(20)]
            await asyncio.sleep(0)
            first.cancel()
            return await asyncio.gather(*others)

        assert (set(asyncio.run(story())), site.issued) == ({TOKENS[0]}, 1)

    def test_threads_and_tasks_share_one_renewal(self, site):
        access = source(site.url)

        async def story() -> list[str]:
            return await asyncio.gather(access.async_token(), asyncio.to_thread(access.token), access.async_token())

        assert (set(asyncio.run(story())), site.issued) == ({TOKENS[0]}, 1)

    def test_call_after_a_failed_renewal_renews_the_token(self, site):
        access = source(site.url)
        site.refusals = [INVALID]

        with pytest.raises(AccessTokenRefused):
            access.token()

        assert access.token() == TOKENS[0]

    def test_event_loop_is_not_blocked_by_a_renewal_that_waits(self, site, clock):
        access = source(site.url, clock)
        site.refusals = [(429, TOO_MANY, {"Retry_After": "20"})]
        ticked = threading.Event()
        clock.on_sleep = lambda: ticked.wait(60)

        async def story() -> str:
            task = asyncio.create_task(access.async_token())
            await asyncio.sleep(0)
            ticked.set()
            return await task

        assert (asyncio.run(story()), clock.slept) == (TOKENS[0], [20])

    def test_interrupted_renewal_does_not_block_the_next_call(self, site, clock):
        access = source(site.url, clock)
        site.refusals = [(429, TOO_MANY, {"Retry_After": "20"})]

        def interrupt() -> None:
            raise KeyboardInterrupt

        clock.on_sleep = interrupt
        with pytest.raises(KeyboardInterrupt):
            access.token()
        clock.on_sleep = lambda: None

        assert access.token() == TOKENS[0]

    def test_process_that_is_forked_during_a_renewal_can_renew_the_token(self, site, clock):
        access = source(site.url, clock)
        site.refusals = [(429, TOO_MANY, {"Retry_After": "20"})]
        statuses: list[int] = []

        def fork() -> None:
            child = os.fork()
            if child == 0:
                try:
                    clock.on_sleep = lambda: None
                    os._exit(0 if access.token() == TOKENS[0] else 1)
                finally:
                    os._exit(2)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        clock.on_sleep = fork
        access.token()

        assert statuses == [0]


class TestRefresh:
    def test_refresh_function_supplies_the_first_access_token_if_the_caller_passes_none(self, site):
        access = source(site.url, refresh=lambda: "fresh")

        access.token()

        assert site.access_tokens == ["Bearer fresh"]

    @pytest.mark.parametrize("message", ["Invalid access token.", "Expired access token."])
    def test_refused_access_token_is_refreshed_once_and_the_new_access_token_is_kept(self, site, clock, message):
        fresh = iter(["second"])
        access = source(site.url, clock, access_token="first", refresh=lambda: next(fresh))
        site.refusals = [(401, b'{"errors":[{"message":"%s"}]}' % message.encode(), {})]

        access.token()
        clock.advance(3600)
        access.token()

        assert site.access_tokens == ["Bearer first", "Bearer second", "Bearer second"]

    def test_refreshed_access_token_that_is_refused_is_not_refreshed_again(self, site):
        calls: list[str] = []
        access = source(site.url, access_token="first", refresh=lambda: calls.append("called") or "second")
        site.refusals = [INVALID] * 5

        with pytest.raises(AccessTokenRefused):
            access.token()

        assert (calls, len(site.access_tokens)) == (["called"], 2)

    def test_error_of_the_refresh_function_reaches_the_caller_unchanged(self, site):
        failure = LookupError("the vault is sealed")

        def refresh() -> str:
            raise failure

        with pytest.raises(LookupError) as caught:
            source(site.url, refresh=refresh).token()

        assert caught.value is failure

    def test_refresh_function_that_needs_the_token_gets_an_error_instead_of_waiting_forever(self, site):
        def refresh() -> str:
            return access.token()

        access = source(site.url, refresh=refresh)

        with pytest.raises(InvalidArgument, match="`refresh` must not request a token"):
            access.token()


class TestWaiting:
    @pytest.mark.parametrize(
        ("status", "body"),
        [(429, TOO_MANY), (403, b"403 Forbidden (Rate Limit Exceeded)\n"), (503, b"{}")],
    )
    def test_client_waits_for_the_time_in_retry_after(self, site, clock, status, body):
        site.refusals = [(status, body, {"Retry_After": "17"})]

        assert source(site.url, clock).token() == TOKENS[0]
        assert clock.slept == [17]

    def test_client_waits_at_least_a_second_if_the_date_in_retry_after_is_in_the_past(self, site, clock):
        site.refusals = [(429, TOO_MANY, {"Retry_After": "Fri, 01 Jan 2021 00:00:00 GMT"})]

        assert source(site.url, clock).token() == TOKENS[0]
        assert clock.slept == [1]

    def test_client_waits_longer_each_time_if_the_issuer_sends_no_retry_after(self, site, clock):
        site.refusals = [(429, TOO_MANY, {})] * 4

        assert source(site.url, clock).token() == TOKENS[0]
        assert clock.slept == [1, 2, 4, 8]

    def test_client_raises_an_error_if_retry_after_exceeds_max_wait_and_sends_no_request_until_then(
        self, site, clock
    ):
        access = source(site.url, clock, max_wait=30)
        site.refusals = [(429, TOO_MANY, {"Retry_After": "100"})]

        with pytest.raises(RateLimited) as first:
            access.token()
        clock.advance(60)
        with pytest.raises(RateLimited) as second:
            access.token()
        requests = len(site.access_tokens)
        clock.advance(40)

        assert (first.value.retry_after, second.value.retry_after, clock.slept, requests) == (100, 40, [], 1)
        assert access.token() == TOKENS[0]

    @pytest.mark.parametrize("until", ["999999999", "Fri, 01 Jan 2100 00:00:00 GMT"])
    def test_client_sends_requests_again_after_an_hour_even_if_retry_after_is_several_years(self, site, clock, until):
        access = source(site.url, clock)
        site.refusals = [(503, b"", {"Retry_After": until})]

        with pytest.raises(IssuerUnavailable):
            access.token()
        clock.advance(3600)

        assert access.token() == TOKENS[0]

    def test_client_does_not_wait_after_a_server_side_error_without_retry_after(self, site, clock):
        site.refusals = [(502, b"", {})]

        with pytest.raises(IssuerUnavailable, match=r"answered 502\. Try again later"):
            source(site.url, clock).token()

        assert clock.slept == []

    def test_no_log_line_contains_a_token_even_at_the_level_debug(self, site, clock, caplog):
        caplog.set_level("DEBUG")
        site.refusals = [(429, TOO_MANY, {"Retry_After": "17"})]

        source(site.url, clock).token()

        assert "inst_access_tokens" in caplog.text
        assert not any(secret in caplog.text for secret in (ACCESS_TOKEN, TOKENS[0]))


class TestArguments:
    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("", "not a URL with a host"),
            ("canvas.example.edu", "not a URL with a host"),
            ("ftp://canvas.example.edu", "not a URL with a host"),
            ("https://canvas.example.edu\\@evil.example", "not a URL with a host"),
            ("https://canvas.example.edu\n", "not a URL with a host"),
            ("https://canvas.example.edu:port", "not a URL with a host"),
            ("https://canvas.example.edu/api/v1/", "contains the path /api/v1"),
            ("https://canvas.example.edu/api/v1/inst_access_tokens", "contains the path /api/v1"),
            ("https://ada:secret@canvas.example.edu", "contains a user name"),
            ("https://canvas.example.edu?next=1", "contains a user name, a query"),
            ("http://canvas.example.edu", "Use https"),
            ("http://127.0.0.1.evil.example", "Use https"),
            ("http://192.0.2.1", "Use https"),
        ],
    )
    def test_base_url_that_cannot_work_or_is_unsafe_is_refused(self, url, text):
        with pytest.raises(InvalidArgument, match=text) as caught:
            source(url)

        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000/", "https://canvas.example.edu/path/"]
    )
    def test_base_url_with_tls_or_on_this_machine_is_accepted(self, url):
        assert source(url).base_url == url.rstrip("/")

    def test_base_url_without_tls_is_refused_if_the_tokens_would_be_sent_to_a_proxy(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.edu:3128")
        monkeypatch.setenv("http_proxy", "http://proxy.example.edu:3128")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

        with pytest.raises(InvalidArgument, match=r"Add localhost to the environment variable NO_PROXY\."):
            source("http://localhost:8000")
        with pytest.raises(InvalidArgument, match=r"Add 127\.0\.0\.1 to the environment variable NO_PROXY\."):
            source("https://canvas.example.edu", origins=["http://127.0.0.1:8000"])
        monkeypatch.setenv("no_proxy", "localhost")
        assert source("http://localhost:8000").base_url == "http://localhost:8000"

    @pytest.mark.parametrize("token", ["", "two words", "line\n", "schlüssel"])
    def test_access_token_that_a_header_cannot_contain_is_refused(self, token):
        with pytest.raises(InvalidArgument, match="remove the line break"):
            source("https://canvas.example.edu", access_token=token)

    def test_client_without_an_access_token_and_without_a_refresh_function_is_refused(self):
        with pytest.raises(InvalidArgument, match="Pass `access_token`"):
            source("https://canvas.example.edu", access_token=None)

    @pytest.mark.parametrize(
        "options", [{"lifetime": 3601}, {"lifetime": 0}, {"margin": 3600}, {"margin": -1}, {"timeout": 0}]
    )
    def test_client_refuses_an_invalid_lifetime_margin_or_timeout(self, options):
        with pytest.raises(InvalidArgument):
            source("https://canvas.example.edu", **options)

    def test_client_object_cannot_be_pickled_because_the_object_contains_tokens(self, site):
        access = source(site.url)
        access.token()

        with pytest.raises(TypeError):
            pickle.dumps(access)
