"""Tests of projects with a TIME_ZONE in DATABASES: Django converts stored times, but this app shows UTC."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from instaccess.admin.tokens import chart_counts, periods
from instaccess.admin.tokens import chart_counts as activity
from instaccess.audit import revocation, rows
from instaccess.audit.evidence import verification
from instaccess.issuer import issuing
from instaccess.keys import evidence_keys, keks_for_revocation
from instaccess.models import IssuedToken, Key, RefusalCount
from instaccess.trust import denylist
from tests.conftest import ISSUE_URL

pytestmark = pytest.mark.django_db

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STAMP = "2026-11-23T12:00:00Z"


def set_zone(name: str | None) -> None:
    connection.settings_dict["TIME_ZONE"] = name
    for cached in ("timezone", "timezone_name"):
        with suppress(AttributeError):
            delattr(connection, cached)
    connection.ensure_timezone()


@pytest.fixture(autouse=True)
def time_zone_of_tokyo(db: None) -> Iterator[None]:
    before = connection.settings_dict["TIME_ZONE"]
    set_zone("Asia/Tokyo")
    with time_machine.travel(START, tick=False):
        yield
    set_zone(before)


@pytest.fixture
def row(initial_keys: Any, user: Any) -> IssuedToken:
    return issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())[0]


def has_time_zone_tables() -> bool:
    """Return whether the database can convert time zones. MariaDB and MySQL need time zone tables."""
    if connection.vendor != "mysql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONVERT_TZ('2026-11-23 12:00:00', 'UTC', 'Asia/Tokyo') IS NOT NULL")
        return bool(cursor.fetchone()[0])


def run_command(*command: str) -> Any:
    out = io.StringIO()
    call_command(*command, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_revoked_token_is_added_to_the_deny_list_if_the_database_has_a_time_zone(initial_keys, access_token):
    type(access_token).objects.update(expires=timezone.now() + timedelta(minutes=1))
    response = Client().post(ISSUE_URL, headers={"Authorization": f"Bearer {access_token.token}"})
    revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="lost")

    assert response.status_code == 201
    assert denylist.read_database() == {str(IssuedToken.objects.get().jti)}


def test_expired_access_token_is_refused_with_its_expiry_in_utc_if_the_database_has_a_time_zone(
    initial_keys, access_token
):
    expires = timezone.now() - timedelta(seconds=1)
    type(access_token).objects.update(expires=expires)
    response = Client().post(ISSUE_URL, headers={"Authorization": f"Bearer {access_token.token}"})

    expired_at = f"{expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert response.json() == {"errors": [{"message": "Expired access token.", "expired_at": expired_at}]}


def test_commands_print_times_in_utc_if_the_database_has_a_time_zone(row):
    (token,) = run_command("instaccess_tokens", "list")

    assert (token["issued_at"], token["expires_at"]) == (STAMP, "2026-11-23T13:00:00Z")
    assert {key["created_at"] for key in run_command("instaccess_keys", "list")} == {STAMP}
    with pytest.raises(CommandError, match="before 2026-11-23 12:05:03 UTC"):
        call_command("instaccess_keys", "activate", "--kid", Key.objects.get(status="future").kid)


def test_verify_finds_no_problem_if_the_database_has_a_time_zone(row):
    assert not verification.verify(evidence_keys()).problems


def test_a_refusal_count_shows_its_hour_in_utc_if_the_database_has_a_time_zone():
    RefusalCount.objects.create(hour=START, role="issuer", reason="expired", count=3)

    assert str(RefusalCount.objects.get()) == "2026-11-23T12Z issuer expired: 3"


def test_the_chart_counts_by_utc_hours_or_reports_missing_time_zone_tables(row, monkeypatch):
    monkeypatch.setattr(activity, "CHARTED", 1)
    period = periods.Period(START - timedelta(hours=2), START + timedelta(hours=1))
    if not has_time_zone_tables():
        with pytest.raises(ValueError, match="mysql_tzinfo_to_sql"):
            chart_counts.issued(IssuedToken.objects.all(), period)
        return

    assert chart_counts.issued(IssuedToken.objects.all(), period).numbers == [0, 0, 1]
