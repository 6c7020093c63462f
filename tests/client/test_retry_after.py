"""Property tests of the Retry-After header, with generated header values and times."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaccess.client.waiting import parse_retry_after

TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda time: time.replace(microsecond=0)
)


def http_date(time: datetime) -> str:
    return format_datetime(time, usegmt=True)


class TestRetryAfter:
    @given(st.integers(0, 999_999_999))
    def test_parse_retry_after_returns_the_number_of_seconds_in_the_header(self, seconds):
        assert parse_retry_after(f" {seconds} ", date=None, now=0) == seconds

    @given(TIMES, TIMES)
    def test_parse_retry_after_compares_a_date_with_the_clock_of_the_client_if_the_server_sends_no_date(
        self, until, now
    ):
        expected = max(0.0, (until - now).total_seconds())

        assert parse_retry_after(http_date(until), date=None, now=now.timestamp()) == expected

    @given(TIMES, TIMES, st.floats(-1e9, 1e9))
    def test_parse_retry_after_compares_a_date_with_the_date_of_the_response_even_if_the_client_clock_is_wrong(
        self, until, sent, now
    ):
        expected = max(0.0, (until - sent).total_seconds())

        assert parse_retry_after(http_date(until), date=http_date(sent), now=now) == expected

    @given(st.text(), st.text() | st.none())
    def test_parse_retry_after_returns_none_or_at_least_zero_seconds_for_any_text(self, value, date):
        seconds = parse_retry_after(value, date=date, now=1e9)

        assert seconds is None or seconds >= 0

    @pytest.mark.parametrize("value", [None, "", "-1", "1.5", "1e9", "٣", "soon", "1" * 10, "Fri, 99 Jan 2100"])
    def test_parse_retry_after_returns_none_for_a_header_without_a_valid_time(self, value):
        assert parse_retry_after(value, date=None, now=0) is None
