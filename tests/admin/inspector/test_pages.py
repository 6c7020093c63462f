"""Tests of the inspector page: permissions, requests, results, and places that must not contain the pasted token."""

from __future__ import annotations

import html
import json
import logging
import re
import time
from io import StringIO
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from oauth2_provider.models import get_application_model

from instaccess import audit, trust
from instaccess.admin.inspector.verdict import MAX_PASTED
from instaccess.audit import revocation, rows
from instaccess.gateway import unwrapping as gateway
from instaccess.gateway import views
from instaccess.issuer import issuing
from instaccess.keys import keks_for_revocation
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, Key, RefusalCount
from instaccess.trust import denylist
from tests.support.answers import signed_inside
from tests.support.mailing import mailed
from tests.support.tokens import TokenFactory, b64, claims

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

INSPECT = reverse("admin:instaccess_issuedtoken_inspect")
TOKENS = reverse("admin:instaccess_issuedtoken_changelist")
ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")


@pytest.fixture
def token(user, application) -> str:
    return issuing.issue(user=user, application=application, origin=ORIGIN, now=time.time())[1]


@pytest.fixture
def signed_in(db):
    """Return a function that creates a staff user with the given permissions and returns a logged-in client."""

    def signed_in_(*codenames: str, **client: Any) -> Client:
        staff = get_user_model().objects.create_user(f"staff{len(codenames)}", is_staff=True)
        staff.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        browser = Client(**client)
        browser.force_login(staff)
        return browser

    return signed_in_


@pytest.fixture
def staff_client(signed_in) -> Client:
    """Return the client of a staff user who may inspect tokens, view the audit log and view keys."""
    return signed_in("inspect_tokens", "view_issuedtoken", "view_key")


def inspected(client: Client, text: str) -> str:
    response = client.post(INSPECT, {"token": text})
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def main_part(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text[text.index('id="content-start"') :]))


def parts(token: str) -> list[str]:
    """Return the sensitive segments of a token and of the signed token inside, without the headers."""
    return [part for part in [*token.split(".")[1:], *signed_inside(token).split(".")[1:]] if len(part) > 20]


class TestWhoMayInspect:
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_inspector_page_refuses_users_without_the_inspect_permission(self, signed_in, token, method):
        for codenames in ([], ["view_issuedtoken", "revoke_tokens", "view_key", "manage_keys"]):
            assert getattr(signed_in(*codenames), method)(INSPECT, {}).status_code == 403

    def test_inspector_page_answers_200_to_superusers(self, admin_client):
        assert admin_client.get(INSPECT).status_code == 200

    def test_inspector_page_redirects_anonymous_users_to_the_login_page(self, client, token):
        response = client.post(INSPECT, {"token": token})

        assert response.status_code == 302
        assert response["Location"] == f"/admin/login/?next={INSPECT}"

    def test_inspector_page_redirects_users_who_are_not_staff(self, client, user):
        user.user_permissions.add(Permission.objects.get(codename="inspect_tokens"))
        client.force_login(user)

        assert client.get(INSPECT).status_code == 302

    def test_admin_index_links_users_with_only_the_inspect_permission_to_the_inspector(self, signed_in):
        browser = signed_in("inspect_tokens")

        assert f'href="{TOKENS}"' in browser.get(reverse("admin:index")).content.decode()
        assert browser.get(TOKENS)["Location"] == INSPECT
        assert browser.get(INSPECT).status_code == 200

    def test_inspector_page_shows_users_without_view_permissions_no_links_to_rows_or_keys(self, signed_in, token):
        browser, row = signed_in("inspect_tokens"), IssuedToken.objects.get()

        assert browser.get(reverse("admin:instaccess_issuedtoken_change", args=[row.pk])).status_code == 403
        text = inspected(browser, token)
        assert str(row.jti) in text
        assert reverse("admin:instaccess_issuedtoken_change", args=[row.pk]) not in text
        assert "/admin/instaccess/key/" not in text

    def test_inspector_page_shows_users_with_view_permissions_links_to_the_row_and_the_keys(
        self, staff_client, token
    ):
        text, row = inspected(staff_client, token), IssuedToken.objects.get()

        assert reverse("admin:instaccess_issuedtoken_change", args=[row.pk]) in text
        for key in Key.objects.filter(status="current"):
            assert reverse("admin:instaccess_key_change", args=[key.pk]) in text

    def test_list_of_issued_tokens_answers_200_to_users_without_the_inspect_permission(self, signed_in):
        assert signed_in("view_issuedtoken").get(TOKENS).status_code == 200

    def test_list_of_issued_tokens_refuses_staff_without_permissions(self, signed_in):
        assert signed_in().get(TOKENS).status_code == 403


class TestTheRequestForAnInspection:
    def test_inspector_page_shows_an_empty_form_for_a_get_request(self, staff_client):
        text = staff_client.get(INSPECT).content.decode()

        assert re.search(r'<textarea name="token"[^>]*></textarea>', re.sub(r"\s+", " ", text).replace("> <", "><"))
        assert "verdict" not in text

    def test_inspector_form_disables_autocomplete_and_has_a_label_and_a_help_text(self, staff_client):
        area = re.search(r"<textarea[^>]*>", staff_client.get(INSPECT).content.decode())[0]

        for attribute in (
            'autocomplete="off"',
            'spellcheck="false"',
            'aria-describedby="id_token_helptext"',
            'id="id_token"',
        ):
            assert attribute in area
        assert "maxlength" not in area
        assert '<label for="id_token">' in staff_client.get(INSPECT).content.decode()

    @pytest.mark.parametrize("method", ["get", "post", "head", "put"])
    def test_inspector_page_redirects_a_request_with_a_query_string_to_the_url_without_the_query_string(
        self, staff_client, token, method
    ):
        response = getattr(staff_client, method)(f"{INSPECT}?token={token}")

        assert (response.status_code, response["Location"]) == (302, INSPECT)
        assert token not in str(response.headers) + response.content.decode()

    def test_login_page_of_the_inspector_contains_no_token_from_the_query_string(self, client, token):
        response = client.get(f"{INSPECT}?token={token}", follow=True)

        assert token not in str(response.redirect_chain) + response.content.decode()

    @pytest.mark.parametrize("method", ["put", "delete", "patch", "options"])
    def test_inspector_page_refuses_put_delete_patch_and_options_requests(self, staff_client, method):
        assert getattr(staff_client, method)(INSPECT).status_code == 405

    def test_inspector_page_refuses_a_post_request_without_csrf_token(self, signed_in, token):
        browser = signed_in("inspect_tokens", enforce_csrf_checks=True)
        response = browser.post(INSPECT, {"token": token})

        assert response.status_code == 403
        assert token not in response.content.decode()
        sent = browser.get(INSPECT).context["csrf_token"]
        assert browser.post(INSPECT, {"token": token, "csrfmiddlewaretoken": str(sent)}).status_code == 200

    def test_responses_of_the_inspector_page_have_headers_against_caching(self, staff_client, token):
        for response in (staff_client.get(INSPECT), staff_client.post(INSPECT, {"token": token})):
            assert "no-store" in response["Cache-Control"]
            assert "private" in response["Cache-Control"]

    def test_inspector_page_has_no_inline_script_or_style(self, staff_client, token):
        inline = re.compile(r"\sstyle=|\son\w+=|<style|javascript:|data:|<script(?![^>]* src=)")
        for text in (staff_client.get(INSPECT).content.decode(), inspected(staff_client, token)):
            assert not inline.search(text)


class TestTheResultOfAnInspection:
    def test_inspector_page_shows_the_verdict_on_a_valid_token_first(self, staff_client, token):
        text = inspected(staff_client, token)

        assert '<h2 id="verdict">Accepted</h2>' in text
        assert (
            text.index("verdict") < text.index('id="claims"') < text.index('id="audit"') < text.index("<form method")
        )
        assert "<title>Accepted | Inspect a token" in text
        assert "Authentic: a known key verified the signature." in main_part(text)
        assert "User ada" in main_part(text)
        assert "Not authenticated" not in text

    def test_inspector_page_shows_the_reason_that_the_401_response_hides(self, staff_client, user):
        token = issuing.issue(user=user, origin=ORIGIN, now=time.time() - 3780)[1]
        text = main_part(inspected(staff_client, token))

        assert "Refused The token was valid and has expired." in text
        assert "expired : the token has expired" in text
        assert "3 minutes ago" in text

    def test_inspector_page_shows_the_user_and_the_reason_of_a_revocation(self, staff_client, token, user):
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost", by=user)
        denylist.clear_cache()

        assert re.search(r"20[\d: -]+UTC, by ada\. Reason: laptop lost", main_part(inspected(staff_client, token)))

    def test_inspector_page_labels_claims_of_a_forged_token_as_not_authenticated(self, staff_client, token):
        header, _, signature = signed_inside(token).split(".")
        forged = b64(json.dumps({"iss": "instructure:inst_access", "sub": "eve"}).encode())
        text = main_part(inspected(staff_client, f"{header}.{forged}.{signature}"))

        assert "bad_signature" in text
        assert "Not authenticated: no known key signed these claims." in text
        assert "sub eve" in re.sub(r" +", " ", text)
        assert "User ada" not in text

    def test_inspector_page_warns_about_a_token_without_an_audit_row(self, staff_client):
        ring = keys_ring.current_ring()
        make = TokenFactory(ring.signing_key().private().reveal(), ring.encryption_key().private().reveal())
        text = inspected(staff_client, make.encrypted(make.signed(claims(int(time.time())))))

        assert "Warnings" in text
        assert "revoke the signing key" in text

    def test_inspector_page_does_not_show_a_pasted_access_token(self, staff_client, access_token):
        text = inspected(staff_client, access_token.token)

        assert "Not an InstAccess token" in text
        assert access_token.token not in text

    @pytest.mark.parametrize("length", [9000, MAX_PASTED + 1, 200_000])
    def test_inspector_page_explains_that_the_pasted_text_is_too_long(self, staff_client, length):
        text = inspected(staff_client, "a.b.c.d." + "A" * length)

        assert "too_long" in text
        assert "AAAA" not in text

    @pytest.mark.parametrize(
        "fields",
        [{}, {"token": ""}, {"token": "\x00"}, {"token": "😀"}, {"other": "x"}],
        ids=["none", "empty", "NUL", "smile", "other"],
    )
    def test_inspector_page_explains_that_the_pasted_text_is_not_a_token(self, staff_client, fields):
        response = staff_client.post(INSPECT, fields)

        assert response.status_code == 200
        assert "Not an InstAccess token" in html.unescape(response.content.decode())

    def test_a5_inspector_page_escapes_the_claims_of_a_token(self, staff_client):
        ring = keys_ring.current_ring()
        make = TokenFactory(ring.signing_key().private().reveal(), ring.encryption_key().private().reveal())
        evil = {"<script>alert(1)</script>": "<img src=x>\u202e\x00\ud800"}
        signed = make.signed(claims(int(time.time()), canvas_domain="<b>", **evil))
        response = staff_client.post(INSPECT, {"token": make.encrypted(signed)})

        text = response.content.decode()
        assert response.status_code == 200
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\u202e" not in text
        assert "\\u202e" in text

    def test_k7_inspector_page_reports_a_server_side_error_if_keys_cannot_be_decrypted(
        self, staff_client, token, settings
    ):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        keys_ring.clear_cache()

        assert "This is a server-side error." in inspected(staff_client, token)

    def test_a6_inspector_page_shows_no_names_if_the_foreign_keys_were_modified(
        self, staff_client, token, application
    ):
        mallory = get_user_model().objects.create_user("mallory")
        malicious = get_application_model().objects.create(name="Mallory's", client_id="x", user=mallory)
        assert application.name in inspected(staff_client, token)
        IssuedToken.objects.update(user=mallory, application=malicious)

        page = inspected(staff_client, token)

        assert "mallory" not in page.lower()
        assert application.client_id in page

    def test_inspector_form_is_sent_to_the_url_of_the_inspector_page(self, staff_client, token):
        assert f'action="{INSPECT}"' in inspected(staff_client, token)


class TracebackHandler(logging.Handler):
    """A log handler that stores every message with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged():
    handler, loggers = TracebackHandler(), [logging.getLogger(name) for name in ("", "django", "instaccess")]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    yield handler
    for logger, level in before:
        logger.setLevel(level)
        logger.removeHandler(handler)


class FailAfterTheView:
    """A middleware that raises an error after the view."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        self.get_response(request)
        raise ZeroDivisionError("after the view")


class TestThePastedToken:
    def test_inspector_page_contains_no_part_of_the_pasted_token(self, staff_client, token):
        for text in (
            inspected(staff_client, token),
            inspected(staff_client, signed_inside(token)),
            inspected(staff_client, f"{token}="),
        ):
            assert [part for part in parts(token) if part in text] == []

    def test_log_of_the_inspector_contains_the_verdict_but_not_the_pasted_token(self, staff_client, token, logged):
        inspected(staff_client, token)
        inspected(staff_client, token[:-4])
        text = "\n".join(logged.lines)

        assert f"inspected kind=ENCRYPTED verdict=ACCEPTED reason= jti={IssuedToken.objects.get().jti}" in text
        assert [part for part in parts(token) if part in text] == []

    def test_inspector_page_stores_no_pasted_token_in_the_database(self, staff_client, token, access_token):
        kinds = [token, signed_inside(token), token[:-4], access_token.token, "nonsense"]
        with CaptureQueriesContext(connection) as queries:
            for text in kinds:
                inspected(staff_client, text)

        assert {query["sql"].split()[0] for query in queries.captured_queries} == {"SELECT"}
        assert LogEntry.objects.count() == 0
        sessions = str([session.get_decoded() for session in Session.objects.all()])
        assert [part for part in parts(token) if part in sessions] == []
        out = StringIO()
        call_command("dumpdata", stdout=out)
        assert [part for part in parts(token) if part in out.getvalue()] == []

    def test_inspector_page_removes_the_pasted_token_from_the_request(self, staff_client, token):
        kept = staff_client.post(INSPECT, {"token": token}).wsgi_request

        assert (kept.body, dict(kept.POST)) == (b"", {})

    def test_inspector_page_removes_the_pasted_token_from_a_form_encoded_request(self, staff_client, token):
        sent = urlencode({"token": token})
        kept = staff_client.post(INSPECT, sent, content_type="application/x-www-form-urlencoded").wsgi_request

        assert (kept.body, dict(kept.POST)) == (b"", {})

    def test_inspector_page_counts_no_refusal_and_caches_no_token(self, staff_client, token):
        from instaccess.web import refusals

        refusals.counter.flush()
        before = RefusalCount.objects.count()
        inspected(staff_client, token)
        inspected(staff_client, token[:-4])
        refusals.counter.flush()

        assert RefusalCount.objects.count() == before
        assert not views._token_cache._tokens

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("where", ["keys", "gateway", "table"])
    def test_pasted_token_is_in_no_page_log_or_mail_after_an_unexpected_error_of_the_inspector(
        self, staff_client, token, monkeypatch, settings, logged, error_mail, debug, where
    ):
        def fail(*args: Any, **kwargs: Any) -> Any:
            pasted = [token, args, kwargs]
            raise ZeroDivisionError(f"{len(pasted)} {token}")

        settings.DEBUG = debug
        module, name = {
            "keys": (trust, "decryption_keys"),
            "gateway": (gateway, "unwrap"),
            "table": (audit, "issued_tokens"),
        }[where]
        monkeypatch.setattr(module, name, fail)
        text = inspected(staff_client, token)

        assert "Can't be decided here" in text
        assert "server-side error" in text
        assert "the inspector could not check the token: ZeroDivisionError" in "\n".join(logged.lines)
        assert "the inspector could not check the token: ZeroDivisionError" in mailed()
        for place in (text, "\n".join(logged.lines), mailed()):
            assert [part for part in [token, *parts_unread(token)] if part in place] == []

    @pytest.mark.parametrize("debug", [False, True])
    def test_pasted_token_is_in_no_page_log_or_mail_after_a_failure_in_a_middleware(
        self, staff_client, token, settings, logged, error_mail, debug
    ):
        settings.DEBUG = debug
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.admin.inspector.test_pages.FailAfterTheView"]
        staff_client.raise_request_exception = False
        response = staff_client.post(INSPECT, {"token": token})

        assert response.status_code == 500
        assert "after the view" in mailed()
        for place in (response.content.decode(), "\n".join(logged.lines), mailed()):
            assert [part for part in parts_unread(token) if part in place] == []


def parts_unread(token: str) -> list[str]:
    """Return the sensitive segments of an encrypted token, without decrypting the token."""
    return [part for part in token.split(".")[1:] if len(part) > 20]
