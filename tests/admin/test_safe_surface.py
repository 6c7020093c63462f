"""Tests of the admin: secrets that no page shows, the read-only audit log, hostile text, and the lists."""

from __future__ import annotations

import html
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import DataError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from oauth2_provider.models import get_application_model

from instaccess import users
from instaccess.admin.tokens.chart_counts import CHARTED
from instaccess.admin.tokens.pagination import COUNTED
from instaccess.keys import ring
from instaccess.models import IssuedToken, Key

pytestmark = pytest.mark.django_db

TOKENS = reverse("admin:instaccess_issuedtoken_changelist")
KEYS = reverse("admin:instaccess_key_changelist")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")


@pytest.fixture
def superuser(db: None) -> Any:
    return get_user_model().objects.create_superuser("root", password="correct horse battery staple")


@pytest.fixture
def admin_client(client: Any, superuser: Any) -> Any:
    client.force_login(superuser)
    return client


def page(client: Any, url: str, *args: Any, **kwargs: Any) -> str:
    response = client.get(url, *args, **kwargs)
    assert response.status_code == 200, (url, response.status_code)
    return str(response.content.decode())


def row(user: Any = None, application: Any = None, **columns: Any) -> IssuedToken:
    """Create an audit row with the columns that `issuing.issue` stores. Keyword arguments change columns."""
    values: dict[str, Any] = {
        "jti": uuid.uuid4(),
        "user": user,
        "user_uuid": users.user_uuid(user) if user else str(uuid.uuid4()),
        "application": application,
        "client_id": getattr(application, "client_id", ""),
        "account_uuid": str(uuid.uuid4()),
        "canvas_domain": "canvas.example.edu",
        "signing_kid": "signing-kid",
        "encryption_kid": "encryption-kid",
        "issued_at": NOW,
        "expires_at": NOW + timedelta(hours=1),
    }
    return IssuedToken.objects.create(**(values | columns))


def url_of(name: str, token: IssuedToken) -> str:
    return reverse(f"admin:instaccess_issuedtoken_{name}", args=[token.pk])


def rows_shown(client: Any, **query: str) -> set[uuid.UUID]:
    response = client.get(TOKENS, query)
    assert response.status_code == 200, response.status_code
    return {token.jti for token in response.context["cl"].result_list}


class TestEveryPageOfTheAdmin:
    @staticmethod
    def answers(client: Any) -> dict[str, str]:
        """Request the indexes, the filtered lists, and the pages of each key and token. Returns the HTML by URL."""
        addresses = [reverse("admin:index"), reverse("admin:app_list", args=["instaccess"])]
        for model in (Key, IssuedToken):
            name = f"admin:instaccess_{model._meta.model_name}"
            changelist = reverse(f"{name}_changelist")
            links = re.findall(r'href="(\?[^"#]+)"', client.get(changelist).content.decode())
            addresses += [changelist, reverse(f"{name}_add"), *(changelist + html.unescape(link) for link in links)]
            addresses += [
                reverse(f"{name}_{page}", args=[row.pk])
                for row in model._default_manager.all()
                for page in ("change", "delete", "history")
            ]
        pages = {}
        for address in addresses:
            response = client.get(address)
            assert response.status_code < 500, address
            pages[address] = response.content.decode()
        return pages

    def test_a1_no_admin_page_shows_a_private_key_or_a_token(self, initial_keys, access_token, post, admin_client):
        admin_client.logout()
        token = post(access_token).json()["token"]
        admin_client.force_login(get_user_model().objects.get(username="root"))
        secrets = {token, *token.split(".")[1:]}
        for held in ring.current_ring().keys:
            secrets |= {held.private().reveal()[member] for member in PRIVATE_MEMBERS}
        for key in initial_keys:
            secrets |= {key.sealed_private_jwk, *key.sealed_private_jwk.split(".")[1:]}

        pages = self.answers(admin_client)

        assert str(IssuedToken.objects.get().jti) in pages[TOKENS]
        for address, text in pages.items():
            assert not any(secret in html.unescape(text) for secret in secrets), address
            assert "PRIVATE KEY" not in text, address

    def test_a1_page_of_a_key_shows_no_private_key_even_if_public_jwk_contains_a_private_key(
        self, initial_keys, admin_client
    ):
        private = ring.current_ring().signing_key().private().reveal()
        key = Key.objects.get(use="sig", status="current")
        Key.objects.filter(pk=key.pk).update(public_jwk=dict(private))

        text = page(admin_client, reverse("admin:instaccess_key_change", args=[key.pk]))

        assert not any(private[member] in text for member in PRIVATE_MEMBERS)
        assert "PRIVATE KEY" not in text
        assert "BEGIN PUBLIC KEY" in text

    def test_a1_page_of_a_key_explains_that_the_row_was_modified_and_is_unusable(self, initial_keys, admin_client):
        key = initial_keys[0]
        Key.objects.filter(pk=key.pk).update(public_jwk={"kty": "RSA", "n": "AQAB"})

        text = page(admin_client, reverse("admin:instaccess_key_change", args=[key.pk]))

        assert "doesn&#x27;t contain a usable key" in text

    def test_a1_page_of_a_key_shows_the_public_key_as_pem_and_jwk(self, initial_keys, admin_client):
        key = initial_keys[0]

        text = html.unescape(page(admin_client, reverse("admin:instaccess_key_change", args=[key.pk])))

        assert "-----BEGIN PUBLIC KEY-----" in text
        assert f'"n": "{key.public_jwk["n"]}"' in text


class TestTheAuditLogInTheAdmin:
    COLUMNS = ("user_uuid", "client_id", "ip_address", "issued_at", "revoked_at")

    @pytest.fixture
    def token(self, user, application):
        return row(user, application, ip_address="192.0.2.7")

    @pytest.fixture(autouse=True)
    def _audit_row_stays_unchanged(self, token):
        before = IssuedToken.objects.values(*self.COLUMNS, "jti").get()
        yield
        assert IssuedToken.objects.values(*self.COLUMNS, "jti").get() == before

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a3_admin_refuses_to_add_an_audit_row(self, method, admin_client):
        response = getattr(admin_client, method)(TOKENS + "add/", {"jti": str(uuid.uuid4()), "user_uuid": "x"})

        assert response.status_code == 403

    def test_a3_admin_refuses_to_change_an_audit_row(self, token, admin_client):
        form = {"user_uuid": "mallory", "ip_address": "198.51.100.1", "revoked_at_0": "2026-01-01", "_save": "Save"}

        assert admin_client.post(url_of("change", token), form).status_code == 403

    def test_a3_page_of_an_audit_row_has_no_editable_field(self, token, admin_client):
        text = page(admin_client, url_of("change", token))

        form = re.search(r'<form[^>]* id="issuedtoken_form".*?</form>', text, re.DOTALL)
        assert form is not None
        fields = re.findall(r"<(?:input|select|textarea)[^>]*>", form[0])
        assert [field for field in fields if "hidden" not in field] == []
        assert "_save" not in form[0]

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a3_admin_refuses_to_delete_an_audit_row(self, method, token, admin_client):
        assert getattr(admin_client, method)(url_of("delete", token), {"post": "yes"}).status_code == 403

    @pytest.mark.parametrize("action", ["delete_selected", "", "anything"])
    def test_a3_no_admin_action_edits_or_deletes_audit_rows(self, action, token, admin_client):
        form = {"action": action, "_selected_action": [str(token.pk)], "post": "yes", "index": "0"}

        admin_client.post(TOKENS, form)

        actions = re.findall(r'<option value="(\w+)"', page(admin_client, TOKENS))
        assert [name for name in actions if not name.startswith("revoke_")] == []

    def test_a3_list_of_issued_tokens_ignores_a_form_that_edits_audit_rows(self, token, admin_client):
        form = {
            "form-TOTAL_FORMS": "1",
            "form-INITIAL_FORMS": "1",
            "form-0-id": str(token.pk),
            "form-0-user_uuid": "mallory",
            "_save": "Save",
        }

        admin_client.post(TOKENS, form)

    def test_a3_no_permission_to_add_change_or_delete_audit_rows_exists(self):
        codenames = Permission.objects.filter(content_type__model="issuedtoken").values_list("codename", flat=True)

        assert "view_issuedtoken" in codenames
        assert not {"add_issuedtoken", "change_issuedtoken", "delete_issuedtoken"} & set(codenames)

    def test_a3_admin_refuses_to_add_edit_or_delete_a_key(self, initial_keys, admin_client):
        key = initial_keys[0]
        for name in ("change", "delete"):
            address = reverse(f"admin:instaccess_key_{name}", args=[key.pk])
            assert admin_client.post(address, {"status": "revoked", "post": "yes"}).status_code == 403
        assert admin_client.post(reverse("admin:instaccess_key_add"), {"kid": "x"}).status_code == 403
        assert Key.objects.get(pk=key.pk).status == key.status


class TestDeletingReferencedObjects:
    def test_a3_deleting_a_user_keeps_the_audit_row_and_the_uuid_of_the_user(self, user, application, admin_client):
        issuer_row = row(user, application, real_user=user)

        response = admin_client.post(reverse("admin:auth_user_delete", args=[user.pk]), {"post": "yes"})

        assert response.status_code == 302
        assert not get_user_model().objects.filter(pk=user.pk).exists()
        kept = IssuedToken.objects.get(pk=issuer_row.pk)
        assert (kept.user, kept.real_user, kept.user_uuid) == (None, None, issuer_row.user_uuid)
        assert issuer_row.user_uuid in page(admin_client, url_of("change", kept))
        assert issuer_row.user_uuid in page(admin_client, TOKENS)
        assert rows_shown(admin_client, q=issuer_row.user_uuid) == {kept.jti}

    def test_a3_deleting_an_application_keeps_the_audit_row_and_the_client_id(self, user, application, admin_client):
        client_id = application.client_id
        issuer_row = row(user, application)
        address = reverse("admin:oauth2_provider_application_delete", args=[application.pk])

        assert admin_client.post(address, {"post": "yes"}).status_code == 302

        kept = IssuedToken.objects.get(pk=issuer_row.pk)
        assert (kept.application, kept.client_id) == (None, client_id)
        assert client_id in page(admin_client, TOKENS)
        assert rows_shown(admin_client, q=client_id) == {kept.jti}


class TestHostileText:
    SCRIPT = "<script>alert(1)</script>\r\nSet-Cookie: a=b"

    @pytest.fixture
    def hostile_application(self, user):
        def make(name: str) -> Any:
            with transaction.atomic():
                return get_application_model().objects.create(
                    name=name,
                    client_id='"><img src=x onerror=alert(2)>',
                    client_type="confidential",
                    authorization_grant_type="client-credentials",
                )

        try:
            return make(self.SCRIPT + "\x00")
        except (ValueError, DataError):
            return make(self.SCRIPT)  # Omit the NUL character if the database can't store it.

    @pytest.fixture
    def issued(self, initial_keys, hostile_application, make_access_token, post):
        token = make_access_token(application=hostile_application)
        response = post(token, headers={"User-Agent": self.SCRIPT + "\x00\xff"})
        assert response.status_code == 201
        return IssuedToken.objects.get()

    def test_a5_hostile_user_agents_and_client_names_are_escaped_on_every_page(self, issued, admin_client):
        pages = TestEveryPageOfTheAdmin.answers(admin_client)

        assert url_of("change", issued) in pages
        for address, text in pages.items():
            assert "<script>alert(1)" not in text, address
            assert "<img src=x" not in text, address
        assert "&lt;script&gt;alert(1)" in pages[TOKENS]

    def test_a5_hostile_user_agent_is_stored_without_control_characters(self, issued):
        assert "<script>alert(1)</script>" in issued.user_agent
        assert not re.search(r"[\x00-\x1f\x7f]", issued.user_agent)

    @pytest.mark.parametrize(
        "term",
        [
            "\x00",
            "a\x00b",
            "<script>alert(1)</script>",
            "' OR 1=1 --",
            "%",
            "_",
            "fe80::1%eth0",
            "10.0.0.1/8",
            "\ud7ff",
            "{}",
            "1" * 5000,
            "9" * 40,
            "192.0.2.1 " * 200,
        ],
    )
    def test_a5_search_for_a_hostile_term_in_the_list_of_issued_tokens_finds_no_token(
        self, term, user, application, admin_client
    ):
        row(user, application)

        assert "<script>alert(1)" not in page(admin_client, TOKENS, {"q": term})
        # For a term with a NUL character, Django's search form shows an error instead of a list.
        if "\x00" not in term:
            assert rows_shown(admin_client, q=term) == set()

    @pytest.mark.parametrize(
        "query",
        ["status=%00", "masquerading=x", "period=x", "client_id=%00", "account_uuid=%00", "o=99", "p=-1"],
    )
    def test_a5_hostile_parameters_in_the_url_cause_no_server_error(self, query, user, application, admin_client):
        row(user, application)

        assert admin_client.get(f"{TOKENS}?{query}").status_code in {200, 302}


class TestSearchingForTokens:
    @pytest.fixture
    def token(self, user, application):
        """Return the audit row that a search must find. All other audit rows differ from this row in every column."""
        other = get_user_model().objects.create_user("grace")
        for number in range(3):
            row(other, None, client_id=f"other-{number}", ip_address=f"198.51.100.{number}")
        return row(user, application, ip_address="2001:db8::7", real_user_uuid=str(uuid.uuid4()))

    @pytest.mark.parametrize(
        "term",
        [
            "{token.jti}",
            "{token.jti.hex}",
            "{token.user.username}",
            "{token.user_uuid}",
            "{token.real_user_uuid}",
            "{token.client_id}",
            "{token.ip_address}",
            "2001:0db8:0000::0007",
            "  {token.user.username}  {token.ip_address} ",
        ],
    )
    def test_search_of_issued_tokens_finds_a_token_by_the_value_of_each_searchable_column(
        self, term, token, admin_client
    ):
        assert rows_shown(admin_client, q=term.format(token=token)) == {token.jti}

    def test_search_of_issued_tokens_finds_uuids_in_upper_case(self, token, admin_client):
        assert rows_shown(admin_client, q=token.user_uuid.upper()) == {token.jti}
        assert rows_shown(admin_client, q=str(token.jti).upper()) == {token.jti}

    def test_search_of_issued_tokens_finds_tokens_by_their_actor(self, user, application, admin_client):
        masked = row(None, application, real_user=user)

        assert rows_shown(admin_client, q=user.username) == {masked.jti}

    def test_search_of_issued_tokens_requires_every_term_to_match(self, token, admin_client):
        assert rows_shown(admin_client, q=f"{token.jti} grace") == set()

    def test_search_of_issued_tokens_does_not_match_a_part_of_a_name(self, token, admin_client):
        assert rows_shown(admin_client, q="ad") == set()


class TestFilteringTokens:
    @pytest.fixture
    def rows(self, user, application, time_machine):
        time_machine.move_to(NOW, tick=False)
        return {
            "live": row(user, application),
            "expired": row(
                user, application, issued_at=NOW - timedelta(hours=2), expires_at=NOW - timedelta(hours=1)
            ),
            "revoked": row(user, application, revoked_at=NOW),
            "masked": row(user, None, real_user_uuid="someone", expires_at=NOW, issued_at=NOW - timedelta(days=40)),
        }

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({"status": "live"}, {"live"}),
            ({"status": "expired"}, {"expired", "masked"}),
            ({"status": "revoked"}, {"revoked"}),
            ({"status": "nonsense"}, {"live", "expired", "revoked", "masked"}),
            ({"masquerading": "yes"}, {"masked"}),
            ({"masquerading": "no"}, {"live", "expired", "revoked"}),
            ({"masquerading": "no", "status": "expired"}, {"expired"}),
            ({"period": "30d"}, {"live", "expired", "revoked"}),
            ({"period": "90d"}, {"live", "expired", "revoked", "masked"}),
        ],
    )
    def test_filters_of_issued_tokens_show_only_the_matching_rows(self, query, names, rows, superuser, client):
        client.force_login(superuser)

        assert rows_shown(client, **query) == {rows[name].jti for name in names}

    def test_application_filter_shows_only_the_rows_of_the_application(self, rows, application, superuser, client):
        client.force_login(superuser)

        listed = rows_shown(client, client_id=application.client_id)

        assert listed == {rows[name].jti for name in ("live", "expired", "revoked")}

    def test_page_of_each_token_shows_the_status_of_the_token(self, rows, superuser, client):
        client.force_login(superuser)
        for name, status in {"live": "live", "expired": "expired", "revoked": "revoked", "masked": "expired"}.items():
            text = page(client, url_of("change", rows[name]))
            assert re.findall(r'<span class="instaccess-badge [^>]*>([^<]*)</span>', text) == [status], name


class TestThePermissionToView:
    def test_lists_of_the_admin_redirect_anonymous_users_to_the_login_page(self, client):
        for address in (TOKENS, KEYS):
            response = client.get(address)
            assert response.status_code == 302
            assert response["Location"].startswith(reverse("admin:login"))

    def test_admin_pages_refuse_staff_without_the_view_permission(self, user, application, client, initial_keys):
        token = row(user, application)
        client.force_login(get_user_model().objects.create_user("clerk", is_staff=True))

        for address in (
            TOKENS,
            KEYS,
            url_of("change", token),
            url_of("history", token),
            reverse("admin:instaccess_key_change", args=[initial_keys[0].pk]),
        ):
            assert client.get(address).status_code == 403, address

    @pytest.mark.parametrize(
        ("codename", "open_to_them", "closed"),
        [("view_issuedtoken", TOKENS, KEYS), ("view_key", KEYS, TOKENS)],
    )
    def test_admin_list_is_open_only_to_staff_with_the_view_permission_for_its_model(
        self, codename, open_to_them, closed, client
    ):
        clerk = get_user_model().objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(Permission.objects.get(codename=codename))
        client.force_login(clerk)

        assert client.get(open_to_them).status_code == 200
        assert client.get(closed).status_code == 403


class TestAListWithManyRows:
    @staticmethod
    def queries(client: Any, address: str, **query: str) -> list[str]:
        client.get(address, query)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(address, query).status_code == 200
        return [query["sql"] for query in captured.captured_queries]

    @staticmethod
    def fill(count: int) -> None:
        for _ in range(count):
            name = uuid.uuid4().hex
            user = get_user_model().objects.create(username=name)
            application = get_application_model().objects.create(
                name=name, client_type="confidential", authorization_grant_type="client-credentials"
            )
            row(user, application, real_user=user)

    def test_list_of_issued_tokens_runs_the_same_number_of_queries_for_many_rows(self, admin_client):
        self.fill(25)  # Create more rows than fit on one page.
        few = self.queries(admin_client, TOKENS)
        self.fill(45)

        assert len(self.queries(admin_client, TOKENS)) == len(few)

    def test_list_of_issued_tokens_never_counts_rows_without_a_limit(self, admin_client):
        self.fill(2)

        for query in ({}, {"status": "expired"}, {"period": "365d"}, {"q": "ada"}, {"account_uuid": "x"}):
            statements = self.queries(admin_client, TOKENS, **query)
            counts = [sql for sql in statements if re.search(r"(COUNT|SUM|DISTINCT)\b", sql) and "issuedtoken" in sql]
            assert counts, query
            assert all(f"LIMIT {COUNTED}" in sql or f"LIMIT {CHARTED + 1}" in sql for sql in counts), query

    @pytest.mark.parametrize("query", [{}, {"q": "ada"}, {"period": "30d"}, {"status": "revoked"}, {"o": "1"}])
    def test_filtered_list_of_issued_tokens_runs_at_most_one_more_query_for_many_rows(
        self, query, admin_client, user
    ):
        self.fill(2)
        few = self.queries(admin_client, TOKENS, **query)
        self.fill(20)

        # Pagination needs one additional query if the page is full.
        assert len(self.queries(admin_client, TOKENS, **query)) <= len(few) + 1

    def test_list_of_issued_tokens_has_pages_only_for_the_latest_rows_up_to_the_limit(
        self, admin_client, monkeypatch
    ):
        monkeypatch.setattr("instaccess.admin.tokens.pagination.COUNTED", 3)
        self.fill(5)

        text = page(admin_client, TOKENS)

        assert admin_client.get(TOKENS).context["cl"].result_count == 3
        assert "Only the first 3 tokens are listed" in text

    def test_list_of_issued_tokens_does_not_mention_the_limit_if_all_rows_are_counted(self, admin_client):
        self.fill(2)

        assert "are listed" not in page(admin_client, TOKENS)


class TestTimesInTheAdmin:
    def test_pages_of_issued_tokens_show_times_in_utc_if_the_project_has_a_different_time_zone(
        self, user, application, admin_client, settings
    ):
        settings.TIME_ZONE = "Asia/Tokyo"
        issued_at = datetime(2026, 11, 23, 23, 4, 5, tzinfo=UTC)
        token = row(user, application, issued_at=issued_at, expires_at=issued_at + timedelta(minutes=10))

        assert "2026-11-23 23:04:05 UTC" in page(admin_client, url_of("change", token))
        text = page(admin_client, TOKENS)
        assert "Issued (utc)" in text or "Issued (UTC)" in text
        assert self.times(text) == ["2026-11-23 23:04:05", "23:14:05"]

    def test_list_of_issued_tokens_shows_the_date_of_an_expiry_that_differs_from_the_date_of_issue(
        self, admin_client
    ):
        issued_at = datetime(2026, 11, 23, 23, 4, 5, tzinfo=UTC)
        row(issued_at=issued_at, expires_at=issued_at + timedelta(hours=1))

        assert self.times(page(admin_client, TOKENS)) == ["2026-11-23 23:04:05", "2026-11-24 00:04:05"]

    @staticmethod
    def times(text: str) -> list[str]:
        return re.findall(r'<time class="nowrap">([^<]*)</time>', text)


class TestTheColumnsOfIssuedTokens:
    @staticmethod
    def cells(client: Any) -> dict[str, str]:
        """Return the cells of the only row in the list of issued tokens by column, without markup and labels."""
        text = page(client, TOKENS)
        cells = re.findall(r'<t[dh] class="field-(\w+)[^>]*>(.*?)</t[dh]>', text, re.DOTALL)
        values = [re.sub(r'<span class="instaccess-cell-label">[^<]*</span>', "", cell) for _, cell in cells]
        texts = [html.unescape(re.sub(r"<[^>]+>", "", value)).strip() for value in values]
        return dict(zip((name for name, _ in cells), texts, strict=True))

    def test_list_of_issued_tokens_shows_the_user_and_the_application(self, user, application, admin_client):
        row(user, application, ip_address="192.0.2.7")

        cells = self.cells(admin_client)

        assert (cells["user_cell"], cells["actor_cell"]) == ("ada", "-")
        assert cells["client_cell"] == f"LTI tool {application.client_id}"
        assert cells["ip_address"] == "192.0.2.7"

    def test_list_of_issued_tokens_shows_the_actor_and_the_user_as_whom_the_actor_masquerades(
        self, user, application, admin_client
    ):
        grace = get_user_model().objects.create_user("grace")
        row(user, application, real_user=grace, real_user_uuid=users.user_uuid(grace))

        cells = self.cells(admin_client)

        assert (cells["user_cell"], cells["actor_cell"]) == ("ada", "grace")

    def test_list_of_issued_tokens_shows_no_user_name_if_the_foreign_key_does_not_match_the_uuid(
        self, user, application, admin_client
    ):
        # Simulate an attacker who changes the foreign key with SQL. The HMAC of a row doesn't reveal the change,
        # because the HMAC does not cover foreign keys.
        mallory = get_user_model().objects.create_user("mallory")
        users.user_uuid(mallory)
        token = row(user, application)
        IssuedToken.objects.update(user=mallory)

        assert self.cells(admin_client)["user_cell"] == token.user_uuid
        assert "mallory" not in page(admin_client, url_of("change", token))

    def test_list_of_issued_tokens_shows_no_application_name_if_the_foreign_key_does_not_match(
        self, user, application, admin_client
    ):
        token = row(user, application, client_id="the-real-one")

        assert self.cells(admin_client)["client_cell"] == "the-real-one"
        assert "LTI tool" not in page(admin_client, url_of("change", token))

    def test_list_of_issued_tokens_shows_user_names_if_a_field_of_the_user_model_contains_the_uuids(
        self, application, admin_client, settings
    ):
        settings.INSTACCESS = {"USER_UUID_FIELD": "email"}
        user = get_user_model().objects.create_user("ada", email="ada@example.edu")
        row(user, application)

        assert self.cells(admin_client)["user_cell"] == "ada"
