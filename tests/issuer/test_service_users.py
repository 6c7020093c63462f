"""Tests of service users, the users of client credentials grants: their tokens and their admin page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, DELETION, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone
from oauth2_provider.models import get_application_model

from instaccess import users
from instaccess.conf import SCOPE
from instaccess.models import IssuedToken, ServiceUser
from tests.support.answers import INVALID, answer, claims_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

User = get_user_model()
LIST = reverse("admin:instaccess_serviceuser_changelist")
ADD = reverse("admin:instaccess_serviceuser_add")


@pytest.fixture
def robot(db: None) -> Any:
    return User.objects.create_user("robot")


@pytest.fixture
def service_user(application: Any, robot: Any) -> ServiceUser:
    return ServiceUser.objects.create(application=application, user=robot)


@pytest.fixture
def own_token(make_access_token: Callable[..., Any]) -> Any:
    """Return an access token without a user, which is what a client gets with the client credentials grant."""
    return make_access_token(user=None)


class TestAnApplicationWithoutAServiceUser:
    def test_p5_application_without_a_service_user_gets_no_token(self, post, own_token, caplog):
        assert answer(post(own_token)) == INVALID
        assert "reason=no_user" in caplog.text
        assert not IssuedToken.objects.exists()

    def test_p5_application_gets_no_token_through_the_service_user_of_another_application(
        self, post, service_user, make_access_token
    ):
        other = get_application_model().objects.create(
            name="Other", client_type="confidential", authorization_grant_type="client-credentials"
        )

        assert answer(post(make_access_token(user=None, application=other))) == INVALID


class TestAnApplicationWithAServiceUser:
    def test_application_gets_a_token_that_names_its_service_user_and_the_application(
        self, post, own_token, service_user, application, robot
    ):
        response = post(own_token)

        assert response.status_code == 201
        claims = claims_of(response.json()["token"])
        assert claims["sub"] == users.user_uuid(robot)
        assert claims["client_id"] == application.client_id
        assert claims["instructure_service"] is True

    def test_token_of_a_service_user_adds_only_the_two_service_claims(
        self, post, own_token, access_token, service_user
    ):
        service, plain = (claims_of(post(token).json()["token"]) for token in (own_token, access_token))

        assert set(service) - set(plain) == {"client_id", "instructure_service"}

    def test_token_of_a_user_does_not_name_the_service_user_of_the_application(
        self, post, access_token, service_user, user
    ):
        claims = claims_of(post(access_token).json()["token"])

        assert claims["sub"] == users.user_uuid(user)
        assert not {"client_id", "instructure_service"} & set(claims)

    def test_audit_row_of_a_service_user_contains_the_service_user_and_the_application(
        self, post, own_token, service_user, application, robot
    ):
        post(own_token)

        row = IssuedToken.objects.get()
        assert (row.user, row.application, row.client_id) == (robot, application, application.client_id)
        assert (row.real_user, row.access_token_pk) == (None, str(own_token.pk))

    def test_p4_application_gets_no_token_for_an_inactive_service_user(
        self, post, own_token, service_user, robot, caplog
    ):
        User.objects.filter(pk=robot.pk).update(is_active=False)

        assert answer(post(own_token)) == INVALID
        assert "reason=inactive_user" in caplog.text

    def test_application_gets_no_token_after_the_user_bound_to_the_application_was_deleted(
        self, post, own_token, service_user, robot
    ):
        robot.delete()

        assert answer(post(own_token)) == INVALID

    def test_application_gets_no_token_after_its_row_in_the_table_of_service_users_was_deleted(
        self, post, own_token, service_user
    ):
        service_user.delete()

        assert answer(post(own_token)) == INVALID

    def test_application_with_a_service_user_gets_no_token_without_the_scope(
        self, post, make_access_token, service_user
    ):
        response = post(make_access_token(user=None, scope="read"))

        assert response.json() == {"errors": [{"message": "Insufficient scopes on access token."}]}

    def test_application_gets_a_token_with_an_access_token_from_the_token_endpoint(self, client, post, robot):
        secret = "a client's secret"
        application = get_application_model().objects.create(
            name="Nightly job",
            client_type="confidential",
            authorization_grant_type="client-credentials",
            client_secret=secret,
        )
        ServiceUser.objects.create(application=application, user=robot)
        form = {
            "grant_type": "client_credentials",
            "client_id": application.client_id,
            "client_secret": secret,
            "scope": SCOPE,
        }

        granted = client.post(reverse("oauth2_provider:token"), form)
        response = post(granted.json()["access_token"])

        assert claims_of(response.json()["token"])["sub"] == users.user_uuid(robot)

    def test_application_cannot_have_two_service_users(self, service_user, user, application):
        with pytest.raises(IntegrityError), transaction.atomic():
            ServiceUser.objects.create(application=application, user=user)


class TestTheAdminPageOfServiceUsers:
    @pytest.fixture
    def staff(self, client: Any) -> Any:
        """Log in an administrator with all permissions on service users, and return the administrator."""
        administrator = User.objects.create_user("boss", is_staff=True)
        administrator.user_permissions.add(
            *Permission.objects.filter(content_type__app_label="instaccess", codename__endswith="_serviceuser")
        )
        client.force_login(administrator)
        return administrator

    def test_admin_page_binds_an_application_to_a_user(self, client, staff, application, robot, post, own_token):
        response = client.post(ADD, {"application": application.pk, "user": robot.pk})

        assert response.status_code == 302
        service_user = ServiceUser.objects.get()
        assert (service_user.application, service_user.user) == (application, robot)
        assert service_user.created_at <= timezone.now()
        assert post(own_token).status_code == 201

    @pytest.mark.parametrize("more", ["superuser", "permission", "inactive"])
    def test_admin_page_refuses_to_bind_a_user_with_more_permissions_than_the_administrator(
        self, client, staff, application, robot, more
    ):
        if more == "inactive":
            # Django reports no permissions for an inactive user. The page must refuse the user nevertheless, because
            # the user can be activated later.
            robot.user_permissions.add(Permission.objects.get(codename="change_user"))
            User.objects.filter(pk=robot.pk).update(is_active=False)
        elif more == "superuser":
            User.objects.filter(pk=robot.pk).update(is_superuser=True)
        else:
            robot.user_permissions.add(Permission.objects.get(codename="change_user"))

        response = client.post(ADD, {"application": application.pk, "user": robot.pk})

        assert "user" in response.context["adminform"].form.errors
        assert not ServiceUser.objects.exists()

    def test_admin_page_logs_the_administrator_who_added_or_deleted_a_service_user(
        self, client, staff, application, robot
    ):
        client.post(ADD, {"application": application.pk, "user": robot.pk})
        row = ServiceUser.objects.get()
        client.post(reverse("admin:instaccess_serviceuser_delete", args=[row.pk]), {"post": "yes"})

        entries = LogEntry.objects.order_by("pk").values_list("user", "action_flag", "object_repr")
        assert list(entries) == [(staff.pk, ADDITION, str(row)), (staff.pk, DELETION, str(row))]
        assert not ServiceUser.objects.exists()

    def test_admin_page_changes_the_user_that_an_application_is_bound_to(self, client, staff, service_user, user):
        url = reverse("admin:instaccess_serviceuser_change", args=[service_user.pk])

        client.post(url, {"application": service_user.application_id, "user": user.pk})

        assert ServiceUser.objects.get().user == user

    def test_admin_page_reports_an_application_that_has_a_service_user_already(
        self, client, staff, service_user, user
    ):
        response = client.post(ADD, {"application": service_user.application_id, "user": user.pk})

        assert response.status_code == 200
        assert "application" in response.context["adminform"].form.errors
        assert ServiceUser.objects.get() == service_user

    def test_admin_page_lists_service_users_in_a_bounded_number_of_queries(
        self, client, staff, django_assert_max_num_queries
    ):
        for number in range(30):
            ServiceUser.objects.create(
                application=get_application_model().objects.create(name=f"app {number}"),
                user=User.objects.create_user(f"robot {number}"),
            )

        with django_assert_max_num_queries(10):
            text = client.get(LIST).content.decode()

        assert "app 29" in text
        assert "robot 29" in text

    def test_admin_page_does_not_render_a_list_of_all_users(self, client, staff):
        for number in range(5):
            User.objects.create_user(f"student {number}")

        text = client.get(ADD).content.decode()

        assert "student" not in text
        assert "<select" not in text

    def test_a5_admin_page_escapes_the_name_of_an_application(self, client, staff, application, robot):
        ServiceUser.objects.create(application=application, user=robot)
        get_application_model().objects.update(name="<script>alert(1)</script>")

        assert "<script>alert(1)" not in client.get(LIST).content.decode()

    @pytest.mark.parametrize("codename", ["view_serviceuser", "change_user", "view_issuedtoken", None])
    def test_admin_page_refuses_an_administrator_without_the_permission_to_add_service_users(
        self, client, application, robot, codename
    ):
        administrator = User.objects.create_user("curious", is_staff=True)
        if codename:
            administrator.user_permissions.add(Permission.objects.get(codename=codename))
        client.force_login(administrator)

        assert client.post(ADD, {"application": application.pk, "user": robot.pk}).status_code == 403
        assert not ServiceUser.objects.exists()

    def test_admin_page_refuses_a_user_who_is_not_staff(self, client, user):
        user.user_permissions.add(*Permission.objects.filter(codename__endswith="_serviceuser"))
        client.force_login(user)

        assert client.get(LIST).status_code == 302
