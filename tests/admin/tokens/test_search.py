"""Tests of the search for issued tokens: quotation marks, names with spaces, and mapped IP addresses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from instaccess import users
from instaccess.models import IssuedToken, RefusalCount

pytestmark = pytest.mark.django_db

LIST = reverse("admin:instaccess_issuedtoken_changelist")


@pytest.fixture
def lovelace(row):
    """Create a user with a space in the name, and the audit row of a token of this user."""
    user = get_user_model().objects.create_user("Ada Lovelace")
    return row(user=user, user_uuid=users.user_uuid(user), client_id="tool-1")


def found(client: Any, text: str) -> set[IssuedToken]:
    return set(client.get(LIST, {"q": text}).context["cl"].result_list)


class TestAUserNameWithASpace:
    @pytest.mark.parametrize("text", ["Ada Lovelace", "  Ada Lovelace ", '"Ada Lovelace"', '"Ada Lovelace" tool-1'])
    def test_a23_search_finds_a_user_name_with_a_space(self, text, lovelace, row, admin_client):
        row()

        assert found(admin_client, text) == {lovelace}

    def test_a23_search_finds_the_recorded_name_of_a_deleted_user_with_a_space(self, lovelace, admin_client):
        lovelace.user.delete()

        assert found(admin_client, "Ada Lovelace") == {lovelace}
        assert found(admin_client, 'tool-1 "Ada Lovelace" 192.0.2.7') == {lovelace}

    @pytest.mark.parametrize(
        "text", ['"Ada Lovelace" tool-2', '"Lovelace Ada"', '"Ada" "Lovelace"', "Ada Lovelace x"]
    )
    def test_a23_search_requires_every_quoted_term_to_match(self, text, lovelace, admin_client):
        assert found(admin_client, text) == set()

    def test_a23_search_for_several_words_requires_every_word_if_no_value_equals_the_whole_text(
        self, lovelace, row, admin_client
    ):
        token = row()

        assert found(admin_client, f"ada {token.client_id}") == {token}

    @pytest.mark.parametrize("text", ['"', '""', '"Ada Lovelace', 'Ada" Lovelace', '" "', '"ada"x'])
    def test_a23_search_with_unbalanced_or_empty_quotation_marks_causes_no_server_error(
        self, text, lovelace, admin_client
    ):
        assert admin_client.get(LIST, {"q": text}).status_code == 200

    def test_a23_chart_shows_the_refusals_of_a_user_name_with_a_space(self, lovelace, admin_client):
        hour = timezone.now().replace(minute=0, second=0, microsecond=0)
        RefusalCount.objects.create(hour=hour, role="issuer", reason="expired", user_uuid=lovelace.user_uuid, count=7)

        refused = admin_client.get(LIST, {"q": "Ada Lovelace", "period": "1h"}).context["chart"].rows
        assert sum(int(line.cells[-1]) for line in refused) == 7


class TestAnAddressAndItsMappedAddress:
    @pytest.mark.parametrize("text", ["192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:207", "0:0:0:0:0:ffff:192.0.2.7"])
    def test_a23_search_finds_an_ipv4_address_and_its_mapped_ipv6_address(self, text, row, admin_client):
        tokens = {row(ip_address=address) for address in ("192.0.2.7", "::ffff:192.0.2.7")}
        row(ip_address="192.0.2.8")
        row(ip_address="2001:db8::7")

        assert found(admin_client, text) == tokens

    def test_a23_search_finds_the_mapped_address_that_the_issuer_has_recorded(
        self, initial_keys, access_token, post, admin_client
    ):
        admin_client.logout()
        post(access_token, REMOTE_ADDR="::ffff:192.0.2.7")
        admin_client.force_login(get_user_model().objects.get(username="admin"))

        assert found(admin_client, "192.0.2.7") == {IssuedToken.objects.get()}


class TestTheQueriesOfASearch:
    def test_a23_search_for_several_words_first_searches_for_the_whole_text_with_limited_queries(
        self, lovelace, admin_client
    ):
        with CaptureQueriesContext(connection) as captured:
            found(admin_client, "Ada Lovelace")

        checks = [
            item["sql"] for item in captured if re.match(r"SELECT 1 AS", item["sql"]) and "issuedtoken" in item["sql"]
        ]
        assert len(checks) == 2
        assert all("LIMIT 1" in sql for sql in checks)

    @pytest.mark.parametrize("text", ["a " * 2_000, '"a" ' * 1_500], ids=["words", "quoted"])
    def test_search_for_thousands_of_terms_finds_nothing_and_runs_no_additional_queries(
        self, text, row, admin_client, django_assert_max_num_queries
    ):
        row(client_id="a")
        found(admin_client, "b")  # Fill the caches first, because this runs additional queries.
        with CaptureQueriesContext(connection) as one_term:
            found(admin_client, "b")

        with django_assert_max_num_queries(len(one_term)):
            assert found(admin_client, text) == set()

    def test_search_for_ten_terms_requires_every_term_to_match(self, row, admin_client):
        token = row(client_id="a")

        assert found(admin_client, '"a" ' * 10) == {token}
        assert found(admin_client, '"a" ' * 9 + '"b"') == set()
