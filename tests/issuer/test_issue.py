"""Tests of issuing: the audit row is committed before the token is returned, and contains no token."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, connections, transaction
from django.test import Client, override_settings

from instaccess.audit import names, row_hmac
from instaccess.conf import conf
from instaccess.exceptions import AuditError, ClaimsTooLarge, ConfigError, KeyUnavailable
from instaccess.issuer import issuing
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, Key, UserIdentity
from instaccess.tokens.claims import MAX_PAYLOAD_BYTES, RESERVED
from tests.conftest import ISSUE_URL
from tests.support.answers import UNAVAILABLE, answer, claims_of
from tests.support.processes import PATIENCE

NOW = 1_793_707_200.75  # NOW is 2026-11-03 12:00:00.75 UTC.
ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu", ip_address="203.0.113.9", user_agent="client/1.0")


@pytest.fixture
def issue(user, application, initial_keys):
    """Return a function that calls `issuing.issue`. Every argument has a default and can be overridden."""

    def issue_(**arguments):
        defaults = {"user": user, "application": application, "access_token_pk": 7, "origin": ORIGIN, "now": NOW}
        return issuing.issue(**(defaults | arguments))

    return issue_


@pytest.mark.django_db
class TestTheAuditRow:
    def test_audit_row_contains_user_client_keys_and_times_but_not_the_token(self, issue, user, application):
        issue()

        ring = keys_ring.current_ring()
        row = IssuedToken.objects.get()
        values = {field.name: getattr(row, field.name) for field in row._meta.fields}
        assert values == {
            "id": int(row.issued_at.timestamp()) * 10**9 + row.jti.int % 10**9,
            "jti": row.jti,
            "user": user,
            "user_uuid": str(user.instaccess_identity.uuid),
            "user_name": "ada",
            "real_user": None,
            "real_user_uuid": "",
            "real_user_name": "",
            "application": application,
            "client_id": application.client_id,
            "access_token_pk": "7",
            "account_uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, "canvas.example.edu")),
            "canvas_domain": "canvas.example.edu",
            "signing_kid": ring.signing_key().kid,
            "encryption_kid": ring.encryption_key().kid,
            "ip_address": "203.0.113.9",
            "user_agent": "client/1.0",
            "issued_at": datetime.fromtimestamp(int(NOW), UTC),
            "expires_at": datetime.fromtimestamp(int(NOW), UTC) + timedelta(hours=1),
            "revoked_at": None,
            "revoked_by": "",
            "revocation_reason": "",
            "mac": row_hmac.authenticate(row_hmac.canonical_bytes(row), conf.key_encryption_keys),
            "names_mac": row_hmac.authenticate(names.canonical_bytes(row), conf.key_encryption_keys),
        }

    def test_issue_returns_the_stored_audit_row_of_the_token(self, issue):
        row, text = issue()

        claims = claims_of(text)
        assert row == IssuedToken.objects.get(jti=claims["jti"])
        assert (row.user_uuid, row.account_uuid, row.canvas_domain) == (
            claims["sub"],
            claims["acct"],
            claims["canvas_domain"],
        )
        assert (row.issued_at.timestamp(), row.expires_at.timestamp()) == (claims["iat"], claims["exp"])

    def test_audit_row_stays_after_its_user_and_application_were_deleted(self, issue, user, application):
        row, _ = issue()
        client_id = application.client_id
        application.delete()
        user.delete()

        row.refresh_from_db()
        assert (row.user, row.application) == (None, None)
        assert row.client_id == client_id
        assert row.user_uuid

    def test_audit_row_of_an_unencrypted_token_has_no_encryption_key(self, issue):
        row, text = issue(encrypted=False)

        assert text.count(".") == 2
        assert row.encryption_kid == ""

    def test_audit_row_can_have_no_application_no_access_token_and_no_address(self, issue):
        row, _ = issue(application=None, access_token_pk=None, origin=issuing.Origin(canvas_domain="a.example.edu"))

        row.refresh_from_db()
        assert (row.application, row.client_id, row.access_token_pk) == (None, "", "")
        assert (row.ip_address, row.user_agent) == (None, "")

    @pytest.mark.parametrize("text", ["a\x00b\r\nc\x7fd", "\x1b[2J", "\x80\x9b\x9f"])
    def test_a5_audit_row_contains_no_control_characters_of_the_user_agent(self, issue, text):
        origin = issuing.Origin(canvas_domain="a.example.edu", user_agent=text)
        row, _ = issue(origin=origin)

        row.refresh_from_db()
        assert len(row.user_agent) == len(text)
        assert row.user_agent.isprintable()


@pytest.mark.django_db
class TestTheIssuedToken:
    def test_issued_token_is_valid_for_one_hour_by_default(self, issue):
        claims = claims_of(issue()[1])

        assert (claims["iat"], claims["exp"]) == (int(NOW), int(NOW) + 3600)

    def test_issued_token_expires_after_the_configured_lifetime(self, issue):
        with override_settings(INSTACCESS={"LIFETIME": 60}):
            claims = claims_of(issue()[1])

        assert claims["exp"] - claims["iat"] == 60

    def test_issued_token_omits_claims_without_a_value(self, issue):
        claims = claims_of(issue()[1])

        assert not {"region", "canvas_shard_id", "masq_sub", "masq_shard", "client_id"} & claims.keys()
        assert None not in claims.values()

    def test_issued_token_contains_the_claims_from_the_settings(self, issue):
        with override_settings(
            INSTACCESS={"ISSUER": "instructure:other", "REGION": "eu-west-1", "SHARD_ID": 3, "ACCOUNT_UUID": "root"}
        ):
            claims = claims_of(issue()[1])

        assert (claims["iss"], claims["region"], claims["canvas_shard_id"], claims["acct"]) == (
            "instructure:other",
            "eu-west-1",
            3,
            "root",
        )

    def test_account_hook_can_return_a_different_account_for_each_host(self, issue):
        with override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: f"account of {host}"}):
            assert claims_of(issue()[1])["acct"] == "account of canvas.example.edu"

    def test_p25_account_hook_receives_the_host_without_the_port(self, post, access_token, initial_keys):
        with override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: f"account of {host}"}):
            response = post(access_token, headers={"Host": "canvas.example.edu:31337"})

        claims = claims_of(response.json()["token"])
        assert claims["acct"] == "account of canvas.example.edu"
        assert claims["canvas_domain"] == "canvas.example.edu:31337"

    def test_tokens_of_one_user_contain_the_same_uuid(self, issue, user):
        first, second = (claims_of(issue()[1])["sub"] for _ in range(2))

        assert first == second == str(UserIdentity.objects.get(user=user).uuid)

    @pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA-OAEP-256"])
    @pytest.mark.parametrize("enc", ["A128CBC-HS256", "A256GCM"])
    def test_issuer_encrypts_tokens_with_the_configured_algorithms(self, issue, alg, enc):
        with override_settings(INSTACCESS={"ENCRYPTION_ALG": alg, "CONTENT_ENCRYPTION": enc}):
            _, text = issue()

        assert claims_of(text)["canvas_domain"] == "canvas.example.edu"


@pytest.mark.django_db
class TestTheClaimsHook:
    def test_p16_claims_hook_adds_claims_to_the_token(self, issue, user, application):
        calls = []

        def hook(user, application):
            calls.append((user, application))
            return {"tool": {"id": 1}}

        with override_settings(INSTACCESS={"CLAIMS_HOOK": hook}):
            claims = claims_of(issue()[1])

        assert claims["tool"] == {"id": 1}
        assert calls == [(user, application)]

    @pytest.mark.parametrize("name", sorted(RESERVED))
    def test_p16_claims_hook_cannot_set_a_reserved_claim(self, issue, name):
        with override_settings(INSTACCESS={"CLAIMS_HOOK": lambda user, application: {name: "forged"}}):
            row, text = issue()

        claims = claims_of(text)
        assert "forged" not in claims.values()
        assert (claims["jti"], claims["exp"]) == (str(row.jti), int(NOW) + 3600)

    def test_p16_issue_fails_if_the_claims_hook_returns_claims_that_are_too_large_for_gateways(self, issue):
        with (
            override_settings(INSTACCESS={"CLAIMS_HOOK": lambda user, application: {"x": "y" * 10_240}}),
            pytest.raises(ClaimsTooLarge, match="CLAIMS_HOOK"),
        ):
            issue()

        assert not IssuedToken.objects.exists()
        assert MAX_PAYLOAD_BYTES < 10_240

    @pytest.mark.parametrize("extra", [{"x": object()}, {"x": float("nan")}, {"x": b"bytes"}, {"x": "\ud800"}])
    def test_p16_issue_fails_if_the_claims_hook_returns_a_value_that_json_cannot_represent(self, issue, extra):
        with (
            override_settings(INSTACCESS={"CLAIMS_HOOK": lambda user, application: extra}),
            pytest.raises(ClaimsTooLarge, match="CLAIMS_HOOK"),
        ):
            issue()

        assert not IssuedToken.objects.exists()

    @pytest.mark.parametrize("extra", [None, [], "text", {1: "x"}])
    def test_p16_issue_fails_if_the_claims_hook_does_not_return_a_dictionary(self, issue, extra):
        with (
            override_settings(INSTACCESS={"CLAIMS_HOOK": lambda user, application: extra}),
            pytest.raises(ConfigError, match="CLAIMS_HOOK") as error,
        ):
            issue()

        assert error.value.setting == "CLAIMS_HOOK"
        assert not IssuedToken.objects.exists()

    def test_p16_issuer_returns_503_if_the_claims_are_too_large(self, post, access_token, initial_keys, caplog):
        with override_settings(INSTACCESS={"CLAIMS_HOOK": lambda user, application: {"x": "y" * 10_240}}):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "CLAIMS_HOOK" in caplog.text
        assert not IssuedToken.objects.exists()


@pytest.mark.django_db
class TestTheUserUuidField:
    def test_issuer_reads_the_uuid_from_the_configured_field_and_creates_no_identity(self, issue, user):
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "username"}):
            claims = claims_of(issue()[1])

        assert claims["sub"] == "ada"
        assert not UserIdentity.objects.exists()

    def test_issue_fails_and_names_the_setting_if_the_uuid_field_of_the_user_is_empty(self, issue, user):
        user.email = ""
        with (
            override_settings(INSTACCESS={"USER_UUID_FIELD": "email"}),
            pytest.raises(ConfigError, match="USER_UUID_FIELD"),
        ):
            issue()


@pytest.mark.django_db
class TestIssueWithoutKeys:
    def test_k5_issue_fails_without_keys_and_the_error_names_the_command_instaccess_init(self, issue):
        Key.objects.all().delete()
        keys_ring.clear_cache()

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            issue()
        assert not IssuedToken.objects.exists()
        assert not Key.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestAJtiThatExistsAlready:
    """Tests of a token id that exists already, for example because a faulty random source repeats a value."""

    def test_p17_issuer_generates_a_new_jti_if_the_jti_exists_already(self, issue, monkeypatch):
        taken, fresh = issue()[0].jti, uuid.UUID(int=2)
        numbers = iter([taken, fresh])
        monkeypatch.setattr("instaccess.tokens.claims.uuid.uuid4", lambda: next(numbers))

        row, text = issue()

        assert claims_of(text)["jti"] == str(row.jti) == str(fresh)
        assert IssuedToken.objects.count() == 2

    def test_p17_issuer_generates_a_new_jti_if_the_id_of_the_audit_row_exists_already(self, issue, monkeypatch):
        taken, fresh = issue()[0], uuid.UUID(int=2)
        numbers = iter([uuid.UUID(int=taken.jti.int + 10**9), fresh])
        monkeypatch.setattr("instaccess.tokens.claims.uuid.uuid4", lambda: next(numbers))

        row, text = issue()

        assert row.issued_at == taken.issued_at
        assert claims_of(text)["jti"] == str(row.jti) == str(fresh)
        assert IssuedToken.objects.count() == 2

    def test_p17_issue_fails_if_every_generated_jti_exists_already(self, issue, monkeypatch):
        row, _ = issue()
        monkeypatch.setattr("instaccess.tokens.claims.uuid.uuid4", lambda: row.jti)

        attempts: list[str] = []

        # Use a wrapper, because `CaptureQueriesContext` doesn't record the text of a query that MariaDB refuses.
        def record(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            attempts.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(record), pytest.raises(AuditError, match="twice"):
            issue(origin=issuing.Origin(canvas_domain="other.example.edu"))
        assert len([sql for sql in attempts if sql.startswith("INSERT")]) == 2
        assert list(IssuedToken.objects.values_list("canvas_domain", flat=True)) == ["canvas.example.edu"]

    def test_p17_issuer_returns_503_if_every_generated_jti_exists_already(
        self, issue, post, access_token, monkeypatch
    ):
        row, _ = issue()
        monkeypatch.setattr("instaccess.tokens.claims.uuid.uuid4", lambda: row.jti)

        assert answer(post(access_token)) == UNAVAILABLE
        assert IssuedToken.objects.count() == 1


TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER refuse_audit BEFORE INSERT ON instaccess_issuedtoken "
        "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$",
        "CREATE TRIGGER refuse_audit BEFORE INSERT ON instaccess_issuedtoken "
        "FOR EACH ROW EXECUTE FUNCTION refuse_audit()",
    ),
    "mysql": (
        "CREATE TRIGGER refuse_audit BEFORE INSERT ON instaccess_issuedtoken "
        "FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the disk is full'",
    ),
}
DROPS = {
    "sqlite": ("DROP TRIGGER refuse_audit",),
    "postgresql": ("DROP TRIGGER refuse_audit ON instaccess_issuedtoken", "DROP FUNCTION refuse_audit()"),
    "mysql": ("DROP TRIGGER refuse_audit",),
}


def run(statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
class TestAnAuditRowThatTheDatabaseRefuses:
    @pytest.fixture
    def refusing(self, transactional_db):
        run(TRIGGERS[connection.vendor])
        yield
        run(DROPS[connection.vendor])

    def test_p13_issue_fails_if_the_database_refuses_the_audit_row(self, issue, refusing):
        with pytest.raises(AuditError):
            issue()

        assert not IssuedToken.objects.exists()

    def test_p13_issuer_returns_503_without_a_token_if_the_database_refuses_the_audit_row(
        self, post, access_token, initial_keys, refusing
    ):
        response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert int(response["Retry-After"]) > 0

    def test_p13_issuer_issues_tokens_again_when_the_database_accepts_audit_rows_again(
        self, post, access_token, initial_keys
    ):
        run(TRIGGERS[connection.vendor])
        try:
            refused = post(access_token)
        finally:
            run(DROPS[connection.vendor])

        assert (refused.status_code, post(access_token).status_code) == (503, 201)
        assert IssuedToken.objects.count() == 1

    def test_p13_issue_fails_if_the_database_refuses_the_audit_row_at_commit(self, issue, user):
        """Delete the user after authentication. The database then refuses the foreign key only at commit."""
        user.instaccess_identity = UserIdentity(user=user)
        get_user_model().objects.filter(pk=user.pk).delete()

        with pytest.raises(AuditError):
            issue()
        assert not IssuedToken.objects.exists()

    def test_p13_issue_raises_an_audit_error_if_the_connection_is_lost_during_the_insert(self, issue):
        def lost(execute, sql, params, many, context):
            if sql.startswith("INSERT") and "issuedtoken" in sql:
                raise OperationalError("server closed the connection unexpectedly")
            return execute(sql, params, many, context)

        issue()
        with connection.execute_wrapper(lost), pytest.raises(AuditError, match="OperationalError"):
            issue()
        assert IssuedToken.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestIssuingInATransactionOfTheCaller:
    """Tests of a caller's open transaction, whose rollback could delete the audit row of a returned token."""

    def test_p15_issue_fails_inside_a_transaction_of_the_caller(self, issue):
        issue()
        with transaction.atomic(), pytest.raises(AuditError):
            issue()

        assert IssuedToken.objects.count() == 1

    def test_p15_issue_fails_if_autocommit_is_off(self, issue):
        issue()
        transaction.set_autocommit(False)
        try:
            with pytest.raises(AuditError, match="AUTOCOMMIT"):
                issue()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

        assert IssuedToken.objects.count() == 1

    def test_p15_audit_row_is_visible_over_a_second_connection_when_issue_returns(self, issue):
        row, _ = issue()
        results = []

        def count():
            results.append(IssuedToken.objects.filter(jti=row.jti).exists())
            connection.close()

        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
        assert results == [True]


class FailAfterTheView:
    """A middleware that fails after the view has returned a response."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        self.get_response(request)
        raise ZeroDivisionError("after the view")


@pytest.mark.django_db(transaction=True)
class TestAtomicRequests:
    @pytest.fixture(autouse=True)
    def _on(self, monkeypatch, transactional_db):
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    def test_p15_audit_row_stays_if_a_middleware_fails_after_the_view(
        self, client, access_token, initial_keys, settings
    ):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.issuer.test_issue.FailAfterTheView"]
        client.raise_request_exception = False

        response = client.post(ISSUE_URL, headers={"Authorization": f"Bearer {access_token.token}"})

        assert response.status_code == 500
        assert IssuedToken.objects.count() == 1

    def test_p15_issuer_issues_tokens_if_atomic_requests_is_true(self, post, access_token, initial_keys):
        assert post(access_token).status_code == 201


@pytest.mark.django_db(transaction=True)
class TestParallelRequestsForTokens:
    def test_p14_a_thousand_parallel_requests_get_a_thousand_jtis_and_audit_rows(self, access_token, initial_keys):
        authorization = {"Authorization": f"Bearer {access_token.token}"}
        Client().post(ISSUE_URL, headers=authorization)
        start = threading.Barrier(8, timeout=PATIENCE)

        def issue_many(_):
            start.wait()
            client = Client()
            try:
                responses = [client.post(ISSUE_URL, headers=authorization) for _ in range(125)]
                return [(response.status_code, response.json().get("token")) for response in responses]
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            answers = [pair for part in pool.map(issue_many, range(8)) for pair in part]

        assert {status for status, _ in answers} == {201}
        ids = {claims_of(token)["jti"] for _, token in answers}
        assert len(ids) == 1000
        assert IssuedToken.objects.count() == 1001
        assert ids < set(map(str, IssuedToken.objects.values_list("jti", flat=True)))

    def test_p14_parallel_requests_create_one_uuid_for_a_new_user(self, access_token, initial_keys, user):
        authorization = {"Authorization": f"Bearer {access_token.token}"}
        start = threading.Barrier(8, timeout=PATIENCE)

        def issue_one(_):
            start.wait()
            try:
                return Client().post(ISSUE_URL, headers=authorization).json().get("token")
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            tokens = list(pool.map(issue_one, range(8)))

        assert None not in tokens
        assert {claims_of(token)["sub"] for token in tokens} == {str(UserIdentity.objects.get(user=user).uuid)}


@pytest.mark.django_db
def test_issue_takes_the_time_of_issue_from_the_argument_now(issue):
    later = time.time() + 86_400
    row, _ = issue(now=later)

    assert row.issued_at == datetime.fromtimestamp(int(later), UTC)
