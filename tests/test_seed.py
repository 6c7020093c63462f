"""`manage.py instaccess_tokens seed`: a made-up audit that nobody can tell from a real one."""

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

from instaccess.audit import row_hmac
from instaccess.audit.refusal_counts import RETENTION
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
    told = json.loads(out.getvalue())
    assert isinstance(told, dict)
    return told


class TestWhatIsMade:
    @pytest.fixture(autouse=True)
    def told(self):
        return seed("--rows", "2000", "--days", "100")

    def test_is_as_much_as_was_asked_for(self, told):
        assert told["rows"] == IssuedToken.objects.count() == 2000
        assert told["refusals"] == sum(RefusalCount.objects.values_list("count", flat=True)) > 0
        assert told["users"] == get_user_model().objects.filter(username__startswith="user-").count() == 500

    def test_is_authentic_row_by_row(self, told):
        keks = conf.key_encryption_keys
        verdicts = {row_hmac.check(row_hmac.canonical_bytes(row), row.mac, keks) for row in IssuedToken.objects.all()}

        assert verdicts == {row_hmac.HmacStatus.AUTHENTIC}

    def test_is_spread_evenly_over_the_days_and_ends_now(self, told):
        per_decade = Counter((NOW - row.issued_at).days // 10 for row in IssuedToken.objects.all())

        assert set(per_decade) == set(range(10))
        assert max(per_decade.values()) - min(per_decade.values()) < 20
        assert NOW - IssuedToken.objects.latest("issued_at").issued_at < timedelta(hours=1)
        assert not IssuedToken.objects.filter(issued_at__gt=NOW).exists()

    def test_is_in_the_order_of_time(self, told):
        times = list(IssuedToken.objects.order_by("pk").values_list("issued_at", flat=True))

        assert times == sorted(times)

    def test_has_masquerades_and_revoked_tokens_but_few(self, told):
        assert 5 < IssuedToken.objects.exclude(real_user_uuid="").count() < 60
        assert 0 < IssuedToken.objects.exclude(revoked_at=None).count() < 40
        for row in IssuedToken.objects.exclude(revoked_at=None):
            assert row.issued_at <= row.revoked_at <= row.expires_at
            assert row.revoked_by
            assert row.revocation_reason

    def test_points_to_users_and_applications_as_the_issuer_does(self, told):
        for row in IssuedToken.objects.select_related("user__instaccess_identity", "application")[:200]:
            assert row.application.client_id == row.client_id
            if row.user:
                assert str(row.user.instaccess_identity.uuid) == row.user_uuid
        assert IssuedToken.objects.filter(user=None).exists()

    def test_has_refusals_no_older_than_they_are_kept(self, told):
        assert RefusalCount.objects.earliest("hour").hour >= NOW - RETENTION - timedelta(hours=1)
        assert set(RefusalCount.objects.values_list("role", flat=True)) == {"issuer", "gateway"}


class TestTheSeed:
    @staticmethod
    def _made() -> list[tuple[Any, ...]]:
        return list(IssuedToken.objects.order_by("pk").values_list("jti", "ip_address", "issued_at", "revoked_at"))

    def test_makes_the_same_rows_again(self):
        seed("--rows", "50")
        first = self._made()
        IssuedToken.objects.all().delete()
        RefusalCount.objects.all().delete()

        seed("--rows", "50")

        assert self._made() == first

    def test_makes_others_when_it_is_another(self):
        seed("--rows", "50")
        seed("--rows", "50", "--seed", "2")

        assert len({jti for jti, *_ in self._made()}) == 100
        assert get_application_model().objects.count() == 10

    def test_that_was_used_before_makes_nothing_and_says_why(self):
        seed("--rows", "50")

        with pytest.raises(CommandError, match="--seed 1 before"):
            seed("--rows", "60")

        assert IssuedToken.objects.count() == 50


class TestTheCommand:
    def test_takes_no_number_of_rows_below_one(self):
        with pytest.raises(CommandError, match="at least 1"):
            seed("--rows", "0")

    def test_is_the_apps_own_beside_it(self):
        made = IssuedToken.objects.all()
        seed("--rows", "5")
        out = StringIO()

        call_command("instaccess_tokens", "show", "--json", "--jti", str(made.first().jti), stdout=out)

        assert uuid.UUID(json.loads(out.getvalue())["jti"]) == made.first().jti

    def test_is_not_in_the_app(self):
        command = load_command_class("instaccess", "instaccess_tokens")

        assert "seed" not in command.create_parser("manage.py", "instaccess_tokens").format_help()

    @pytest.mark.own_database
    def test_is_what_manage_py_offers_in_this_project(self):
        done = subprocess.run(
            [sys.executable, "manage.py", "instaccess_tokens", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        assert "seed" in done.stdout
