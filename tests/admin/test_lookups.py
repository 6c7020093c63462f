"""Tests of the URLs of admin lists: a URL can use only the filters, orders and references that the list offers."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from oauth2_provider.models import get_application_model

from instaccess.models import IssuedToken, Key, ServiceUser

pytestmark = pytest.mark.django_db

# Read the admins from the registry, so that these tests also cover admins that this app adds later.
MODELS = [model for model, page in admin.site._registry.items() if type(page).__module__.startswith("instaccess.")]
OFFERED = {
    Key: {"use__exact", "status__exact"},
    IssuedToken: {"status", "period", "since", "until", "masquerading", "client_id", "account_uuid"},
    ServiceUser: set(),
}
MARKER = "4242424242"
"""The value of every lookup in this file. The value is valid for columns of every type and occurs in no other SQL."""


def list_of(model: type[models.Model]) -> str:
    return reverse(f"admin:instaccess_{model._meta.model_name}_changelist")


def columns() -> list[tuple[type[models.Model], str]]:
    """Return pairs: a model of the app, and the lookup of a column of the model or of a related model."""
    pairs = []
    for model in MODELS:
        for field in model._meta.get_fields():
            pairs.append((model, field.name))
            if field.many_to_one or field.one_to_one:
                pairs += [(model, f"{field.name}__{other.name}") for other in field.related_model._meta.fields]
        pairs.append((model, "pk"))
    return pairs


@pytest.fixture
def viewer(client: Any) -> Callable[..., Any]:
    """Return a function that logs in a staff user who may only view rows of the given model."""

    def log_in(model: type[models.Model]) -> Any:
        clerk = get_user_model().objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename=f"view_{model._meta.model_name}"))
        client.force_login(clerk)
        return client

    return log_in


@pytest.fixture
def rows(initial_keys: Any, row: Any, application: Any, user: Any) -> None:
    """Create rows of every model, with two accounts and applications, because lists hide filters with one value."""
    row()
    row(account_uuid="college")
    get_application_model().objects.create(name="Other", client_id="other")
    ServiceUser.objects.create(application=application, user=user)


def test_offered_filters_of_every_admin_of_this_app_are_listed_in_this_file():
    assert set(MODELS) == set(OFFERED)


class TestAFilterThatNoAdminListOffers:
    @pytest.mark.parametrize("lookup", ["", "exact", "gte", "startswith", "regex", "in", "isnull", "year__gte"])
    def test_a8_admin_list_refuses_every_lookup_that_the_list_does_not_offer_on_every_column(
        self, lookup, rows, viewer
    ):
        for model in MODELS:
            client = viewer(model)
            for owner, column in columns():
                name = f"{column}__{lookup}" if lookup else column
                if owner is model and name not in OFFERED[model]:
                    assert client.get(list_of(model), {name: MARKER}).status_code == 400, (model, name)
            client.logout()
            get_user_model().objects.filter(username="clerk").delete()

    @pytest.mark.parametrize(
        ("model", "query"),
        [
            (Key, {"sealed_private_jwk__gte": MARKER}),
            (Key, {"sealed_private_jwk__gte": MARKER, "_popup": "1"}),
            (Key, {"sealed_private_jwk__gte": MARKER, "use__exact": "sig", "p": "1", "all": ""}),
            (IssuedToken, {"user_agent__regex": f"^({MARKER}+)+$"}),
            (IssuedToken, {"user__password__startswith": MARKER}),
            (IssuedToken, {"client_id__startswith": MARKER}),
            (ServiceUser, {"application__client_secret__startswith": MARKER}),
        ],
    )
    def test_a8_value_of_a_refused_filter_is_in_no_sql_statement_and_no_log(self, model, query, rows, viewer, caplog):
        client = viewer(model)
        with CaptureQueriesContext(connection) as captured:
            response = client.get(list_of(model), query)

        assert response.status_code == 400
        assert not [item["sql"] for item in captured.captured_queries if MARKER in item["sql"]]
        [record] = [
            record for record in caplog.records if record.name == "django.security.DisallowedModelAdminLookup"
        ]
        assert MARKER not in record.getMessage()
        assert next(iter(query)) in record.getMessage()

    def test_a8_admin_list_refuses_an_unknown_parameter(self, viewer):
        assert viewer(Key).get(list_of(Key), {"no_such_column": "1"}).status_code == 400

    @pytest.mark.parametrize("page", ["export/csv/", "export/jsonl/"])
    def test_a8_admin_export_refuses_a_filter_that_the_admin_list_does_not_offer(self, page, rows, viewer):
        response = viewer(IssuedToken).get(list_of(IssuedToken) + page, {"user_agent__regex": MARKER})

        assert response.status_code == 400

    def test_a8_admin_action_refuses_a_filter_that_the_admin_list_does_not_offer(self, rows, client):
        client.force_login(get_user_model().objects.create_superuser("root"))
        form = {
            "action": "revoke_chosen",
            "select_across": "1",
            "_selected_action": "1",
            "reason": "x",
            "confirmed": "yes",
        }

        response = client.post(
            f"{list_of(IssuedToken)}?user_agent__regex={MARKER}", form | {"reason": "x", "confirmed": "yes"}
        )

        assert response.status_code == 400
        assert not IssuedToken.objects.exclude(revoked_at=None).exists()


class TestTheFiltersAndColumnsOfAdminLists:
    @pytest.mark.parametrize("model", MODELS)
    def test_every_filter_and_ordering_link_of_an_admin_list_opens_a_page(self, model, rows, viewer):
        client = viewer(model)
        text = client.get(list_of(model)).content.decode()
        links = {html.unescape(link) for link in re.findall(r'href="(\?[^"#]+)"', text)}

        assert OFFERED[model] <= {name for link in links for name in re.findall(r"[?&](\w+)=", link)}
        for link in links:
            assert client.get(list_of(model) + link).status_code == 200, link

    @pytest.mark.parametrize("model", MODELS)
    def test_a8_admin_list_can_be_ordered_only_by_columns_that_the_list_shows(self, model, rows, viewer):
        client = viewer(model)
        sortable = {
            *admin.site._registry[model].list_display,
            "issued_at",
            "activated_at",
            "retired_at",
            "created_at",
        }
        sortable |= {"id", "pk"}

        for number in range(-30, 30):
            ordering = client.get(list_of(model), {"o": str(number)}).context["cl"].queryset.query.order_by
            assert {str(name).lstrip("-") for name in ordering} <= sortable, number

    @pytest.mark.parametrize("model", MODELS)
    def test_a8_admin_popup_can_refer_to_a_row_only_by_its_primary_key(self, model, rows, viewer):
        client = viewer(model)

        for field in model._meta.get_fields():
            allowed = getattr(field, "primary_key", False)
            response = client.get(list_of(model), {"_popup": "1", "_to_field": field.name})
            assert response.status_code == (200 if allowed else 400), field.name

    @pytest.mark.parametrize("model", MODELS)
    def test_a8_autocomplete_view_refuses_a_staff_user_who_may_only_view_rows(self, model, rows, viewer):
        client = viewer(model)

        for field in model._meta.get_fields():
            query = {"app_label": "instaccess", "model_name": model._meta.model_name, "field_name": field.name}
            assert client.get(reverse("admin:autocomplete"), query | {"term": "a"}).status_code == 403, field.name


class TestTheListsOfOtherApps:
    """Tests that Django refuses lookups across a relation that the list of another app does not offer.

    Django allows a comparison with the primary key of a row. The list of another app can therefore reveal only
    whether a user or an application has a row in this app.
    """

    @pytest.mark.parametrize("model", [get_user_model(), get_application_model()])
    def test_a8_admin_list_of_another_app_refuses_lookups_on_columns_of_this_app(self, model, rows, viewer):
        client = viewer(model)
        address = reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_changelist")
        relations = [field for field in model._meta.get_fields(include_hidden=True) if field.related_model]
        ours = [relation for relation in relations if relation.related_model._meta.app_label == "instaccess"]
        assert ours

        for relation in ours:
            for column in relation.related_model._meta.fields:
                if column.primary_key:
                    continue
                query = {f"{relation.name}__{column.name}__gte": MARKER}
                with CaptureQueriesContext(connection) as captured:
                    response = client.get(address, query)
                # Several hidden relations have the name "+", and Django finds only one of these relations. Django
                # therefore redirects a lookup on a column of another hidden relation.
                assert response.status_code == 400 or response.url.endswith("?e=1"), query
                assert not [item["sql"] for item in captured.captured_queries if MARKER in item["sql"]], query
