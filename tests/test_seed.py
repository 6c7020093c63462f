"""Tests of `manage.py instaccess_tokens seed`, which generates a realistic audit log."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command, load_command_class
from oauth2_provider.models import get_application_model

from instaccess import audit
from instaccess.conf import conf
from instaccess.models import IssuedToken, RefusalCount
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(time_machine):
    time_machine.move_to(NOW, tick=False)


def seed(*args: str) -> dict[str, Any]:
    out = StringIO()
    call_command("instaccess_tokens", "seed", "--json", *args, stdout=out)
    summary = json.loads(out.getvalue())
    assert isinstance(summary, dict)
    return summary


class TestGeneratedRows:
    @pytest.fixture(autouse=True)
    def summary(self):
        return seed("--rows", "2000", "--days", "100")

    def test_seed_generates_the_requested_number_of_rows(self, summary):
        assert summary["rows"] == IssuedToken.objects.count() == 2000
        assert summary["refusals"] == sum(RefusalCount.objects.values_list("count", flat=True)) > 0
        assert summary["users"] == get_user_model().objects.filter(username__startswith="user-").count() == 500

    def test_rows_generated_by_seed_have_valid_hmacs(self, summary):
        statuses = {audit.row_status(row, conf.key_encryption_keys) for row in IssuedToken.objects.all()}

        assert statuses == {audit.HmacStatus.AUTHENTIC}

    def test_rows_generated_by_seed_are_spread_evenly_over_the_days_until_now(self, summary):
        per_ten_days = Counter((NOW - row.issued_at).days // 10 for row in IssuedToken.objects.all())

        assert set(per_ten_days) == set(range(10))
        assert max(per_ten_days.values()) - min(per_ten_days.values()) < 20
        assert NOW - IssuedToken.objects.latest("issued_at").issued_at < timedelta(hours=1)
        assert not IssuedToken.objects.filter(issued_at__gt=NOW).exists()

    def test_rows_generated_by_seed_are_in_order_of_time(self, summary):
        times = list(IssuedToken.objects.order_by("pk").values_list("issued_at", flat=True))

        assert times == sorted(times)

    def test_rows_generated_by_seed_include_a_few_masquerades_and_revoked_tokens(self, summary):
        assert 5 < IssuedToken.objects.exclude(real_user_uuid="").count() < 60
        assert 0 < IssuedToken.objects.exclude(revoked_at=None).count() < 40
        for row in IssuedToken.objects.exclude(revoked_at=None):
            assert row.issued_at <= row.revoked_at <= row.expires_at
            assert row.revoked_by
            assert row.revocation_reason

    def test_rows_generated_by_seed_refer_to_users_and_applications_like_rows_of_the_issuer(self, summary):
        for row in IssuedToken.objects.select_related("user__instaccess_identity", "application")[:200]:
            assert row.application.client_id == row.client_id
            if row.user:
                assert str(row.user.instaccess_identity.uuid) == row.user_uuid
        assert IssuedToken.objects.filter(user=None).exists()

    def test_seed_generates_refusal_counts_within_their_retention_period(self, summary):
        assert RefusalCount.objects.earliest("hour").hour >= NOW - audit.REFUSAL_RETENTION - timedelta(hours=1)
        assert set(RefusalCount.objects.values_list("role", flat=True)) == {"issuer", "gateway"}


class TestTheSeedOption:
    @staticmethod
    def _rows() -> list[tuple[Any, ...]]:
        return list(IssuedToken.objects.order_by("pk").values_list("jti", "ip_address", "issued_at", "revoked_at"))

    def test_seed_command_generates_the_same_rows_for_the_same_seed(self):
        seed("--rows", "50")
        first = self._rows()
        IssuedToken.objects.all().delete()
        RefusalCount.objects.all().delete()

        seed("--rows", "50")

        assert self._rows() == first

    def test_seed_command_generates_different_rows_for_another_seed(self):
        seed("--rows", "50")
        seed("--rows", "50", "--seed", "2")

        assert len({jti for jti, *_ in self._rows()}) == 100
        assert get_application_model().objects.count() == 10

    def test_seed_command_refuses_a_seed_that_was_used_before(self):
        seed("--rows", "50")

        with pytest.raises(CommandError, match="--seed 1 before"):
            seed("--rows", "60")

        assert IssuedToken.objects.count() == 50


class TestTheSeedCommand:
    def test_seed_command_refuses_fewer_than_one_row(self):
        with pytest.raises(CommandError, match="at least 1"):
            seed("--rows", "0")

    def test_project_with_the_seed_command_keeps_the_subcommands_of_the_app(self):
        seed("--rows", "5")
        token = IssuedToken.objects.first()
        out = StringIO()

        call_command("instaccess_tokens", "show", "--json", "--jti", str(token.jti), stdout=out)

        assert uuid.UUID(json.loads(out.getvalue())["jti"]) == token.jti

    def test_seed_command_is_not_part_of_the_app(self):
        command = load_command_class("instaccess", "instaccess_tokens")

        assert "seed" not in command.create_parser("manage.py", "instaccess_tokens").format_help()

    @pytest.mark.own_database
    def test_seed_command_is_available_in_the_test_project(self):
        done = subprocess.run(
            [sys.executable, "manage.py", "instaccess_tokens", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        assert "seed" in done.stdout
