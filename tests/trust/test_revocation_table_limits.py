"""Tests of the exact limits of the pages of revocations that a gateway reads from the database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils import timezone

from instaccess.exceptions import ConfigError
from instaccess.models import IssuedToken, Revocation
from instaccess.trust import Page, revocation_table
from instaccess.trust.revocation_table import read

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)
RETENTION = timedelta(seconds=3600 + 60 + 360)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def frozen_time(time_machine: Any) -> None:
    time_machine.move_to(NOW, tick=False)


def number(time: datetime) -> int:
    """Return the number of a revocation that is recorded at this time: the microseconds since 1970."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND


def insert(*rows: tuple[int, str, str, int | None]) -> None:
    """Insert a revocation for each tuple of number, kind, value and `latest_iat`. The HMACs of the rows are empty."""
    now = timezone.now()
    Revocation.objects.bulk_create(
        Revocation(number=number, kind=kind, value=value, latest_iat=iat, revoked_at=now + number * MICROSECOND)
        for number, kind, value, iat in rows
    )


def insert_revoked_tokens(count: int) -> None:
    now = timezone.now()
    IssuedToken.objects.bulk_create(
        [
            IssuedToken(id=id_, jti=uuid.uuid4(), issued_at=now, expires_at=now + timedelta(hours=1), revoked_at=now)
            for id_ in range(1, count + 1)
        ],
        batch_size=500,
    )


class TestTheSizeOfAPageOfRevocations:
    def test_page_of_all_revoked_tokens_has_at_most_10000_tokens(self):
        insert_revoked_tokens(10_001)
        first = read()
        second = read(first.cursor)

        assert (len(first.tokens), first.more) == (10_000, True)
        assert (len(second.tokens), second.more) == (1, False)

    def test_page_of_new_revocations_is_read_from_at_most_1000_rows(self):
        insert(*((n, "user", f"u{n}", 7) for n in range(1, 1002)))
        first = read("0")
        second = read(first.cursor)

        assert (len(first.users), first.cursor, first.more) == (1000, "1000", True)
        assert (second.users, second.cursor, second.more) == ({"u1001": 7}, "1001", False)

    def test_page_of_999_new_revocations_is_the_last_page(self):
        insert(*((n, "user", f"u{n}", 7) for n in range(1, 1000)))

        assert not read("0").more

    def test_page_of_new_revocations_has_up_to_20_batches_of_tokens(self):
        insert(*((n, "tokens", "", None) for n in range(1, 21)), (21, "account", "a", 7), (22, "key", "k", None))
        page = read("0")

        assert (page.cursor, page.more, page.accounts, page.keys) == ("22", False, {"a": 7}, ["k"])

    def test_page_of_new_revocations_ends_before_the_21st_batch_of_tokens(self):
        insert(*((n, "tokens", "", None) for n in range(1, 21)), (21, "account", "a", 7), (22, "tokens", "", None))
        page = read("0")

        assert (page.cursor, page.more, page.accounts) == ("21", True, {"a": 7})
        assert read(page.cursor) == Page(tokens=[], keys=[], cursor="22")


class TestTheContentOfAPageOfRevocations:
    KINDS = (
        (1, "account", "a", 5),
        (2, "user", "u", 6),
        (3, "key", "k", None),
        (4, "tokens", "", None),
    )

    def test_page_contains_each_kind_of_revocation_in_its_own_member(self):
        insert(*self.KINDS)

        assert read("0") == Page([], {"u": 6}, {"a": 5}, ["k"], -1, "4")

    def test_page_contains_a_revocation_of_all_tokens_only_in_its_own_member(self):
        insert(*self.KINDS, (5, "all", "", 3))

        assert read("0") == Page([], {"u": 6}, {"a": 5}, ["k"], 3, "5")

    def test_page_contains_the_latest_time_of_several_revocations_of_a_user(self):
        insert((1, "user", "u", 6), (2, "user", "u", 0), (3, "user", "v", 0))

        assert read("0").users == {"u": 6, "v": 0}

    def test_page_does_not_contain_the_revocation_at_the_position(self):
        insert((1, "user", "u", 6), (2, "user", "v", 7))

        assert read("1").users == {"v": 7}
        assert read("2") == Page(tokens=[], keys=[], cursor="2")

    @pytest.mark.usefixtures("frozen_time")
    def test_first_page_contains_each_recent_revocation_in_its_own_member(self):
        now = number(NOW)
        insert(*((now + n, kind, value, iat) for n, kind, value, iat in self.KINDS))

        assert read() == Page([], {"u": 6}, {"a": 5}, ["k"], -1, str(now + 4))


class TestTheAgeOfRevocations:
    @pytest.mark.usefixtures("frozen_time")
    def test_first_page_contains_a_token_that_was_revoked_exactly_the_retention_time_ago(self, row):
        denied = row(id=1, revoked_at=NOW - RETENTION, expires_at=NOW)
        row(id=2, revoked_at=NOW - RETENTION - MICROSECOND, expires_at=NOW)

        assert read().tokens == [str(denied.jti)]

    @pytest.mark.usefixtures("frozen_time")
    def test_first_page_contains_a_token_until_360_seconds_after_its_expiry(self, row):
        denied = row(revoked_at=NOW - timedelta(minutes=30), expires_at=NOW - timedelta(seconds=360) + MICROSECOND)
        row(revoked_at=NOW - timedelta(minutes=30), expires_at=NOW - timedelta(seconds=360))

        assert read().tokens == [str(denied.jti)]

    @pytest.mark.usefixtures("frozen_time")
    def test_first_page_contains_only_users_that_were_revoked_within_the_retention_time(self):
        oldest = number(NOW - RETENTION)
        insert((oldest, "user", "old", 6), (oldest + 1, "user", "recent", 6))

        assert read().users == {"recent": 6}


@pytest.mark.usefixtures("frozen_time")
class TestALostPosition:
    """Tests that a position is lost if its revocation is missing from the database but was not pruned."""

    def test_k15_recent_position_of_a_missing_revocation_is_lost(self):
        insert((number(NOW), "key", "k", None))
        oldest = number(NOW - RETENTION)

        assert read(str(oldest + 1)).position_lost
        assert not read(str(oldest)).position_lost
        assert not read(str(oldest - 1)).position_lost

    def test_k15_position_after_the_last_revocation_is_lost_even_if_the_position_is_old(self):
        assert read(str(number(NOW - RETENTION - timedelta(days=1)))).position_lost

    def test_k15_old_position_of_a_missing_revocation_is_not_lost_if_later_revocations_exist(self):
        insert((number(NOW), "key", "k", None))

        assert not read(str(number(NOW - RETENTION - timedelta(days=1)))).position_lost


class TestThePositionInTheListOfAllTokens:
    def test_position_can_contain_the_largest_possible_id_of_a_token(self, row):
        row(revoked_at=timezone.now())
        after = number(timezone.now() + timedelta(days=1))

        assert read(f"0-{after}-{2**63 - 1}").tokens == []
        # The id is too large, so the position is unknown, and the page contains all revoked tokens.
        assert len(read(f"0-{after}-{2**63}").tokens) == 1

    def test_reading_after_a_position_takes_one_query_if_there_are_no_revocations(self, django_assert_num_queries):
        position = read().cursor

        with django_assert_num_queries(1):
            assert read(position) == Page(tokens=[], keys=[], cursor="0")


class TestTheDatabaseOfTheRevocations:
    @pytest.fixture
    def without_databases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Use a database without an engine. Django configures such a database if DATABASES is empty."""
        without = connections.configure_settings({"default": {}})["default"]
        monkeypatch.setitem(connections.settings, "nothing", without)
        monkeypatch.setattr(revocation_table._audit, "find_alias", lambda: "nothing")

    @pytest.mark.usefixtures("without_databases")
    def test_error_of_a_process_without_databases_names_the_setting(self):
        assert not revocation_table.has_database()

        with pytest.raises(ConfigError, match="DATABASES has no default database") as caught:
            read()
        assert caught.value.setting == "DENY_LIST"

    def test_revocations_are_read_from_the_default_database_if_the_app_is_not_installed(self, monkeypatch):
        assert revocation_table.has_database()
        monkeypatch.setattr(revocation_table._audit, "find_alias", lambda: "audit")
        assert revocation_table.find_alias() == "audit"
        monkeypatch.setattr(revocation_table._audit, "find_alias", None)

        assert revocation_table.find_alias() == DEFAULT_DB_ALIAS
