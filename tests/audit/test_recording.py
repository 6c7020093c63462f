"""Tests of the recording of audit rows: `insert` stores what `save` would store, and `commit` adds the HMAC."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, IntegrityError, transaction
from django.db.models.signals import post_save, pre_save
from django.forms import model_to_dict
from django.utils import timezone

from instaccess.audit import names, recording, row_hmac
from instaccess.conf import KeyEncryptionKey, conf
from instaccess.exceptions import AuditError
from instaccess.models import IssuedToken
from tests.support import audit_rows
from tests.support.failing import failing_after

pytestmark = pytest.mark.django_db


@pytest.fixture
def fresh(user, application):
    """Return a function that builds an unsaved audit row with the given columns."""

    def make(**columns: Any) -> IssuedToken:
        now = timezone.now()
        values: dict[str, Any] = {
            "jti": uuid.uuid4(),
            "user": user,
            "user_uuid": "u",
            "application": application,
            "client_id": application.client_id,
            "account_uuid": "a",
            "canvas_domain": "canvas.example.edu",
            "signing_kid": "s",
            "ip_address": "2001:DB8::1",
            "user_agent": "\N{SNOWMAN} 'quoted' %s %%",
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
            "mac": "x.y",
        }
        return audit_rows.with_id(IssuedToken(**(values | columns)))

    return make


def insert(record: IssuedToken) -> None:
    recording.insert(record, using=DEFAULT_DB_ALIAS)


class TestInsert:
    def test_insert_stores_the_same_row_as_save(self, fresh):
        record = fresh()
        insert(record)
        written = model_to_dict(IssuedToken.objects.get(jti=record.jti), exclude=["id", "jti"])

        record.jti, record._state.adding = uuid.uuid4(), True
        audit_rows.with_id(record).save(force_insert=True)

        assert written == model_to_dict(IssuedToken.objects.get(jti=record.jti), exclude=["id", "jti"])

    def test_insert_stores_null_in_nullable_columns(self, fresh, user):
        record = fresh(user=None, real_user=user, application=None, ip_address=None, revoked_at=timezone.now())
        insert(record)

        written = IssuedToken.objects.get(pk=record.pk)
        assert (written.user, written.real_user, written.ip_address) == (None, user, None)

    def test_insert_marks_the_instance_as_saved_like_save(self, fresh):
        record = fresh()
        insert(record)

        assert not record._state.adding
        assert record == IssuedToken.objects.get(jti=record.jti)
        record.refresh_from_db()

    def test_insert_runs_one_query_per_row(self, fresh, django_assert_num_queries):
        insert(fresh())
        with django_assert_num_queries(1):
            insert(fresh())

    def test_p17_insert_raises_integrity_error_if_the_jti_exists(self, fresh):
        record = fresh()
        insert(record)

        with pytest.raises(IntegrityError), transaction.atomic():
            insert(fresh(jti=record.jti))


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_insert_sends_the_save_signals_to_receivers(fresh: Any, signal: Any) -> None:
    received: list[Any] = []

    def receive(instance: Any, **kwargs: Any) -> None:
        received.append(instance.jti)

    signal.connect(receive, sender=IssuedToken)
    try:
        record = fresh()
        insert(record)
    finally:
        signal.disconnect(receive, sender=IssuedToken)

    assert received == [record.jti]
    assert IssuedToken.objects.filter(pk=record.pk).exists()


class TestCommit:
    def test_commit_stores_the_row_with_its_hmac(self, fresh):
        record = fresh(mac="")
        recording.commit(record, keks=conf.key_encryption_keys)

        stored = IssuedToken.objects.get(pk=record.pk)
        assert row_hmac.row_status(stored, conf.key_encryption_keys) is row_hmac.HmacStatus.AUTHENTIC

    def test_commit_computes_the_id_from_the_time_of_issue_and_the_jti(self, fresh):
        jti = uuid.UUID("94b8b54d-aff3-4846-ab72-8345207a2d20")
        record = fresh(issued_at=datetime(2026, 11, 23, 12, 0, 0, 999_999, tzinfo=UTC), jti=jti)
        recording.commit(record, keks=conf.key_encryption_keys)

        assert record.pk == 1_795_435_200_600_276_256
        assert IssuedToken.objects.get().pk == record.pk

    def test_p17_commit_raises_integrity_error_if_another_row_has_the_same_id(self, fresh):
        record = fresh()
        recording.commit(record, keks=conf.key_encryption_keys)
        same_digits = uuid.UUID(int=record.jti.int + 10**9)

        with pytest.raises(IntegrityError):
            recording.commit(fresh(jti=same_digits, issued_at=record.issued_at), keks=conf.key_encryption_keys)

    def test_commit_raises_integrity_error_if_another_row_has_the_same_jti(self, fresh):
        record = fresh()
        recording.commit(record, keks=conf.key_encryption_keys)

        with pytest.raises(IntegrityError):
            recording.commit(fresh(jti=record.jti), keks=conf.key_encryption_keys)

    @pytest.mark.django_db(transaction=True)
    def test_commit_raises_audit_error_inside_a_transaction_of_the_caller(self, fresh):
        record = fresh()
        with pytest.raises(AuditError, match="the request is inside an open transaction"), transaction.atomic():
            recording.commit(record, keks=conf.key_encryption_keys)

        assert not IssuedToken.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_commit_raises_audit_error_on_a_connection_without_autocommit(self, fresh):
        record = fresh()
        transaction.set_autocommit(False)
        try:
            with pytest.raises(AuditError, match="'AUTOCOMMIT'"):
                recording.commit(record, keks=conf.key_encryption_keys)
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_commit_raises_audit_error_if_the_database_fails(self, fresh):
        record = fresh()
        with failing_after(0), pytest.raises(AuditError, match="the audit row was not written: OperationalError"):
            recording.commit(record, keks=conf.key_encryption_keys)


class TestCommitOfUnusualRows:
    @pytest.mark.parametrize(
        ("text", "stored"),
        [("a\0b", "a\ufffdb"), ("ü\0", "ü\ufffd"), ("\ud800", "\ufffd"), ("ü" * 600, "ü" * 512)],
        ids=["NUL", "NUL and a letter", "surrogate", "long"],
    )
    def test_commit_replaces_refused_characters_and_shortens_texts_before_it_computes_hmacs(
        self, fresh, text, stored
    ):
        record = fresh(user_agent=text)
        recording.commit(record, keks=conf.key_encryption_keys)

        committed = IssuedToken.objects.get()
        assert committed.user_agent == stored
        assert row_hmac.row_status(committed, conf.key_encryption_keys) is row_hmac.HmacStatus.AUTHENTIC

    def test_commit_raises_audit_error_if_a_value_has_the_wrong_type(self, fresh):
        with pytest.raises(AuditError, match="the audit row was not written: ValueError"):
            recording.commit(fresh(user_id="not a number"), keks=conf.key_encryption_keys)

    def test_commit_computes_the_hmacs_of_the_row_and_the_names_with_the_first_key_encryption_key(self, fresh):
        keks = [KeyEncryptionKey(bytes(range(32))), *conf.key_encryption_keys]
        record = fresh(user_name="ada")
        recording.commit(record, keks=keks)

        assert row_hmac.row_status(record, keks[:1]) is row_hmac.HmacStatus.AUTHENTIC
        assert names.names_status(record, keks[:1]) is row_hmac.HmacStatus.AUTHENTIC


class OtherDatabaseRouter:
    """A database router that sends new rows to a database that doesn't exist."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "elsewhere"


class TestInsertWithAReceiverOfTheSaveSignals:
    @pytest.fixture(autouse=True)
    def receiver(self) -> Iterator[None]:
        def receive(**kwargs: Any) -> None:
            pass

        pre_save.connect(receive, sender=IssuedToken)
        yield
        pre_save.disconnect(receive, sender=IssuedToken)

    def test_insert_does_not_overwrite_a_row_with_the_same_id(self, fresh):
        record = fresh()
        insert(record)
        other = fresh()
        other.pk = record.pk

        with pytest.raises(IntegrityError), transaction.atomic():
            insert(other)
        assert IssuedToken.objects.get().jti == record.jti

    def test_insert_stores_the_row_in_the_database_that_the_caller_chooses(self, fresh, settings):
        record = fresh()
        settings.DATABASE_ROUTERS = [f"{__name__}.OtherDatabaseRouter"]
        insert(record)

        assert IssuedToken.objects.using(DEFAULT_DB_ALIAS).get() == record
