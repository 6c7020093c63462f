"""Tests of the import of a key in the admin: accepted keys, refused keys, and pages and logs without private keys."""

from __future__ import annotations

import html
import re
import sys
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION
from django.contrib.auth.models import Permission
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.signals import got_request_exception
from django.db import DatabaseError, connection
from django.urls import reverse
from django.views.debug import ExceptionReporter
from jwcrypto.jwk import JWK

from instaccess.models import Key
from instaccess.trust import material
from tests.admin.keys.helpers import IMPORT, LIST, logged, messages_of, page_text
from tests.support import key_texts, mailing

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _stopped_clock(clock: Any) -> None:
    """Stop the clock at `START`."""


@pytest.fixture
def pair(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


@pytest.fixture
def private_pem(pair: JWK) -> str:
    return key_texts.private_text(pair, file_format="pem")


def secrets_of(pair: JWK) -> list[str]:
    """Return the strings of a private key that no page or log may contain: JWK members and PEM lines."""
    pem = key_texts.private_text(pair, file_format="pem")
    return [pair[name] for name in ("d", "p", "q", "dp", "dq", "qi")] + pem.splitlines()[1:-1]


def shows_a_secret(text: str, pair: JWK) -> bool:
    return any(secret in text for secret in secrets_of(pair))


@pytest.mark.usefixtures("operator_client")
class TestImport:
    def send(self, client: Any, **data: Any) -> Any:
        return client.post(IMPORT, {"confirmed": "yes", "use": "enc", "text": "", **data})

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_import_of_pasted_text_stores_a_future_key_and_adds_a_log_entry(self, file_format, client, pair):
        text = material.to_text(pair, file_format=file_format)
        response = self.send(client, text=text)
        key = Key.objects.get()

        assert messages_of(response) == [f"Key {key.kid} was imported."]
        assert (key.kid, key.use, key.status) == (pair.thumbprint(), "enc", "future")
        assert logged() == [("grace", str(key.pk), ADDITION, "Imported.")]

    def test_import_of_a_file_stores_a_future_key(self, client, pair):
        pem = material.to_text(pair, file_format="pem").encode()
        self.send(client, file=SimpleUploadedFile("gateway.pub.pem", pem))

        assert Key.objects.get().kid == pair.thumbprint()

    def test_import_of_a_private_key_is_refused_if_the_checkbox_is_cleared(self, client, private_pem, pair):
        page = page_text(self.send(client, text=private_pem))

        assert "an attacker with the private key can decrypt every token" in page
        assert not shows_a_secret(page, pair)
        assert not Key.objects.exists()

    def test_import_of_a_private_key_adds_a_log_entry(self, client, private_pem):
        self.send(client, text=private_pem, with_private="on")

        assert Key.objects.get().has_private
        assert logged()[0][3] == "Imported with its private key."

    @pytest.mark.parametrize("kind", ["public", "private"])
    def test_k19_import_of_a_signing_key_by_a_user_without_the_import_permission_is_refused(
        self, kind, client, operator, pair
    ):
        private = kind == "private"
        data = {
            "use": "sig",
            "text": (key_texts.private_text if private else material.to_text)(pair, file_format="pem"),
        }
        data |= {"with_private": "on"} if private else {}

        page = page_text(self.send(client, **data))

        assert "you need the permission instaccess.import_signing_keys" in page
        assert "can issue tokens as any user" in page
        assert not Key.objects.exists()

        operator.user_permissions.add(Permission.objects.get(codename="import_signing_keys"))
        self.send(client, **data)

        assert Key.objects.get().use == "sig"

    def test_k19_import_of_a_signing_key_by_a_user_who_may_not_manage_keys_is_refused(self, client, operator, pair):
        operator.user_permissions.set(Permission.objects.filter(codename__in=["view_key", "import_signing_keys"]))

        assert self.send(client, use="sig", text=pair.export_public()).status_code == 403

    def test_k19_import_page_offers_only_key_uses_that_the_user_may_import_and_names_the_permission(
        self, client, operator
    ):
        page = page_text(client.post(IMPORT))

        assert re.findall(r'<option value="(\w+)"', page) == ["enc"]
        assert "you need the permission instaccess.import_signing_keys" in page

        operator.user_permissions.add(Permission.objects.get(codename="import_signing_keys"))
        page = page_text(client.post(IMPORT))

        assert re.findall(r'<option value="(\w+)"', page) == ["sig", "enc"]
        assert "even as a superuser" in page

    def test_k19_import_page_explains_the_permission_and_whether_the_user_has_the_permission(self, client, operator):
        meaning = "The owner of an imported signing key can issue tokens as any user, even as a superuser"
        without = page_text(client.post(IMPORT))
        operator.user_permissions.add(Permission.objects.get(codename="import_signing_keys"))
        with_permission = page_text(client.post(IMPORT))

        assert meaning in without
        assert "You don't have this permission, so you can import only encryption keys." in without
        assert "ask a superuser, or an administrator who has this permission." in without
        assert meaning in with_permission
        assert "You have this permission." in with_permission
        assert "You don't have this permission" not in with_permission

    def test_k19_names_of_key_permissions_describe_the_allowed_actions(self):
        names = dict(Permission.objects.values_list("codename", "name"))

        assert names["import_signing_keys"] == "Can import signing keys, and so issue tokens as any user"
        assert names["manage_keys"] == "Can generate, rotate and revoke keys, and import encryption keys"

    def test_k11_import_of_a_key_that_is_already_stored_is_refused(self, client, pair):
        for _ in range(2):
            response = self.send(client, text=pair.export_public())

        assert "already stored" in page_text(response)
        assert Key.objects.count() == 1

    def test_k6_import_of_a_weak_key_is_refused_with_the_reason(self, client):
        weak = JWK.generate(kty="RSA", size=1024).export_public()

        assert "the key has 1024 bits" in page_text(self.send(client, text=weak))

    def test_import_without_a_key_is_refused_and_the_page_asks_for_a_file_or_text(self, client):
        assert "Choose a file or paste the key." in page_text(self.send(client))

    def test_import_of_a_large_file_is_refused_and_the_page_asks_for_a_key_file(self, client):
        page = page_text(self.send(client, file=SimpleUploadedFile("film.mp4", b"x" * (64 * 1024 + 1))))

        assert "The file is too large for a key. Choose a PEM or JWK file." in page

    @pytest.mark.parametrize("junk", ["\x00", "<script>alert(1)</script>", "{" * 5000, "\N{PILE OF POO}"])
    def test_import_page_does_not_show_an_invalid_text_again(self, junk, client):
        page = self.send(client, text=junk).content.decode()

        assert "errorlist" in page
        assert junk not in page.partition("<form")[2]

    @pytest.mark.parametrize("problem", ["use", "private", "broken", "beside a large file"])
    def test_a1_error_on_the_import_page_never_shows_the_pasted_private_key(
        self, problem, client, private_pem, pair, caplog
    ):
        data = {
            "use": {"use": "other", "text": private_pem},
            "private": {"text": private_pem},
            "broken": {"text": private_pem[:-60], "with_private": "on"},
            "beside a large file": {"text": private_pem, "file": SimpleUploadedFile("f", b"x" * 70_000)},
        }[problem]
        page = page_text(self.send(client, **data))

        assert "errorlist" in page
        assert not shows_a_secret(page + caplog.text, pair)

    def test_a1_imported_private_key_is_in_no_page_message_or_log(self, client, private_pem, pair, caplog):
        response = self.send(client, text=private_pem, with_private="on")
        key = Key.objects.get()
        pages = [client.get(url) for url in (LIST, reverse("admin:instaccess_key_change", args=[key.pk]))]
        text = "".join(page.content.decode() for page in pages)

        assert not shows_a_secret(
            text + str(messages_of(response)) + str(logged()) + caplog.text + str(response.headers), pair
        )

    def test_a1_imported_private_key_is_in_no_error_report_of_a_database_failure(
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
