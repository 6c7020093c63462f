"""Tests of the filters of the list of issued tokens: their choices, their results, and their use of indexes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from oauth2_provider.models import get_application_model

from instaccess import users
from instaccess.admin.tokens.filters import RECENT_ROWS
from instaccess.admin.tokens.pagination import COUNTED

pytestmark = pytest.mark.django_db

TOKENS = reverse("admin:instaccess_issuedtoken_changelist")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(time_machine):
    time_machine.move_to(NOW, tick=False)


def listed_jtis(client: Any, **query: str) -> set[Any]:
    return {token.jti for token in client.get(TOKENS, query).context["cl"].result_list}


def offered(client: Any, column: str, **query: str) -> list[tuple[str, str]]:
    """Return the values that a filter offers, with their labels."""
    [spec] = [
        spec
        for spec in client.get(TOKENS, query).context["cl"].filter_specs
        if getattr(spec, "parameter_name", "") == column
    ]
    return list(spec.lookup_choices)


class TestThePeriodFilter:
    def test_period_filter_shows_tokens_issued_since_the_start_of_the_period(self, row, admin_client):
        ages = {"1h": 30 * 60, "24h": 20 * 3600, "7d": 6 * 86400, "30d": 29 * 86400, "365d": 300 * 86400}
        tokens = {period: row(age=age).jti for period, age in ages.items()}

        for number, period in enumerate(ages, start=1):
            assert listed_jtis(admin_client, period=period) == set(list(tokens.values())[:number]), period
        assert len(listed_jtis(admin_client, period="nonsense")) == len(tokens)

    def test_period_filter_of_several_days_begins_at_midnight_utc(self, row, admin_client):
        at_midnight = row(issued_at=datetime(2026, 11, 16, 0, 0, tzinfo=UTC))
        row(issued_at=datetime(2026, 11, 15, 23, 59, 59, tzinfo=UTC))

        assert listed_jtis(admin_client, period="7d") == {at_midnight.jti}


class TestTheAccountFilter:
    def test_account_filter_offers_accounts_with_their_latest_domain(self, row, admin_client):
        row(account_uuid="college", canvas_domain="old.example.edu", age=7200)
        token = row(account_uuid="college", canvas_domain="college.example.edu")
        row()

        assert offered(admin_client, "account_uuid") == [
            ("3f1c", "canvas.example.edu (3f1c)"),
            ("college", "college.example.edu (college)"),
        ]
        assert token.jti in listed_jtis(admin_client, account_uuid="college")
        assert len(listed_jtis(admin_client, account_uuid="college")) == 2

    def test_account_filter_is_hidden_if_there_is_only_one_account(self, row, admin_client):
        row()

        assert "account_uuid" not in admin_client.get(TOKENS).content.decode()


class TestTheApplicationFilter:
    def test_application_filter_compares_the_client_id_instead_of_the_foreign_key(
        self, row, application, admin_client
    ):
        other = get_application_model().objects.create(
            name="Other", client_type="confidential", authorization_grant_type="client-credentials"
        )
        token = row()
        # Simulate an attacker who has changed the foreign key of the row.
        row(client_id=other.client_id, application=application)

        assert listed_jtis(admin_client, client_id=application.client_id) == {token.jti}

    def test_application_filter_offers_existing_applications_ordered_by_name(self, application, admin_client):
        get_application_model().objects.create(name="Archive", client_id="archive")

        assert offered(admin_client, "client_id") == [("archive", "Archive"), (application.client_id, "LTI tool")]

    @pytest.mark.parametrize(("client_id", "label"), [("long-gone", "long-gone"), ("", "none")])
    def test_application_filter_offers_the_chosen_client_id_of_a_deleted_application(
        self, row, application, admin_client, client_id, label
    ):
        token = row(client_id=client_id, application=None)
        row()

        assert listed_jtis(admin_client, client_id=client_id) == {token.jti}
        assert set(offered(admin_client, "client_id", client_id=client_id)) == {
            (application.client_id, "LTI tool"),
            (client_id, label),
        }

    def test_a5_filters_of_issued_tokens_escape_the_names_of_applications_and_accounts(
        self, row, application, admin_client
    ):
        application.name = "<script>alert(1)</script>"
        application.save()
        row()
        row(client_id='"><img src=x>', application=None, account_uuid="<b>", canvas_domain="<script>alert(2)")

        text = admin_client.get(TOKENS).content.decode()

        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<b>" not in text
        assert "&lt;script&gt;alert(1)" in text


class TestAFilterWithManyValues:
    @pytest.fixture
    def tokens(self, row, monkeypatch):
        monkeypatch.setattr("instaccess.admin.tokens.filters.OFFERED", 3)
        for name in "abcde":
            get_application_model().objects.create(name=name.upper(), client_id=name)
        return {
            name: row(client_id=name, account_uuid=name, canvas_domain="", age=age)
            for age, name in enumerate("abcde")
        }

    @pytest.mark.parametrize("column", ["client_id", "account_uuid"])
    def test_filter_of_issued_tokens_offers_a_limited_number_of_values_and_mentions_further_values(
        self, column, tokens, admin_client
    ):
        assert [value for value, _label in offered(admin_client, column)] == ["a", "b", "c"]
        assert "There are more " in admin_client.get(TOKENS).content.decode()

    @pytest.mark.parametrize("column", ["client_id", "account_uuid"])
    def test_filter_of_issued_tokens_also_applies_a_value_that_the_filter_does_not_offer(
        self, column, tokens, admin_client
    ):
        assert listed_jtis(admin_client, **{column: "e"}) == {tokens["e"].jti}
        assert [value for value, _label in offered(admin_client, column, **{column: "e"})] == ["a", "b", "c", "e"]

    @pytest.mark.parametrize("value", ["nobody's", "\x00", "' OR 1=1 --", "%", "a,b", "9" * 5000])
    @pytest.mark.parametrize("column", ["client_id", "account_uuid"])
    def test_a5_filter_of_issued_tokens_by_an_unknown_value_shows_no_rows(self, column, value, tokens, admin_client):
        assert listed_jtis(admin_client, **{column: value}) == set()

    def test_a4_account_filter_offers_only_accounts_of_the_latest_rows_and_the_chosen_account(
        self, row, admin_client, monkeypatch
    ):
        monkeypatch.setattr("instaccess.admin.tokens.filters.RECENT_ROWS", 2)
        for age, name in enumerate(("new", "newer", "old")):
            row(account_uuid=name, canvas_domain=f"{name}.example.edu", age=age)

        assert [value for value, _label in offered(admin_client, "account_uuid")] == ["new", "newer"]
        assert offered(admin_client, "account_uuid", account_uuid="old")[-1] == ("old", "old.example.edu (old)")

    def test_a4_choices_of_the_filters_of_issued_tokens_are_loaded_with_two_limited_queries(
        self, tokens, admin_client
    ):
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(TOKENS)
        queries = [item["sql"] for item in captured.captured_queries]

        [accounts] = [sql for sql in queries if re.match(r"SELECT .instaccess_issuedtoken.\..account_uuid. ", sql)]
        assert f"LIMIT {RECENT_ROWS}" in accounts
        [applications] = [sql for sql in queries if re.search("FROM .oauth2_provider_application. ORDER BY", sql)]
        assert "LIMIT 4" in applications


@pytest.mark.postgresql
class TestQueryPlansOnPostgreSQL:
    """Query plans. If `enable_seqscan` is off, PostgreSQL reads a whole table only if no index can be used."""

    TERMS = (
        "ada",
        "former-user",
        "{user_uuid}",
        "{jti}",
        "tool-1",
        "192.0.2.7",
        "nobody",
        "00000000-0000-4000-8000-000000000000",
    )

    @pytest.fixture(autouse=True)
    def _rows(self, row, user):
        users.user_uuid(user)
        for number in range(20):
            row(client_id=f"tool-{number}", age=number * 3600, account_uuid=f"account-{number}")
        row(user=None, user_uuid="former", user_name="former-user")

    @staticmethod
    def plans(client: Any, **query: str) -> list[tuple[str, str]]:
        """Request the admin page of issued tokens, and return each query on the audit log with its query plan."""
        with CaptureQueriesContext(connection) as captured:
            assert client.get(TOKENS, query).status_code == 200
        statements = [item["sql"] for item in captured.captured_queries if "instaccess_issuedtoken" in item["sql"]]
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
            plans = []
            for sql in statements:
                cursor.execute("EXPLAIN " + sql.replace("%", "%%"))
                plans.append((sql, "\n".join(line for (line,) in cursor.fetchall())))
            cursor.execute("SET LOCAL enable_seqscan = on")
        return plans

    @pytest.mark.parametrize("term", TERMS)
    def test_a4_search_of_issued_tokens_uses_indexes(self, term, row, admin_client):
        token = row()

        plans = self.plans(admin_client, q=term.format(user_uuid=token.user_uuid, jti=token.jti))

        assert len(plans) > 4
        for sql, plan in plans:
            assert "Seq Scan on instaccess_issuedtoken" not in plan, (sql, plan)

    @pytest.mark.parametrize(
        "query",
        [
            {"status": "revoked"},
            {"status": "live"},
            {"masquerading": "yes"},
            {"period": "90d"},
            {"since": "2026-11-22T18:00", "until": "2026-11-23T08:00"},
            {"until": "2026-11-23T08:00"},
            {"client_id": "tool-3"},
            {"account_uuid": "account-3"},
        ],
    )
    def test_a4_filters_of_issued_tokens_use_indexes(self, query, admin_client):
        for sql, plan in self.plans(admin_client, **query):
            assert "Seq Scan on instaccess_issuedtoken" not in plan, (sql, plan)

    @pytest.mark.parametrize(
        ("query", "column"),
        [({"masquerading": "yes"}, "real_user_uuid"), ({"status": "revoked"}, "revoked_at")],
    )
    def test_a4_filter_that_matches_few_rows_uses_the_index_of_its_column(self, query, column, admin_client):
        [counted] = [plan for sql, plan in self.plans(admin_client, **query) if re.search(rf"LIMIT {COUNTED}\b", sql)]

        assert re.search(rf"Index Cond: .*{column}", counted), counted

    def test_a4_search_that_matches_few_rows_does_not_scan_the_index_on_issued_at(self, row, user, admin_client):
        for number in range(25):
            row(age=number * 3600)

        [listed] = [plan for sql, plan in self.plans(admin_client, q=user.username) if "LIMIT 20" in sql]

        assert "LEAST" in listed
        assert "issued_at_" not in listed, listed

    def test_a4_account_filter_uses_an_index_to_find_the_latest_rows(self, admin_client):
        [plan] = [plan for sql, plan in self.plans(admin_client) if f"LIMIT {RECENT_ROWS}" in sql]

        assert "Index Scan Backward using instaccess_issuedtoken_issued_at" in plan


class TestTheOrderOfIssuedTokens:
    @pytest.mark.parametrize("query", [{}, {"q": "ada"}, {"o": "-1"}])
    def test_list_of_issued_tokens_shows_the_latest_rows_first_on_all_pages(self, query, row, admin_client):
        made = [row(age=number * 60).jti for number in range(45)]

        listed = []
        for page in ("1", "2", "3"):
            listed += [
                token.jti for token in admin_client.get(TOKENS, {**query, "p": page}).context["cl"].result_list
            ]

        assert listed == made

    def test_list_of_issued_tokens_can_show_the_earliest_row_first(self, row, admin_client):
        made = [row(age=number * 60).jti for number in range(25)]

        listed = [token.jti for token in admin_client.get(TOKENS, {"o": "1"}).context["cl"].result_list]

        assert listed == made[:4:-1]


@pytest.mark.parametrize("page", [TOKENS, f"{TOKENS}export/csv/"], ids=["list", "export"])
@pytest.mark.parametrize(
    "query",
    [
        {"issued_at__year": "9999"},
        {"issued_at__year": "9999", "issued_at__month": "12", "issued_at__day": "31"},
        {"issued_at__year": "9" * 30},
        {"issued_at__year__gte": "0"},
        {"issued_at__year": "2026", "issued_at__month": "11", "issued_at__day": "x"},
    ],
    ids=["last year", "last day", "too large for a database", "before the first year", "not a number"],
)
def test_a8_list_and_export_of_issued_tokens_refuse_an_invalid_date_in_the_url(admin_client, row, page, query):
    row()

    assert admin_client.get(page, query).status_code == 400


@pytest.mark.parametrize("column", ["status", "use"])
def test_a5_list_of_keys_answers_200_for_a_nul_character_in_a_filter(admin_client, column):
    response = admin_client.get(reverse("admin:instaccess_key_changelist"), {f"{column}__exact": "\x00"}, follow=True)

    assert response.status_code == 200
