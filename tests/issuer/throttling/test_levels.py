"""Tests of the level of a bucket in memory: reads, refunds, a clock that is set back, and the expiry."""

from __future__ import annotations

import re

import pytest
from django.core.cache import cache

from instaccess.issuer import throttling
from instaccess.issuer.throttling import Level

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("throttled", "clock")]


def fill() -> None:
    """Fill the bucket of the access token with the primary key 7: three requests raise the level to 600."""
    for _ in range(3):
        throttling.charge(7)


def entries() -> list[str]:
    """Return the keys of the entries in the cache that have not expired."""
    keys = [key.removeprefix(":1:") for key in cache._cache]
    return [key for key in keys if cache.get(key) is not None]


class TestReadingALevel:
    def test_peek_returns_whether_the_bucket_is_full_and_does_not_change_the_level(self):
        assert [throttling.peek(7) for _ in range(2)] == [Level(allowed=True, level=0)] * 2
        fill()

        assert [throttling.peek(7) for _ in range(2)] == [Level(allowed=False, level=600)] * 2

    def test_peek_returns_that_a_bucket_below_the_limit_allows_a_request(self, clock):
        fill()
        clock.shift(1)

        assert throttling.peek(7) == Level(allowed=True, level=590)

    def test_peek_returns_that_a_bucket_above_the_limit_is_full(self, settings):
        settings.INSTACCESS = {"THROTTLE_LIMIT": 500}
        fill()

        assert throttling.peek(7) == Level(allowed=False, level=600)

    @pytest.mark.parametrize(("level", "remaining"), [(200.1236, "399.876"), (599.9994, "0.001")])
    def test_x_rate_limit_remaining_is_rounded_to_three_decimals(self, level, remaining):
        assert Level(allowed=True, level=level).remaining == remaining

    @pytest.mark.parametrize(("level", "seconds"), [(0.0, 1), (599.0, 1), (600.0, 1), (609.0, 1), (610.0, 2)])
    def test_retry_after_is_at_least_one_second(self, level, seconds):
        assert Level(allowed=level < 600, level=level).retry_after == seconds


class TestARefund:
    def test_refund_lowers_the_level_of_a_bucket_by_the_cost_of_a_request(self):
        fill()
        throttling.refund(7)

        assert throttling.peek(7).level == 400

    def test_refund_does_not_lower_the_level_of_a_bucket_below_zero(self, clock):
        throttling.charge(7)
        clock.shift(5)
        throttling.refund(7)

        assert throttling.peek(7).level == 0
        assert throttling.charge(7).level == 200


class TestAClockThatIsSetBack:
    def test_bucket_keeps_its_level_when_the_clock_is_set_back_and_leaks_from_the_new_time_on(self, clock):
        fill()
        clock.shift(-3600)

        assert throttling.charge(7) == Level(allowed=False, level=600)
        clock.shift(20)
        assert throttling.peek(7).level == 400


class TestTheEntryOfABucket:
    def test_cache_entry_of_a_bucket_has_a_key_of_fixed_length(self):
        fill()

        [key] = entries()
        assert re.fullmatch(r"instaccess\.bucket\.[0-9a-f]{32}", key)

    def test_cache_entry_of_a_bucket_expires_two_seconds_after_the_bucket_is_empty(self, clock):
        fill()

        clock.shift(61)
        assert len(entries()) == 1
        clock.shift(1)
        assert entries() == []
