"""The fixed INSERT writes what `save()` would, and gives way to it where somebody listens."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, IntegrityError, transaction
from django.db.models.signals import post_save, pre_save
from django.forms import model_to_dict
from django.utils import timezone

from instaccess.audit import recording
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db


@pytest.fixture
def fresh(user, application):
    """Makes records that are not saved yet."""

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
        return IssuedToken(**(values | columns))

    return make


def insert(record: IssuedToken) -> None:
    recording.insert(record, using=DEFAULT_DB_ALIAS)


class TestTheRow:
    def test_is_the_one_that_save_would_write(self, fresh):
        record = fresh()
        insert(record)
        written = model_to_dict(IssuedToken.objects.get(jti=record.jti), exclude=["id", "jti"])

        record.pk, record.jti, record._state.adding = None, uuid.uuid4(), True
        record.save(force_insert=True)

        assert written == model_to_dict(IssuedToken.objects.get(jti=record.jti), exclude=["id", "jti"])

    def test_may_have_nothing_where_it_may_be_empty(self, fresh, user):
        record = fresh(user=None, real_user=user, application=None, ip_address=None, revoked_at=timezone.now())
        insert(record)

        written = IssuedToken.objects.get(pk=record.pk)
        assert (written.user, written.real_user, written.ip_address) == (None, user, None)

    def test_is_what_the_record_stands_for_afterwards(self, fresh):
        record = fresh()
        insert(record)

        assert not record._state.adding
        assert record == IssuedToken.objects.get(jti=record.jti)
        record.refresh_from_db()

    def test_is_one_query(self, fresh, django_assert_num_queries):
        insert(fresh())
        with django_assert_num_queries(1):
            insert(fresh())

    def test_p17_is_refused_where_its_jti_is_taken(self, fresh):
        record = fresh()
        insert(record)

        with pytest.raises(IntegrityError), transaction.atomic():
            insert(fresh(jti=record.jti))


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_whoever_listens_to_the_model_is_told(fresh: Any, signal: Any) -> None:
    heard: list[Any] = []

    def listen(instance: Any, **kwargs: Any) -> None:
        heard.append(instance.jti)

    signal.connect(listen, sender=IssuedToken)
    try:
        record = fresh()
        insert(record)
    finally:
        signal.disconnect(listen, sender=IssuedToken)

    assert heard == [record.jti]
    assert IssuedToken.objects.filter(pk=record.pk).exists()
