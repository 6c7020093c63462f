"""Tests of the querysets of live and revocable tokens, and of the filters of audit rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import DatabaseError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from instaccess import users
from instaccess.audit import rows
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

COLUMNS = pytest.mark.parametrize("columns", [["user"], ["real_user"], ["user", "real_user"]], ids=" and ".join)


@pytest.fixture(autouse=True)
def noon(time_machine: Any) -> None:
    time_machine.move_to(NOON, tick=False)


class TestLiveTokens:
    def test_live_tokens_uses_no_leeway_and_logs_an_error_if_the_setting_leeway_is_invalid(
        self, row, settings, caplog
    ):
        row(age=3600)
        live = row(age=3599)
        settings.INSTACCESS = {"LEEWAY": "a minute"}

        assert list(rows.live_tokens()) == [live]
        assert "live tokens are determined without INSTACCESS['LEEWAY']" in caplog.text


class TestRevocableTokens:
    def test_revocable_tokens_contains_tokens_that_expired_less_than_360_seconds_ago(self, row):
        revocable = [row(age=age) for age in (3959, 3600, 0)]
        row(age=3960)

        assert list(rows.revocable_tokens().order_by("pk")) == revocable

    def test_revocable_tokens_contains_no_revoked_token(self, row):
        row(revoked_at=NOON)

        assert list(rows.revocable_tokens()) == []

    def test_revocable_tokens_filters_by_an_indexed_column(self, row):
        with CaptureQueriesContext(connection) as queries:
            list(rows.revocable_tokens())

        assert "issued_at" in queries.captured_queries[0]["sql"].split("WHERE")[1]


class TestFilterByUser:
    @pytest.fixture
    def grace(self) -> Any:
        return get_user_model().objects.create_user("grace")

    @COLUMNS
    def test_filter_by_user_matches_the_current_name_of_a_renamed_user(self, row, grace, columns):
        theirs = row(**dict.fromkeys(columns, grace))
        row()
        grace.username = "hopper"
        grace.save()

        assert list(IssuedToken.objects.filter(rows.filter_by_user("hopper"))) == [theirs]

    @COLUMNS
    def test_filter_by_user_matches_the_recorded_name_of_a_deleted_user(self, row, grace, columns):
        theirs = row(**dict.fromkeys(columns, grace))
        row()
        grace.delete()

        assert list(IssuedToken.objects.filter(rows.filter_by_user("grace"))) == [theirs]

    @COLUMNS
    def test_filter_by_user_matches_the_uuid_of_a_deleted_user(self, row, grace, columns):
        uuid = users.user_uuid(grace)
        theirs = row(**dict.fromkeys(columns, grace), **{f"{column}_uuid": uuid for column in columns})
        row()
        grace.delete()

        assert list(IssuedToken.objects.filter(rows.filter_by_user(uuid))) == [theirs]

    def test_filter_by_user_matches_a_user_whose_name_is_the_uuid(self, row, grace):
        theirs = row(user=grace, user_uuid="grace")
        row()
        grace.delete()

        assert list(IssuedToken.objects.filter(rows.filter_by_user("grace"))) == [theirs]


class TestFilterByAccess:
    @staticmethod
    def matches(since: datetime | None, until: datetime | None) -> bool:
        return IssuedToken.objects.filter(rows.filter_by_access(since, until)).exists()

    @pytest.fixture
    def token(self, row: Any) -> IssuedToken:
        made: IssuedToken = row(issued_at=NOON, expires_at=NOON + HOUR)
        return made

    def test_filter_by_access_without_a_period_matches_every_token(self, token):
        assert self.matches(None, None)

    def test_filter_by_access_matches_a_token_that_was_issued_before_the_end_of_the_period(self, token):
        for since in (None, NOON - HOUR):
            assert self.matches(since, NOON + timedelta(seconds=1))
            assert not self.matches(since, NOON)

    def test_filter_by_access_matches_a_token_that_expired_after_the_start_of_the_period(self, token):
        for until in (None, NOON + 2 * HOUR):
            assert self.matches(NOON + HOUR - timedelta(seconds=1), until)
            assert not self.matches(NOON + HOUR, until)

    def test_filter_by_access_matches_an_expired_token_within_the_leeway(self, token, settings):
        settings.INSTACCESS = {"LEEWAY": 200}

        assert self.matches(NOON + HOUR + timedelta(seconds=199), None)
        assert not self.matches(NOON + HOUR + timedelta(seconds=200), None)

    def test_filter_by_access_matches_a_token_that_was_revoked_after_the_start_of_the_period(self, row):
        row(issued_at=NOON, expires_at=NOON + HOUR, revoked_at=NOON + 20 * MINUTE)

        assert self.matches(NOON + 19 * MINUTE, None)
        assert not self.matches(NOON + 20 * MINUTE, None)

    def test_filter_by_access_from_the_year_1_on_matches_every_token_since_1970(self, row):
        first = datetime(1970, 1, 1, tzinfo=UTC)
        row(issued_at=first, expires_at=first + HOUR)

        assert self.matches(datetime(1, 1, 1, tzinfo=UTC), None)

    def test_filter_by_access_filters_by_an_indexed_column(self, token):
        query = str(IssuedToken.objects.filter(rows.filter_by_access(NOON, None)).query)

        assert "issued_at" in query.split("WHERE")[1]


@pytest.mark.sqlite
class TestRequireColumns:
    @pytest.fixture
    def without_a_column(self, row: Any) -> None:
        """Drop a column, to simulate a new release before `migrate` has added the column.

        The rollback after the test restores the column.
        """
        row()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE instaccess_issuedtoken DROP COLUMN user_agent")

    def test_require_columns_raises_a_database_error_that_names_the_missing_column(self, without_a_column):
        with pytest.raises(DatabaseError, match="user_agent"):
            rows.require_columns(rows.issued_tokens(), ValueError("not a time"))

    def test_require_columns_raises_the_database_error_that_the_caller_passes(self, without_a_column):
        error = OperationalError("the cause")

        with pytest.raises(OperationalError) as raised:
            rows.require_columns(rows.issued_tokens(), error)
        assert raised.value is error

    def test_require_columns_raises_no_error_for_a_complete_table(self, row):
        row()

        rows.require_columns(rows.issued_tokens(), ValueError("not a time"))
