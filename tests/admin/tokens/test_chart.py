"""Tests of the chart above the list of issued tokens: its geometry, its counts, and its texts."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from instaccess import users
from instaccess.admin.tokens import chart_counts, periods
from instaccess.admin.tokens.chart_geometry import FILLED, LABELS, LEAST, WIDEST, Series, draw, labelled
from instaccess.admin.tokens.periods import DAY, HOUR, Period
from instaccess.audit.refusal_counts import RETENTION
from instaccess.models import IssuedToken, RefusalCount

TOKENS = reverse("admin:instaccess_issuedtoken_changelist")
NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def _now(time_machine):
    time_machine.move_to(NOW, tick=False)


def section(client: Any, **query: str) -> str:
    text = client.get(TOKENS, query).content.decode()
    match = re.search(r'<section class="instaccess-chart".*?</section>', text, re.DOTALL)
    assert match
    return match[0]


def table(client: Any, **query: str) -> dict[str, dict[str, str]]:
    """Return the cells of the table below the chart that are not zero, by time and heading."""
    text = section(client, **query)
    _, *headings = re.findall(r'<th scope="col">(.*?)</th>', text)
    rows = {}
    for start, cells in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text):
        numbers = dict(zip(headings, re.findall("<td>(.*?)</td>", cells), strict=True))
        rows[start] = {heading: cell for heading, cell in numbers.items() if cell != "0"}
    return {start: numbers for start, numbers in rows.items() if numbers}


def chart_text(client: Any, **query: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", section(client, **query))).split())


def draw_panel(numbers: list[int], **values: Any) -> Any:
    """Draw a chart with one panel, in which the highest bar has a height of 100 pixels."""
    texts = [str(number) for number in range(len(numbers))]
    return draw([Series("issued", "Issued", numbers, 100, **values)], texts, texts)


def value(text: str) -> float:
    return float(text.rstrip("%"))


class TestTheGeometryOfTheChart:
    def test_highest_bar_of_a_chart_has_the_full_height_and_other_bars_are_proportional(self):
        [panel] = draw_panel([10, 20, 5]).panels

        assert [value(bar.height) for bar in panel.bars] == [50, 100, 25]
        assert {value(bar.y) + value(bar.height) for bar in panel.bars} == {panel.base}

    def test_chart_draws_zero_as_a_bar_without_height(self):
        [panel] = draw_panel([0, 0, 0]).panels

        assert [bar.height for bar in panel.bars] == ["0", "0", "0"]

    def test_chart_draws_a_very_low_bar_with_the_minimum_height(self):
        [panel] = draw_panel([1, 1_000_000]).panels

        assert value(panel.bars[0].height) == LEAST

    def test_each_panel_of_a_chart_has_its_own_scale(self):
        drawing = draw([Series("a", "A", [1000], 80), Series("b", "B", [2], 30)], ["x"], ["x"])

        assert [panel.bars[0].height for panel in drawing.panels] == ["80", "30"]
        assert drawing.panels[1].top > drawing.panels[0].base
        assert drawing.height > drawing.panels[1].base

    def test_chart_draws_unknown_numbers_as_one_area_without_bars(self):
        [panel] = draw_panel([9, 9, 4, 4], first=2).panels

        assert len(panel.bars) == 2
        assert panel.bars[0].height == "100"
        assert (panel.unknown.x, panel.unknown.width) == ("0%", "50%")

    def test_chart_has_no_bars_and_no_labels_if_there_are_no_numbers(self):
        drawing = draw_panel([])

        assert drawing.panels[0].bars == []
        assert drawing.labels == []

    @given(st.lists(st.integers(0, 10**9), min_size=1, max_size=400), st.data())
    def test_bars_for_any_numbers_are_within_the_chart(self, numbers, data):
        first = data.draw(st.integers(0, len(numbers)))
        drawing = draw_panel(numbers, first=first)
        [panel] = drawing.panels

        for bar in panel.bars:
            assert 0 <= value(bar.x) <= value(bar.x) + value(bar.width) <= 100.01
            assert panel.top - 0.1 <= value(bar.y) <= panel.base
            assert 0 <= value(bar.height) <= 100
            assert value(bar.width) <= WIDEST
            assert value(bar.width) <= 100 / len(numbers) * FILLED + 0.01
        assert len(drawing.labels) <= LABELS
        assert len(drawing.columns) == len(numbers)

    @given(st.integers(1, 1000))
    def test_chart_labels_the_first_bar_the_last_bar_and_a_few_bars_between(self, count):
        places = labelled(count)

        assert places[0] == 0
        assert places[-1] == count - 1
        assert places == sorted(set(places))
        assert len(places) <= LABELS


class TestThePeriodOfTheChart:
    @pytest.mark.parametrize(
        ("choice", "since", "steps", "step"),
        [
            ("1h", datetime(2026, 11, 23, 11, tzinfo=UTC), 2, HOUR),
            ("24h", datetime(2026, 11, 22, 12, tzinfo=UTC), 25, HOUR),
            ("7d", datetime(2026, 11, 16, tzinfo=UTC), 8, DAY),
            ("365d", datetime(2025, 11, 23, tzinfo=UTC), 366, DAY),
        ],
    )
    def test_period_of_the_chart_consists_of_whole_hours_or_days_up_to_the_current_hour_or_day(
        self, choice, since, steps, step
    ):
        period = periods.chosen(choice, NOW)

        assert period is not None
        assert (period.since, period.step, len(period.starts)) == (since, step, steps)
        assert period.starts[-1] <= NOW < period.until

    @pytest.mark.parametrize("year", ["x", "0", "10000", "-1", "", "9999999999999", "\x00"])
    def test_a5_chart_ignores_an_invalid_parameter_for_the_period(self, year):
        assert periods.chosen(year, NOW) is None


@pytest.mark.django_db
@pytest.mark.usefixtures("_now")
class TestTheCountsInTheChart:
    PERIOD = Period(MIDNIGHT - 2 * DAY, MIDNIGHT + DAY)

    @pytest.fixture(params=[False, True], ids=["many tokens", "few tokens"])
    def few(self, request):
        """Return whether to use the query for few tokens.

        The query for few tokens and the query for many tokens must return the same counts.
        """
        return request.param

    @staticmethod
    def issued(period: Period, few: bool) -> chart_counts.Counts:
        return chart_counts.issued(IssuedToken.objects.all(), period, few=few)

    def test_chart_counts_tokens_by_utc_day_if_the_project_has_a_different_time_zone(self, row, settings, few):
        settings.TIME_ZONE = "Asia/Tokyo"
        period = Period(MIDNIGHT - 4 * DAY, MIDNIGHT + DAY)
        for issued_at in (MIDNIGHT - 4 * DAY, MIDNIGHT - timedelta(seconds=1), MIDNIGHT, MIDNIGHT + 12 * HOUR):
            row(issued_at=issued_at)
        row(issued_at=MIDNIGHT - 5 * DAY)

        assert self.issued(period, few) == chart_counts.Counts([1, 0, 0, 1, 2])

    def test_chart_counts_tokens_by_hour_in_a_short_period(self, row, few):
        for minutes in (0, 59, 60, 180):
            row(issued_at=MIDNIGHT + timedelta(minutes=minutes))

        assert self.issued(Period(MIDNIGHT, MIDNIGHT + 4 * HOUR), few).numbers == [2, 1, 0, 1]

    def test_chart_counts_zero_in_each_hour_of_a_period_without_tokens(self, few):
        assert self.issued(Period(MIDNIGHT, MIDNIGHT + 3 * HOUR), few) == chart_counts.Counts([0, 0, 0])
        nothing = chart_counts.issued(IssuedToken.objects.none(), Period(MIDNIGHT, MIDNIGHT + HOUR))
        assert nothing == chart_counts.Counts([0])

    def test_chart_counts_revoked_tokens_by_the_time_of_their_revocation(self, row):
        row(issued_at=MIDNIGHT - HOUR / 2, revoked_at=MIDNIGHT + HOUR / 4)
        row(issued_at=MIDNIGHT)

        counts = chart_counts.revoked(IssuedToken.objects.all(), Period(MIDNIGHT - HOUR, MIDNIGHT + HOUR))

        assert counts.numbers == [0, 1]

    def test_chart_sums_refusals_and_marks_the_time_of_deleted_refusals_as_unknown(self):
        for hour, count in ((MIDNIGHT, 3), (MIDNIGHT + HOUR, 4), (MIDNIGHT - 40 * DAY, 9)):
            for role in ("issuer", "gateway"):
                RefusalCount.objects.create(hour=hour, role=role, reason="expired", count=count)

        counts = chart_counts.refused(
            RefusalCount.objects.all(), Period(MIDNIGHT - 41 * DAY, MIDNIGHT + DAY), kept_since=NOW - RETENTION
        )

        assert counts.numbers[-1] == 14
        assert counts.known == 7  # The first seven of 42 days are incomplete, because refusals are kept for 35 days.
        assert counts.total == 14

    def test_a4_chart_counts_a_limited_number_of_rows_and_marks_incomplete_counts_as_unknown(
        self, row, monkeypatch, few
    ):
        monkeypatch.setattr("instaccess.admin.tokens.chart_counts.CHARTED", 4)
        for hours in (0, 1, 1, 2, 3, 3):
            row(issued_at=MIDNIGHT + hours * HOUR)

        counts = self.issued(Period(MIDNIGHT, MIDNIGHT + 4 * HOUR), few)

        assert counts.numbers[2:] == [1, 2]
        assert (counts.known, counts.truncated, counts.total) == (2, True, 3)

    def test_a4_chart_marks_every_count_as_unknown_if_the_latest_hour_exceeds_the_row_limit(
        self, row, monkeypatch, few
    ):
        monkeypatch.setattr("instaccess.admin.tokens.chart_counts.CHARTED", 2)
        for minutes in (-30, 0, 1, 2, 3, 4):
            row(issued_at=MIDNIGHT + timedelta(minutes=minutes))

        counts = self.issued(Period(MIDNIGHT - HOUR, MIDNIGHT + HOUR), few)

        assert (counts.known, counts.truncated, counts.total) == (2, True, 0)

    def test_a4_chart_counts_are_complete_if_the_number_of_rows_equals_the_limit(self, row, monkeypatch, few):
        monkeypatch.setattr("instaccess.admin.tokens.chart_counts.CHARTED", 2)
        for hours in (0, 1):
            row(issued_at=MIDNIGHT + hours * HOUR)

        assert self.issued(Period(MIDNIGHT, MIDNIGHT + 2 * HOUR), few) == chart_counts.Counts([1, 1])

    def test_a4_chart_counts_a_year_of_tokens_with_one_query(self, row, django_assert_num_queries, few):
        row()

        with django_assert_num_queries(1):
            self.issued(periods.chosen("365d", NOW), few)


@pytest.mark.django_db
@pytest.mark.usefixtures("_now")
class TestTheChartOnThePage:
    def test_table_below_the_chart_contains_the_numbers_of_issued_and_revoked_tokens_and_refusals(
        self, row, admin_client
    ):
        row(age=60)
        row(age=3 * 86400)
        row(age=120, revoked_at=NOW)
        RefusalCount.objects.create(hour=MIDNIGHT, role="gateway", reason="expired", count=7)

        assert table(admin_client) == {
            "2026-11-20": {"Issued": "1"},
            "2026-11-23": {"Issued": "2", "Revoked": "1", "Refused": "7"},
        }

    def test_chart_is_an_image_with_a_title_and_a_description(self, row, admin_client):
        row()
        match = re.search(r"<svg.*?</svg>", section(admin_client), re.DOTALL)
        assert match

        image = ElementTree.fromstring(match[0])

        assert image.get("role") == "img"
        named = [image.find(f".//*[@id='{name}']") for name in image.get("aria-labelledby", "").split()]
        title, description = (element.text for element in named)
        assert title == "Tokens over time: Last 7 days, by day"
        assert description is not None
        assert description.startswith("From 2026-11-16 to 2026-11-23 (UTC). Issued: 1, peak 1 per day.")

    def test_chart_has_no_inline_style_script_or_event_handler(self, row, admin_client):
        # The content security policy `default-src 'self'` forbids inline scripts and styles.
        row()

        assert not re.search(r"style=|<script|<style|data:|\son\w+=", section(admin_client))

    def test_chart_contains_numbers_with_a_decimal_point_in_german(self, row, admin_client, settings):
        settings.LANGUAGE_CODE = "de"
        for age in (60, 60, 86400, 2 * 86400):
            row(age=age)

        chart = section(admin_client)

        numbers = re.findall(r'<rect[^>]* (?:x|y|width|height)="([^"]*)"', chart)
        assert numbers
        assert all(re.fullmatch(r"\d+(\.\d+)?%?", number) for number in numbers)

    @pytest.mark.parametrize(
        ("query", "heading"),
        [
            ({}, "Last 7 days, by day (UTC)"),
            ({"period": "24h"}, "Last 24 hours, by hour (UTC)"),
            ({"period": "90d"}, "Last 90 days, by day (UTC)"),
        ],
    )
    def test_heading_of_the_chart_names_the_period(self, query, heading, row, admin_client):
        assert heading in chart_text(admin_client, **query)

    def test_chart_shows_a_message_and_draws_zeros_if_there_are_no_tokens(self, admin_client):
        chart = section(admin_client)

        assert "No matching tokens or refusals in this period" in chart
        assert chart.count('height="0"') == 8 * 3

    def test_chart_counts_only_tokens_that_match_the_filters_and_the_search_of_the_admin_list(
        self, row, user, admin_client
    ):
        grace = get_user_model().objects.create_user("grace")
        row(age=60)
        row(age=60, user=grace, user_uuid=users.user_uuid(grace))
        row(age=60, account_uuid="other", client_id="other", revoked_at=NOW)
        row(age=7200, real_user=grace, real_user_uuid=users.user_uuid(grace))

        for query, count in (
            ({}, "4"),
            ({"q": "grace"}, "2"),
            ({"account_uuid": "other"}, "1"),
            ({"client_id": "other"}, "1"),
            ({"masquerading": "yes"}, "1"),
            ({"status": "live"}, "2"),
            ({"status": "expired"}, "1"),
            ({"status": "revoked"}, "1"),
            ({"q": "grace", "status": "expired"}, "1"),
        ):
            assert table(admin_client, **query)["2026-11-23"]["Issued"] == count, query

    def test_chart_omits_the_panel_of_revoked_tokens_if_the_list_is_filtered_by_live_tokens(self, row, admin_client):
        row()

        assert "Revoked" not in chart_text(admin_client, status="live")
        assert "Revoked" in chart_text(admin_client, status="revoked")


@pytest.mark.django_db
@pytest.mark.usefixtures("_now")
class TestRefusalsInTheChart:
    @pytest.fixture(autouse=True)
    def _refusals(self, user, application):
        for client_id, user_uuid, count in (
            ("", "", 100),
            (application.client_id, "", 20),
            (application.client_id, users.user_uuid(user), 3),
        ):
            RefusalCount.objects.create(
                hour=MIDNIGHT, role="issuer", reason="x", client_id=client_id, user_uuid=user_uuid, count=count
            )

    @pytest.fixture
    def names(self, user, application):
        return {"client": application.client_id, "user": user.username, "uuid": users.user_uuid(user)}

    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ({}, "123"),
            ({"client_id": "{client}"}, "23"),
            ({"q": "{client}"}, "23"),
            ({"q": "{user}"}, "3"),
            ({"q": "{uuid}"}, "3"),
            ({"q": "{user}", "client_id": "{client}"}, "3"),
            ({"q": "{user}", "period": "24h"}, "3"),
        ],
    )
    def test_chart_counts_refusals_of_the_selected_users_and_applications(self, query, count, names, admin_client):
        query = {name: text.format(**names) for name, text in query.items()}

        [numbers] = table(admin_client, **query).values()

        assert numbers["Refused"] == count

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ({"account_uuid": "x"}, "contain only the application and the user"),
            ({"masquerading": "yes"}, "contain only the application and the user"),
            ({"status": "live"}, "contain only the application and the user"),
            ({"q": "192.0.2.7"}, "not counted by IP address"),
        ],
    )
    def test_chart_omits_refusals_and_explains_why_if_refusals_are_not_counted_by_the_filtered_value(
        self, query, why, admin_client
    ):
        text = chart_text(admin_client, **query)

        assert why in text
        assert "Refused:" not in text

    def test_table_below_the_chart_shows_deleted_refusals_as_not_known(self, admin_client):
        cells = table(admin_client, period="90d")

        assert cells["2026-09-01"]["Refused"] == "not known"
        assert cells["2026-11-23"]["Refused"] == "123"
        assert "Refusals are kept for 35 days." in chart_text(admin_client, period="90d")

    @pytest.mark.parametrize("client_id", ["\x00", "<script>alert(1)</script>", "' OR 1=1 --"])
    def test_a5_chart_contains_no_script_from_a_hostile_client_id(self, client_id, admin_client):
        chart = section(admin_client, client_id=client_id)

        assert "<script>" not in chart


@pytest.mark.django_db
@pytest.mark.usefixtures("_now")
class TestTooManyTokensForAChart:
    @pytest.fixture(autouse=True)
    def _many(self, _now, row, monkeypatch):
        monkeypatch.setattr("instaccess.admin.tokens.chart_counts.CHARTED", 3)
        for days in (5, 5, 4, 3, 3, 1, 0, 0, 0):
            row(age=days * 86400)

    @pytest.mark.parametrize("query", [{}, {"masquerading": "no"}], ids=["bare", "filtered"])
    def test_a4_chart_with_too_many_tokens_asks_for_a_shorter_period_and_shows_the_complete_days(
        self, admin_client, query
    ):
        text = chart_text(admin_client, **query)
        cells = table(admin_client, **query)

        assert "The period contains more than 3 tokens. Choose a shorter period." in text
        assert "complete from 2026-11-23 on" in text
        assert "Issued: 3, peak 3 per day" in text
        assert cells["2026-11-23"] == {"Issued": "3"}
        assert cells["2026-11-18"]["Issued"] == "not known"

    def test_a4_chart_of_a_shorter_period_is_complete_despite_many_older_tokens(self, admin_client):
        assert "More than" not in chart_text(admin_client, period="1h")
        assert table(admin_client, period="1h") == {"2026-11-23 12:00": {"Issued": "3"}}

    def test_a4_chart_with_too_many_tokens_runs_no_additional_queries(self, row, admin_client):
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                section(admin_client)
            return len(captured)

        queries()
        before = queries()
        for days in range(8):
            row(age=days * 86400)

        assert queries() == before
