"""Tests of the signals `token_issued` and `token_refused`, which the issuer, the gateway and the service send."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import DatabaseError, connection, transaction
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instaccess import audit, signals, users
from instaccess.audit import recording
from instaccess.conf import conf
from instaccess.gateway import views as gateway_views
from instaccess.models import IssuedToken, Key, ServiceUser
from tests.conftest import ISSUE_URL
from tests.support.answers import claims_of, signed_inside
from tests.support.receiving import connected, received

VERIFY = "/internal/gateway/verify"
SELF = "/api/v1/users/self"


@pytest.fixture
def grace(db: None) -> Any:
    return get_user_model().objects.create_user("grace")


@pytest.fixture
def get(client: Any) -> Callable[..., Any]:
    """Return a function that sends a GET request with a bearer token."""

    def get_(path: str, token: str | None = None) -> Any:
        return client.get(path, headers={"Authorization": f"Bearer {token}"} if token is not None else {})

    return get_


# These tests commit their transactions, because the signal of an issued token is sent after a commit.
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("initial_keys")
class TestTokenIssued:
    def test_facts_of_an_issued_token_are_the_values_of_its_audit_row(self, post, access_token, user, application):
        with received(signals.token_issued) as facts:
            post(access_token)

        row = IssuedToken.objects.get()
        assert facts == [
            {
                "jti": str(row.jti),
                "user_id": user.pk,
                "user_uuid": users.user_uuid(user),
                "real_user_id": None,
                "real_user_uuid": "",
                "client_id": application.client_id,
                "account_uuid": row.account_uuid,
                "canvas_domain": "testserver",
                "signing_kid": Key.objects.get(use="sig", status="current").kid,
                "encryption_kid": Key.objects.get(use="enc", status="current").kid,
                "ip_address": "127.0.0.1",
                "issued_at": row.issued_at,
                "expires_at": row.issued_at + timedelta(hours=1),
            }
        ]

    def test_facts_of_a_masquerade_name_the_subject_and_the_real_user(self, post, access_token, user, grace):
        user.user_permissions.add(Permission.objects.get(codename="masquerade"))

        with received(signals.token_issued) as facts:
            post(access_token, data={"as_user_id": grace.pk})

        [sent] = facts
        assert (sent["user_id"], sent["real_user_id"]) == (grace.pk, user.pk)
        assert (sent["user_uuid"], sent["real_user_uuid"]) == (users.user_uuid(grace), users.user_uuid(user))

    def test_facts_of_a_token_of_an_application_name_its_service_user(
        self, post, make_access_token, application, grace
    ):
        ServiceUser.objects.create(application=application, user=grace)

        with received(signals.token_issued) as facts:
            post(make_access_token(user=None))

        assert [(sent["user_id"], sent["client_id"]) for sent in facts] == [(grace.pk, application.client_id)]

    def test_signal_of_an_issued_token_is_sent_after_the_audit_row_was_committed(self, post, access_token):
        seen: list[tuple[bool, bool]] = []

        def receive(jti: str, **facts: Any) -> None:
            seen.append((connection.in_atomic_block, IssuedToken.objects.filter(jti=jti).exists()))

        with connected(signals.token_issued, receive):
            post(access_token)

        assert seen == [(False, True)]

    def test_client_gets_its_token_if_a_receiver_fails(self, post, access_token, caplog):
        def fail(**facts: Any) -> None:
            IssuedToken.objects.get(pk=-1)

        with connected(signals.token_issued, fail):
            response = post(access_token)

        assert response.status_code == 201
        assert IssuedToken.objects.filter(jti=claims_of(response.json()["token"])["jti"]).exists()
        assert "fail of signal token_issued failed: DoesNotExist" in caplog.text

    def test_no_fact_contains_the_token_or_the_access_token(self, post, access_token):
        with received(signals.token_issued) as facts:
            token = post(access_token).json()["token"]

        assert access_token.token not in repr(facts)
        assert not any(part in repr(facts) for part in token.split("."))

    def test_signal_of_an_issued_token_is_not_sent_if_the_audit_row_cannot_be_committed(
        self, post, access_token, monkeypatch
    ):
        def fail(*args: Any, **kwargs: Any) -> None:
            raise DatabaseError

        monkeypatch.setattr(recording, "insert", fail)
        with received(signals.token_issued) as issued, received(signals.token_refused) as refused:
            response = post(access_token)

        assert response.status_code == 503
        assert issued == []
        assert [(sent["reason"], sent["status"]) for sent in refused] == [("audit", 503)]

    def test_issuing_runs_the_same_queries_with_and_without_a_receiver(self, post, access_token):
        post(access_token)
        with CaptureQueriesContext(connection) as without:
            post(access_token)
        with CaptureQueriesContext(connection) as with_receiver, received(signals.token_issued):
            post(access_token)

        assert len(with_receiver) == len(without)


def _expired(make_access_token: Any, **_: Any) -> Any:
    return make_access_token(expires=timezone.now() - timedelta(hours=1))


ISSUER_REFUSALS: dict[str, tuple[Callable[..., Any], str, int]] = {
    "no credentials": (lambda post, **_: post(), "no_credentials", 401),
    "a malformed header": (lambda post, **_: post("a b"), "malformed_header", 401),
    "an unknown access token": (lambda post, **_: post("unknown"), "unknown_token", 401),
    "an expired access token": (
        lambda post, make_access_token, **_: post(_expired(make_access_token)),
        "expired",
        401,
    ),
    "a missing scope": (
        lambda post, make_access_token, **_: post(make_access_token(scope="read")),
        "insufficient_scope",
        401,
    ),
    "a masquerade without permission": (
        lambda post, access_token, **_: post(access_token, data={"as_user_id": "4711"}),
        "as_user_id_not_allowed",
        401,
    ),
    "another method": (lambda client, **_: client.put(ISSUE_URL), "method", 405),
    "too many parameters": (
        lambda post, access_token, **_: post(access_token, url=f"{ISSUE_URL}?{'a=1&' * 1001}"),
        "bad_request",
        400,
    ),
}


@pytest.mark.django_db
@pytest.mark.usefixtures("initial_keys")
class TestTokenRefusedByTheIssuer:
    @pytest.mark.parametrize("case", ISSUER_REFUSALS)
    def test_refusal_of_the_issuer_sends_a_signal_with_the_reason_and_the_status(
        self, case, post, client, make_access_token, access_token
    ):
        request, reason, status = ISSUER_REFUSALS[case]

        with received(signals.token_refused) as facts:
            response = request(
                post=post, client=client, make_access_token=make_access_token, access_token=access_token
            )

        [sent] = facts
        assert (sent["role"], sent["reason"], sent["status"]) == ("issuer", reason, status)
        assert response.status_code == status
        assert sent["ip_address"] == "127.0.0.1"

    def test_facts_of_a_valid_access_token_name_its_user_and_its_application(
        self, post, make_access_token, user, application
    ):
        uuid = users.user_uuid(user)
        with received(signals.token_refused) as facts:
            post(make_access_token(scope="read"))

        [sent] = facts
        assert (sent["user_id"], sent["user_uuid"], sent["client_id"]) == (user.pk, uuid, application.client_id)

    def test_facts_of_an_unknown_access_token_name_no_user_and_no_application(self, post):
        with received(signals.token_refused) as facts:
            post("unknown")

        [sent] = facts
        assert (sent["user_id"], sent["user_uuid"], sent["client_id"], sent["jti"]) == (None, "", "", "")
        assert "unknown" not in {sent["user_uuid"], sent["client_id"]}

    def test_a_throttled_request_sends_the_signal(self, throttled, slow_leak, post, access_token):
        with received(signals.token_refused) as facts:
            statuses = [post(access_token).status_code for _ in range(4)]

        assert statuses == [201, 201, 201, 429]
        assert [(sent["reason"], sent["status"]) for sent in facts] == [("throttled", 429)]

    def test_client_gets_the_same_refusal_if_a_receiver_fails(self, post):
        def fail(**facts: Any) -> None:
            raise RuntimeError

        before = post("unknown")
        with connected(signals.token_refused, fail):
            after = post("unknown")

        assert (after.status_code, after.content) == (before.status_code, before.content)
        assert after.headers == before.headers


@pytest.mark.django_db
@pytest.mark.usefixtures("empty_gateway_caches")
class TestTokenRefusedByTheGateway:
    def test_facts_of_a_revoked_token_have_its_id_and_its_user(self, post, access_token, user, get):
        token = post(access_token).json()["token"]
        row = IssuedToken.objects.get()
        audit.revoke(audit.revocable_tokens(), keks=conf.key_encryption_keys, reason="stolen")

        with received(signals.token_refused) as facts:
            response = get(VERIFY, token)

        [sent] = facts
        assert (sent["role"], sent["reason"], sent["status"]) == ("gateway", "revoked", response.status_code)
        assert (sent["jti"], sent["user_uuid"]) == (str(row.jti), users.user_uuid(user))
        assert sent["user_id"] is None

    def test_facts_of_a_forged_token_contain_no_token_id(self, post, access_token, get):
        head, *parts = post(access_token).json()["token"].split(".")

        with received(signals.token_refused) as facts:
            get(VERIFY, ".".join([head, *reversed(parts)]))

        assert [(sent["status"], sent["jti"], sent["user_uuid"]) for sent in facts] == [(401, "", "")]

    def test_request_that_the_gateway_accepts_sends_no_signal(self, post, access_token, get):
        token = post(access_token).json()["token"]

        with received(signals.token_refused) as facts:
            assert get(VERIFY, token).status_code == 204

        assert facts == []

    def test_server_side_error_of_the_gateway_sends_the_signal_with_status_503(
        self, post, access_token, get, settings
    ):
        token = post(access_token).json()["token"]
        settings.INSTACCESS = {"LEEWAY": "a minute"}

        with received(signals.token_refused) as facts:
            get(VERIFY, token)

        assert [(sent["reason"], sent["status"]) for sent in facts] == [("config", 503)]


class TestTokenRefusedByAGatewayThatRunsNoQueries:
    def test_gateway_sends_the_signal_of_a_refusal_without_a_query(self):
        # pytest-django refuses every query of this test, because the test has no database mark.
        with received(signals.token_refused) as facts:
            response = gateway_views.verify(RequestFactory().get(VERIFY))

        assert response.status_code == 401
        assert [(sent["role"], sent["reason"]) for sent in facts] == [("gateway", "no_credentials")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("initial_keys")
class TestTokenRefusedByTheService:
    def test_facts_of_a_token_of_an_inactive_user_have_its_id_and_its_user(self, post, access_token, user, get):
        signed = signed_inside(post(access_token).json()["token"])
        get_user_model().objects.update(is_active=False)

        with received(signals.token_refused) as facts:
            response = get(SELF, signed)

        [sent] = facts
        assert response.status_code == 401
        assert (sent["role"], sent["reason"], sent["status"]) == ("service", "unknown_user", 401)
        assert (sent["jti"], sent["user_uuid"]) == (str(IssuedToken.objects.get().jti), users.user_uuid(user))

    def test_encrypted_token_sends_the_signal_without_a_token_id(self, post, access_token, get):
        with received(signals.token_refused) as facts:
            get(SELF, post(access_token).json()["token"])

        assert [(sent["reason"], sent["jti"]) for sent in facts] == [("still_encrypted", "")]

    def test_bearer_token_of_another_authenticator_sends_no_signal(self, access_token, get):
        with received(signals.token_refused) as facts:
            assert get(SELF, access_token.token).status_code == 200

        assert facts == []

    def test_signal_of_a_refusal_is_sent_although_the_transaction_of_the_request_is_rolled_back(
        self, post, access_token, get
    ):
        encrypted = post(access_token).json()["token"]

        with received(signals.token_refused) as facts, transaction.atomic():
            get(SELF, encrypted)
            transaction.set_rollback(True)

        assert [sent["role"] for sent in facts] == ["service"]

    def test_server_side_error_of_the_service_sends_the_signal_with_status_503(
        self, post, access_token, get, settings
    ):
        signed = signed_inside(post(access_token).json()["token"])
        settings.INSTACCESS = {"VERIFICATION_KEYS": "https://127.0.0.1:1/"}

        with received(signals.token_refused) as facts:
            response = get(SELF, signed)

        assert response.status_code == 503
        assert [(sent["reason"], sent["status"]) for sent in facts] == [("fault", 503)]
