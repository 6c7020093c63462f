"""Tests of keys that were inserted or changed with SQL: each role refuses the keys, and reports name the rows.

K17: an attacker who can write to the database, but doesn't have the key-encryption key, tries to forge tokens.
"""

from __future__ import annotations

import html
import io
import json
import time
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.urls import reverse

from instaccess.admin.inspector.verdict import inspect
from instaccess.gateway import views as gateway_views
from instaccess.issuer import issuing
from instaccess.keys import lifecycle
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from tests.support.answers import INVALID
from tests.support.stored_keys import NEW_KEK, insert_with_sql
from tests.support.tokens import TokenFactory

VERIFY = "/internal/gateway/verify"
JWKS = "/internal/services/jwks"
SELF = "/api/v1/users/self"
PAGE = "/admin/instaccess/key/"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_gateway(empty_gateway_caches: None) -> None:
    """Clear the caches of the gateway before and after every test in this file."""


@pytest.fixture
def forged(initial_keys: Any, rsa_pool: Any) -> TokenFactory:
    """Insert a signing key with SQL, and return a factory for tokens that an attacker signs with the key."""
    private = rsa_pool.take("sig")
    insert_with_sql(private, use="sig", status="past", activated_at=initial_keys[0].created_at)
    factory = TokenFactory(private, keys_ring.load().encryption_key().private().reveal())
    keys_ring.clear_cache()
    return factory


@pytest.fixture
def get(client):
    """Return a function that sends a GET request with a bearer token."""

    def get_(path: str, token: str) -> Any:
        return client.get(path, headers={"Authorization": f"Bearer {token}"})

    return get_


def signed(factory: TokenFactory, user: Any) -> str:
    """Issue a token for `user`, and let the factory sign the claims of this token. Returns the signed token."""
    _, token = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time(), encrypted=False)
    return factory.signed(urlsafe_b64decode(token.split(".")[1] + "=="))


def factory_of_this_deployment() -> TokenFactory:
    """Return a factory for tokens with the current keys."""
    ring = keys_ring.load()
    return TokenFactory(ring.signing_key().private().reveal(), ring.encryption_key().private().reveal())


def check_refused(response: Any) -> None:
    assert (response.status_code, response.content, response["WWW-Authenticate"]) == INVALID


def store_unreadable_value(**filters: Any) -> None:
    """Replace the public key in the row that matches `filters` with an integer that Python can't parse."""
    [pk] = Key.objects.filter(**filters).values_list("pk", flat=True)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE instaccess_key SET public_jwk = %s WHERE id = %s", ["1" * 5000, pk])


def output_of(*command: str) -> str:
    out = io.StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def failure_of(*command: str) -> str:
    with pytest.raises((CommandError, SystemCheckError)) as caught:
        call_command(*command, stdout=io.StringIO(), stderr=io.StringIO())
    return str(caught.value)


def page_text(response: Any) -> str:
    assert response.status_code == 200
    return html.unescape(response.content.decode())


class TestATokenOfAnInsertedKey:
    def test_k17_gateway_refuses_a_token_of_an_inserted_key_like_a_token_of_an_unknown_key(
        self, forged, get, user, rsa_pool
    ):
        unknown = TokenFactory(rsa_pool.take("sig"), forged.encryption)
        unknown.encryption_kid = forged.encryption_kid
        first, second = (get(VERIFY, each.encrypted(signed(each, user))) for each in (forged, unknown))

        assert first.status_code == 401
        assert (first.content, first.headers) == (second.content, second.headers)

    def test_k17_service_refuses_a_token_of_an_inserted_key(self, forged, get, user):
        check_refused(get(SELF, signed(forged, user)))

    def test_k17_jwks_does_not_contain_an_inserted_key(self, forged, client):
        kids = {key["kid"] for key in client.get(JWKS).json()["keys"]}

        assert forged.signing_kid not in kids
        assert len(kids) == 2

    def test_k17_inspector_reports_that_the_row_of_an_inserted_key_was_modified(self, forged, user):
        found = inspect(signed(forged, user), now=time.time())

        assert (found.outcome.name, found.code) == ("REFUSED", "unknown_kid")
        assert "modified or inserted without this app" in str(found.explanation.meaning)
        assert found.layers[-1].key.words == "modified in the database, so not used"


class TestReportsAboutAnInsertedKey:
    def test_k17_system_check_names_the_inserted_key_and_the_command_that_revokes_the_key(self, forged):
        text = failure_of("check", "--database", "default")

        assert "instaccess.E055" in text
        assert f"The row of key {forged.signing_kid} was modified or inserted without this app" in text
        assert f"`python manage.py instaccess_keys revoke --kid {forged.signing_kid}`" in text

    def test_k17_system_check_names_twenty_inserted_keys_and_counts_the_remaining_keys(self, initial_keys, rsa_pool):
        key = rsa_pool.take()
        for number in range(25):
            insert_with_sql(key, use="sig", kid=f"inserted-{number}")
        text = failure_of("check", "--database", "default")

        assert text.count("was modified or inserted without this app") == 20
        assert "5 more rows of keys were modified or inserted without this app." in text

    def test_k17_verify_names_the_inserted_key_and_the_command_that_revokes_the_key(self, forged):
        text = failure_of("instaccess_tokens", "verify")

        assert f"The table of keys was modified or can't be checked: the row of key {forged.signing_kid}" in text
        assert f"revoke --kid {forged.signing_kid}" in text

    def test_k17_verify_lists_inserted_keys_as_json(self, forged):
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("instaccess_tokens", "verify", "--json", stdout=out)
        report = json.loads(out.getvalue())

        assert (report["problems"], report["more_keys"]) == ([], 0)
        [text] = report["keys"]
        assert forged.signing_kid in text

    def test_verify_lists_no_key_if_the_rows_of_all_keys_are_authentic(self, initial_keys):
        assert json.loads(output_of("instaccess_tokens", "verify", "--json"))["keys"] == []

    def test_k17_instaccess_keys_list_prints_that_an_inserted_key_is_not_used(self, forged):
        [line] = [line for line in output_of("instaccess_keys", "list").splitlines() if forged.signing_kid in line]
        facts = {fact["kid"]: fact for fact in json.loads(output_of("instaccess_keys", "list", "--json"))}

        assert "not used: the row of key" in line
        assert facts[forged.signing_kid]["problem"] == "key_altered"
        assert {fact["problem"] for kid, fact in facts.items() if kid != forged.signing_kid} == {None}

    def test_k17_instaccess_keys_list_prints_unreadable_rows(self, initial_keys):
        store_unreadable_value(status="future")
        [row] = Key.objects.filter(status="future").values("pk", "kid")
        out = output_of("instaccess_keys", "list")
        facts = json.loads(output_of("instaccess_keys", "list", "--json"))

        assert row["kid"] not in out
        assert f"not used: row {row['pk']} of the table of keys was modified" in out
        assert [fact["problem"] for fact in facts] == [None, None, "key_altered"]
        # In the JSON output, the object of an unreadable row has the same members as the object of a key.
        assert len({frozenset(fact) for fact in facts}) == 1

    def test_instaccess_keys_list_prints_no_control_characters_of_a_kid(self, initial_keys, rsa_pool):
        insert_with_sql(rsa_pool.take(), use="sig", kid="\x1b[2J-inserted")
        out = output_of("instaccess_keys", "list")

        assert "\x1b" not in out
        assert r"'\x1b[2J-inserted'" in out

    def test_k17_key_page_names_the_inserted_key(self, forged, admin_client):
        page = page_text(admin_client.get(PAGE))

        assert f"so these keys are not used: {forged.signing_kid[:8]} (signing, past)." in page

    def test_k17_page_of_an_inserted_key_has_a_warning_and_the_button_to_revoke_the_key(
        self, forged, admin_client, initial_keys
    ):
        row = Key.objects.get(kid=forged.signing_kid)
        page = page_text(admin_client.get(reverse("admin:instaccess_key_change", args=[row.pk])))
        other = page_text(admin_client.get(reverse("admin:instaccess_key_change", args=[initial_keys[0].pk])))

        assert "This row was modified or inserted without this app" in page
        assert "Revoke key…" in page
        assert "errornote" not in other

    @pytest.mark.parametrize("kid", ["a/b", "\N{PILE OF POO}", "'"])
    def test_k17_key_pages_show_an_inserted_key_with_any_kid(self, kid, initial_keys, rsa_pool, admin_client):
        row = insert_with_sql(rsa_pool.take(), use="odd", kid=kid, status="odd")

        assert "so these keys are not used" in page_text(admin_client.get(PAGE))
        page = page_text(admin_client.get(reverse("admin:instaccess_key_change", args=[row.pk])))
        assert "This row was modified or inserted without this app" in page
        assert "Revoke key…" not in page

    def test_k17_key_page_names_an_unreadable_row(self, initial_keys, admin_client):
        store_unreadable_value(status="future")
        [pk] = Key.objects.filter(status="future").values_list("pk", flat=True)

        assert f"unreadable rows with the ids {pk}" in page_text(admin_client.get(PAGE))


class TestTheRevocationOfAnInsertedKey:
    def test_k17_inserted_key_is_not_reported_after_its_revocation_and_stays_refused(self, forged, get, user):
        output_of("instaccess_keys", "revoke", "--kid", forged.signing_kid, "--reason", "inserted with SQL")

        call_command("check", "--database", "default")
        output_of("instaccess_tokens", "verify")
        assert get(VERIFY, forged.encrypted(signed(forged, user))).status_code == 401
        check_refused(get(SELF, signed(forged, user)))

    def test_k17_inserted_key_can_be_revoked_in_the_admin(self, forged, admin_client):
        url = reverse("admin:instaccess_key_revoke", args=[forged.signing_kid])
        response = admin_client.post(url, {"confirmed": "1", "reason": "inserted with SQL"})

        assert response.status_code == 302
        call_command("check", "--database", "default")

    def test_k17_a_revoked_key_whose_row_was_modified_can_be_revoked_again_in_the_admin(
        self, initial_keys, admin_client
    ):
        key = lifecycle.revoke(initial_keys[0].kid).key
        Key.objects.filter(pk=key.pk).update(revoked_at=None)
        page = page_text(admin_client.get(reverse("admin:instaccess_key_change", args=[key.pk])))
        url = reverse("admin:instaccess_key_revoke", args=[key.kid])

        assert "Revoke key…" in page
        assert admin_client.post(url, {"confirmed": "1", "reason": "modified"}).status_code == 302
        call_command("check", "--database", "default")


class TestAModifiedCurrentSigningKey:
    def test_k17_button_to_rotate_a_modified_key_changes_nothing_and_names_the_command_that_revokes_the_key(
        self, initial_keys, admin_client
    ):
        key = Key.objects.get(use="sig", status="current")
        Key.objects.filter(pk=key.pk).update(alg="odd")
        before = list(Key.objects.order_by("pk").values())
        response = admin_client.post(reverse("admin:instaccess_key_rotate", args=["sig"]), follow=True)

        assert f"revoke --kid {key.kid}" in page_text(response)
        assert list(Key.objects.order_by("pk").values()) == before

    def test_k17_no_token_is_issued_until_the_modified_current_key_is_revoked(
        self, initial_keys, post, access_token, caplog
    ):
        key = Key.objects.get(use="sig", status="current")
        Key.objects.filter(pk=key.pk).update(created_at=key.created_at.replace(year=2020))
        keys_ring.clear_cache()

        assert post(access_token).status_code == 503
        [line] = [record.getMessage() for record in caplog.records if record.name == "instaccess.issuer"]
        assert f"the row of key {key.kid} was modified" in line
        assert f"`python manage.py instaccess_keys revoke --kid {key.kid}`" in line

        output_of("instaccess_keys", "revoke", "--kid", key.kid)
        assert post(access_token).status_code == 201


class TestAProjectWithoutTheKeyEncryptionKey:
    """Tests of a project that uses the issuer's database, but lacks at least one of its key-encryption keys."""

    def test_o6_every_role_answers_503_without_the_key_encryption_key_and_the_check_names_the_setting(
        self, initial_keys, get, client, post, access_token, user, settings
    ):
        factory = factory_of_this_deployment()
        token = signed(factory, user)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK]}
        keys_ring.clear_cache()

        assert get(VERIFY, factory.encrypted(token)).status_code == 503
        assert get(SELF, token).status_code == 503
        assert client.get(JWKS).status_code == 503
        assert post(access_token).status_code == 503
        assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in failure_of("check", "--database", "default")

    @pytest.mark.parametrize("use", ["sig", "enc"])
    def test_o6_a_valid_token_gets_a_503_if_the_key_encryption_key_of_its_key_is_missing(
        self, use, initial_keys, get, user, settings
    ):
        """The app must answer 503, because a client that gets a 401 discards the valid token."""
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, "SECRET_KEY"]}
        # The first rotation makes a key of SECRET_KEY current, and the second rotation makes a new key current.
        for _ in range(2):
            lifecycle.rotate(Key.Use(use), force=True)
        factory = factory_of_this_deployment()
        token = signed(factory, user)
        assert get(VERIFY, factory.encrypted(token)).status_code == 204
        assert get(SELF, token).status_code == 200
        settings.INSTACCESS = {}
        gateway_views.clear_caches()
        keys_ring.clear_cache()

        assert get(VERIFY, factory.encrypted(token)).status_code == 503
        assert get(SELF, token).status_code == (503 if use == "sig" else 200)
