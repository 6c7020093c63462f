"""Tests of audit rows as tuples: the tuples contain the same values as model instances, on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from instaccess.audit import names, row_hmac
from instaccess.audit.evidence import verification
from instaccess.audit.rows import issued_tokens
from instaccess.audit.stored_rows import StoredRow, load, to_datetime
from instaccess.keys import evidence_keys
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db


class TestLoad:
    @pytest.mark.parametrize("microsecond", [0, 1, 999_999])
    def test_loaded_row_has_the_same_canonical_bytes_as_the_model_instance(self, row, microsecond):
        time = timezone.now().replace(microsecond=microsecond)
        made = row(issued_at=time, revoked_at=time + timedelta(microseconds=1), ip_address="2001:DB8::1")
        instance = IssuedToken.objects.get(pk=made.pk)

        [(pk, loaded)] = load(issued_tokens())

        assert loaded is not None
        assert (pk, to_datetime(loaded.issued_at)) == (made.pk, time)
        assert row_hmac.canonical_bytes(loaded) == row_hmac.canonical_bytes(instance)
        assert names.canonical_bytes(loaded) == names.canonical_bytes(instance)

    def test_loaded_row_contains_every_column_of_the_model(self):
        columns = {field.attname for field in IssuedToken._meta.concrete_fields}

        assert set(StoredRow._fields) - {"pk", "unrevoked"} == columns - {"id"}

    @pytest.mark.postgresql
    @pytest.mark.parametrize("column", ["issued_at", "expires_at", "revoked_at"])
    @pytest.mark.parametrize("value", ["infinity", "-infinity", "20000-01-01 00:00+00", "0044-03-15 00:00+00 BC"])
    def test_a6_row_with_a_time_that_python_cannot_represent_is_unreadable_but_other_rows_are_loaded(
        self, initial_keys, row, column, value
    ):
        modified, kept = row(), row()
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE instaccess_issuedtoken SET {column} = %s WHERE id = %s", [value, modified.pk])

        loaded = dict(load(issued_tokens()))

        assert loaded[modified.pk] is None
        assert loaded[kept.pk] is not None
        [problem] = verification.verify(evidence_keys()).problems
        assert (problem.kind.value, problem.first) == ("unreadable", modified.pk)

    @pytest.mark.parametrize("time", [datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)])
    def test_loaded_row_contains_the_exact_time_of_the_distant_past_or_future(self, row, time: Any):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(expires_at=time)

        [(_, loaded)] = load(issued_tokens())

        assert loaded is not None
        assert to_datetime(loaded.expires_at) == time

    @pytest.mark.sqlite
    @pytest.mark.parametrize(
        "time", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
    )
    def test_row_with_the_first_or_the_last_time_that_python_can_represent_is_readable(self, row, time: Any):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(expires_at=time)

        [(_, loaded)] = load(issued_tokens())

        assert loaded is not None
        assert to_datetime(loaded.expires_at) == time

    @pytest.mark.sqlite
    def test_load_raises_database_error_if_the_table_lacks_a_column(self, row):
        row()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE instaccess_issuedtoken DROP COLUMN user_agent")

        with pytest.raises(DatabaseError, match="user_agent"):
            load(issued_tokens())
