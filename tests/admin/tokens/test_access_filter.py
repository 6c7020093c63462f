"""Tests of the filter that shows tokens that were valid in a period. The period is in the admin's time zone."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse

from instaccess import audit
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db

LIST = reverse("admin:instaccess_issuedtoken_changelist")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NIGHT = {"since": "2026-11-22T18:00", "until": "2026-11-23T08:00"}


@pytest.fixture(autouse=True)
def _now(time_machine):
    time_machine.move_to(NOW, tick=False)


@pytest.fixture
def issued_at(row):
    """Return a function that creates the audit row of a token that was issued at a time in UTC."""

    def issue(time: str, **columns: Any) -> IssuedToken:
        issued_at = datetime.fromisoformat(time).replace(tzinfo=UTC)
        return row(issued_at=issued_at, expires_at=issued_at + timedelta(hours=1), **columns)

    return issue


def listed(client: Any, **query: str) -> set[IssuedToken]:
    return set(client.get(LIST, query).context["cl"].result_list)


def page(client: Any, **query: str) -> str:
    return html.unescape(client.get(LIST, query).content.decode())


class TestTheFilterByAccess:
    def test_a22_filter_shows_tokens_that_were_valid_at_some_time_in_the_period(self, issued_at, admin_client):
        valid = {issued_at(time) for time in ("2026-11-22T17:01", "2026-11-22T18:00", "2026-11-23T07:59:59")}
        revoked_later = issued_at("2026-11-22T17:30", revoked_at=datetime(2026, 11, 22, 18, 0, 1, tzinfo=UTC))
        issued_at("2026-11-22T17:00")
        issued_at("2026-11-23T08:00")
        issued_at("2026-11-22T17:30", revoked_at=datetime(2026, 11, 22, 18, 0, tzinfo=UTC))

        assert listed(admin_client, **NIGHT) == {*valid, revoked_later}

    def test_a22_filter_accepts_a_period_without_a_start_or_an_end(self, issued_at, admin_client):
        old, new = issued_at("2026-11-20T00:00"), issued_at("2026-11-23T09:00")

        assert listed(admin_client, since=NIGHT["until"], until="") == {new}
        assert listed(admin_client, since="", until=NIGHT["since"]) == {old}
        assert listed(admin_client, since="", until="") == {old, new}

    def test_a22_filter_shows_tokens_that_were_accepted_only_because_of_the_leeway(
        self, issued_at, admin_client, settings
    ):
        late = issued_at("2026-11-22T16:59")
        assert listed(admin_client, **NIGHT) == set()
        settings.INSTACCESS = {"LEEWAY": 120}

        assert listed(admin_client, **NIGHT) == {late}

    def test_a22_filter_reads_times_in_the_time_zone_of_the_admin_and_shows_utc(
        self, issued_at, admin_client, settings
    ):
        settings.TIME_ZONE = "Europe/Berlin"
        valid = issued_at("2026-11-22T17:00")
        issued_at("2026-11-22T15:59")

        assert listed(admin_client, **NIGHT) == {valid}
        text = page(admin_client, **NIGHT)
        assert "Time zone: Europe/Berlin (UTC+01:00)." in text
        assert "2026-11-22 17:00:00 UTC to 2026-11-23 07:00:00 UTC" in text
        fields = re.findall(r'id="instaccess-\w+" name="(since|until)" value="([^"]*)"', text)
        assert fields == list(NIGHT.items())

    def test_a22_period_includes_both_repeated_hours_at_the_end_of_daylight_saving_time(
        self, issued_at, admin_client, settings
    ):
        settings.TIME_ZONE = "Europe/Berlin"
        valid = {issued_at(f"2026-10-25T0{hour}:45") for hour in (0, 1)}
        issued_at("2026-10-24T22:00")
        issued_at("2026-10-25T02:00")

        assert listed(admin_client, since="2026-10-25T02:30", until="2026-10-25T02:50") == valid

    def test_a22_filter_accepts_times_with_an_offset(self, issued_at, admin_client, settings):
        settings.TIME_ZONE = "Asia/Tokyo"
        valid = issued_at("2026-11-22T18:30")

        times = {"since": "2026-11-22T18:00Z", "until": "2026-11-22T20:00+01:00"}
        assert listed(admin_client, **times) == {valid}
        assert 'name="since" value="2026-11-23T03:00"' in page(admin_client, **times)

    def test_a22_links_of_the_filter_show_last_night_yesterday_and_today(self, issued_at, admin_client):
        night, evening = issued_at("2026-11-23T03:00"), issued_at("2026-11-22T20:00")
        noon = issued_at("2026-11-22T12:00")
        links = dict(
            re.findall(r'<a href="(\?[^"]*since=[^"]*)">\s*([^<]*)</a>', admin_client.get(LIST).content.decode())
        )
        by_label = {label: html.unescape(link) for link, label in links.items()}

        found = {
            label: set(admin_client.get(LIST + link).context["cl"].result_list) for label, link in by_label.items()
        }

        assert found == {
            "Last night, 18:00 to 08:00": {night, evening},
            "Yesterday": {evening, noon},
            "Today": {night},
        }
        [selected] = re.findall(
            r'<li class="selected">\s*<a href="[^"]*">(Last night[^<]*)</a>', page(admin_client, **NIGHT)
        )
        assert selected.startswith("Last night")

    def test_a22_form_of_the_filter_keeps_the_other_filters_and_the_search(self, issued_at, admin_client):
        text = page(admin_client, status="expired", q="ada", p="1", **NIGHT)

        form = text.partition('<form method="get" class="instaccess-access">')[2].partition("</form>")[0]
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form))
        assert hidden == {"status": "expired", "q": "ada"}

    @pytest.mark.parametrize(
        ("query", "error"),
        [
            ({"since": "last night"}, "Enter each time as date and time"),
            ({"until": "\x00"}, "Enter each time as date and time"),
            ({"since": "9" * 5000}, "Enter each time as date and time"),
            ({"since": "0001-01-01T00:00+23:00"}, "Enter each time as date and time"),
            ({"since": "2026-11-23T08:00", "until": "2026-11-23T08:00"}, "The end of the period must be after"),
        ],
    )
    def test_a22_filter_explains_an_invalid_period_and_shows_no_tokens(self, query, error, issued_at, admin_client):
        issued_at("2026-11-23T03:00")

        assert listed(admin_client, **query) == set()
        assert error in page(admin_client, **query)

    @pytest.mark.parametrize("time", ["0001-01-01T00:00", "0001-01-02", "1969-12-31T23:59", "9999-12-31T23:59:59"])
    @pytest.mark.parametrize("name", ["since", "until"])
    def test_a22_filter_accepts_the_earliest_and_the_latest_time(self, name, time, issued_at, admin_client):
        issued_at("2026-11-23T03:00")

        assert admin_client.get(LIST, {name: time}).status_code == 200

    def test_a22_admin_export_contains_only_tokens_that_were_valid_in_the_period(self, issued_at, admin_client):
        token = issued_at("2026-11-22T17:30")
        issued_at("2026-11-22T12:00")

        lines = b"".join(admin_client.get(f"{LIST}export/jsonl/", NIGHT).streaming_content).splitlines()

        assert [str(token.jti) in line.decode() for line in lines] == [True]


class TestTheChartOfAPeriod:
    def test_a22_chart_shows_the_hours_of_the_period(self, issued_at, admin_client):
        issued_at("2026-11-22T19:30")
        issued_at("2026-11-22T17:30")

        chart = admin_client.get(LIST, NIGHT).context["chart"]

        assert chart.heading == "2026-11-22 18:00 to 2026-11-23 08:00, by hour"
        assert len(chart.rows) == 14
        assert [list(row.cells) for row in chart.rows[:3]] == [["0", "0", "0"], ["1", "0", "0"], ["0", "0", "0"]]

    @pytest.mark.parametrize(
        ("query", "bars", "unit"),
        [
            ({"since": "2026-11-20T12:00"}, 72, "by hour"),
            ({"since": "2026-11-20T11:59"}, 4, "by day"),
            ({"since": "2001-01-01"}, 367, "by day"),
            ({"until": "2026-11-22T00:00"}, 7, "by day"),
            ({"since": "2030-01-01T00:00"}, 1, "by hour"),
            ({"since": "x"}, 8, "by day"),
        ],
    )
    def test_a22_chart_of_a_period_has_a_limited_number_of_bars(self, query, bars, unit, admin_client):
        chart = admin_client.get(LIST, query).context["chart"]

        assert len(chart.rows) == bars
        assert chart.heading.endswith(unit)


class TestFilterByAccess:
    def test_filter_by_access_matches_live_tokens_at_the_current_time(self, row):
        live, expired = row(), row(age=7200)

        rows = audit.issued_tokens().filter(audit.filter_by_access(NOW, None))

        assert list(rows) == [live]
        assert expired not in rows
