"""Tests of the client with a real issuer, gateway and service behind nginx with the example configuration."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import requests

from instaccess.client import AccessTokenRefused, EndpointNotFound, HttpxAuth, InvalidAsUserID, RequestsAuth
from tests.client.campus import SELF
from tests.client.helpers import Clock, source
from tests.support.processes import PATIENCE

pytestmark = pytest.mark.services


class TestBehindNginx:
    def test_sixteen_threads_share_one_token_and_the_issuer_writes_one_audit_row(self, campus):
        access, before = campus.source(), campus.audit_rows
        together = threading.Barrier(16, timeout=PATIENCE)

        def call() -> str:
            together.wait()
            return str(requests.get(campus.url + SELF, auth=RequestsAuth(access), timeout=60).json()["login_id"])

        with ThreadPoolExecutor(16) as pool:
            names = [future.result() for future in [pool.submit(call) for _ in range(16)]]

        assert (names, campus.audit_rows - before) == (["ada"] * 16, 1)

    def test_sixteen_tasks_of_httpx_share_one_token_and_the_issuer_writes_one_audit_row(self, campus):
        access, before = campus.source(), campus.audit_rows

        async def story() -> list[str]:
            async with httpx.AsyncClient(base_url=campus.url, auth=HttpxAuth(access), timeout=60) as client:
                answers = await asyncio.gather(*(client.get(SELF) for _ in range(16)))
            return [str(answer.json()["login_id"]) for answer in answers]

        assert (asyncio.run(story()), campus.audit_rows - before) == (["ada"] * 16, 1)

    def test_client_renews_a_token_that_a_revoked_key_signed_and_the_caller_gets_no_401(self, campus):
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

    def test_client_waits_for_the_time_that_the_throttle_of_the_issuer_requires(self, campus):
        clock = Clock()
        access = campus.source(clock)
        issuer = campus.site.service_process.port
        other = campus.site.start_server("issuer-with-empty-buckets")
        # The test doesn't really wait, so the bucket at the first issuer stays full. After the sleep, the requests
        # therefore go to another issuer, which has empty buckets.
        clock.on_sleep = lambda: campus.site.issuer.retarget(other.port)
        try:
            # On a busy machine, the bucket leaks between the requests and accepts more than three requests.
            for _ in range(50):
                access.token()
                clock.advance(3600)
                if clock.slept:
                    break
        finally:
            campus.site.issuer.retarget(issuer)
            other.kill()

        # The bucket leaks in real time while the test runs, so the required wait can be shorter than 20 seconds.
        assert len(clock.slept) == 1
        assert 1 <= clock.slept[0] <= 20

    def test_masquerade_that_is_not_allowed_raises_invalid_as_user_id(self, campus):
        with pytest.raises(InvalidAsUserID):
            campus.source(as_user_id=1).token()

    def test_unknown_access_token_is_refreshed(self, campus):
        fresh = campus.site.access_tokens["ada"].pop()
        access = source(campus.url, access_token="unknown", refresh=lambda: fresh)

        assert requests.get(campus.url + SELF, auth=RequestsAuth(access), timeout=60).status_code == 200

    def test_unknown_access_token_and_wrong_base_url_raise_different_errors(self, campus):
        with pytest.raises(AccessTokenRefused):
            source(campus.url, access_token="unknown").token()
        with pytest.raises(EndpointNotFound):
            source(f"{campus.url}/other", access_token="unknown").token()
