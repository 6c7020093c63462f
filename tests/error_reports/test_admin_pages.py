"""Tests that a database failure on any admin page reveals no secret in a report, a mail, a log or a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from instaccess.issuer import issuing
from instaccess.models import IssuedToken, Key, ServiceUser
from tests.error_reports.conftest import PROJECTS

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("deployment")]


def model_admins() -> list[Any]:
    return [found for model, found in admin.site._registry.items() if model._meta.app_label == "instaccess"]


class School:
    """A client that is logged in to the admin, with the rows, the keys and the tokens that the requests contain."""

    def __init__(self, client: Any, pair: Any, row: IssuedToken, service: ServiceUser, tokens: list[str]) -> None:
        self.client, self.pair, self.row, self.service, self.tokens = client, pair, row, service, tokens
        self.pem = pair.export_to_pem(private_key=True, password=None).decode()
        self.key = Key.objects.get(use="sig", status="current")

    def get(self, name: str, *args: Any, **query: Any) -> Any:
        return self.client.get(reverse(f"admin:{name}", args=args), query)

    def post(self, name: str, *args: Any, **data: Any) -> Any:
        return self.client.post(reverse(f"admin:{name}", args=args), data)


CONFIRMED = {"confirmed": "yes"}
REASON = {"confirmed": "yes", "reason": "lost"}
KEY, TOKEN, SERVICE = "instaccess_key", "instaccess_issuedtoken", "instaccess_serviceuser"

# These are the requests to each admin page. The first key is the name of the page's URL, and the second key is a
# label. For an action, the label is the name of the action.
REQUESTS: dict[str, dict[str, Callable[[School], Any]]] = {
    "index": {"get": lambda school: school.get("index")},
    "app_list": {"get": lambda school: school.get("app_list", "instaccess")},
    f"{KEY}_changelist": {
        "get": lambda school: school.get(f"{KEY}_changelist"),
        "filter": lambda school: school.get(f"{KEY}_changelist", status="current"),
        "post": lambda school: school.post(f"{KEY}_changelist"),
    },
    f"{KEY}_add": {"get": lambda school: school.get(f"{KEY}_add")},
    f"{KEY}_change": {
        "get": lambda school: school.get(f"{KEY}_change", school.key.pk),
        "post": lambda school: school.post(f"{KEY}_change", school.key.pk),
    },
    f"{KEY}_delete": {"get": lambda school: school.get(f"{KEY}_delete", school.key.pk)},
    f"{KEY}_history": {"get": lambda school: school.get(f"{KEY}_history", school.key.pk)},
    f"{KEY}_rotate": {
        "get": lambda school: school.get(f"{KEY}_rotate", "sig"),
        "ask": lambda school: school.post(f"{KEY}_rotate", "sig"),
        "sig": lambda school: school.post(
            f"{KEY}_rotate", "sig", **CONFIRMED, force="on", expected_current=school.key.kid
        ),
        "enc": lambda school: school.post(
            f"{KEY}_rotate",
            "enc",
            **CONFIRMED,
            force="on",
            expected_current=Key.objects.get(use="enc", status="current").kid,
        ),
    },
    f"{KEY}_generate": {
        "ask": lambda school: school.post(f"{KEY}_generate"),
        "post": lambda school: school.post(f"{KEY}_generate", **CONFIRMED, use="sig"),
    },
    f"{KEY}_import": {
        "ask": lambda school: school.post(f"{KEY}_import"),
        "text": lambda school: school.post(
            f"{KEY}_import", **CONFIRMED, use="enc", text=school.pem, with_private="on"
        ),
        "file": lambda school: school.post(
            f"{KEY}_import",
            **CONFIRMED,
            use="enc",
            file=SimpleUploadedFile("key.pem", school.pem.encode()),
            with_private="on",
        ),
        "refused": lambda school: school.post(f"{KEY}_import", **CONFIRMED, use="enc", text=school.pem),
        "unconfirmed": lambda school: school.post(f"{KEY}_import", text=school.pem),
        "jwk": lambda school: school.post(
            f"{KEY}_import", **CONFIRMED, use="sig", text=school.pair.export_private(), with_private="on"
        ),
    },
    f"{KEY}_revoke": {
        "ask": lambda school: school.post(f"{KEY}_revoke", school.key.kid),
        "post": lambda school: school.post(f"{KEY}_revoke", school.key.kid, **REASON),
    },
    f"{TOKEN}_changelist": {
        "get": lambda school: school.get(f"{TOKEN}_changelist"),
        "search": lambda school: school.get(f"{TOKEN}_changelist", q="ada"),
        **{
            name: lambda school, name=name: school.post(
                f"{TOKEN}_changelist", action=name, _selected_action=school.row.pk, **REASON
            )
            for name in ("revoke_chosen", "revoke_users", "revoke_applications")
        },
    },
    f"{TOKEN}_add": {"get": lambda school: school.get(f"{TOKEN}_add")},
    f"{TOKEN}_change": {"get": lambda school: school.get(f"{TOKEN}_change", school.row.pk)},
    f"{TOKEN}_delete": {"get": lambda school: school.get(f"{TOKEN}_delete", school.row.pk)},
    f"{TOKEN}_history": {"get": lambda school: school.get(f"{TOKEN}_history", school.row.pk)},
    f"{TOKEN}_export": {"get": lambda school: school.get(f"{TOKEN}_export", "csv")},
    f"{TOKEN}_inspect": {
        "get": lambda school: school.get(f"{TOKEN}_inspect"),
        "encrypted": lambda school: school.post(f"{TOKEN}_inspect", token=school.tokens[0]),
        "signed": lambda school: school.post(f"{TOKEN}_inspect", token=school.tokens[1]),
    },
    f"{SERVICE}_changelist": {
        "get": lambda school: school.get(f"{SERVICE}_changelist"),
        "delete_selected": lambda school: school.post(
            f"{SERVICE}_changelist", action="delete_selected", _selected_action=school.service.pk, post="yes"
        ),
    },
    f"{SERVICE}_add": {
        "get": lambda school: school.get(f"{SERVICE}_add"),
        "post": lambda school: school.post(
            f"{SERVICE}_add", application=school.service.application_id, user=school.service.user_id
        ),
    },
    f"{SERVICE}_search": {
        field: lambda school, field=field: school.get(
            f"{SERVICE}_search", app_label="instaccess", model_name="serviceuser", field_name=field, term="a"
        )
        for field in ("application", "user")
    },
    f"{SERVICE}_change": {"get": lambda school: school.get(f"{SERVICE}_change", school.service.pk)},
    f"{SERVICE}_delete": {
        "get": lambda school: school.get(f"{SERVICE}_delete", school.service.pk),
        "post": lambda school: school.post(f"{SERVICE}_delete", school.service.pk, post="yes"),
    },
    f"{SERVICE}_history": {"get": lambda school: school.get(f"{SERVICE}_history", school.service.pk)},
}


@pytest.fixture
def school(client, superuser, user, application, access_token, rsa_pool, every_secret) -> School:
    origin = issuing.Origin("canvas.example.edu")
    rows = [
        issuing.issue(user=user, origin=origin, application=application, now=time.time(), encrypted=encrypted)
        for encrypted in (True, False)
    ]
    tokens = [token for _, token in rows]
    every_secret.add(access_token.token, *tokens)
    service = ServiceUser.objects.create(application=application, user=user)
    client.force_login(superuser)
    client.raise_request_exception = False
    return School(client, rsa_pool.take(), rows[0][0], service, tokens)


def text_of(response: Any) -> str:
    return b"".join(response).decode() if response.streaming else response.content.decode()


@pytest.mark.parametrize(("name", "label"), [(name, label) for name, each in REQUESTS.items() for label in each])
def test_k14_failure_of_any_sql_statement_of_an_admin_page_reveals_no_secret(name, label, school, find_leaks):
    assert find_leaks(lambda: text_of(REQUESTS[name][label](school))) == []


@pytest.mark.parametrize(("name", "label"), [(f"{KEY}_import", "text"), (f"{TOKEN}_inspect", "encrypted")])
@pytest.mark.parametrize("project", PROJECTS, indirect=True)
def test_k14_failure_of_an_admin_page_reveals_no_posted_secret_with_other_project_settings(
    name, label, project, school, find_leaks
):
    assert find_leaks(lambda: text_of(REQUESTS[name][label](school))) == []


def test_k14_tests_of_error_reports_request_every_admin_page():
    names = {pattern.name for model_admin in model_admins() for pattern in model_admin.get_urls() if pattern.name}

    assert {"index", "app_list", *names} == set(REQUESTS)


def test_k14_tests_of_error_reports_run_every_admin_action(rf, superuser):
    request = rf.get("/")
    request.user = superuser
    for model_admin in model_admins():
        tested = REQUESTS[f"instaccess_{model_admin.opts.model_name}_changelist"]

        assert model_admin.get_actions(request).keys() <= tested.keys()
