"""Tests that a gateway misses no revocation when the gateway reads revocations from the database page by page."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from instaccess import audit
from instaccess.conf import conf
from instaccess.models import IssuedToken, Revocation
from instaccess.trust import Page, revocation_table
from instaccess.trust.revocation_table import read
from instaccess.trust.revoked import RETENTION
from tests.support import readme, tasks

pytestmark = pytest.mark.django_db


def revoke(*rows: IssuedToken, scopes: Any = (), **options: Any) -> None:
    tokens = audit.revocable_tokens().filter(pk__in=[row.pk for row in rows])
    audit.revoke(tokens, keks=conf.key_encryption_keys, reason="lost", scopes=scopes, **options)


def jtis(*rows: IssuedToken) -> set[str]:
    return {str(row.jti) for row in rows}


UNKNOWN_POSITIONS = [
    *("", "x", "-1", "1-2", "9" * 30, "1; DROP TABLE x", "0x10", "١"),
    # These positions contain a time or an id that is too large.
    *("1-999999999999999999-1", "1-1-9223372036854775808"),
]


def read_all(position: str = "") -> list[Page]:
    """Read the pages of revocations after a position until the last page. Returns the pages."""
    pages = [read(position)]
    while pages[-1].more:
        assert len(pages) < 100
        pages.append(read(pages[-1].cursor))
    return pages


class TestTheFirstReadingOfRevocations:
    def test_first_page_of_revocations_contains_the_revoked_tokens_users_accounts_and_keys(self, row):
        single, spared = row(), row()
        revoke(single)
        revoke(scopes=[audit.Scope.user("u1"), audit.Scope.account("a1")])
        audit.record_revocation(
            [audit.Scope.key("k1")], keks=conf.key_encryption_keys, reason="stolen", now=timezone.now()
        )

        (page,) = read_all()
        assert set(page.tokens) == jtis(single)
        assert page.users.keys() == {"u1"}
        assert page.accounts.keys() == {"a1"}
        assert page.keys == ["k1"]
        assert str(spared.jti) not in page.tokens

    def test_first_page_of_revocations_is_empty_if_the_database_is_empty(self):
        assert read() == Page(tokens=[], keys=[], cursor="0")

    def test_many_revoked_tokens_are_read_in_several_pages(self, row, monkeypatch):
        monkeypatch.setattr(revocation_table, "PAGE", 2)
        monkeypatch.setattr(revocation_table, "_TOKENS", revocation_table._TOKENS.replace("10000", "2"))
        now = timezone.now()
        # Give some rows the same time, as a batch of revocations does.
        rows = [row(revoked_at=now - timedelta(seconds=number // 3)) for number in range(8)]

        pages = read_all()

        assert len(pages) == 5
        assert sorted(jti for page in pages for jti in page.tokens) == sorted(jtis(*rows))

    def test_token_that_is_revoked_while_a_gateway_reads_the_pages_is_in_a_later_page(self, row, monkeypatch):
        monkeypatch.setattr(revocation_table, "PAGE", 1)
        monkeypatch.setattr(revocation_table, "_TOKENS", revocation_table._TOKENS.replace("10000", "1"))
        first, late = row(), row()
        revoke(first)
        page = read()
        revoke(late, now=timezone.now() - timedelta(minutes=1))
        revoke(scopes=[audit.Scope.user("u1")])
        *_, last = read_all(page.cursor)

        later = read_all(last.cursor)
        assert {jti for page in later for jti in page.tokens} == jtis(late)

    def test_pages_omit_expired_revocations_of_users_and_accounts_but_contain_every_revoked_key(self):
        long_ago = timezone.now() - timedelta(seconds=RETENTION + 1)
        options: Any = {"keks": conf.key_encryption_keys, "reason": "x", "now": long_ago}
        audit.record_revocation([audit.Scope.user("u1"), audit.Scope.account("a1")], **options)
        audit.record_revocation([audit.Scope.key("k1")], **options)
        audit.record_revocation([audit.Scope.everything()], latest_iat=17, **options)

        page = read()
        assert (page.users, page.accounts, page.keys, page.all_until) == ({}, {}, ["k1"], -1)


class TestARevocationOfAllTokens:
    def test_k15_page_of_revocations_contains_the_time_until_which_all_tokens_are_revoked(self, row):
        revoke(row())
        position = read().cursor
        options: Any = {"keks": conf.key_encryption_keys, "reason": "x", "now": timezone.now()}
        for latest_iat in (17, 19, 18):
            audit.record_revocation([audit.Scope.everything()], latest_iat=latest_iat, **options)

        assert (read().all_until, read(position).all_until) == (19, 19)
        assert read(read().cursor).all_until == -1


class TestALostPosition:
    """Tests that a position is lost if its revocation is missing from the database but was not pruned."""

    @pytest.fixture
    def position(self, row):
        """Create two revocations, delete the row of the second revocation, and return the position of this row.

        Restoring the database from a backup can remove recent rows in the same way.
        """
        revoke(row())
        revoke(row())
        position = read().cursor
        Revocation.objects.get(pk=int(position)).delete()
        return position

    def test_k15_a_revocation_position_after_the_last_revocation_is_lost(self, position):
        page = read(position)
        assert (page.position_lost, len(page.tokens)) == (True, 2)
        assert not read(page.cursor).position_lost

    def test_k15_recent_position_of_a_deleted_revocation_is_lost_even_if_later_revocations_exist(self, position, row):
        revoke(row())
        assert read(position).position_lost

    def test_position_of_a_pruned_revocation_is_not_lost(self, row):
        revoke(row())
        old = int(read().cursor) - (RETENTION + 1) * 10**6
        assert not read(str(old)).position_lost

    def test_empty_or_invalid_revocation_position_is_not_lost(self, row):
        revoke(row())
        assert not read("").position_lost
        assert not read("x").position_lost


class TestALaterReadingOfRevocations:
    def test_page_of_revocations_after_a_position_contains_only_new_revocations(self, row):
        old, new = row(), row()
        revoke(old)
        position = read().cursor
        assert read(position) == Page(tokens=[], keys=[], cursor=position)

        revoke(new)
        revoke(scopes=[audit.Scope.user("u1")])

        page = read(position)
        assert set(page.tokens) == jtis(new)
        assert page.users.keys() == {"u1"}
        assert not page.more
        assert read(page.cursor).cursor == page.cursor

    def test_g33_page_of_revocations_contains_a_revoked_user_instead_of_each_token_of_the_user(self, row, user):
        rows = [row() for _ in range(3)]
        position = read().cursor
        revoke(*rows, scopes=audit.scopes_of_user("ada"))

        page = read(position)
        assert (page.tokens, page.users.keys()) == ([], {rows[0].user_uuid})
        assert not IssuedToken.objects.filter(revoked_at=None).exists()

    def test_reading_unchanged_revocations_again_takes_one_query(self, row, django_assert_num_queries):
        revoke(row())
        position = read().cursor
        with django_assert_num_queries(1):
            read(position)

    def test_many_revocations_after_a_position_are_read_in_several_pages(self, row, monkeypatch):
        monkeypatch.setattr(revocation_table, "BATCHES", 2)
        position = read().cursor
        rows = [row() for _ in range(5)]
        for each in rows:
            revoke(each)
            revoke(scopes=[audit.Scope.user(f"u{each.pk}")])

        pages = read_all(position)

        assert len(pages) == 3
        assert {jti for page in pages for jti in page.tokens} == jtis(*rows)
        assert {uuid for page in pages for uuid in page.users} == {f"u{each.pk}" for each in rows}

    @pytest.mark.parametrize("position", UNKNOWN_POSITIONS)
    def test_page_of_revocations_after_an_unknown_position_contains_all_revocations(self, row, position):
        single = row()
        revoke(single)

        assert set(read(position).tokens) == jtis(single)

    def test_all_revocations_are_read_again_after_the_database_was_restored_from_a_backup(self, row):
        kept, lost, new = row(), row(), row()
        revoke(kept)
        revoke(lost)
        position = read().cursor
        # Simulate a backup that was made between the two revocations, and a revocation after the backup was restored.
        Revocation.objects.filter(number=int(position)).delete()
        IssuedToken.objects.filter(pk=lost.pk).update(revoked_at=None)
        revoke(new)

        assert set(read(position).tokens) == jtis(kept, new)

    def test_revocation_is_read_even_if_the_clock_was_set_back(self, row):
        first, second = row(), row()
        revoke(first, now=timezone.now() + timedelta(seconds=50))
        position = read().cursor
        revoke(second, now=timezone.now() - timedelta(seconds=50))

        assert set(read(position).tokens) == jtis(second)


class TestAModifiedRevocationTable:
    @pytest.mark.sqlite
    def test_revocation_with_values_of_the_wrong_type_does_not_hide_other_revocations(self, row):
        revoke(scopes=[audit.Scope.user("u1"), audit.Scope.account("a1")])
        with connection.cursor() as cursor:
            cursor.execute("UPDATE instaccess_revocation SET latest_iat = 'x', value = x'ff' WHERE kind = 'user'")

        page = read()
        assert (page.users, page.accounts.keys()) == ({}, {"a1"})


class TestTheColumnsOfTheRevocationQueries:
    def test_documentation_of_gateways_lists_the_columns_that_a_gateway_reads(self):
        documented = {
            table: set(columns.split(", "))
            for table, columns in re.findall(r"`(instaccess_\w+) \(([\w, ]+)\)`", readme.page("gateway.md"))
        }
        queries = " ".join(
            getattr(revocation_table, name)
            for name in ("_LAST", "_LATER", "_BATCH_TOKENS", "_TOKENS", "_TIME", "_RECENT")
        )

        assert documented.keys() == {revocation_table.TOKENS_TABLE, revocation_table.REVOCATIONS_TABLE}
        fields = {field.column for model in (IssuedToken, Revocation) for field in model._meta.concrete_fields}
        assert set(re.findall(r"[a-z_]+", queries)) & fields == set().union(*documented.values())

    def test_revocation_queries_use_the_tables_and_columns_of_the_models(self):
        for model, table, columns in (
            (IssuedToken, revocation_table.TOKENS_TABLE, ("id", "jti", "revoked_at", "expires_at")),
            (
                Revocation,
                revocation_table.REVOCATIONS_TABLE,
                ("number", "kind", "value", "latest_iat", "revoked_at"),
            ),
        ):
            assert model._meta.db_table == table
            for name in columns:
                assert model._meta.get_field(name).column == name


@pytest.mark.django_db(transaction=True)
class TestTheOrderOfCommits:
    def test_g33_a_revocation_that_is_committed_late_is_read(self, crew, row):
        """The app must commit revocations in the order of their numbers, so that a reader misses no revocation."""
        slow, fast = crew.start(2)
        rows = [row(), row()]
        position = read().cursor

        slow.ask(tasks.begin)
        slow.ask(tasks.revoke_token, rows[0].pk)
        # Start a second revocation, which waits until the first revocation is committed.
        fast.start_task(tasks.revoke_token, rows[1].pk)
        pages = read_all(position)
        slow.ask(tasks.commit)
        fast.answer()

        later = read_all(pages[-1].cursor)
        assert {jti for page in (*pages, *later) for jti in page.tokens} == jtis(*rows)
