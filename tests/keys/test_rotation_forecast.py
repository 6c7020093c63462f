"""Tests for the forecast and the times of the key lifecycle."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import override_settings

from instaccess.keys import ring as keys_ring
from instaccess.keys import rotation
from instaccess.models import Key
from tests.keys.helpers import DAY, ENC, HOUR, SECOND, START, TIMES, current_key, key


class TestTheForecast:
    """Tests of the forecast of key changes, which assumes that each rotation happens when the rotation is due."""

    def test_the_forecast_changes_the_current_key_when_each_change_is_due(self):
        predicted = rotation.forecast(
            [current_key(), key("future")], now=START + 10 * DAY, times=TIMES, until=START + 100 * DAY
        )

        assert [row.status for row in predicted] == ["past", "past"]
        assert predicted[0].retired_at == predicted[1].activated_at == START + 30 * DAY
        assert predicted[1].retired_at == START + 60 * DAY

    def test_the_forecast_ends_at_the_given_time(self):
        predicted = rotation.forecast([current_key(), key("future")], now=START, times=TIMES, until=START + 29 * DAY)

        assert [row.status for row in predicted] == ["current", "future"]

    def test_the_forecast_rotates_overdue_keys_at_the_current_time(self):
        now = START + 40 * DAY
        predicted = rotation.forecast([current_key(), key("future")], now=now, times=TIMES, until=now)

        assert predicted[0].retired_at == predicted[1].activated_at == now

    def test_the_forecast_considers_but_does_not_return_keys_that_are_not_generated_yet(self):
        predicted = rotation.forecast([current_key()], now=START, times=TIMES, until=START + 365 * DAY)

        assert [row.retired_at for row in predicted] == [START + 30 * DAY]

    def test_the_forecast_keeps_the_order_of_the_given_key_rows_and_does_not_change_the_rows(self):
        rows = [key("future", use=ENC), current_key(), current_key(use=ENC, since=START - 10 * DAY), key("future")]
        before = [(row.kid, row.status, row.activated_at, row.retired_at) for row in rows]
        predicted = rotation.forecast(rows, now=START, times=TIMES, until=START + 25 * DAY)

        assert [row.status for row in predicted] == ["current", "current", "past", "future"]
        assert [row.kid for row in predicted] == [row.kid for row in rows]
        assert [(row.kid, row.status, row.activated_at, row.retired_at) for row in rows] == before

    def test_the_forecast_ends_if_the_next_key_must_be_imported(self):
        now = START + 99 * DAY
        predicted = rotation.forecast(
            [current_key(use=ENC, private=False)], now=now, times=TIMES, until=now + 999 * DAY
        )

        assert predicted[0].retired_at is None

    def test_the_forecast_does_not_run_forever_if_the_lead_time_is_zero(self):
        times = rotation.Times(interval=DAY, lead=timedelta(), retention=HOUR)
        now = START + 2 * DAY

        assert rotation.forecast([current_key()], now=now, times=times, until=now)[0].retired_at == now


class TestServedAt:
    def test_served_at_returns_the_end_of_the_rotation_interval_for_a_current_key(self):
        assert rotation.served_at(current_key(), TIMES) == START + 30 * DAY

    @pytest.mark.parametrize("status", ["future", "past", "revoked"])
    def test_served_at_returns_none_for_a_key_that_is_not_current(self, status):
        assert rotation.served_at(key(status, activated_at=START), TIMES) is None


class TestReadyAt:
    @pytest.mark.parametrize(("use", "private"), [("sig", True), ("sig", False), ("enc", True)])
    def test_future_key_is_ready_from_the_end_of_its_lead_time_on(self, use, private):
        row, end = key("future", use=Key.Use(use), private=private), START + TIMES.lead

        assert rotation.ready_at(row, TIMES) == end
        assert not rotation.is_ready(row, now=end - SECOND, times=TIMES)
        assert rotation.is_ready(row, now=end, times=TIMES)
        assert rotation.is_ready(row, now=end + SECOND, times=TIMES)

    def test_public_encryption_key_is_ready_immediately(self):
        row = key("future", use=ENC, private=False)

        assert rotation.ready_at(row, TIMES) == START
        assert rotation.is_ready(row, now=START, times=TIMES)


class TestGoneAt:
    @pytest.mark.parametrize("status", ["future", "current", "revoked"])
    def test_gone_at_returns_none_for_a_key_that_is_not_past(self, status):
        row = key(status, retired_at=START)

        assert rotation.gone_at(row, TIMES) is None
        assert not rotation.is_gone(row, now=START + 1000 * DAY, times=TIMES)


class TestLifecycleTimes:
    def test_lifecycle_times_are_computed_from_the_settings(self):
        settings = {"KEY_ROTATION_DAYS": 7, "JWKS_MAX_AGE": 600, "KEY_CACHE_SECONDS": 5, "LEEWAY": 10}
        with override_settings(INSTACCESS=settings):
            assert keys_ring.lifecycle_times() == rotation.Times(
                interval=7 * DAY, lead=timedelta(seconds=605), retention=timedelta(seconds=3600 + 60 + 10 + 5)
            )
