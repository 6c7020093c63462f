"""Tests of the leaky bucket of an access token (docs/wire-contract.md §1), in memory and with a frozen clock."""

from __future__ import annotations

import sys
import uuid
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.core.cache import cache, caches
from django.core.checks import run_checks
from django.test import override_settings
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instaccess import users
from instaccess.exceptions import AuditError
from instaccess.issuer import issuing as issuer
from instaccess.issuer import leaky_buckets, throttling
from instaccess.keys import ring
from instaccess.models import IssuedToken, Key
from tests.conftest import ISSUE_URL
from tests.issuer.throttling.helpers import START, statuses
from tests.support.answers import INSUFFICIENT_SCOPE, INVALID, INVALID_AS_USER_ID, UNAVAILABLE, answer, signed_inside

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("throttled")]

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
THROTTLED = b"429 Too Many Requests (Rate Limit Exceeded)\n"
FORBIDDEN = b"403 Forbidden (Rate Limit Exceeded)\n"


class TestTheBucketOfAnAccessToken:
    def test_p18_bucket_allows_three_requests_and_refuses_the_fourth(self, post, token):
        assert statuses(post, token, 6) == [201, 201, 201, 429, 429, 429]
        assert IssuedToken.objects.count() == 3

    def test_bucket_allows_a_request_as_soon_as_the_level_is_below_the_limit(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(0.998)
        assert statuses(post, token, 1) == [429]
        clock.shift(0.002)
        assert statuses(post, token, 2) == [201, 429]

    def test_full_bucket_allows_one_request_every_20_seconds(self, post, token, clock):
        statuses(post, token, 3)
        clock.shift(1)
        statuses(post, token, 1)

        passed = []
        for second in range(1, 101):
            clock.shift(1)
            if post(token).status_code == 201:
                passed.append(second)
        assert passed == [20, 40, 60, 80, 100]

    def test_bucket_is_empty_after_a_minute(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(60)

        assert statuses(post, token, 4) == [201, 201, 201, 429]

    def test_throttled_requests_do_not_fill_the_bucket(self, post, token, clock):
        statuses(post, token, 30)

        clock.shift(60)

        assert statuses(post, token, 4) == [201, 201, 201, 429]

    def test_bucket_does_not_leak_if_the_clock_is_set_back(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(-3600)
        assert statuses(post, token, 1) == [429]

    def test_full_bucket_of_one_access_token_does_not_throttle_another_access_token(
        self, post, token, make_access_token
    ):
        other = make_access_token(expires=token.expires)
        statuses(post, token, 4)

        assert statuses(post, other, 4) == [201, 201, 201, 429]

    def test_all_urls_of_the_endpoint_share_the_bucket_of_an_access_token(self, post, token):
        paths = [ISSUE_URL, ISSUE_URL + ".json", ISSUE_URL + "/", ISSUE_URL + "?x=1"]

        assert [post(token, url=path).status_code for path in paths] == [201, 201, 201, 429]

    @given(
        limit=st.integers(1, 60),
        cost=st.integers(1, 40),
        leak=st.integers(1, 9),
        pauses=st.lists(st.integers(0, 12), max_size=25),
    )
    @hypothesis_settings(max_examples=60)
    def test_bucket_refuses_requests_exactly_while_the_level_is_at_or_above_the_limit(
        self, limit, cost, leak, pauses
    ):
        numbers = {"THROTTLE_LIMIT": limit, "THROTTLE_COST": cost, "THROTTLE_LEAK": leak}
        level, pk = 0, uuid.uuid4()
        with override_settings(INSTACCESS=numbers), time_machine.travel(START, tick=False) as clock:
            for pause in pauses:
                clock.shift(pause)
                level = max(level - pause * leak, 0)
                allowed = level < limit
                level += cost if allowed else 0
                assert throttling.charge(pk) == throttling.Level(allowed, level, charged=allowed)

    @given(
        pause=st.floats(0, 30, allow_nan=False),
        charges=st.integers(3, 8),
    )
    @hypothesis_settings(max_examples=40)
    def test_bucket_allows_a_request_after_the_time_in_retry_after(self, pause, charges):
        pk = uuid.uuid4()
        with time_machine.travel(START, tick=False) as clock:
            for _ in range(charges):
                throttling.charge(pk)
            clock.shift(pause)
            level = throttling.charge(pk)
            if not level.allowed:
                clock.shift(level.retry_after)
                assert throttling.charge(pk).allowed


class TestTheThrottlingRefusal:
    @pytest.fixture
    def refusal(self, post: Any, token: Any) -> Any:
        statuses(post, token, 3)
        return post(token)

    def test_throttling_refusal_has_the_same_bytes_as_in_canvas(self, refusal):
        assert (refusal.status_code, refusal.content) == (429, THROTTLED)
        assert refusal["Content-Type"] == "text/plain; charset=utf-8"
        assert refusal["Cache-Control"] == "no-store"
        assert "WWW-Authenticate" not in refusal

    def test_throttling_refusal_has_the_seconds_to_wait_in_retry_after(self, refusal, post, token, clock):
        assert refusal["Retry-After"] == "1"
        clock.shift(1)
        assert post(token).status_code == 201
        assert post(token)["Retry-After"] == "20"

    def test_throttled_request_gets_a_403_if_the_setting_requires_403(self, post, token, settings):
        settings.INSTACCESS = {"THROTTLE_STATUS": 403}
        statuses(post, token, 3)

        refusal = post(token)

        assert (refusal.status_code, refusal.content) == (403, FORBIDDEN)
        assert refusal["Content-Type"] == "text/plain; charset=utf-8"
        assert "Retry-After" not in refusal

    def test_throttling_refusal_is_logged_with_its_reason(self, post, token, caplog, user):
        statuses(post, token, 4)

        assert f"refused reason=throttled user={user.pk} " in caplog.text


class TestARefusedAsUserId:
    def costs(self, response: Any) -> tuple[str, str]:
        return response["X-Request-Cost"], response["X-Rate-Limit-Remaining"]

    def test_p24_refused_as_user_id_is_charged_as_much_as_a_token(self, post, token):
        for remaining in ("400.0", "200.0", "0.0"):
            refusal = post(token, data={"as_user_id": "7"})

            assert answer(refusal) == INVALID_AS_USER_ID
            assert self.costs(refusal) == ("200", remaining)
        assert post(token).status_code == 429

    def test_p24_caller_without_the_permission_is_charged_the_same_for_existing_and_unknown_users(self, post, token):
        other = get_user_model().objects.create_user("grace")

        assert self.costs(post(token, data={"as_user_id": other.pk})) == ("200", "400.0")
        assert self.costs(post(token, data={"as_user_id": "7777"})) == ("200", "200.0")

    def test_missing_permission_to_masquerade_is_reported_before_a_full_bucket_and_is_not_charged(self, post, token):
        statuses(post, token, 3)

        refusal = post(token, data={"as_user_id": "7"})

        assert answer(refusal) == INVALID_AS_USER_ID
        assert self.costs(refusal) == ("0", "0.0")

    def test_p24_issuer_looks_up_no_masquerade_target_while_the_bucket_is_full(self, post, token, user, monkeypatch):
        get_user_model().objects.filter(pk=user.pk).update(is_superuser=True)
        statuses(post, token, 3)
        monkeypatch.setattr(users, "masquerade_target", lambda *args: 1 / 0)

        for as_user_id in ("7777", "uuid:x", get_user_model().objects.create_user("grace").pk):
            assert post(token, data={"as_user_id": as_user_id}).content == THROTTLED

    def test_caller_who_sends_their_own_id_is_throttled_like_a_caller_without_as_user_id(self, post, token, user):
        assert [post(token, data={"as_user_id": user.pk}).status_code for _ in range(4)] == [201, 201, 201, 429]

    def test_error_during_the_lookup_of_a_masquerade_target_is_not_charged(self, post, token, monkeypatch):
        get_user_model().objects.update(is_superuser=True)
        monkeypatch.setattr(users, "masquerade_target", lambda *args: 1 / 0)

        assert answer(post(token, data={"as_user_id": "7"})) == UNAVAILABLE
        monkeypatch.undo()
        assert post(token)["X-Rate-Limit-Remaining"] == "400.0"


class TestTheThrottlingHeaders:
    def of(self, response: Any) -> dict[str, str]:
        names = ("X-Request-Cost", "X-Rate-Limit-Remaining", "Retry-After")
        return {name: response[name] for name in names if name in response}

    def test_response_with_a_token_has_x_request_cost_and_x_rate_limit_remaining(self, post, token, clock):
        assert self.of(post(token)) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "400.0"}
        assert self.of(post(token)) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "200.0"}
        clock.shift(5)
        assert self.of(post(token)) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "50.0"}

    def test_throttled_response_has_no_x_request_cost(self, post, token):
        statuses(post, token, 3)

        assert self.of(post(token)) == {"X-Rate-Limit-Remaining": "0.0", "Retry-After": "1"}

    def test_response_to_an_unauthenticated_client_has_no_x_rate_limit_remaining(
        self, post, client, token, make_access_token
    ):
        expired = make_access_token(expires=timezone.now() - timedelta(hours=1))
        decrypted = signed_inside(post(token).json()["token"])
        for response in (post(), post("unknown"), post(expired), post(decrypted), client.get(ISSUE_URL)):
            assert response.status_code in {401, 403, 405}
            assert self.of(response) == {"X-Request-Cost": "0"}
        assert self.of(client.options(ISSUE_URL)) == {"X-Request-Cost": "0"}

    def test_response_about_a_missing_scope_has_x_rate_limit_remaining(self, post, clock, make_access_token):
        response = post(make_access_token(scope="read"))

        assert answer(response) == INSUFFICIENT_SCOPE
        assert self.of(response) == {"X-Request-Cost": "0", "X-Rate-Limit-Remaining": "600.0"}

    def test_response_about_an_invalid_as_user_id_has_x_rate_limit_remaining(self, post, token):
        post(token)

        response = post(token, data={"as_user_id": "nobody"})

        assert answer(response) == INVALID_AS_USER_ID
        assert self.of(response) == {"X-Request-Cost": "200", "X-Rate-Limit-Remaining": "200.0"}

    @pytest.mark.parametrize(
        ("level", "remaining"),
        [(0.0, "600.0"), (200, "400.0"), (200.5, "399.5"), (599.9999, "0.0"), (600.0, "0.0"), (800.0, "0.0")],
    )
    def test_x_rate_limit_remaining_is_written_as_ruby_writes_a_float(self, level, remaining):
        assert throttling.Level(allowed=True, level=level).remaining == remaining

    def test_response_with_status_503_has_x_rate_limit_remaining_and_retry_after(self, post, token):
        post(token)
        Key.objects.update(status="past")
        ring.clear_cache()

        response = post(token)

        assert answer(response) == UNAVAILABLE
        assert self.of(response) == {
            "X-Request-Cost": "0",
            "X-Rate-Limit-Remaining": "400.0",
            "Retry-After": "10",
        }

    def test_response_to_an_inactive_user_has_no_x_rate_limit_remaining(self, post, token):
        get_user_model().objects.update(is_active=False)

        response = post(token)

        assert answer(response) == INVALID
        assert self.of(response) == {"X-Request-Cost": "0"}


class TestAServerSideError:
    def test_server_side_error_is_not_charged_to_the_bucket(self, post, token, initial_keys):
        current = [key.pk for key in initial_keys if key.status == "current"]
        Key.objects.filter(pk__in=current).update(status="past")
        ring.clear_cache()
        assert statuses(post, token, 5) == [503] * 5

        for pk in current:
            Key.objects.filter(pk=pk).update(status="current")
        ring.clear_cache()

        assert statuses(post, token, 4) == [201, 201, 201, 429]


class TestTheThrottlingSettings:
    def test_throttling_uses_the_configured_limit_cost_and_leak(self, post, token, settings, clock):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 10, "THROTTLE_COST": 5, "THROTTLE_LEAK": 1}

        first, second, third = post(token), post(token), post(token)

        assert [first.status_code, second.status_code, third.status_code] == [201, 201, 429]
        assert (first["X-Request-Cost"], first["X-Rate-Limit-Remaining"]) == ("5", "5.0")
        assert third["Retry-After"] == "1"

    def test_bucket_allows_one_request_if_the_cost_exceeds_the_limit(self, post, token, settings, clock):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 1, "THROTTLE_COST": 200}

        assert statuses(post, token, 2) == [201, 429]
        clock.shift(20)
        assert statuses(post, token, 2) == [201, 429]

    def test_issuer_does_not_throttle_if_the_limit_is_none(self, post, token, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        assert statuses(post, token, 6) == [201] * 6

    def test_issuer_sends_no_x_rate_limit_remaining_if_throttling_is_off(self, post, token, settings):
        """The issuer must not send the value 0. A client of Canvas treats a 201 with this value as a refusal."""
        settings.INSTACCESS = {"THROTTLE_LIMIT": None}

        assert "X-Rate-Limit-Remaining" not in post(token)
        assert "X-Rate-Limit-Remaining" not in post(token, data={"as_user_id": "nobody"})

    def test_throttling_uses_the_configured_cache(self, post, token, settings):
        settings.CACHES = {"default": {"BACKEND": LOCMEM}, "buckets": {"BACKEND": LOCMEM, "LOCATION": "buckets"}}
        settings.INSTACCESS = {"THROTTLE_CACHE": "buckets"}
        statuses(post, token, 3)

        cache.clear()
        assert statuses(post, token, 1) == [429]
        caches["buckets"].clear()
        assert statuses(post, token, 1) == [201]

    def test_check_reports_an_unknown_throttle_cache_and_the_issuer_returns_503(self, post, token, settings):
        settings.INSTACCESS = {"THROTTLE_CACHE": "no-such"}

        assert "instaccess.E048" in {message.id for message in run_checks()}
        assert answer(post(token)) == UNAVAILABLE

    @pytest.mark.parametrize(
        ("backend", "limit", "warned"),
        [
            (LOCMEM, 600, True),
            ("django.core.cache.backends.dummy.DummyCache", 600, True),
            ("django.core.cache.backends.redis.RedisCache", 600, False),
            (LOCMEM, None, False),
        ],
        ids=["memory", "dummy", "redis", "off"],
    )
    def test_check_deploy_warns_about_a_throttle_cache_that_processes_do_not_share(
        self, settings, backend, limit, warned
    ):
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:6379/9"}}
        settings.INSTACCESS = {"THROTTLE_LIMIT": limit}

        check_ids = {message.id for message in run_checks(include_deployment_checks=True)}

        assert ("instaccess.W009" in check_ids) is warned


class TestTheContentOfTheThrottleCache:
    def test_throttle_cache_contains_no_access_token_and_no_primary_key(self, post, clock, make_access_token):
        token = make_access_token(pk=987654321, expires=timezone.now() + timedelta(hours=1))
        post(token)

        held = repr(cache._cache) + repr([cache.get(key.removeprefix(":1:")) for key in cache._cache])

        assert "instaccess.bucket." in held
        assert "987654321" not in held
        assert token.token not in held

    def test_entry_of_the_throttle_cache_expires_when_the_bucket_is_empty(self, post, token, clock):
        statuses(post, token, 3)

        clock.shift(63)

        assert all(cache.get(key.removeprefix(":1:")) is None for key in list(cache._cache))


class TestAThrottleCacheThatCannotBeCreated:
    @pytest.mark.parametrize("backend", ["no.such.Backend", "django.core.cache.backends.memcached.PyMemcacheCache"])
    def test_issuer_returns_503_and_logs_the_setting_if_the_throttle_cache_cannot_be_created(
        self, post, initial_keys, access_token, caplog, backend, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "pymemcache", None)
        with override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": "127.0.0.1:1"}}):
            assert answer(post(access_token)) == UNAVAILABLE

        assert "the cache 'default' in INSTACCESS['THROTTLE_CACHE'] can't be created" in caplog.text
        assert IssuedToken.objects.count() == 0


class TestAnErrorWhileTheThrottleCacheIsUnavailable:
    def test_issuer_refunds_nothing_if_the_request_was_not_charged(
        self, slow_leak, post, initial_keys, access_token, monkeypatch
    ):
        for _ in range(3):
            throttling.charge(access_token.pk)
        level = throttling.peek(access_token.pk).level

        def fail(**kwargs: Any) -> Any:
            monkeypatch.undo()
            throttling.reset()
            raise AuditError

        monkeypatch.setattr(issuer, "issue", fail)
        monkeypatch.setattr(leaky_buckets.CacheBucket, "charge", lambda self: 1 / 0)

        assert post(access_token).status_code == 503
        assert level - 20 <= throttling.peek(access_token.pk).level <= level
