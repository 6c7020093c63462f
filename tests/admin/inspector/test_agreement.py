"""Tests that the inspector agrees with the verdicts of the gateway and the service, and changes no stored data."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from instaccess import users
from instaccess.admin.inspector.pasted import extract_token
from instaccess.admin.inspector.verdict import Outcome
from instaccess.gateway import views
from instaccess.keys import ring as keys_ring
from instaccess.service import authentication
from instaccess.tokens import MAX_LIFETIME
from tests.admin.inspector.helpers import good_claims, inspect_text, times
from tests.support.answers import signed_inside
from tests.support.tokens import TokenFactory, header_of, non_canonical_forms, with_header

pytestmark = pytest.mark.django_db

VERIFY = "/internal/gateway/verify"


def reason_of_gateway(text: str, caplog: Any) -> str:
    """Return the reason that the gateway logs, or an empty string if the gateway accepts the token."""
    caplog.clear()
    status = Client().get(VERIFY, headers={"Authorization": f"Bearer {text}"}).status_code
    if status == 204:
        return ""
    assert status == 401
    return next(record.reason for record in caplog.records if record.name == "instaccess.gateway")


def reason_of_service(text: str, caplog: Any) -> str:
    """Return the reason that a service logs.

    Returns an empty string if the service accepts the token, or `-` if the service ignores the token, so that another
    authenticator can check the token.
    """
    caplog.clear()
    request = Request(APIRequestFactory().get("/", headers={"Authorization": f"Bearer {text}"}))
    try:
        return "" if authentication.InstAccessAuthentication().authenticate(request) else "-"
    except APIException:
        return next(record.reason for record in caplog.records if record.name == "instaccess.service")


HEADERS: list[dict[str, Any]] = [
    {"alg": "RSA1_5"},
    {"alg": "none"},
    {"enc": "A256CBC-HS512"},
    {"zip": "DEF"},
    {"kid": "x" * 200},
    {"kid": 5},
    {"kid": "unheard-of"},
    {"typ": "JOSE"},
    {"cty": "text"},
    {"crit": ["exp"]},
]

CLAIMS: list[dict[str, Any]] = [
    {},
    {"exp": 5},
    {"exp": None},
    {"exp": "later"},
    {"exp": 2**60},
    {"iat": 10, "exp": 20},
    {"nbf": 2**52},
    {"sub": ""},
    {"sub": "\x00"},
    {"acct": 5},
    {"iss": "other"},
    {"jti": []},
    {"instructure_service": "yes"},
    {"masq_sub": "nobody", "masq_shard": 1},
    {"masq_sub": "nobody"},
]


class TestAgreementWithGatewayAndService:
    """Tests that the inspector gives the reason that the gateway or the service logs, for every kind of token."""

    @pytest.fixture(autouse=True)
    def listening(self, caplog):
        caplog.set_level(logging.WARNING, "instaccess")

    @pytest.mark.parametrize("members", HEADERS, ids=str)
    def test_inspector_gives_the_gateways_reason_for_each_header_of_an_encrypted_token(self, token, caplog, members):
        modified = with_header(token, header_of(token) | members)

        assert inspect_text(modified).code == reason_of_gateway(modified, caplog) != ""

    @pytest.mark.parametrize("members", HEADERS, ids=str)
    def test_inspector_gives_the_reason_of_service_and_gateway_for_each_header_of_a_signed_token(
        self, token, caplog, members
    ):
        signed = signed_inside(token)
        modified = with_header(signed, header_of(signed) | members)

        assert inspect_text(modified).code == reason_of_service(modified, caplog) != ""
        assert inspect_text(make_outer(modified)).code == reason_of_gateway(make_outer(modified), caplog) != ""

    @pytest.mark.parametrize("changes", CLAIMS, ids=str)
    def test_inspector_gives_the_reason_of_gateway_and_service_for_each_kind_of_claims(
        self, make, caplog, user, changes
    ):
        payload = good_claims(**({"sub": users.user_uuid(user)} | changes))
        signed = make.signed(payload)
        encrypted = make.encrypted(signed)

        assert inspect_text(encrypted).code == reason_of_gateway(encrypted, caplog)
        expected = reason_of_service(signed, caplog)
        assert inspect_text(signed).code == ("foreign_issuer" if expected == "-" else expected)

    @pytest.mark.parametrize(
        "changed", [{}, {"LEEWAY": 300}, {"ISSUER": "other"}, {"ENCRYPTION_ALG": "RSA1_5"}], ids=str
    )
    def test_inspector_gives_the_gateways_reason_if_a_setting_is_changed(self, make, caplog, settings, changed):
        expired = int(time.time()) - MAX_LIFETIME - 100
        texts = [make.token(iat=expired, exp=expired + MAX_LIFETIME), make.token(**times(0))]
        texts.append(make.encrypted(make.signed(good_claims()), alg="RSA1_5"))
        settings.INSTACCESS = changed

        for text in texts:
            assert inspect_text(text).code == reason_of_gateway(text, caplog)

    def test_inspector_gives_the_gateways_reason_for_non_canonical_tokens(self, token, caplog):
        for text in non_canonical_forms(token):
            if extract_token(text) == text and text.isascii() and text.isprintable():
                # The gateway has a separate reason for a malformed Authorization header. The inspector receives only
                # the token.
                expected = reason_of_gateway(text, caplog).replace("malformed_header", "malformed")
                assert inspect_text(text).code == expected != ""


def make_outer(signed: str) -> str:
    ring = keys_ring.current_ring()
    signing, encryption = (key.private().reveal() for key in (ring.signing_key(), ring.encryption_key()))
    return TokenFactory(signing, encryption).encrypted(signed)


class TestAnInspection:
    @pytest.fixture
    def texts(self, issue, make, rsa_pool, access_token):
        """Return one token of each kind that the inspector distinguishes."""
        token = issue()[1]
        signed = signed_inside(token)
        foreign = TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))
        return [
            token,
            signed,
            issue(minutes_ago=90)[1],
            token[:-4] + "AAAA",
            signed[:-4] + "AAAA",
            make.token(**times(0)),
            foreign.token(**times(0)),
            foreign.signed(good_claims()),
            access_token.token,
            "x" * 9000,
        ]

    def test_inspector_runs_only_select_statements(self, texts):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            for text in texts:
                inspect_text(text)

        assert queries.captured_queries
        assert {query["sql"].split()[0] for query in queries.captured_queries} == {"SELECT"}

    def test_inspector_runs_at_most_eight_queries_per_token(self, token, django_assert_max_num_queries):
        inspect_text(token)

        with django_assert_max_num_queries(8):
            inspect_text(token)

    def test_inspector_does_not_add_the_token_to_the_cache_of_the_gateway(self, texts):
        for text in texts:
            inspect_text(text)

        assert not views._token_cache._tokens

    def test_inspector_logs_no_part_of_the_token(self, texts, caplog):
        caplog.set_level(logging.DEBUG)
        for text in texts:
            inspect_text(text)

        assert [
            record for record in caplog.records if record.name.startswith("instaccess.") and record.levelno < 30
        ] == []
        for text in texts:
            assert all(part not in caplog.text for part in text.split(".") if len(part) > 20)

    def test_inspection_contains_no_token_and_no_long_segment_of_a_token(self, texts):
        for text in texts:
            inside = signed_inside(text).split(".")[1:] if inspect_text(text).layers[1:] else []
            text_of_inspection = repr(inspect_text(text))
            assert all(part not in text_of_inspection for part in [*text.split("."), *inside] if len(part) > 20)

    @pytest.mark.parametrize(
        "payload", [b"[]", b"nope", b"[" * 5000, b'{"a":1e999}', b'{"exp":' + b"9" * 4000 + b"}", b"\xff"]
    )
    def test_inspector_returns_a_verdict_for_any_invalid_payload_of_a_token(self, make, payload):
        for text in (make.signed(payload), make.encrypted(make.signed(payload))):
            assert inspect_text(text).outcome in Outcome

    def test_inspector_returns_a_verdict_if_the_active_language_is_german(self, token):
        with translation.override("de"):
            assert str(inspect_text(token).outcome.value)
