"""Tests that the issuer answers 503 and logs the reason if keys, settings or the database can't be used."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pytest
from django.db import OperationalError, connection
from django.test import override_settings
from oauth2_provider.models import get_access_token_model

from instaccess.keys import ring
from instaccess.models import IssuedToken, Key
from tests.conftest import ISSUE_URL
from tests.support.answers import CHALLENGE, UNAUTHENTICATED, UNAVAILABLE, answer
from tests.support.stored_keys import write

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


class TestTheIssuerWithoutKeys:
    @pytest.fixture(autouse=True)
    def _no_keys(self, initial_keys):
        Key.objects.all().delete()
        ring.clear_cache()

    def test_k5_issuer_without_keys_returns_503_with_retry_after(self, post, access_token):
        response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert int(response["Retry-After"]) > 0

    def test_k5_log_of_an_issuer_without_keys_names_the_command_instaccess_init(self, post, access_token, caplog):
        post(access_token)

        assert "instaccess_init" in caplog.text

    def test_k5_issuer_without_keys_writes_no_audit_row_and_generates_no_key(self, post, access_token):
        post(access_token)

        assert not IssuedToken.objects.exists()
        assert not Key.objects.exists()

    def test_k5_issuer_issues_tokens_after_init(self, post, access_token):
        from instaccess.keys import provision

        post(access_token)
        provision.init()

        assert post(access_token).status_code == 201


class TestTheIssuerWithoutACurrentKey:
    @pytest.mark.parametrize("use", [Key.Use.SIGNING, Key.Use.ENCRYPTION])
    def test_k8_issuer_without_a_current_key_returns_503_and_generates_no_key(self, post, access_token, use):
        Key.objects.filter(use=use, status=Key.Status.CURRENT).delete()
        ring.clear_cache()
        left = set(Key.objects.values_list("kid", "status"))

        assert answer(post(access_token)) == UNAVAILABLE
        assert set(Key.objects.values_list("kid", "status")) == left
        assert not IssuedToken.objects.exists()

    @pytest.mark.parametrize("status", [Key.Status.PAST, Key.Status.REVOKED, Key.Status.FUTURE])
    def test_k8_issuer_does_not_sign_with_a_key_that_is_not_current(self, post, access_token, status):
        Key.objects.filter(use=Key.Use.SIGNING, status=Key.Status.CURRENT).update(status=status)
        ring.clear_cache()

        assert answer(post(access_token)) == UNAVAILABLE


class TestTheIssuerWithAWrongKeyEncryptionKey:
    @pytest.fixture(autouse=True)
    def _wrong_kek(self, initial_keys, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}
        ring.clear_cache()

    def test_o6_issuer_with_a_wrong_key_encryption_key_returns_503(self, post, access_token):
        response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "Retry-After" in response

    def test_o6_issuer_logs_the_setting_if_the_key_encryption_key_is_wrong(self, post, access_token, caplog):
        post(access_token)

        assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in caplog.text

    def test_o6_issuer_does_not_change_keys_if_the_key_encryption_key_is_wrong(self, post, access_token):
        before = list(Key.objects.order_by("pk").values())
        post(access_token)

        assert list(Key.objects.order_by("pk").values()) == before
        assert not IssuedToken.objects.exists()

    def test_o6_issuer_issues_tokens_again_with_the_right_key_encryption_key(self, post, access_token, settings):
        post(access_token)
        settings.INSTACCESS = {}
        ring.clear_cache()

        assert post(access_token).status_code == 201


class TestTheIssuerWithoutThePrivateEncryptionKey:
    """Tests of a missing or invalid private encryption key. The issuer encrypts tokens with the public key."""

    @pytest.mark.parametrize("sealed", ["", "flipped"])
    def test_k7_issuer_issues_tokens_if_the_private_encryption_key_is_missing_or_invalid(
        self, post, access_token, sealed
    ):
        write(Key.objects.filter(use=Key.Use.ENCRYPTION), sealed_private_jwk=sealed)
        ring.clear_cache()

        assert post(access_token).status_code == 201


class TestAModifiedKeyRow:
    def test_k7_issuer_returns_503_if_a_key_row_contains_the_sealed_private_key_of_another_row(
        self, post, access_token
    ):
        current, future = (Key.objects.get(use="sig", status=status) for status in ("current", "future"))
        Key.objects.filter(pk=current.pk).update(sealed_private_jwk=future.sealed_private_jwk)
        ring.clear_cache()

        assert answer(post(access_token)) == UNAVAILABLE

    def test_k7_issuer_returns_503_if_the_public_encryption_key_was_replaced(self, post, access_token, rsa_pool):
        stranger = rsa_pool.take("enc").export_public(as_dict=True)
        row = Key.objects.get(use="enc")
        Key.objects.filter(pk=row.pk).update(public_jwk={**stranger, "use": "enc", "kid": row.kid})
        ring.clear_cache()

        assert answer(post(access_token)) == UNAVAILABLE


class TestAnInvalidSetting:
    @pytest.mark.parametrize(
        "setting",
        [
            {"ISSUER": ""},
            {"LIFETIME": 7200},
            {"ENCRYPTION_ALG": "dir"},
            {"CLAIMS_HOOK": "no.such.hook"},
            {"USER_UUID_FIELD": "no_such_field"},
            {"TRUSTED_PROXIES": "1"},
            {"ALLOW_UNENCRYPTED": "yes"},
            {"ACCOUNT_HOOK": lambda host: ""},
        ],
    )
    def test_issuer_returns_503_and_logs_the_name_of_an_invalid_setting(self, post, access_token, setting, caplog):
        with override_settings(INSTACCESS=setting):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert next(iter(setting)) in caplog.text
        assert not IssuedToken.objects.exists()

    def test_issuer_returns_503_instead_of_a_refusal_if_the_realm_is_invalid(self, post, caplog):
        with override_settings(INSTACCESS={"REALM": 'a"b'}):
            response = post()

        assert answer(response) == UNAVAILABLE
        assert "REALM" in caplog.text


class TestTheIssuerWhileTheDatabaseIsUnavailable:
    def test_o1_issuer_returns_503_with_retry_after_if_the_database_is_unavailable(self, post, access_token, caplog):
        with connection.execute_wrapper(down):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert int(response["Retry-After"]) > 0
        assert "OperationalError" in caplog.text

    def test_o1_issuer_returns_503_if_the_insert_of_the_audit_row_fails(self, post, access_token):
        post(access_token)
        with connection.execute_wrapper(down_for("INSERT")):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "Retry-After" in response
        assert IssuedToken.objects.count() == 1

    def test_o1_issuer_returns_503_if_the_query_for_keys_fails(self, post, access_token):
        with connection.execute_wrapper(down_for("instaccess_key")):
            assert answer(post(access_token)) == UNAVAILABLE

    def test_o1_issuer_issues_tokens_again_when_the_database_is_available(self, post, access_token):
        with connection.execute_wrapper(down):
            post(access_token)

        assert post(access_token).status_code == 201

    def test_o1_request_without_credentials_causes_no_query(self, post, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert answer(post()) == UNAUTHENTICATED


class TestTheLogOfTheIssuer:
    def test_issuer_logs_the_jti_and_the_client_id_of_an_issued_token(self, post, access_token, application, caplog):
        caplog.set_level("INFO", "instaccess")
        post(access_token)

        assert str(IssuedToken.objects.get().jti) in caplog.text
        assert application.client_id in caplog.text

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"scope": "read"}, "insufficient_scope"),
            ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "expired"),
            ({"user": None}, "no_user"),
            ({"application": None}, "no_application"),
        ],
    )
    def test_issuer_logs_the_precise_reason_for_a_refusal(self, post, make_access_token, columns, reason, caplog):
        post(make_access_token(**columns))

        assert f"reason={reason}" in caplog.text

    def test_issuer_logs_a_refusal_in_one_line(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer a\r\nreason=forged b")

        lines = [record.getMessage() for record in caplog.records if record.name == "instaccess.issuer"]
        assert len(lines) == 1
        assert "\n" not in lines[0]


class TestAnUnexpectedError:
    def test_issuer_returns_503_and_logs_the_traceback_of_an_unexpected_error(self, post, access_token, caplog):
        def hook(user, application):
            raise ZeroDivisionError("the hook")

        with override_settings(INSTACCESS={"CLAIMS_HOOK": hook}):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "ZeroDivisionError: the hook" in caplog.text
        assert not IssuedToken.objects.exists()

    def test_issuer_returns_503_after_an_attribute_error_during_authentication(self, post, access_token, monkeypatch):
        def broken(self, scopes):
            raise AttributeError("a model of the project's own")

        monkeypatch.setattr(get_access_token_model(), "allow_scopes", broken)

        assert answer(post(access_token)) == UNAVAILABLE

    def test_issuer_sends_a_challenge_with_a_refusal_but_not_with_a_503(self, post, access_token):
        Key.objects.all().delete()
        ring.clear_cache()

        assert post()["WWW-Authenticate"] == CHALLENGE
        assert "WWW-Authenticate" not in post(access_token)


def down(execute, sql, params, many, context):
    raise OperationalError("the server closed the connection unexpectedly")


def down_for(fragment):
    def wrapper(execute, sql, params, many, context):
        if fragment in sql:
            raise OperationalError("the server closed the connection unexpectedly")
        return execute(sql, params, many, context)

    return wrapper
