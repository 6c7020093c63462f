"""Tests of the dashboard on the index page of the app: its numbers, keys, problems, audit log and links."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.template import Context, Engine
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from instaccess.admin.dashboard import sections
from instaccess.conf import SCOPE
from instaccess.keys import lifecycle, provision
from instaccess.models import IssuedToken, Key, MaintenanceRun, RefusalCount
from tests.admin.dashboard.helpers import dashboard, links, without_table
from tests.support import readme
from tests.support.audit_rows import with_id

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def clock(time_machine: Any) -> Any:
    """Stop the clock at `NOW`."""
    time_machine.move_to(NOW, tick=False)
    return time_machine


def add_token(*, age: timedelta, revoked_age: timedelta | None = None) -> IssuedToken:
    token = IssuedToken(
        jti=uuid.uuid4(),
        user_uuid=str(uuid.uuid4()),
        account_uuid=str(uuid.uuid4()),
        canvas_domain="canvas.example.edu",
        signing_kid="signing-kid",
        encryption_kid="encryption-kid",
        issued_at=NOW - age,
        expires_at=NOW - age + HOUR,
        revoked_at=None if revoked_age is None else NOW - revoked_age,
    )
    with_id(token).save(force_insert=True)
    return token


def add_refusals(reason: str, count: int, *, age: timedelta = HOUR, role: str = "issuer") -> None:
    hour = (NOW - age).replace(minute=0)
    RefusalCount.objects.create(hour=hour, role=role, reason=reason, count=count)


def record(command: str, result: str, *, age: timedelta, success_age: timedelta | None = None) -> None:
    MaintenanceRun.objects.create(
        command=command,
        result=result,
        started_at=NOW - age,
        finished_at=NOW - age,
        succeeded_at=None if success_age is None else NOW - success_age,
    )


class TestTheLast24Hours:
    def test_dashboard_counts_tokens_that_were_issued_in_the_last_24_hours(self, admin_client):
        for age in (timedelta(minutes=1), 23 * HOUR, 25 * HOUR):
            add_token(age=age)

        assert "Issued tokens 2 " in dashboard(admin_client)

    def test_dashboard_counts_revoked_tokens_by_the_time_of_their_revocation(self, admin_client):
        add_token(age=30 * HOUR, revoked_age=HOUR)
        add_token(age=30 * HOUR, revoked_age=29 * HOUR)

        assert "Issued tokens 0 Revoked tokens 1 " in dashboard(admin_client)

    def test_dashboard_lists_the_most_frequent_reasons_of_refusals_first(self, admin_client):
        add_refusals("expired", 2)
        add_refusals("bad_signature", 3000, role="gateway")
        add_refusals("expired", 500, age=26 * HOUR)

        text = dashboard(admin_client)

        assert "Refused requests 3,002 " in text
        assert "3,000 gateway bad_signature The signature" in text
        assert text.index("3,000 gateway bad_signature") < text.index("2 issuer expired")

    def test_dashboard_lists_at_most_five_reasons_of_refusals(self, admin_client):
        for number in range(8):
            add_refusals(f"reason_of_a_hook_{number}", 10 + number)

        text = dashboard(admin_client)

        assert [number for number in range(8) if f"reason_of_a_hook_{number}" in text] == [3, 4, 5, 6, 7]

    def test_dashboard_stops_counting_tokens_at_a_limit_and_shows_that_there_are_more_tokens(
        self, admin_client, monkeypatch
    ):
        monkeypatch.setattr(sections, "COUNTED", 2)
        for _ in range(3):
            add_token(age=HOUR)

        assert "Issued tokens more than 2 " in dashboard(admin_client)

    def test_dashboard_limits_each_query_on_issued_tokens(self, admin_client, initial_keys):
        add_token(age=HOUR)
        with CaptureQueriesContext(connection) as captured:
            dashboard(admin_client)

        source = f"FROM {connection.ops.quote_name('instaccess_issuedtoken')}"
        queries = [query["sql"] for query in captured if source in query["sql"]]
        reads = [query for query in queries if not query.startswith("INSERT")]
        assert len(reads) >= 3
        assert [query for query in reads if "LIMIT" not in query] == []

    def test_dashboard_writes_no_row(self, admin_client, initial_keys):
        """Ignore the INSERT of the health check, because this INSERT has the condition `1 = 0` and inserts no row."""
        with CaptureQueriesContext(connection) as captured:
            dashboard(admin_client)

        writes = [query["sql"] for query in captured if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
        assert [query for query in writes if not query.endswith("WHERE 1 = 0")] == []

    def test_dashboard_runs_the_same_number_of_queries_for_any_number_of_tokens(self, admin_client, initial_keys):
        def count() -> int:
            with CaptureQueriesContext(connection) as captured:
                dashboard(admin_client)
            return len(captured)

        count()
        before = count()
        for number in range(20):
            add_token(age=number * HOUR, revoked_age=timedelta(0))

        assert count() == before


class TestKeys:
    def test_dashboard_shows_the_current_key_of_each_use_and_its_next_rotation(self, admin_client, initial_keys):
        text = dashboard(admin_client)

        for key in Key.objects.filter(status="current"):
            assert (
                f"{key.get_use_display()} {key.kid[:8]} current Current since 2026-11-23 12:30 UTC. Next rotation "
                "due at 2026-12-23 12:30 UTC"
            ) in text

    def test_dashboard_shows_the_time_until_which_tokens_of_the_previous_key_are_accepted(
        self, admin_client, initial_keys
    ):
        previous = Key.objects.get(use="enc", status="current")
        lifecycle.rotate(Key.Use.ENCRYPTION, force=True, now=NOW)

        text = dashboard(admin_client)

        assert f"encryption {previous.kid[:8]} past" in text
        assert "Its tokens are accepted until 2026-11-23" in text

    def test_dashboard_links_to_the_page_of_each_key(self, admin_client, initial_keys):
        text = admin_client.get("/admin/instaccess/").content.decode()

        for key in initial_keys:
            assert f'href="/admin/instaccess/key/{key.pk}/change/"' in text


class TestWhatNeedsAttention:
    def test_dashboard_names_the_command_instaccess_init_if_there_are_no_keys(self, admin_client):
        text = dashboard(admin_client)

        assert "Error: There are no keys yet, so no tokens can be issued." in text
        assert "python manage.py instaccess_init" in text

    def test_dashboard_reports_a_missing_key_encryption_key(self, admin_client, initial_keys, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        assert "Keys can't be decrypted or checked, because their key-encryption key is not" in dashboard(
            admin_client
        )

    def test_dashboard_reports_an_invalid_setting_and_shows_the_other_sections(
        self, admin_client, initial_keys, settings
    ):
        settings.INSTACCESS = {"KEY_ROTATION_DAYS": "thirty"}

        text = dashboard(admin_client)

        assert "Error: A setting is invalid, so no tokens can be issued: INSTACCESS['KEY_ROTATION_DAYS']" in text
        assert "Issued tokens 0" in text

    def test_dashboard_reports_a_spike_of_refusals(self, admin_client, initial_keys):
        add_refusals("bad_signature", 143, role="gateway")

        assert "Within one hour, the gateway refused 143 requests" in dashboard(admin_client)

    def test_dashboard_reports_the_messages_of_the_system_checks_of_this_app(
        self, admin_client, initial_keys, settings
    ):
        settings.OAUTH2_PROVIDER = settings.OAUTH2_PROVIDER | {"DEFAULT_SCOPES": [SCOPE]}

        text = dashboard(admin_client)

        assert "Warning: instaccess.W003" in text
        assert "DEFAULT_SCOPES" in text

    def test_dashboard_does_not_report_silenced_system_checks(self, admin_client, initial_keys, settings):
        settings.OAUTH2_PROVIDER = settings.OAUTH2_PROVIDER | {"DEFAULT_SCOPES": [SCOPE]}
        settings.SILENCED_SYSTEM_CHECKS = ["instaccess.W003"]

        assert "W003" not in dashboard(admin_client)

    def test_dashboard_reports_that_nothing_needs_attention(self, admin_client, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}
        provision.init()
        for command in ("seal", "verify", "rotate"):
            record(command, "succeeded", age=HOUR, success_age=HOUR)

        assert "What needs attention Nothing. Last 24 hours" in dashboard(admin_client)


class TestTheAuditLog:
    def test_dashboard_shows_the_last_runs_of_the_commands_seal_and_verify(self, admin_client, initial_keys):
        call_command("instaccess_tokens", "seal", verbosity=0)
        call_command("instaccess_tokens", "verify", verbosity=0)

        text = dashboard(admin_client)

        for label, command in ("Last seal", "seal"), ("Last verification", "verify"):
            assert (
                f"{label} Last success at 2026-11-23 12:30 UTC. python manage.py instaccess_tokens {command}" in text
            )

    def test_dashboard_reports_that_no_verification_is_recorded(self, admin_client):
        assert "Last verification No run is recorded. python manage.py instaccess_tokens verify" in dashboard(
            admin_client
        )

    def test_dashboard_reports_a_failed_verification_even_if_an_earlier_verification_succeeded(self, admin_client):
        record("verify", "failed", age=HOUR, success_age=25 * HOUR)

        text = dashboard(admin_client)

        assert "Error: The last run of “verify” failed or found a problem." in text
        assert "Last success at 2026-11-22 11:30 UTC. The run that started at 2026-11-23 11:30 UTC failed" in text

    def test_dashboard_warns_if_the_command_seal_has_not_succeeded_for_two_days(self, admin_client):
        record("seal", "succeeded", age=49 * HOUR, success_age=49 * HOUR)

        assert "Warning: The last successful run of “seal” ended at 2026-11-21 11:30 UTC." in dashboard(admin_client)

    def test_dashboard_shows_a_maintenance_run_without_an_end_as_unfinished(self, admin_client):
        record("seal", "running", age=HOUR, success_age=2 * HOUR)

        assert "A run started at 2026-11-23 11:30 UTC and has not reported its end." in dashboard(admin_client)


class TestADatabaseThatCantBeRead:
    @pytest.mark.parametrize(
        ("table", "missing", "shown"),
        [
            ("instaccess_issuedtoken", "Issued tokens", "Current since"),
            ("instaccess_refusalcount", "Issued tokens", "Current since"),
            ("instaccess_maintenancerun", "Last seal", "Issued tokens"),
            ("instaccess_key", "Current since", "Issued tokens"),
        ],
    )
    def test_dashboard_reports_that_a_table_cannot_be_read_and_shows_the_other_sections(
        self, admin_client, initial_keys, table, missing, shown
    ):
        with connection.execute_wrapper(without_table(table)):
            text = dashboard(admin_client)

        assert "Some information is missing, because the database can't be read." in text
        assert missing not in text
        assert shown in text

    def test_dashboard_does_not_show_the_error_message_of_the_database(self, admin_client, initial_keys):
        with connection.execute_wrapper(without_table("instaccess_issuedtoken")):
            text = dashboard(admin_client)

        assert "no such table" not in text
        assert "hunter2" not in text

    def test_dashboard_reports_that_no_tokens_can_be_issued_if_the_audit_table_is_missing(
        self, admin_client, initial_keys
    ):
        with connection.execute_wrapper(without_table("instaccess_issuedtoken")):
            text = dashboard(admin_client)

        assert "Error: No tokens can be issued, because rows can't be inserted into the audit log." in text


class TestLinks:
    def test_superuser_sees_a_link_to_each_task_and_every_link_opens_a_page(self, admin_client, initial_keys):
        found = links(admin_client)

        assert list(found) == [
            "Revoke tokens",
            "Find out who had access last night",
            "Inspect a token",
            "Keys and their timeline",
            "Service users of applications",
            "Check the audit log",
        ]
        assert [admin_client.get(url).status_code for url in found.values() if url.startswith("/")] == [200] * 5
        assert 'id="instaccess-audit-log"' in admin_client.get("/admin/instaccess/").content.decode()

    def test_link_to_the_tokens_of_last_night_selects_the_period_of_last_night(self, admin_client, initial_keys):
        url = links(admin_client)["Find out who had access last night"]

        assert "2026-11-22 18:00 to 2026-11-23 08:00" in admin_client.get(url).content.decode()


class TestTheDocumentation:
    def test_snippet_in_the_documentation_renders_the_dashboard(self, admin_user, initial_keys, rf):
        snippet = re.search(r"```django\n(.*?)```", readme.page("admin-dashboard.md"), re.DOTALL)
        assert snippet
        request = rf.get("/admin/instaccess/")
        request.user, request.resolver_match = admin_user, resolve("/admin/instaccess/")

        text = Engine.get_default().from_string(snippet[1]).render(Context({"request": request}))

        assert "instaccess/dashboard.css" in text
        assert "What needs attention" in text
