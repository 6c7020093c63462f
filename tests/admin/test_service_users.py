"""Tests of the admin page of service users: search boxes, warnings about privileged users, and the last tokens."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from oauth2_provider.models import get_application_model

from instaccess.admin.service_users import ServiceUserAdmin
from instaccess.models import IssuedToken, ServiceUser

pytestmark = pytest.mark.django_db

User, Application = get_user_model(), get_application_model()
LIST = reverse("admin:instaccess_serviceuser_changelist")
ADD = reverse("admin:instaccess_serviceuser_add")
SEARCH = reverse("admin:instaccess_serviceuser_search")
TOKENS = reverse("admin:instaccess_issuedtoken_changelist")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ADMINISTRATION = ("view_serviceuser", "add_serviceuser", "change_serviceuser")
PERMISSION = "permission to change users"
CHECKBOX = "Bind the application to this privileged user"


@pytest.fixture
def robot(db: None) -> Any:
    return User.objects.create_user("robot")


@pytest.fixture
def root_client(client: Any) -> Any:
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def log_in(client: Any) -> Callable[..., Any]:
    """Return a function that logs in a staff user with the given permissions."""

    def make(*codenames: str) -> Any:
        clerk = User.objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(clerk)
        return client

    return make


def page_text(client: Any, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def has_search_box(text: str, field: str) -> bool:
    return re.search(rf'<select name="{field}"[^>]*admin-autocomplete', text) is not None


class TestTheFieldsOfAServiceUser:
    def test_form_of_a_service_user_has_search_boxes_for_a_user_who_may_view_users_and_applications(
        self, root_client
    ):
        text = page_text(root_client, ADD)

        assert has_search_box(text, "application")
        assert has_search_box(text, "user")

    @pytest.mark.parametrize(("field", "text"), [("user", "obo"), ("application", "LTI")])
    def test_search_box_for_a_service_user_finds_rows_by_a_part_of_the_name(
        self, field, text, root_client, robot, application
    ):
        query = {"app_label": "instaccess", "model_name": "serviceuser", "field_name": field, "term": text}
        results = root_client.get(SEARCH, query).json()["results"]

        assert [result["text"] for result in results] == [str(robot if field == "user" else application)]

    def test_a8_search_box_for_a_service_user_refuses_a_user_who_may_not_view_the_rows(self, log_in, robot):
        client = log_in(*ADMINISTRATION)
        query = {"app_label": "instaccess", "model_name": "serviceuser", "field_name": "user", "term": "robot"}

        assert client.get(SEARCH, query).status_code == 403

    def test_form_of_a_service_user_has_a_search_box_only_for_rows_that_the_user_may_view(self, log_in):
        text = page_text(log_in(*ADMINISTRATION, "view_application"), ADD)

        assert has_search_box(text, "application")
        assert not has_search_box(text, "user")
        assert '<input type="text" name="user"' in text

    @pytest.mark.parametrize("missing", ["admin", "search"])
    def test_form_of_a_service_user_asks_for_the_id_of_a_user_if_no_admin_can_search_for_users(
        self, missing, root_client, monkeypatch
    ):
        if missing == "admin":
            monkeypatch.delitem(admin.site._registry, User)
        else:
            monkeypatch.setattr(admin.site._registry[User], "search_fields", ())
        text = page_text(root_client, ADD)

        assert not has_search_box(text, "user")
        assert '<input type="text" name="user"' in text

    def test_system_checks_accept_the_admin_of_service_users_on_a_site_without_other_admins(self):
        assert ServiceUserAdmin(ServiceUser, admin.AdminSite()).check() == []

    def test_form_of_a_service_user_explains_the_fields_application_and_user(self, root_client):
        text = page_text(root_client, ADD)

        assert "requests tokens with the client credentials grant" in text
        assert "The application gets every permission of this user." in text

    def test_page_of_a_service_user_shows_no_confirmation_to_users_who_may_only_view_the_page(
        self, log_in, robot, application
    ):
        row = ServiceUser.objects.create(application=application, user=robot)
        text = page_text(log_in("view_serviceuser"), reverse("admin:instaccess_serviceuser_change", args=[row.pk]))

        assert "robot" in text
        assert CHECKBOX not in text


class TestBindingAPrivilegedUser:
    @pytest.fixture
    def make_privileged(self, robot: Any) -> Callable[[str], Any]:
        """Return a function that gives the user `robot` a privilege, or makes the user inactive."""

        def make(privilege: str) -> Any:
            if privilege == PERMISSION:
                robot.user_permissions.add(Permission.objects.get(codename="change_user"))
            else:
                User.objects.filter(pk=robot.pk).update(**{privilege: privilege != "is_active"})
            return robot

        return make

    @pytest.mark.parametrize(
        ("privilege", "warning"),
        [
            ("is_superuser", "This user is a superuser, so the application gets every permission."),
            ("is_staff", "This user is staff, so services may treat the application as an administrator."),
            ("is_active", "This user is inactive, so the permissions of this user can't be checked."),
            (PERMISSION, "This user has privileged permissions: auth.change_user."),
        ],
    )
    def test_a14_privileged_user_is_bound_only_after_a_warning_and_a_confirmation(
        self, privilege, warning, root_client, make_privileged, application
    ):
        robot = make_privileged(privilege)
        data = {"application": application.pk, "user": robot.pk}
        response = root_client.post(ADD, data)
        text = html.unescape(response.content.decode())

        assert warning in text
        assert f'<input type="checkbox" name="confirmed_user" value="{robot.pk}"' in text
        assert not ServiceUser.objects.exists()

        assert root_client.post(ADD, data | {"confirmed_user": str(robot.pk)}).status_code == 302
        assert ServiceUser.objects.get().user == robot

    def test_a14_confirmation_about_one_user_does_not_confirm_another_user(
        self, root_client, make_privileged, application
    ):
        robot, other = make_privileged("is_staff"), User.objects.create_user("other", is_superuser=True)
        data = {"application": application.pk, "user": other.pk, "confirmed_user": str(robot.pk)}
        text = root_client.post(ADD, data).content.decode()

        assert "This user is a superuser" in text
        [box] = re.findall(r'<input type="checkbox" name="confirmed_user"[^>]*>', text)
        assert f'value="{other.pk}"' in box
        assert "checked" not in box
        assert not ServiceUser.objects.exists()

    def test_user_without_privileges_is_bound_without_a_confirmation(self, root_client, robot, application):
        robot.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "view_key", "add_session"]))

        assert CHECKBOX not in re.sub(r'(?s)<div class="form-row hidden.*?</div>', "", page_text(root_client, ADD))
        root_client.post(ADD, {"application": application.pk, "user": robot.pk})
        assert ServiceUser.objects.get().user == robot

    def test_warning_about_a_privileged_service_user_names_at_most_five_permissions(
        self, root_client, robot, application
    ):
        robot.user_permissions.set(Permission.objects.filter(content_type__app_label="auth"))
        text = root_client.post(ADD, {"application": application.pk, "user": robot.pk}).content.decode()

        [listed] = re.findall(r"privileged permissions: (.*?)\.</li>", text)
        assert listed.count("auth.") == 5
        assert listed.endswith(", …")

    def test_a14_replacing_a_bound_user_with_a_privileged_user_needs_a_confirmation(
        self, root_client, make_privileged, application
    ):
        row = ServiceUser.objects.create(application=application, user=User.objects.create_user("harmless"))
        robot, url = make_privileged("is_staff"), reverse("admin:instaccess_serviceuser_change", args=[row.pk])
        data = {"application": application.pk, "user": robot.pk}

        assert "This user is staff" in root_client.post(url, data).content.decode()
        root_client.post(url, data | {"confirmed_user": str(robot.pk)})

        row.refresh_from_db()
        assert row.user == robot
        assert CHECKBOX in LogEntry.objects.get().get_change_message()

    def test_saving_a_bound_privileged_user_without_a_change_needs_no_confirmation(
        self, root_client, make_privileged, application
    ):
        row = ServiceUser.objects.create(application=application, user=make_privileged("is_staff"))
        url = reverse("admin:instaccess_serviceuser_change", args=[row.pk])

        assert root_client.post(url, {"application": application.pk, "user": row.user_id}).status_code == 302


class TestTheListOfServiceUsers:
    @pytest.fixture
    def bind(self) -> Callable[[str], Any]:
        """Return a function that creates an application with a service user."""

        def make(name: str) -> Any:
            application = Application.objects.create(name=name, client_id=f"id of {name}")
            ServiceUser.objects.create(
                application=application, user=User.objects.create_user(f"user of {name}"), created_at=NOW
            )
            return application

        return make

    @staticmethod
    def issue(application: Any, at: datetime) -> None:
        IssuedToken.objects.create(
            jti=uuid.uuid4(),
            application=application,
            client_id=application.client_id,
            issued_at=at,
            expires_at=at + timedelta(hours=1),
        )

    @pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
    def test_times_of_service_users_are_in_utc(self, zone, root_client, bind, settings):
        settings.TIME_ZONE = zone
        self.issue(bind("alpha"), NOW - timedelta(hours=1))
        row = ServiceUser.objects.get()

        text = page_text(root_client, LIST)
        assert '<time class="nowrap">2026-11-23 12:00:00 UTC</time>' in text
        assert '<time class="nowrap">2026-11-23 11:00:00 UTC</time>' in text
        assert "2026-11-23 12:00:00 UTC" in page_text(
            root_client, reverse("admin:instaccess_serviceuser_change", args=[row.pk])
        )

    def test_list_of_service_users_links_the_time_of_the_last_token_to_the_tokens_of_the_application(
        self, root_client, bind
    ):
        alpha, beta = bind("alpha"), bind("beta & co")
        for application, hours in (alpha, 3), (alpha, 2), (beta, 1):
            self.issue(application, NOW - timedelta(hours=hours))
        text = page_text(root_client, LIST)

        links = re.findall(r'<a href="([^"]*client_id=[^"]*)"><time class="nowrap">([^<]+)<', text)
        assert [time for _, time in links] == ["2026-11-23 11:00:00 UTC", "2026-11-23 10:00:00 UTC"]
        tokens = root_client.get(links[0][0]).context["cl"].result_list
        assert {token.client_id for token in tokens} == {"id of beta & co"}

    def test_list_of_service_users_shows_a_dash_for_an_application_without_tokens(self, root_client, bind):
        bind("alpha")

        assert (
            '<td class="field-last_token"><span class="instaccess-cell-label">last token</span> -</td>'
            in page_text(root_client, LIST)
        )

    def test_list_of_service_users_shows_no_tokens_to_users_who_may_not_view_tokens(self, log_in, bind):
        self.issue(bind("alpha"), NOW - timedelta(hours=1))
        client = log_in("view_serviceuser")
        with CaptureQueriesContext(connection) as captured:
            text = page_text(client, LIST)

        assert "2026-11-23 11:00:00 UTC" not in text
        assert TOKENS not in text
        assert not [query for query in captured.captured_queries if "instaccess_issuedtoken" in query["sql"]]

    def test_list_of_service_users_runs_one_query_on_the_audit_log_for_any_number_of_service_users(
        self, root_client, bind
    ):
        counts = []
        for number in range(30):
            self.issue(bind(f"app {number}"), NOW)
            if number in (0, 29):
                with CaptureQueriesContext(connection) as captured:
                    root_client.get(LIST)
                counts.append(len(captured))
        queries = [query["sql"] for query in captured.captured_queries if "instaccess_issuedtoken" in query["sql"]]

        assert counts[0] == counts[1]
        [query] = queries
        # The query contains a subquery for each of the 20 applications on the page. Each subquery has a limit. The
        # whole query has a limit too.
        assert query.count("LIMIT 1") == 21

    @pytest.mark.postgresql
    def test_postgresql_uses_an_index_to_find_the_last_token_of_an_application_without_recent_tokens(
        self, root_client, bind
    ):
        old, recent = bind("old"), bind("recent")
        IssuedToken.objects.bulk_create(
            IssuedToken(
                jti=uuid.uuid4(),
                client_id=application.client_id,
                issued_at=NOW + timedelta(minutes=number),
                expires_at=NOW + timedelta(minutes=number + 60),
            )
            for number, application in enumerate([old] * 1000 + [recent] * 1000)
        )
        with CaptureQueriesContext(connection) as captured:
            root_client.get(LIST)
        [query] = [each["sql"] for each in captured.captured_queries if "instaccess_issuedtoken" in each["sql"]]
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE instaccess_issuedtoken")
            cursor.execute("EXPLAIN " + query.replace("%", "%%"))
            plan = "\n".join(line for (line,) in cursor.fetchall())

        assert plan.count("Backward using instaccess_client_issued") == 2, plan
