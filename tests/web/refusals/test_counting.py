"""Tests of the refusal counts of the issuer and the gateway, and of the cost of a flood of refusals."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import OperationalError, connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instaccess import exceptions
from instaccess.gateway import views
from instaccess.issuer import issuing
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, RefusalCount, UserIdentity
from instaccess.web import refusals
from tests.conftest import ISSUE_URL
from tests.support.tokens import TokenFactory, claims
from tests.web.refusals.helpers import GATEWAY_URL, REAL_TRANSACTIONS, ask, counted, total, written

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)
HOUR = NOW.replace(minute=0)


class TestRefusalCountsOfTheIssuer:
    def test_issuer_counts_refusals_by_reason(self, post, client):
        post()
        post("nobody's")
        post("nobody's")
        client.get(ISSUE_URL)

        assert counted() == {
            ("issuer", "no_credentials", "", ""): 1,
            ("issuer", "unknown_token", "", ""): 2,
            ("issuer", "method", "", ""): 1,
        }

    def test_issuer_counts_a_refusal_with_the_client_and_the_uuid_that_were_loaded_with_the_access_token(
        self, post, make_access_token, user
    ):
        identity = UserIdentity.objects.create(user=user)
        access_token = make_access_token(scope="read")
        post(access_token)

        client_id = access_token.application.client_id
        assert counted() == {("issuer", "insufficient_scope", client_id, str(identity.uuid)): 1}

    def test_issuer_counts_a_refusal_without_creating_a_user_uuid(self, post, make_access_token):
        access_token = make_access_token(scope="read")
        with CaptureQueriesContext(connection) as queries:
            post(access_token)

        assert len(queries) == 1  # The only query looks up the access token.
        assert counted() == {("issuer", "insufficient_scope", access_token.application.client_id, ""): 1}
        assert not UserIdentity.objects.exists()

    def test_issuer_counts_a_refusal_with_the_uuid_from_user_uuid_field(self, post, make_access_token, settings):
        settings.INSTACCESS = {"USER_UUID_FIELD": "username"}
        access_token = make_access_token(scope="read")
        post(access_token)

        assert counted() == {("issuer", "insufficient_scope", access_token.application.client_id, "ada"): 1}

    def test_issuer_returns_and_counts_insufficient_scope_if_user_uuid_field_is_invalid(
        self, post, settings, make_access_token
    ):
        # The refusal needs no uuid, so the invalid setting must not turn the refusal into a 503.
        access_token = make_access_token(scope="read")
        for name in ("no_such_field", "natural_key"):
            settings.INSTACCESS = {"USER_UUID_FIELD": name}

            assert "Insufficient scopes" in post(access_token).content.decode()
        assert counted() == {("issuer", "insufficient_scope", access_token.application.client_id, ""): 2}

    def test_issuer_counts_a_server_side_error_by_its_code(self, post, access_token, settings):
        settings.INSTACCESS = {"CLAIMS_HOOK": lambda user, application: {"big": "x" * 9999}}

        assert post(access_token).status_code == 503
        assert counted() == {("issuer", "claims_too_large", "", ""): 1}

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), OperationalError("the connection was closed")])
    def test_issuer_counts_an_unexpected_error_as_fault(self, post, access_token, settings, error):
        def fail(user: Any, application: Any) -> Any:
            raise error

        settings.INSTACCESS = {"CLAIMS_HOOK": fail}

        assert post(access_token).status_code == 503
        assert counted() == {("issuer", "fault", "", ""): 1}

    def test_issuer_does_not_count_issued_tokens(self, post, access_token):
        assert post(access_token).status_code == 201
        assert counted() == {}

    def test_issuer_counts_a_refusal_with_an_unknown_code_as_other(self, post, access_token, settings):
        def hook(user: Any, application: Any) -> Any:
            raise exceptions.InstAccessError("made up", code=access_token.token)

        settings.INSTACCESS = {"CLAIMS_HOOK": hook}
        post(access_token)

        assert counted() == {("issuer", "other", "", ""): 1}


class TestRefusalCountsOfTheGateway:
    @pytest.fixture
    def make(self) -> TokenFactory:
        ring = keys_ring.current_ring()
        return TokenFactory(ring.signing_key().private().reveal(), ring.encryption_key().private().reveal())

    @pytest.fixture
    def token(self, user: Any, application: Any) -> str:
        origin = issuing.Origin(canvas_domain="canvas.example.edu")
        return issuing.issue(user=user, application=application, service=True, origin=origin, now=time.time())[1]

    def test_gateway_counts_refusals_by_reason(self):
        ask()
        ask("opaque")
        ask("a.b.c.d.e")
        ask("a.b.c.d.e")

        assert counted() == {
            ("gateway", "no_credentials", "", ""): 1,
            ("gateway", "other_bearer", "", ""): 1,
            ("gateway", "malformed", "", ""): 2,
        }

    def test_gateway_counts_a_revoked_token_with_its_client_and_user(self, token, user, application):
        assert ask(token) == 204
        IssuedToken.objects.update(revoked_at=timezone.now())
        views.clear_caches()
        assert ask(token) == 401

        uuid = str(user.instaccess_identity.uuid)
        assert counted() == {("gateway", "revoked", application.client_id, uuid): 1}

    def test_gateway_counts_a_cached_or_uncached_expired_token_with_its_client_and_user(
        self, token, user, application
    ):
        ask(token)
        with time_machine.travel(timezone.now() + timedelta(hours=1, seconds=1)):
            ask(token)
            views.clear_caches()
            ask(token)

        uuid = str(user.instaccess_identity.uuid)
        assert counted() == {("gateway", "expired", application.client_id, uuid): 2}

    def test_gateway_counts_a_forged_token_without_its_client_and_user(self, make, rsa_pool):
        forged = TokenFactory(rsa_pool.take(), make.encryption)
        ask(forged.token(now=int(time.time()), sub="victim", client_id="victim"))
        ask(make.encrypted(forged.signed(claims(int(time.time()), sub="victim"), kid=make.signing_kid)))

        assert counted() == {("gateway", "unknown_kid", "", ""): 1, ("gateway", "bad_signature", "", ""): 1}

    @pytest.mark.parametrize("value", [True, None, ["a"], "x" * 256, "a\x00b", "\ud800", "ü", "a\nb", ...])
    def test_gateway_counts_a_token_without_client_and_user_if_their_claims_are_not_valid_ids(self, make, value):
        long_ago = int(time.time()) - 9000
        ask(make.token(now=long_ago, sub=value, client_id=value))

        assert counted() == {("gateway", "expired", "", ""): 1}

    def test_c12_gateway_counts_an_integer_client_id_as_a_string(self, make):
        ask(make.token(now=int(time.time()) - 9000, sub="u", client_id=7))

        assert counted() == {("gateway", "expired", "7", "u"): 1}

    def test_gateway_counts_a_server_side_error_by_its_code(self, token, settings):
        settings.INSTACCESS = {"DECRYPTION_KEYS": ["/does/not/exist"]}
        assert ask(token) == 503
        settings.INSTACCESS = {"DENY_LIST": "https://127.0.0.1:9/", "SERVICE_SECRETS": []}
        assert ask(token) == 503

        assert {(role, total) for (role, *_), total in counted().items()} == {("gateway", 2)}
        assert {reason for _, reason, *_ in written()} <= set(exceptions.Reason) - {"other"}

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), OperationalError("the connection was closed")])
    def test_gateway_counts_an_unexpected_error_as_fault(self, token, monkeypatch, error):
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise error

        monkeypatch.setattr("instaccess.gateway.unwrapping.unwrap_with_settings", fail)
        assert ask(token) == 503

        assert counted() == {("gateway", "fault", "", ""): 1}


class TestTheReasonCodes:
    def test_every_reason_code_fits_into_its_column(self):
        assert max(map(len, exceptions.Reason)) <= RefusalCount._meta.get_field("reason").max_length


class TestARowOfTheRefusalCounts:
    def test_refusal_count_row_has_the_hour_of_the_refusal_in_utc(self):
        with time_machine.travel(NOW, tick=False) as now:
            refusals.counter.count("gateway", "expired")
            now.shift(timedelta(minutes=30))
            refusals.counter.count("gateway", "expired")
            refusals.counter.flush()

        hours = RefusalCount.objects.order_by("hour").values_list("hour", "count")
        assert list(hours) == [(HOUR, 1), (HOUR + timedelta(hours=1), 1)]

    def test_each_write_of_refusal_counts_adds_to_the_same_row(self):
        for _ in range(3):
            refusals.counter.count(RefusalCount.Role.ISSUER, "throttled", client_id="c", user_uuid="u")
            assert refusals.counter.flush() == 1

        assert written() == {("issuer", "throttled", "c", "u"): 3}

    def test_a1_refusal_count_row_contains_no_token_no_address_and_no_text_of_a_request(
        self, post, make_access_token
    ):
        access_token = make_access_token(scope="read")
        sent = {"User-Agent": "sent-agent", "X-Forwarded-For": "192.0.2.99", "Host": "sent.example.edu"}
        for bearer in (access_token.token, "sent-token", "sent.token.x", "sent.token.x.y.z", "sent token", ""):
            post(bearer, url=f"{ISSUE_URL}?as_user_id=sent", headers=sent, REMOTE_ADDR="192.0.2.99")
            ask(bearer, **sent)
        counted()

        text = str(list(RefusalCount.objects.values_list("role", "reason", "client_id", "user_uuid", "count")))
        assert total() == 12
        for secret in (access_token.token, "sent", "192.0.2.99", "ada"):
            assert secret not in text


@REAL_TRANSACTIONS
class TestAFloodOfRefusals:
    def test_flood_of_10000_invalid_tokens_in_30_seconds_costs_the_gateway_three_writes(
        self, clock, statements, caplog
    ):
        # Raise the log level, so that the test doesn't write ten thousand log lines.
        caplog.set_level(logging.CRITICAL, logger="instaccess")
        request = RequestFactory().get(GATEWAY_URL)
        with time_machine.travel(NOW, tick=False):
            for number in range(10_000):
                token = f"{number}.b.c.d.e" if number % 2 else str(number)
                request.META["HTTP_AUTHORIZATION"] = f"Bearer {token}"
                response = views.verify(request)
                response.close()  # The end of a request writes the counts that are due.
                assert response.status_code == 401
                clock.advance(30.5 / 10_000)

            during = list(statements.seen)
            assert counted() == {("gateway", "malformed", "", ""): 5000, ("gateway", "other_bearer", "", ""): 5000}
        # Each write consists of an INSERT and two UPDATEs, one UPDATE per reason. The first write also trims the
        # table.
        assert (during.count("INSERT"), during.count("UPDATE"), during.count("DELETE")) == (3, 6, 0)
        assert len(during) == 3 * 3 + 2

    def test_flood_of_invalid_tokens_costs_the_issuer_one_write_in_ten_seconds(self, post, clock, statements):
        for number in range(200):
            post(f"nobody-{number}")
            clock.advance(0.06)

        assert statements.seen.count("INSERT") == 1
        assert counted() == {("issuer", "unknown_token", "", ""): 200}

    def test_flood_of_tokens_of_many_users_adds_only_a_limited_number_of_refusal_count_rows(self, statements):
        with time_machine.travel(NOW, tick=False):
            for number in range(1000):
                refusals.counter.count("gateway", "revoked", user_uuid=f"user-{number}")
                if number % 100 == 99:
                    refusals.counter.flush()

        assert RefusalCount.objects.count() == 200 + 1
        assert written()["gateway", "revoked", "", ""] == 800
        assert total() == 1000
