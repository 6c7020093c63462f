"""Tests of refusal spikes: hours in which a reason for a refusal is far more frequent than usual."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from instaccess.audit import refusal_counts
from instaccess.audit.refusal_counts import RefusalSpike
from instaccess.models import RefusalCount

pytestmark = pytest.mark.django_db

HOUR = datetime(2026, 12, 1, 12, tzinfo=UTC)
NOW = HOUR + timedelta(minutes=30, seconds=15, microseconds=7)


class TestRefusalSpikes:
    """Tests of spikes: hours with at least 20 refusals, and with at least 5 times the hourly mean of seven days."""

    @pytest.fixture(autouse=True)
    def now(self) -> Iterator[None]:
        with time_machine.travel(NOW, tick=False):
            yield

    def rows(self, counts: dict[float, int], *, role: str = "gateway", reason: str = "expired", **who: str) -> None:
        """Create refusal counts. `counts` maps an age in hours to a number of refusals. 0 is the current hour."""
        RefusalCount.objects.bulk_create(
            RefusalCount(hour=HOUR - timedelta(hours=ago), role=role, reason=reason, count=count, **who)
            for ago, count in counts.items()
        )

    def every_hour(self, count: int, days: int = 7) -> dict[float, int]:
        return {2 + hour: count for hour in range(days * 24)} if count else {}

    @pytest.mark.parametrize(
        ("usual", "previous", "current", "count"),
        [
            (0, 19, 0, None),
            (0, 20, 0, 20),
            (0, 0, 20, 20),
            (0, 21, 30, 30),
            (4, 20, 0, 20),
            (4, 19, 0, None),
            (10, 49, 0, None),
            (10, 50, 0, 50),
            (10, 0, 50, 50),
            (1000, 4999, 4999, None),
            (1000, 1000, 5000, 5000),
        ],
    )
    def test_refusal_spike_is_a_count_far_above_the_mean_in_the_current_or_previous_hour(
        self, usual, previous, current, count
    ):
        self.rows({168.0: 0} | self.every_hour(usual) | {1: previous, 0: current})

        expected = [] if count is None else [RefusalSpike("gateway", "expired", count, float(usual))]
        assert refusal_counts.refusal_spikes() == expected

    def test_refusal_spikes_is_empty_if_no_request_was_refused(self):
        assert refusal_counts.refusal_spikes() == []

    def test_refusal_spikes_ignores_hours_before_the_previous_hour(self):
        self.rows({2: 5000, 24 * 8: 9000})

        assert refusal_counts.refusal_spikes() == []

    def test_refusal_spikes_compares_each_role_and_reason_separately(self):
        self.rows(self.every_hour(100) | {1: 100}, reason="no_credentials")
        self.rows(self.every_hour(1) | {1: 100}, reason="revoked")
        self.rows({1: 300}, role="issuer", reason="revoked")

        assert refusal_counts.refusal_spikes() == [
            RefusalSpike("issuer", "revoked", 300, 0.0),
            RefusalSpike("gateway", "revoked", 100, 1.0),
        ]

    def test_refusal_spikes_adds_the_counts_of_all_clients_and_users(self):
        for number in range(10):
            self.rows({1: 3}, client_id=f"c{number}", user_uuid=f"u{number}")

        assert [spike.count for spike in refusal_counts.refusal_spikes()] == [30]

    def test_mean_of_refusals_covers_only_the_time_since_the_first_count(self):
        # If the mean always covered seven days, usual counts would look like spikes during the first week.
        self.rows({3: 100, 2: 100, 1: 100, 0: 40})

        assert refusal_counts.refusal_spikes() == []

    def test_mean_of_refusals_covers_at_least_one_hour(self):
        self.rows({2: 10, 1: 50, 0: 49})

        assert refusal_counts.refusal_spikes() == [RefusalSpike("gateway", "expired", 50, 10.0)]

    def test_refusal_spikes_of_an_earlier_time_omit_later_refusals(self):
        self.rows({30: 40, 29: 500, 1: 900})

        expected = [RefusalSpike("gateway", "expired", 40, 0.0)]
        assert refusal_counts.refusal_spikes(now=NOW - timedelta(hours=30)) == expected

    def test_mean_of_refusals_excludes_counts_older_than_seven_days(self):
        self.rows({24 * 7 + 2: 1_000_000, 24 * 7 + 1: 168, 1: 20})

        assert refusal_counts.refusal_spikes() == [RefusalSpike("gateway", "expired", 20, 1.0)]

    def test_refusal_spikes_returns_the_spikes_at_the_given_time(self):
        self.rows({30: 500})

        assert len(refusal_counts.refusal_spikes(now=NOW - timedelta(hours=29))) == 1
        assert refusal_counts.refusal_spikes(now=NOW - timedelta(hours=31)) == []

    def test_refusal_spikes_runs_one_query(self, django_assert_num_queries):
        self.rows(self.every_hour(5))
        with django_assert_num_queries(1):
            refusal_counts.refusal_spikes()
