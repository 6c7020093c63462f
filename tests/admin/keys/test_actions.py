"""The buttons on keys: who may press them, what the page says first, what is logged, and what is never shown."""

from __future__ import annotations

import html
import re
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.signals import got_request_exception
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.views.debug import ExceptionReporter
from jwcrypto.jwk import JWK

from instaccess import issuer, keymaterial, keys, keystore, lifecycle
from instaccess.conf import conf
from instaccess.models import IssuedToken, Key, RefusalCount
from tests.support import mailing

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LIST = reverse("admin:instaccess_key_changelist")
ROTATE, ROTATE_ENC = (reverse("admin:instaccess_key_rotate", args=[use]) for use in ("sig", "enc"))
GENERATE, IMPORT = reverse("admin:instaccess_key_generate"), reverse("admin:instaccess_key_import")
ACTS = ("rotate", "generate", "import", "revoke")


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def make_operator(db: None) -> Callable[..., Any]:
    """A member of staff with the permissions named."""

    def make(*permissions: str) -> Any:
        operator = get_user_model().objects.create_user("grace", password="correct horse", is_staff=True)
        operator.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return operator

    return make


@pytest.fixture
def operator(make_operator: Callable[..., Any]) -> Any:
    """May see and change keys, and nothing else: no superuser is needed."""
    return make_operator("view_key", "manage_keys")


@pytest.fixture
def operator_client(client: Any, operator: Any) -> Any:
    client.force_login(operator)
    return client


@pytest.fixture
def issue(user: Any) -> Callable[[], IssuedToken]:
    return lambda: issuer.issue(user=user, origin=issuer.Origin("canvas.example.edu"), now=time.time())[0]


@pytest.fixture
def confirmed_request(rsa_pool: Any) -> Callable[[str], tuple[str, dict[str, str]]]:
    """What the confirmation page of an act sends."""

    def request(act: str) -> tuple[str, dict[str, str]]:
        current, public = key_of(SIG, "current").kid, rsa_pool.take().export_public()
        return {
            "rotate": (ROTATE, {"confirmed": "yes", "expected_current": current, "force": "on"}),
            "generate": (GENERATE, {"confirmed": "yes", "use": "sig"}),
            "import": (IMPORT, {"confirmed": "yes", "use": "enc", "text": public}),
            "revoke": (revoke_url(current), {"confirmed": "yes", "reason": "laptop stolen"}),
        }[act]

    return request


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def revoke_url(kid: str) -> str:
    return reverse("admin:instaccess_key_revoke", args=[kid])


def shown(response: Any) -> str:
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def told(response: Any) -> list[str]:
    """The messages that the redirect back to the list carries."""
    assert (response.status_code, response.url) == (302, LIST)
    return [str(message) for message in get_messages(response.wsgi_request)]


def logged() -> list[tuple[str, str, int, str]]:
    entries = LogEntry.objects.order_by("pk").select_related("user")
    return [(e.user.username, e.object_id, e.action_flag, e.get_change_message()) for e in entries]


@pytest.mark.usefixtures("initial_keys")
class TestWhoMayPressAButton:
    @pytest.mark.parametrize("act", ACTS)
    def test_a2_by_get_nothing_happens_and_no_page_opens(self, act, operator_client, confirmed_request):
        url, data = confirmed_request(act)
        before = rows()
        for method in (operator_client.get, operator_client.head, operator_client.put, operator_client.delete):
            response = method(url, data) if method == operator_client.get else method(url)
            assert response.status_code == 405
            assert response["Allow"] == "POST"
        assert "list of keys" in operator_client.get(url).content.decode()
        assert rows() == before

    @pytest.mark.parametrize("act", ACTS)
    def test_a2_without_csrf_token_it_is_refused(self, act, operator, confirmed_request):
        client = Client(enforce_csrf_checks=True)
        client.force_login(operator)
        url, data = confirmed_request(act)
        before = rows()

        assert client.post(url, data).status_code == 403
        assert rows() == before
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("act", ACTS)
    def test_with_the_token_of_the_page_it_is_done(self, act, operator, confirmed_request):
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
    def test_a2_without_the_permission_it_is_forbidden(
        self, act, permissions, client, make_operator, confirmed_request
    ):
        client.force_login(make_operator(*permissions))
        url, data = confirmed_request(act)
        before = rows()

        assert client.post(url, data).status_code == 403
        assert client.post(url).status_code == 403
        assert rows() == before

    @pytest.mark.parametrize("act", ACTS)
    def test_a2_nobody_who_is_not_staff_gets_past_the_login(self, act, client, user, confirmed_request):
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
class TestTheButtons:
    def test_are_there_for_who_may_manage_keys(self, operator_client):
        page = shown(operator_client.get(LIST))
        kid = key_of(SIG, "current")
        key_page = shown(operator_client.get(reverse("admin:instaccess_key_change", args=[kid.pk])))

        for url in (ROTATE, ROTATE_ENC, GENERATE, IMPORT):
            assert f'<form method="post" action="{url}">' in page
        assert f'<form method="post" action="{revoke_url(kid.kid)}">' in key_page

    def test_are_not_there_for_who_may_only_look(self, client, make_operator):
        client.force_login(make_operator("view_key"))
        page = shown(client.get(LIST)) + shown(
            client.get(reverse("admin:instaccess_key_change", args=[key_of(SIG, "current").pk]))
        )

        for url in (ROTATE, ROTATE_ENC, GENERATE, IMPORT, revoke_url(key_of(SIG, "current").kid)):
            assert url not in page

    def test_do_not_offer_to_revoke_what_is_revoked(self, operator_client):
        key = lifecycle.revoke(key_of(SIG, "current").kid).key
        page = shown(operator_client.get(reverse("admin:instaccess_key_change", args=[key.pk])))

        assert revoke_url(key.kid) not in page

    @pytest.mark.parametrize("act", ACTS)
    def test_open_a_page_that_changes_nothing_yet(self, act, operator_client, confirmed_request):
        url, _ = confirmed_request(act)
        before = rows()

        assert "What will happen" in shown(operator_client.post(url))
        assert rows() == before
        assert not LogEntry.objects.exists()


@pytest.mark.usefixtures("initial_keys")
class TestRotate:
    def test_first_says_which_key_retires_who_takes_over_and_what_becomes_of_live_tokens(
        self, operator_client, issue
    ):
        issue()
        issue()
        page = shown(operator_client.post(ROTATE))

        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        assert f"Key {current} retires. Tokens under it that are live now (2) stay valid until they expire." in page
        assert f"Key {future} takes over." in page

    def test_first_says_that_it_is_not_due_and_that_services_may_not_know_the_key_yet(self, operator_client):
        page = shown(operator_client.post(ROTATE))

        assert "It is not due before 2026-12-23 12:00:00 UTC." in page
        assert "Until 2026-11-23 12:05:03 UTC services may refuse new tokens" in page
        assert "Rotate although it is not due" in page

    def test_k2_when_it_is_not_due_it_has_to_be_said_twice(self, operator_client):
        before = rows()
        data = {"confirmed": "yes", "expected_current": key_of(SIG, "current").kid}

        assert "This field is required." in shown(operator_client.post(ROTATE, data))
        assert rows() == before

    def test_when_it_is_due_the_button_is_enough(self, operator_client, clock):
        clock.shift(timedelta(days=30))
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        assert "Rotate although" not in shown(operator_client.post(ROTATE))
        response = operator_client.post(ROTATE, {"confirmed": "yes", "expected_current": current})

        assert told(response) == [f"Key {future} is current now."]
        assert (key_of(SIG, "current").kid, key_of(SIG, "past").kid) == (future, current)

    @pytest.mark.parametrize("days", [0, 30])
    def test_a7_a_double_click_rotates_once(self, days, operator_client, clock):
        clock.shift(timedelta(days=days))
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        data = {"confirmed": "yes", "expected_current": key_of(SIG, "current").kid, "force": "on"}
        operator_client.post(ROTATE, data)
        after_one, entries = rows(), len(logged())
        second = operator_client.post(ROTATE, data)

        assert "Nothing was rotated: somebody else, or a second click, was faster." in told(second)
        assert rows() == after_one
        assert len(logged()) == entries

    def test_is_logged_for_every_key_it_touched_with_who_and_when(self, operator_client):
        current, future = key_of(SIG, "current"), key_of(SIG, "future")
        operator_client.post(ROTATE, {"confirmed": "yes", "expected_current": current.kid, "force": "on"})
        made = key_of(SIG, "future")

        assert logged() == [
            ("grace", str(current.pk), CHANGE, "Rotated the sig keys: now past."),
            ("grace", str(future.pk), CHANGE, "Rotated the sig keys: now current."),
            ("grace", str(made.pk), CHANGE, "Rotated the sig keys: now future."),
        ]
        assert {entry.action_time for entry in LogEntry.objects.all()} == {START}

    def test_without_a_future_key_first_says_that_a_new_one_takes_over_at_once(self, operator_client):
        page = shown(operator_client.post(ROTATE_ENC))

        assert "A new key is made and takes over at once" in page
        current = key_of(ENC, "current").kid
        operator_client.post(ROTATE_ENC, {"confirmed": "yes", "expected_current": current, "force": "on"})
        assert key_of(ENC, "past").kid == current

    def test_k8_without_a_current_key_names_the_command(self, operator_client):
        Key.objects.filter(use=SIG, status="current").delete()

        assert "instaccess_init" in told(operator_client.post(ROTATE))[0]

    def test_of_a_use_there_is_not_is_refused(self, operator_client):
        url = reverse("admin:instaccess_key_rotate", args=["other"])

        assert told(operator_client.post(url)) == ["There is no such use of keys."]

    def test_of_the_gateways_public_key_alone_says_where_the_next_comes_from(self, operator_client, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        kid = lifecycle.activate(keys.import_key(rsa_pool.take().export_public(), use=ENC).kid).kid
        response = operator_client.post(ROTATE_ENC, {"confirmed": "yes", "expected_current": kid, "force": "on"})

        assert "import the next public key" in told(response)[0]


@pytest.mark.usefixtures("initial_keys")
class TestGenerate:
    @pytest.mark.parametrize("use", ["sig", "enc"])
    def test_makes_a_future_key_and_logs_it(self, use, operator_client):
        before = set(Key.objects.values_list("pk", flat=True))
        response = operator_client.post(GENERATE, {"confirmed": "yes", "use": use})
        key = Key.objects.exclude(pk__in=before).get()

        assert told(response) == [f"Key {key.kid} was made."]
        assert (key.use, key.status) == (use, "future")
        assert logged() == [("grace", str(key.pk), ADDITION, "Generated.")]

    def test_first_says_that_live_tokens_are_not_affected(self, operator_client):
        assert "Live tokens are not affected." in shown(operator_client.post(GENERATE))

    def test_of_a_use_there_is_not_is_refused(self, operator_client):
        before = rows()
        page = shown(operator_client.post(GENERATE, {"confirmed": "yes", "use": "other"}))

        assert "other is not one of the available choices" in page
        assert rows() == before


@pytest.mark.usefixtures("initial_keys")
class TestRevoke:
    def test_first_says_how_many_live_tokens_will_fall_and_that_there_is_no_way_back(self, operator_client, issue):
        for _ in range(3):
            issue()
        page = shown(operator_client.post(revoke_url(key_of(SIG, "current").kid)))

        assert "Every live token under this key (3 now) is refused within five seconds." in page
        assert "This can't be undone." in page
        assert f"Key {key_of(SIG, 'future').kid} takes over." in page

    def test_says_when_a_new_key_takes_over(self, operator_client):
        key_of(SIG, "future").delete()

        assert "A new key is made and takes over." in shown(
            operator_client.post(revoke_url(key_of(SIG, "current").kid))
        )

    def test_of_the_gateways_public_key_says_that_none_takes_over_before_and_after(self, operator_client, rsa_pool):
        lifecycle.rotate(ENC)
        public = keymaterial.to_text(rsa_pool.take(), file_format="pem", private=False)
        kid = lifecycle.activate(keys.import_key(public, use=ENC).kid).kid
        rotating = operator_client.post(ROTATE_ENC)

        assert told(rotating) == ["Its private half is elsewhere: import the next public key from its owner first."]
        assert "No key of this use is current" in shown(operator_client.post(revoke_url(kid)))
        done = operator_client.post(revoke_url(kid), {"confirmed": "yes", "reason": "lost"})
        assert [text.partition(",")[0] for text in told(done)] == [
            "No key of this use is current",
            f"Key {kid} is revoked",
        ]

    def test_of_a_key_that_is_not_current_says_nothing_of_a_successor(self, operator_client):
        page = shown(operator_client.post(revoke_url(key_of(SIG, "future").kid)))

        assert "(0 now)" in page
        assert "takes over" not in page

    def test_revokes_the_key_and_its_tokens_with_the_reason_and_by_whom(self, operator_client, operator, issue):
        row = issue()
        current, future = key_of(SIG, "current"), key_of(SIG, "future")
        response = operator_client.post(revoke_url(current.kid), {"confirmed": "yes", "reason": "laptop <stolen>"})
        row.refresh_from_db()

        assert told(response) == [f"Key {current.kid} is revoked, and with it every live token under it (1)."]
        assert (row.revoked_at, row.revoked_by) == (START, operator.username)
        assert row.revocation_reason == "laptop <stolen>"
        assert key_of(SIG, "current") == future
        assert logged() == [
            ("grace", str(current.pk), CHANGE, "Revoked with 1 live tokens: laptop <stolen>"),
            ("grace", str(future.pk), CHANGE, f"Current after {current.kid} was revoked."),
            ("grace", str(key_of(SIG, "future").pk), CHANGE, f"Future after {current.kid} was revoked."),
        ]

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 256])
    def test_needs_a_reason_that_fits_the_audit(self, reason, operator_client):
        before = rows()
        page = shown(
            operator_client.post(revoke_url(key_of(SIG, "current").kid), {"confirmed": "yes", "reason": reason})
        )

        assert "errorlist" in page
        assert rows() == before

    def test_a7_a_double_click_revokes_one_key(self, operator_client, confirmed_request):
        url, data = confirmed_request("revoke")
        operator_client.post(url, data)
        after_one, entries = rows(), len(logged())
        second = operator_client.post(url, data)

        assert "is revoked already" in told(second)[-1]
        assert rows() == after_one
        assert len(logged()) == entries

    @pytest.mark.parametrize("kid", ["unknown-kid", "x", "%00", "<b>bold", "a" * 1000])
    def test_of_an_unknown_key_goes_back_to_the_list_and_says_so(self, kid, operator_client):
        response = operator_client.post(revoke_url(kid), {"confirmed": "yes", "reason": "why"})

        assert "there is no key" in told(response)[0]
        assert "<b>bold" not in operator_client.get(LIST).content.decode()


@pytest.fixture
def pair(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


@pytest.fixture
def private_pem(pair: JWK) -> str:
    return keymaterial.to_text(pair, file_format="pem", private=True)


def secrets_of(pair: JWK) -> list[str]:
    """Pieces of a private key as they would show: its members, and the lines of its PEM."""
    pem = keymaterial.to_text(pair, file_format="pem", private=True)
    return [pair[name] for name in ("d", "p", "q", "dp", "dq", "qi")] + pem.splitlines()[1:-1]


def shows_a_secret(text: str, pair: JWK) -> bool:
    return any(secret in text for secret in secrets_of(pair))


@pytest.mark.usefixtures("operator_client")
class TestImport:
    def send(self, client: Any, **data: Any) -> Any:
        return client.post(IMPORT, {"confirmed": "yes", "use": "enc", "text": "", **data})

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_of_pasted_text_stores_a_future_key_and_logs_it(self, file_format, client, pair):
        text = keymaterial.to_text(pair, file_format=file_format, private=False)
        response = self.send(client, text=text)
        key = Key.objects.get()

        assert told(response) == [f"Key {key.kid} was imported."]
        assert (key.kid, key.use, key.status) == (pair.thumbprint(), "enc", "future")
        assert logged() == [("grace", str(key.pk), ADDITION, "Imported.")]

    def test_of_a_file_does_so_too(self, client, pair):
        pem = keymaterial.to_text(pair, file_format="pem", private=False).encode()
        self.send(client, file=SimpleUploadedFile("gateway.pub.pem", pem))

        assert Key.objects.get().kid == pair.thumbprint()

    def test_of_a_private_key_needs_to_be_asked_for(self, client, private_pem, pair):
        page = shown(self.send(client, text=private_pem))

        assert "whoever holds the private half can open every token" in page
        assert not shows_a_secret(page, pair)
        assert not Key.objects.exists()

    def test_of_a_private_key_that_was_asked_for_says_so_in_the_log(self, client, private_pem):
        self.send(client, text=private_pem, with_private="on")

        assert Key.objects.get().has_private
        assert logged()[0][3] == "Imported with its private half."

    def test_k11_of_a_key_that_is_held_says_so(self, client, pair):
        for _ in range(2):
            response = self.send(client, text=pair.export_public())

        assert "already held" in shown(response)
        assert Key.objects.count() == 1

    def test_k6_of_a_weak_key_says_why(self, client):
        weak = JWK.generate(kty="RSA", size=1024).export_public()

        assert "the key has 1024 bits" in shown(self.send(client, text=weak))

    def test_of_nothing_asks_for_something(self, client):
        assert "Choose a file, or paste the key." in shown(self.send(client))

    def test_of_a_large_file_is_refused_unread(self, client):
        page = shown(self.send(client, file=SimpleUploadedFile("film.mp4", b"x" * (64 * 1024 + 1))))

        assert "The file is too large for a key." in page

    @pytest.mark.parametrize("junk", ["\x00", "<script>alert(1)</script>", "{" * 5000, "\N{PILE OF POO}"])
    def test_of_junk_is_an_error_that_does_not_show_it_again(self, junk, client):
        page = self.send(client, text=junk).content.decode()

        assert "errorlist" in page
        assert junk not in page.partition("<form")[2]

    @pytest.mark.parametrize("problem", ["use", "private", "broken", "beside a large file"])
    def test_a1_an_error_never_shows_the_pasted_key_again(self, problem, client, private_pem, pair, caplog):
        data = {
            "use": {"use": "other", "text": private_pem},
            "private": {"text": private_pem},
            "broken": {"text": private_pem[:-60], "with_private": "on"},
            "beside a large file": {"text": private_pem, "file": SimpleUploadedFile("f", b"x" * 70_000)},
        }[problem]
        page = shown(self.send(client, **data))

        assert "errorlist" in page
        assert not shows_a_secret(page + caplog.text, pair)

    def test_a1_a_pasted_private_key_is_in_no_page_message_log_entry_or_log(self, client, private_pem, pair, caplog):
        response = self.send(client, text=private_pem, with_private="on")
        key = Key.objects.get()
        pages = [client.get(url) for url in (LIST, reverse("admin:instaccess_key_change", args=[key.pk]))]
        text = "".join(page.content.decode() for page in pages)

        assert not shows_a_secret(
            text + str(told(response)) + str(logged()) + caplog.text + str(response.headers), pair
        )

    def test_a1_when_the_database_fails_meanwhile_it_is_in_no_error_report(
        self, client, private_pem, pair, caplog, settings
    ):
        settings.ADMINS = mailing.ADMINS
        client.raise_request_exception = False
        reports: list[str] = []

        def report(request: Any, **kwargs: Any) -> None:
            reporter = ExceptionReporter(request, *sys.exc_info())
            reports.extend([reporter.get_traceback_html(), reporter.get_traceback_text()])

        def fail(execute: Any, sql: str, *args: Any) -> Any:
            if sql.startswith("INSERT") and "instaccess_key" in sql:
                raise DatabaseError("disk full")
            return execute(sql, *args)

        got_request_exception.connect(report)
        try:
            with connection.execute_wrapper(fail):
                response = self.send(client, text=private_pem, with_private="on")
        finally:
            got_request_exception.disconnect(report)

        assert response.status_code == 500
        assert len(reports) == 2
        assert len(mail.outbox) == 1
        assert "disk full" in reports[0]
        everything = "".join(reports) + mail.outbox[0].body + caplog.text + response.content.decode()
        assert not shows_a_secret(html.unescape(everything), pair)
        assert not Key.objects.exists()


@pytest.mark.usefixtures("initial_keys")
class TestALiveToken:
    """What the pages count."""

    def test_is_neither_expired_nor_revoked_nor_under_another_key(self, operator_client, issue, clock):
        issue()
        clock.shift(conf.lifetime)
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        issue()
        revoked = issue()
        IssuedToken.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())
        lifecycle.rotate(SIG, force=True)
        issue()

        assert "(1 now)" in shown(operator_client.post(revoke_url(key_of(SIG, "past").kid)))
        assert "(2 now)" in shown(operator_client.post(revoke_url(keystore.current(keystore.rows(), ENC).kid)))


def picture_of(text: str) -> str:
    return text[text.index("<svg class") : text.index("</svg>\n", text.index("instaccess-now-label"))]


class TestThePageWithoutKeys:
    def test_k5_names_the_command_and_shows_no_picture(self, operator_client):
        page = shown(operator_client.get(LIST))

        assert "There are no keys yet" in page
        assert "<code>python manage.py instaccess_init</code>" in page
        assert "<svg class" not in page


@pytest.mark.usefixtures("initial_keys")
class TestThePage:
    def test_shows_every_key_in_the_picture_and_in_words(self, operator_client):
        page = shown(operator_client.get(LIST))
        table = page.partition('<div class="results instaccess-words"')[2]

        for key in Key.objects.all():
            assert key.kid[:8] in picture_of(page)
            assert key.kid[:8] in table
        assert "Current since 2026-11-23 12:00 UTC. Next rotation due at 2026-12-23 12:00 UTC" in table
        assert "Published since 2026-11-23 12:00 UTC. Becomes current at 2026-12-23 12:00 UTC" in table

    def test_the_picture_has_a_title_a_description_and_the_moment_that_is_now(self, operator_client):
        picture = picture_of(shown(operator_client.get(LIST)))

        assert 'role="img"' in picture
        assert 'aria-labelledby="instaccess-timeline-title instaccess-timeline-desc"' in picture
        assert "<title id=" in picture
        assert "The table below says the same in words." in picture
        assert ">now</text>" in picture

    def test_tells_phases_apart_by_more_than_colour(self, operator_client):
        page = picture_of(shown(operator_client.get(LIST)))

        assert "· current" in page
        assert "· future" in page
        assert "instaccess-planned" in page
        for phase in ("future", "past", "current"):
            assert f'<pattern id="instaccess-pattern-{phase}"' in page

    def test_says_how_many_tokens_live_under_each_key(self, operator_client, issue):
        issue()
        lifecycle.rotate(SIG, force=True)
        issue()
        page = shown(operator_client.get(LIST))
        lines = {line.short: line.live for _, rows in page_context(operator_client)["groups"] for _, line in rows}

        assert lines == {
            key_of(SIG, "past").kid[:8]: 1,
            key_of(SIG, "current").kid[:8]: 1,
            key_of(SIG, "future").kid[:8]: 0,
            key_of(ENC, "current").kid[:8]: 2,
        }
        assert "current · 2 live tokens" in page
        assert "past · 1 live token<" in page

    def test_links_each_key_to_the_public_half_to_copy(self, operator_client):
        page = shown(operator_client.get(LIST))
        for key in Key.objects.all():
            url = reverse("admin:instaccess_key_change", args=[key.pk])
            assert f'href="{url}#public-pem"' in page
            assert 'id="public-pem"' in shown(operator_client.get(url))

    def test_leaves_keys_long_gone_to_the_list_and_counts_them(self, operator_client, operator, clock):
        lifecycle.rotate(SIG, force=True)
        gone = key_of(SIG, "past").kid
        clock.shift(timedelta(days=29))
        lifecycle.rotate(SIG)
        operator_client.force_login(operator)
        page = shown(operator_client.get(LIST))

        assert gone[:8] not in picture_of(page)
        assert "1 key that is long gone is not drawn; it is in the list below." in page
        assert gone in page

    def test_draws_a_bounded_number_and_says_how_many_are_not(self, operator_client):
        for n in range(20):
            Key.objects.create(
                kid=f"{n:08}", use=SIG, status="past", public_jwk={}, activated_at=START, retired_at=START
            )
        page = shown(operator_client.get(LIST))

        assert picture_of(page).count('class="instaccess-kid"') == 13
        assert "10 more keys are not drawn; they are in the list below." in page

    def test_places_numbers_so_that_svg_understands_them_in_every_language(self, operator_client, settings):
        settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = "de", True
        picture = picture_of(shown(operator_client.get(LIST)))

        assert re.search(r'x="\d+\.\d+%"', picture)
        assert not re.search(r'"\d+,\d+%?"', picture)

    def test_has_neither_script_nor_style_of_its_own_within(self, operator_client):
        page = shown(operator_client.get(LIST))
        key_page = shown(operator_client.get(reverse("admin:instaccess_key_change", args=[Key.objects.first().pk])))
        for text in (page, key_page):
            main = text[text.index("<main") : text.index("</main>")]
            assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:|data:", main)
            assert not re.search(r"<script(?![^>]*\ssrc=)", main)
        assert "instaccess/timeline.css" in page
        assert "instaccess/copy.js" in key_page

    def test_costs_as_many_queries_with_many_keys_as_with_few(self, operator_client, issue):
        issue()
        with CaptureQueriesContext(connection) as few:
            operator_client.get(LIST)
        for use in (SIG, ENC, SIG, ENC):
            lifecycle.rotate(use, force=True)
            issue()
        with CaptureQueriesContext(connection) as more:
            operator_client.get(LIST)

        assert len(few) == len(more)

    def test_writes_nothing(self, operator_client, clock):
        clock.shift(timedelta(days=100))
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        before = rows()
        operator_client.get(LIST)

        assert rows() == before


def page_context(client: Any) -> Any:
    return client.get(LIST).context


def warned(client: Any) -> list[str]:
    return [finding.code for _, _, finding in page_context(client)["findings"]]


@pytest.mark.usefixtures("initial_keys")
class TestWhatNeedsAttention:
    @pytest.fixture(autouse=True)
    def kek(self, settings: Any) -> None:
        """A deployment in order has a key-encryption key of its own."""
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

    def test_is_nothing_after_init(self, operator_client):
        assert warned(operator_client) == []
        assert "Nothing: no key is overdue, missing or unsafe." in shown(operator_client.get(LIST))

    def test_is_said_with_its_severity_in_words_and_what_to_do(self, operator_client, operator, clock):
        clock.shift(timedelta(days=39))
        operator_client.force_login(operator)
        page = shown(operator_client.get(LIST))

        assert f"<strong>Warning:</strong> The signing key {key_of(SIG, 'current').kid[:8]} is overdue" in page
        assert "by 9 days." in page
        assert "<code>python manage.py instaccess_keys rotate --use sig</code>" in page

    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_k8_is_a_use_without_current_key(self, use, operator_client):
        Key.objects.filter(use=use, status="current").delete()

        assert warned(operator_client)[0] == "no_current"

    def test_o6_is_a_lost_key_encryption_key(self, operator_client, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        assert warned(operator_client) == ["kek_missing"]

    @pytest.mark.parametrize("sealed", ["junk", "a.b.c.d.e", "eyJ" * 1000, "\N{PILE OF POO}", "swapped"])
    @pytest.mark.parametrize("public", [None, [], {"kty": "RSA", "n": 1}])
    def test_k7_is_a_broken_row_and_the_page_never_fails_for_it(self, sealed, public, operator_client):
        key, other = key_of(SIG, "future"), key_of(SIG, "current")
        changes = {"sealed_private_jwk": other.sealed_private_jwk if sealed == "swapped" else sealed}
        if public is not None:
            changes["public_jwk"] = public
        Key.objects.filter(pk=key.pk).update(**changes)
        broken = "seal_broken" if sealed == "swapped" else "kek_missing"

        assert warned(operator_client) == [broken, *(["public_altered"] if public is not None else [])]
        assert other.sealed_private_jwk not in shown(operator_client.get(LIST))

    @pytest.mark.parametrize("changes", [{"activated_at": None}, {"status": "odd"}, {"revoked_at": START}])
    def test_may_be_odd_rows_and_the_page_never_fails_for_them(self, changes, operator_client):
        Key.objects.filter(use=SIG, status="current").update(**changes)

        assert operator_client.get(LIST).status_code == 200

    @pytest.mark.parametrize("bad", [{"KEY_ENCRYPTION_KEYS": []}, {"KEY_ROTATION_DAYS": "thirty"}, {"LEEWAY": -1}])
    def test_is_a_bad_setting_and_then_nothing_else(self, bad, operator_client, settings):
        settings.INSTACCESS = bad

        assert warned(operator_client) == ["bad_setting"]
        assert "<svg class" not in shown(operator_client.get(LIST))

    def test_are_refusals_that_are_unusual(self, operator_client):
        hour = START.replace(minute=0, second=0, microsecond=0)
        RefusalCount.objects.create(hour=hour, role="gateway", reason="bad_signature", count=412)
        page = shown(operator_client.get(LIST))

        assert warned(operator_client) == ["unusual_refusals"]
        assert "the gateway refused 412 requests for “bad_signature”" in page
