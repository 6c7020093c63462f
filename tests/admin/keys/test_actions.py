"""Tests of the buttons that change keys in the admin: permissions, confirmation pages, changes and log entries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from instaccess.keys import lifecycle
from instaccess.models import Key
from instaccess.trust import material
from tests.admin.keys.helpers import (
    ENC,
    GENERATE,
    IMPORT,
    LIST,
    SIG,
    START,
    key_of,
    logged,
    messages_of,
    page_text,
    revoke_url,
    rows,
)
from tests.support import key_texts

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _stopped_clock(clock: Any) -> None:
    """Stop the clock at `START`."""


ROTATE, ROTATE_ENC = (reverse("admin:instaccess_key_rotate", args=[use]) for use in ("sig", "enc"))
ACTS = ("rotate", "generate", "import", "revoke")


@pytest.fixture
def confirmed_request(rsa_pool: Any) -> Callable[[str], tuple[str, dict[str, str]]]:
    """Return a function that returns the URL and the form data with which a user confirms an action."""

    def request(act: str) -> tuple[str, dict[str, str]]:
        current, public = key_of(SIG, "current").kid, rsa_pool.take().export_public()
        return {
            "rotate": (ROTATE, {"confirmed": "yes", "expected_current": current, "force": "on"}),
            "generate": (GENERATE, {"confirmed": "yes", "use": "sig"}),
            "import": (IMPORT, {"confirmed": "yes", "use": "enc", "text": public}),
            "revoke": (revoke_url(current), {"confirmed": "yes", "reason": "laptop stolen"}),
        }[act]

    return request


@pytest.mark.usefixtures("initial_keys")
class TestThePermissionToChangeKeys:
    @pytest.mark.parametrize("act", ACTS)
    def test_a2_key_action_refuses_get_head_put_and_delete_requests(self, act, operator_client, confirmed_request):
        url, data = confirmed_request(act)
        before = rows()
        for method in (operator_client.get, operator_client.head, operator_client.put, operator_client.delete):
            response = method(url, data) if method == operator_client.get else method(url)
            assert response.status_code == 405
            assert response["Allow"] == "POST"
        assert "list of keys" in operator_client.get(url).content.decode()
        assert rows() == before

    @pytest.mark.parametrize("act", ACTS)
    def test_a2_key_action_refuses_a_request_without_csrf_token(self, act, operator, confirmed_request):
        client = Client(enforce_csrf_checks=True)
        client.force_login(operator)
        url, data = confirmed_request(act)
        before = rows()

        assert client.post(url, data).status_code == 403
        assert rows() == before
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("act", ACTS)
    def test_key_action_with_a_csrf_token_changes_the_keys(self, act, operator, confirmed_request):
        client = Client(enforce_csrf_checks=True)
        client.force_login(operator)
        url, data = confirmed_request(act)
        before = rows()
        client.get(LIST)
        data["csrfmiddlewaretoken"] = client.cookies["csrftoken"].value

        assert client.post(url, data).status_code == 302
        assert rows() != before

    @pytest.mark.parametrize("act", ACTS)
    @pytest.mark.parametrize("permissions", [[], ["view_key"], ["view_key", "view_issuedtoken", "change_user"]])
    def test_a2_key_action_refuses_users_without_the_permission_to_manage_keys(
        self, act, permissions, client, make_operator, confirmed_request
    ):
        client.force_login(make_operator(*permissions))
        url, data = confirmed_request(act)
        before = rows()

        assert client.post(url, data).status_code == 403
        assert client.post(url).status_code == 403
        assert rows() == before

    @pytest.mark.parametrize("act", ACTS)
    def test_a2_key_action_redirects_users_who_are_not_staff_to_the_login_page(
        self, act, client, user, confirmed_request
    ):
        url, data = confirmed_request(act)
        before = rows()
        for visitor in (None, user):
            if visitor is not None:
                visitor.user_permissions.set(Permission.objects.filter(codename__in=["view_key", "manage_keys"]))
                client.force_login(visitor)
            response = client.post(url, data)
            assert response.status_code == 302
            assert response.url.startswith("/admin/login/")
        assert rows() == before


@pytest.mark.usefixtures("initial_keys")
class TestTheButtonsOfTheKeyPage:
    def test_key_pages_show_buttons_to_users_who_may_manage_keys(self, operator_client):
        page = page_text(operator_client.get(LIST))
        kid = key_of(SIG, "current")
        key_page = page_text(operator_client.get(reverse("admin:instaccess_key_change", args=[kid.pk])))

        for url in (ROTATE, ROTATE_ENC, GENERATE, IMPORT):
            assert f'<form method="post" action="{url}">' in page
        assert f'<form method="post" action="{revoke_url(kid.kid)}">' in key_page

    def test_key_pages_show_no_buttons_to_users_who_may_only_view_keys(self, client, make_operator):
        client.force_login(make_operator("view_key"))
        page = page_text(client.get(LIST)) + page_text(
            client.get(reverse("admin:instaccess_key_change", args=[key_of(SIG, "current").pk]))
        )

        for url in (ROTATE, ROTATE_ENC, GENERATE, IMPORT, revoke_url(key_of(SIG, "current").kid)):
            assert url not in page

    def test_page_of_a_revoked_key_shows_no_revoke_button(self, operator_client):
        key = lifecycle.revoke(key_of(SIG, "current").kid).key
        page = page_text(operator_client.get(reverse("admin:instaccess_key_change", args=[key.pk])))

        assert revoke_url(key.kid) not in page

    @pytest.mark.parametrize("act", ACTS)
    def test_button_on_the_key_page_opens_a_confirmation_page_and_changes_no_key(
        self, act, operator_client, confirmed_request
    ):
        url, _ = confirmed_request(act)
        before = rows()

        assert "What will happen" in page_text(operator_client.post(url))
        assert rows() == before
        assert not LogEntry.objects.exists()


@pytest.mark.usefixtures("initial_keys")
class TestRotate:
    def test_rotation_page_names_the_retiring_key_the_next_key_and_the_number_of_live_tokens(
        self, operator_client, issue
    ):
        issue()
        issue()
        page = page_text(operator_client.post(ROTATE))

        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        assert f"Key {current} retires. Its 2 live tokens stay valid until they expire." in page
        assert f"Key {future} becomes current." in page

    def test_rotation_page_warns_that_rotation_is_not_due_and_that_services_may_lack_the_next_key(
        self, operator_client
    ):
        page = page_text(operator_client.post(ROTATE))

        assert "Rotation is not due before 2026-12-23 12:00:00 UTC." in page
        assert "Services may refuse new tokens until 2026-11-23 12:05:03 UTC" in page
        assert "Rotate the key before rotation is due" in page

    def test_k2_rotation_that_is_not_due_is_refused_if_the_additional_checkbox_is_cleared(self, operator_client):
        before = rows()
        data = {"confirmed": "yes", "expected_current": key_of(SIG, "current").kid}

        assert "This field is required." in page_text(operator_client.post(ROTATE, data))
        assert rows() == before

    def test_rotation_that_is_due_needs_no_additional_checkbox(self, operator_client, clock):
        clock.shift(timedelta(days=30))
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        assert "Rotate although" not in page_text(operator_client.post(ROTATE))
        response = operator_client.post(ROTATE, {"confirmed": "yes", "expected_current": current})

        assert messages_of(response) == [f"Key {future} is now current."]
        assert (key_of(SIG, "current").kid, key_of(SIG, "past").kid) == (future, current)

    @pytest.mark.parametrize("days", [0, 30])
    def test_a7_double_click_on_the_rotation_page_rotates_the_keys_once(self, days, operator_client, clock):
        clock.shift(timedelta(days=days))
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        data = {"confirmed": "yes", "expected_current": key_of(SIG, "current").kid, "force": "on"}
        operator_client.post(ROTATE, data)
        after_one, entries = rows(), len(logged())
        second = operator_client.post(ROTATE, data)

        assert (
            "Nothing was changed, because the key was already rotated: by another user, by the command "
            "`instaccess_keys rotate`, or by a double click." in messages_of(second)
        )
        assert rows() == after_one
        assert len(logged()) == entries

    def test_rotation_adds_a_log_entry_with_user_and_time_for_each_changed_key(self, operator_client):
        current, future = key_of(SIG, "current"), key_of(SIG, "future")
        operator_client.post(ROTATE, {"confirmed": "yes", "expected_current": current.kid, "force": "on"})
        made = key_of(SIG, "future")

        assert logged() == [
            ("grace", str(current.pk), CHANGE, "Rotated the sig keys: this key is now past."),
            ("grace", str(future.pk), CHANGE, "Rotated the sig keys: this key is now current."),
            ("grace", str(made.pk), CHANGE, "Rotated the sig keys: this key is now future."),
        ]
        assert {entry.action_time for entry in LogEntry.objects.all()} == {START}

    def test_rotation_page_warns_that_a_new_key_becomes_current_immediately_if_there_is_no_future_key(
        self, operator_client
    ):
        page = page_text(operator_client.post(ROTATE_ENC))

        assert "A new key is generated and becomes current immediately" in page
        current = key_of(ENC, "current").kid
        operator_client.post(ROTATE_ENC, {"confirmed": "yes", "expected_current": current, "force": "on"})
        assert key_of(ENC, "past").kid == current

    def test_k8_message_of_a_refused_rotation_names_instaccess_init_if_there_is_no_current_key(self, operator_client):
        Key.objects.filter(use=SIG, status="current").delete()

        assert "instaccess_init" in messages_of(operator_client.post(ROTATE))[0]

    def test_rotation_of_keys_with_an_unknown_use_is_refused(self, operator_client):
        url = reverse("admin:instaccess_key_rotate", args=["other"])

        assert messages_of(operator_client.post(url)) == [
            "Unknown key use in the URL. The key use must be `sig` or `enc`."
        ]

    def test_rotation_of_an_external_key_is_refused_and_the_message_asks_for_the_next_public_key(
        self, operator_client, rsa_pool
    ):
        Key.objects.filter(use=ENC).delete()
        kid = lifecycle.activate(key_texts.import_key(rsa_pool.take().export_public(), use=ENC).kid).kid
        response = operator_client.post(ROTATE_ENC, {"confirmed": "yes", "expected_current": kid, "force": "on"})

        assert "import the next public key" in messages_of(response)[0]


@pytest.mark.usefixtures("initial_keys")
class TestGenerate:
    @pytest.mark.parametrize("use", ["sig", "enc"])
    def test_generation_of_a_key_stores_a_future_key_and_adds_a_log_entry(self, use, operator_client):
        before = set(Key.objects.values_list("pk", flat=True))
        response = operator_client.post(GENERATE, {"confirmed": "yes", "use": use})
        key = Key.objects.exclude(pk__in=before).get()

        assert messages_of(response) == [f"Key {key.kid} was generated."]
        assert (key.use, key.status) == (use, "future")
        assert logged() == [("grace", str(key.pk), ADDITION, "Generated.")]

    def test_generation_page_explains_that_live_tokens_are_not_affected(self, operator_client):
        assert "Live tokens are not affected." in page_text(operator_client.post(GENERATE))

    def test_generation_of_a_key_with_an_unknown_use_is_refused(self, operator_client):
        before = rows()
        page = page_text(operator_client.post(GENERATE, {"confirmed": "yes", "use": "other"}))

        assert "other is not one of the available choices" in page
        assert rows() == before


@pytest.mark.usefixtures("initial_keys")
class TestRevoke:
    def test_revocation_page_of_a_key_counts_live_tokens_and_warns_that_a_revocation_is_final(
        self, operator_client, issue
    ):
        for _ in range(3):
            issue()
        page = page_text(operator_client.post(revoke_url(key_of(SIG, "current").kid)))

        assert "Gateways refuse all live tokens of this key (3) within five seconds." in page
        assert "You can't undo a revocation." in page
        assert f"Key {key_of(SIG, 'future').kid} becomes current." in page

    def test_revocation_page_of_a_signing_key_names_services_that_accept_its_tokens_for_some_time(
        self, operator_client
    ):
        pages = {use: page_text(operator_client.post(revoke_url(key_of(use, "current").kid))) for use in (SIG, ENC)}

        assert (
            "Services in other deployments that read the JWKS accept tokens of this key for up to JWKS_MAX_AGE (300 "
            "seconds by default). Restart these services, or put these services behind a gateway."
        ) in pages[SIG]
        assert "Services in other deployments" not in pages[ENC]

    def test_revocation_page_of_a_key_announces_a_new_key_if_there_is_no_future_key(self, operator_client):
        key_of(SIG, "future").delete()

        assert "A new key is generated and becomes current." in page_text(
            operator_client.post(revoke_url(key_of(SIG, "current").kid))
        )

    def test_revocation_of_an_external_key_warns_that_no_key_becomes_current(self, operator_client, rsa_pool):
        lifecycle.rotate(ENC)
        public = material.to_text(rsa_pool.take(), file_format="pem")
        kid = lifecycle.activate(key_texts.import_key(public, use=ENC).kid).kid
        rotating = operator_client.post(ROTATE_ENC)

        assert messages_of(rotating) == [
            "The private key of the current key is not stored here. Import the next public key from the owner of "
            "the private key."
        ]
        assert "there is no current encryption key" in page_text(operator_client.post(revoke_url(kid)))
        done = operator_client.post(revoke_url(kid), {"confirmed": "yes", "reason": "lost"})
        assert [text.partition(" (")[0].partition(",")[0] for text in messages_of(done)] == [
            "No tokens can be issued while there is no current encryption key. Import or generate a key",
            f"Key {kid} and its live tokens",
        ]

    def test_revocation_page_of_a_future_key_announces_no_new_current_key(self, operator_client):
        page = page_text(operator_client.post(revoke_url(key_of(SIG, "future").kid)))

        assert "live tokens of this key (0)" in page
        assert "becomes current" not in page

    def test_revocation_of_a_key_revokes_its_tokens_and_records_reason_and_user(
        self, operator_client, operator, issue
    ):
        row = issue()
        current, future = key_of(SIG, "current"), key_of(SIG, "future")
        response = operator_client.post(revoke_url(current.kid), {"confirmed": "yes", "reason": "laptop <stolen>"})
        row.refresh_from_db()

        assert messages_of(response) == [f"Key {current.kid} and its live tokens (1) were revoked."]
        assert (row.revoked_at, row.revoked_by) == (START, operator.username)
        assert row.revocation_reason == "laptop <stolen>"
        assert key_of(SIG, "current") == future
        assert logged() == [
            ("grace", str(current.pk), CHANGE, "Revoked. Live tokens of the key: 1. Reason: laptop <stolen>"),
            ("grace", str(future.pk), CHANGE, f"This key is now current, because key {current.kid} was revoked."),
            (
                "grace",
                str(key_of(SIG, "future").pk),
                CHANGE,
                f"This key is now future, because key {current.kid} was revoked.",
            ),
        ]

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 256])
    def test_revocation_of_a_key_is_refused_if_the_reason_is_empty_or_too_long(self, reason, operator_client):
        before = rows()
        page = page_text(
            operator_client.post(revoke_url(key_of(SIG, "current").kid), {"confirmed": "yes", "reason": reason})
        )

        assert "errorlist" in page
        assert rows() == before

    def test_a7_double_click_on_the_revocation_page_revokes_only_one_key(self, operator_client, confirmed_request):
        url, data = confirmed_request("revoke")
        operator_client.post(url, data)
        after_one, entries = rows(), len(logged())
        second = operator_client.post(url, data)

        assert "is already revoked" in messages_of(second)[-1]
        assert rows() == after_one
        assert len(logged()) == entries

    @pytest.mark.parametrize("kid", ["unknown-kid", "x", "%00", "<b>bold", "a" * 1000])
    def test_revocation_of_an_unknown_key_redirects_to_the_list_of_keys_with_a_message(self, kid, operator_client):
        response = operator_client.post(revoke_url(kid), {"confirmed": "yes", "reason": "why"})

        assert "there is no key" in messages_of(response)[0]
        assert "<b>bold" not in operator_client.get(LIST).content.decode()
