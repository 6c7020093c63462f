"""Tests of key rows with values that the app never writes, and of a table of keys that lacks a column."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connection

from instaccess import audit
from instaccess.conf import conf, kek_id
from instaccess.exceptions import KeyAltered
from instaccess.keys import lifecycle, provision, queries, row_hmac
from instaccess.models import Key
from tests.keys.helpers import ENC, SIG, key_of
from tests.support.stored_keys import NEW_KEK, OLD_KEK

pytestmark = pytest.mark.django_db


class TestAValueThatTheAppNeverWrites:
    @pytest.mark.parametrize(
        "column",
        [{"status": "odd"}, {"use": "odd"}, {"kid": "a b"}, {"kid": "x" * 65}, {"created_at": None}],
        ids=str,
    )
    def test_key_row_with_an_invalid_value_is_refused_even_if_its_hmac_matches(self, column):
        row = provision.generate(SIG)
        for name, value in column.items():
            setattr(row, name, value)
        row.mac = row_hmac.authenticate(row, conf.key_encryption_keys)

        assert row_hmac.status(row, conf.key_encryption_keys) is audit.HmacStatus.BROKEN

    @pytest.mark.sqlite
    @pytest.mark.parametrize("column", ["kid", "use", "alg", "status", "sealed_private_jwk", "mac"])
    def test_key_row_with_bytes_in_a_text_column_is_refused_and_other_rows_are_authentic(self, column, initial_keys):
        row = key_of(SIG, "future")
        value = b"" if column == "sealed_private_jwk" else b"x"
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE instaccess_key SET {column} = %s WHERE id = %s", [value, row.pk])

        rows, errors = queries.examine()
        assert (len(rows), list(errors)) == (3, [row.pk])
        assert isinstance(errors[row.pk], KeyAltered)


class TestATableThatLacksAColumn:
    """Tests of the time before `migrate` has added a column of a new release."""

    def test_missing_column_of_the_key_table_raises_a_database_error_and_reports_no_modified_row(self, initial_keys):
        def rename_a_column(execute: Any, sql: str, *others: Any) -> Any:
            return execute(sql.replace(connection.ops.quote_name("alg"), "instaccess_missing"), *others)

        with connection.execute_wrapper(rename_a_column), pytest.raises(DatabaseError, match="instaccess_missing"):
            queries.examine()


class TestAChangedRow:
    @pytest.mark.parametrize("old, new", [(OLD_KEK, NEW_KEK), (NEW_KEK, OLD_KEK)])  # noqa: PT006
    def test_o7_changed_key_row_keeps_the_key_encryption_key_of_its_hmac_until_a_reseal(self, settings, old, new):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [old]}
        provision.init()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, old]}
        first, second = map(kek_id, conf.key_encryption_keys)

        generated = lifecycle.rotate(SIG, force=True).generated
        lifecycle.revoke(key_of(ENC, "current").kid)

        assert generated is not None
        named = {row.pk: row.mac.partition(".")[0] for row in Key.objects.all()}
        assert named.pop(generated.pk) == first
        assert {named[row.pk] for row in Key.objects.exclude(status="future").filter(use=SIG)} == {second}
        assert Key.objects.get(status="revoked").mac.startswith(second)
