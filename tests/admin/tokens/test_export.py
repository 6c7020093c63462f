"""Tests of the export in the admin: the file, the filters, the permissions, the stream and the log."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from instaccess.audit.export import BATCH, COLUMNS
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db

LIST = reverse("admin:instaccess_issuedtoken_changelist")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FORMATS = ("csv", "jsonl")


def url(file_format: str = "jsonl") -> str:
    return reverse("admin:instaccess_issuedtoken_export", args=[file_format])


@pytest.fixture
def staff(db: None) -> Any:
    """Create a staff user without permissions."""
    return get_user_model().objects.create_user("clerk", password="x", is_staff=True)


@pytest.fixture
def viewer(staff: Any) -> Any:
    staff.user_permissions.add(Permission.objects.get(codename="view_issuedtoken"))
    return staff


@pytest.fixture
def viewers_client(client: Client, viewer: Any) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def batches() -> None:
    """Create audit rows for more than two batches of an export."""
    IssuedToken.objects.bulk_create(
        [
            IssuedToken(
                jti=uuid.UUID(int=number),
                user_uuid="u",
                account_uuid="3f1c",
                canvas_domain="canvas.example.edu",
                signing_kid="s",
                issued_at=NOW - timedelta(seconds=number),
                expires_at=NOW,
            )
            for number in range(2 * BATCH + 5)
        ],
        batch_size=500,
    )


@pytest.fixture
def audit_log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the messages that the audit logger has received."""
    caplog.set_level("INFO", logger="instaccess.audit")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "instaccess.audit"]


def exported(client: Client, query: dict[str, Any] | None = None) -> list[str]:
    response: Any = client.get(url(), query or {})
    assert response.status_code == 200
    return [json.loads(line)["jti"] for line in response.getvalue().decode().splitlines()]


def listed(client: Client, query: dict[str, Any] | None = None) -> list[str]:
    response: Any = client.get(LIST, query or {})
    assert response.status_code == 200
    return [str(token.jti) for token in response.context["cl"].result_list]


class TestTheExportedFile:
    def test_admin_export_as_csv_is_a_valid_file_with_name_and_media_type(self, row, viewers_client, time_machine):
        time_machine.move_to(NOW, tick=False)
        each = row()

        response: Any = viewers_client.get(url("csv"))

        header, line = csv.reader(io.StringIO(response.getvalue().decode(), newline=""))
        assert header == list(COLUMNS)
        assert str(each.jti) in line
        assert response["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert response["Content-Disposition"] == 'attachment; filename="issued-tokens-2026-11-23.csv"'

    def test_admin_export_as_json_lines_is_a_valid_file_with_name_and_media_type(
        self, row, viewers_client, time_machine
    ):
        time_machine.move_to(NOW, tick=False)
        each = row()

        response: Any = viewers_client.get(url("jsonl"))

        assert json.loads(response.getvalue())["id"] == str(each.pk)
        assert response["Content-Type"] == "application/jsonl"
        assert response["Content-Disposition"] == 'attachment; filename="issued-tokens-2026-11-23.jsonl"'

    def test_file_name_of_an_admin_export_contains_the_utc_date(self, viewers_client, time_machine, settings):
        settings.TIME_ZONE = "Pacific/Auckland"
        time_machine.move_to(NOW, tick=False)

        assert "2026-11-23" in viewers_client.get(url())["Content-Disposition"]

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_admin_export_has_headers_against_caching_and_sniffing(self, viewers_client, file_format):
        response = viewers_client.get(url(file_format))

        assert "no-store" in response["Cache-Control"]
        assert "private" in response["Cache-Control"]
        assert response["X-Content-Type-Options"] == "nosniff"

    def test_admin_export_in_an_unknown_format_answers_404(self, viewers_client):
        for file_format in ("xml", "CSV", "csv%00", "json"):
            assert viewers_client.get(f"{LIST}export/{file_format}/").status_code == 404


class TestTheExportedRows:
    @pytest.fixture(autouse=True)
    def _rows(self, row, user, time_machine):
        time_machine.move_to(NOW, tick=False)
        grace = get_user_model().objects.create_user("grace")
        row()
        row(age=1, user=grace, user_uuid="grace's", client_id="other", ip_address="2001:db8::7")
        row(age=2, revoked_at=NOW)
        row(age=3, real_user=grace, real_user_uuid="grace's")
        # Create rows before and after midnight UTC. A filter that uses another time zone would find other rows.
        for hours in (11, 12, 13, 24 * 40):
            row(age=hours * 3600)

    @pytest.mark.parametrize(
        "query",
        [
            {},
            {"status": "live"},
            {"status": "expired"},
            {"status": "revoked"},
            {"masquerading": "yes"},
            {"status": "live", "masquerading": "no"},
            {"q": "ada"},
            {"q": "grace"},
            {"q": "2001:db8::7"},
            {"q": "nobody"},
            {"q": "ada other"},
            {"period": "30d"},
            {"period": "1h"},
            {"period": "24h", "q": "grace"},
        ],
        ids=lambda query: "-".join(query.values()) or "all",
    )
    def test_admin_export_contains_the_rows_of_the_filtered_list(self, viewers_client, query):
        assert exported(viewers_client, query) == listed(viewers_client, query)

    def test_admin_export_contains_only_the_rows_that_match_the_filters(self, viewers_client):
        counts = [len(exported(viewers_client, query)) for query in ({}, {"status": "live"}, {"masquerading": "yes"})]

        assert counts == [8, 3, 1]

    def test_admin_export_contains_the_rows_of_the_admin_list_in_a_project_with_another_time_zone(
        self, viewers_client, settings, row
    ):
        settings.TIME_ZONE = "Pacific/Auckland"
        query = {"period": "7d"}
        midnight = datetime(2026, 11, 16, tzinfo=UTC)
        row(issued_at=midnight)
        row(issued_at=midnight - timedelta(seconds=1))

        assert len(exported(viewers_client, query)) == 8
        assert exported(viewers_client, query) == listed(viewers_client, query)

    @pytest.mark.parametrize("query", [{"p": "1"}, {"p": "7"}, {"p": "x"}, {"all": ""}, {"o": "-3.1"}, {"e": "1"}])
    def test_admin_export_ignores_the_page_and_the_order_of_the_admin_list(self, viewers_client, query):
        assert exported(viewers_client, query) == exported(viewers_client)

    def test_admin_export_filtered_by_application_contains_only_rows_of_the_application(
        self, viewers_client, application
    ):
        query = {"client_id": application.client_id}

        assert exported(viewers_client, query) == listed(viewers_client, query) != exported(viewers_client)


class TestAnExportWithAnInvalidQuery:
    @pytest.mark.parametrize(
        "query",
        [{"nonsense": "1"}, {"issued_at__year": "x"}, {"jti": "no uuid"}],
        ids=lambda query: next(iter(query)),
    )
    def test_a8_admin_export_refuses_an_invalid_query_as_the_admin_list_does(self, row, viewers_client, query):
        row()

        assert viewers_client.get(url(), query).status_code == 400
        assert viewers_client.get(LIST, query).status_code == 400

    def test_admin_export_refuses_a_query_on_password_hashes(self, row, viewers_client):
        query = {"user__password__startswith": "md5"}

        assert viewers_client.get(url(), query).status_code == viewers_client.get(LIST, query).status_code == 400


class TestWhoMayExport:
    @pytest.mark.parametrize("file_format", FORMATS)
    def test_admin_export_redirects_anonymous_users_to_the_login_page(self, row, client, file_format):
        row()

        response = client.get(url(file_format))

        assert response.status_code == 302
        assert response["Location"].startswith(reverse("admin:login"))

    def test_admin_export_redirects_users_who_are_not_staff(self, row, client, user):
        client.force_login(user)

        assert client.get(url()).status_code == 302

    @pytest.mark.parametrize("file_format", FORMATS)
    @pytest.mark.parametrize("codename", ["revoke_tokens", "inspect_tokens", "masquerade", None])
    def test_admin_export_refuses_users_without_the_view_permission(self, row, client, staff, file_format, codename):
        row()
        if codename:
            staff.user_permissions.add(Permission.objects.get(codename=codename))
        client.force_login(staff)

        assert client.get(url(file_format)).status_code == 403

    def test_admin_export_refuses_post_put_and_delete_requests(self, row, viewers_client, audit_log):
        row()

        assert [viewers_client.generic(method, url()).status_code for method in ("POST", "PUT", "DELETE")] == [
            405
        ] * 3
        assert audit_log() == []

    def test_admin_export_runs_only_select_statements_and_changes_no_row(self, row, viewers_client):
        row()
        before = list(IssuedToken.objects.values())
        with CaptureQueriesContext(connection) as queries:
            exported(viewers_client)
        statements = {query["sql"].split()[0] for query in queries.captured_queries}

        assert statements <= {"SELECT", "WITH"}
        assert list(IssuedToken.objects.values()) == before


class TestTheStreamOfAnExport:
    def test_admin_export_reads_a_batch_only_when_the_client_needs_the_batch(self, batches, viewers_client):
        response: Any = viewers_client.get(url())
        chunks = iter(response)

        sizes, executed = [], []
        while True:
            with CaptureQueriesContext(connection) as queries:
                chunk = next(chunks, None)
            if chunk is None:
                break
            sizes.append(chunk.count(b"\n"))
            executed.append(len(queries))

        assert sizes == [BATCH, BATCH, 5]
        assert executed == [1, 1, 1]

    def test_admin_export_ends_with_an_incomplete_line_if_the_database_fails(self, batches, viewers_client):
        response: Any = viewers_client.get(url())
        chunks = iter(response)
        next(chunks)

        def gone(run: Any, *args: Any) -> Any:
            raise OperationalError("gone")

        with connection.execute_wrapper(gone):
            last = next(chunks)
            with pytest.raises(OperationalError):
                next(chunks)

        assert set(json.loads(last)) == {"incomplete"}

    def test_admin_export_answers_a_head_request_without_a_body(self, row, viewers_client, audit_log):
        row()

        response = viewers_client.head(url())

        assert (response.status_code, response.content) == (200, b"")
        assert response["Content-Type"] == "application/jsonl"
        assert audit_log() == []


class TestTheStreamOfAnExportUnderAsgi:
    @staticmethod
    def get(viewer: Any, read: Any) -> Any:
        """Request an export under ASGI. Returns the result of `read`, which runs in the event loop of the request."""

        async def ask() -> Any:
            client = AsyncClient()
            await client.aforce_login(viewer)
            return await read(await client.get(url()))

        return async_to_sync(ask)()

    def test_admin_export_under_asgi_is_sent_batch_by_batch(self, batches, viewer):
        executed = []

        def count(run: Any, sql: str, *args: Any) -> Any:
            executed.append(sql)
            return run(sql, *args)

        async def read(response: Any) -> list[tuple[int, int]]:
            before = len(executed)
            return [(chunk.count(b"\n"), len(executed) - before) async for chunk in response]

        with connection.execute_wrapper(count):
            assert self.get(viewer, read) == [(BATCH, 1), (BATCH, 2), (5, 3)]

    def test_admin_export_under_asgi_does_not_block_the_event_loop(self, batches, viewer):
        async def read(response: Any) -> bool:
            other = asyncio.create_task(asyncio.sleep(0))
            await anext(aiter(response))
            return other.done()

        assert self.get(viewer, read)

    def test_admin_export_under_asgi_ends_when_the_client_disconnects(self, batches, viewer, audit_log):

        async def read(response: Any) -> None:
            chunks = aiter(response)
            await anext(chunks)
            await chunks.aclose()
            response.close()

        self.get(viewer, read)

        assert audit_log()[-1] == f"export aborted by='clerk' rows={BATCH}"

    def test_admin_export_under_asgi_ends_with_an_incomplete_line_if_the_database_fails(self, batches, viewer):
        broken = []

        def execute(run: Any, *args: Any) -> Any:
            if broken:
                raise OperationalError("gone")
            return run(*args)

        async def read(response: Any) -> bytes:
            chunks = aiter(response)
            await anext(chunks)
            broken.append(True)
            last: bytes = await anext(chunks)
            with pytest.raises(OperationalError):
                await anext(chunks)
            broken.clear()
            return last

        with connection.execute_wrapper(execute):
            assert set(json.loads(self.get(viewer, read))) == {"incomplete"}


class TestTheLogOfAnExport:
    def test_log_of_an_admin_export_contains_the_user_and_the_filters_but_not_the_search(
        self, row, viewers_client, audit_log
    ):
        row()

        exported(viewers_client, {"q": "eyJhbGciOi.pasted.token", "status": "live", "p": "1"})

        assert audit_log() == [
            'export started by=\'clerk\' format=jsonl filters={"q": "(not logged)", "status": "live"}',
            "export complete by='clerk' rows=0",
        ]

    def test_log_of_an_admin_export_truncates_a_long_filter(self, row, viewers_client, audit_log):

        exported(viewers_client, {"client_id": "x" * 5000})

        assert len(audit_log()[0]) < 200
