"""Tests of the comparison of foreign keys with the uuids and client ids in the same audit rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from oauth2_provider.models import get_application_model

from instaccess.audit.evidence.references import Comparison, Pair, Reference, compare
from instaccess.audit.rows import issued_tokens
from instaccess.audit.stored_rows import StoredRow, load
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db

NO_DIFFERENCE = Comparison([], False, False)


def sizes(queries: CaptureQueriesContext) -> list[int]:
    """Return the number of users or applications that each query selects, in ascending order."""
    return sorted(query["sql"].partition(" IN (")[2].count(",") + 1 for query in queries.captured_queries)


def stored() -> list[StoredRow]:
    return [loaded for _, loaded in load(issued_tokens().order_by("pk")) if loaded is not None]


class TestCompareWithMatchingReferences:
    def test_compare_splits_its_query_if_the_rows_refer_to_more_than_a_thousand_applications(self, row, user):
        model = get_application_model()
        for number in range(1002):
            client_id = f"client-{number}"
            row(application=model.objects.create(client_id=client_id, user=user), client_id=client_id)
        rows = stored()

        with CaptureQueriesContext(connection) as queries:
            assert compare(rows, {}) == NO_DIFFERENCE

        assert sizes(queries) == [1, 2, 1000]

    def test_compare_runs_no_query_for_the_users_and_applications_of_earlier_rows(self, row):
        row()
        matching: dict[str, set[Pair]] = {}
        assert compare(stored(), matching) == NO_DIFFERENCE
        row()

        for _ in range(2):
            with CaptureQueriesContext(connection) as queries:
                rows = stored()
            with CaptureQueriesContext(connection) as further:
                assert compare(rows, matching) == NO_DIFFERENCE
            assert (len(queries), len(further)) == (1, 0)

    def test_compare_queries_only_an_application_that_earlier_rows_did_not_contain(self, row, user):
        row()
        row(application=get_application_model().objects.create(client_id="other", user=user), client_id="other")
        first, second = stored()
        matching: dict[str, set[Pair]] = {}
        assert compare([first], matching) == NO_DIFFERENCE

        with CaptureQueriesContext(connection) as queries:
            assert compare([second], matching) == NO_DIFFERENCE

        assert sizes(queries) == [1]

    @pytest.mark.parametrize(("known", "remembered"), [(50_000, 50_001), (50_001, 1)])
    def test_compare_clears_its_cache_of_matching_pairs_if_the_cache_has_more_than_50000_pairs(
        self, row, known, remembered
    ):
        row()
        matching: dict[str, set[Pair]] = {
            field: {(number, "") for number in range(known)} for field in ("user", "application")
        }

        assert compare(stored(), matching) == NO_DIFFERENCE
        assert {field: len(pairs) for field, pairs in matching.items()} == {
            "user": remembered,
            "application": remembered,
        }

    def test_compare_ignores_users_if_a_field_of_the_user_model_contains_the_uuids(
        self, row, settings, django_user_model
    ):
        row(user=django_user_model.objects.create_user("mallory"))
        settings.INSTACCESS = {"USER_UUID_FIELD": "username"}

        assert compare(stored(), {}) == NO_DIFFERENCE


class TestCompareWithModifiedReferences:
    @pytest.fixture
    def modified(self, row: Any, application: Any, django_user_model: Any) -> list[Reference]:
        """Change both foreign keys of an audit row. Returns the problems that `compare` must report."""
        mallory = django_user_model.objects.create_user("mallory")
        other = get_application_model().objects.create(client_id="other", user=mallory)
        each = row()
        IssuedToken.objects.filter(pk=each.pk).update(user=mallory, application=other)
        return [
            Reference(each.pk, "user", mallory.pk, each.user_uuid),
            Reference(each.pk, "application", other.pk, application.client_id),
        ]

    def test_compare_reports_a_modified_reference_again_in_the_next_comparison(self, modified):
        matching: dict[str, set[Pair]] = {}

        for _ in range(2):
            assert compare(stored(), matching) == Comparison(modified, False, False)

    def test_compare_selects_only_the_users_and_applications_of_the_rows(self, modified):
        rows = stored()

        with CaptureQueriesContext(connection) as queries:
            compare(rows, {})

        assert len(queries) == 4
        assert all(" IN (" in query["sql"] for query in queries.captured_queries)

    @pytest.mark.sqlite
    @pytest.mark.parametrize("key", [1.5, -1.5, "nobody"])
    def test_compare_reports_a_reference_of_the_wrong_type_even_if_the_uuid_is_unknown(self, row, key):
        each = row(user_uuid="unknown")
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("UPDATE instaccess_issuedtoken SET user_id = %s WHERE id = %s", [key, each.pk])

            assert compare(stored(), {}) == Comparison([Reference(each.pk, "user", key, "unknown")], False, False)
            transaction.set_rollback(True)
