"""Tests of the access tokens of django-oauth-toolkit that the issuer accepts and refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess.models import IssuedToken
from tests.conftest import ISSUE_URL
from tests.support.answers import (
    INSUFFICIENT_SCOPE,
    INVALID,
    JWT_FROM_JWT,
    UNAUTHENTICATED,
    answer,
    signed_inside,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


class TestAnApplicationThatIsNotUsable:
    @pytest.fixture(autouse=True)
    def _unusable(self, monkeypatch):
        monkeypatch.setattr(get_application_model(), "is_usable", lambda self, request: False)

    def test_p6_issuer_refuses_an_access_token_of_an_unusable_application(self, post, access_token):
        assert answer(post(access_token)) == INVALID

    def test_p6_expired_access_token_of_an_unusable_application_is_refused_as_invalid(self, post, make_access_token):
        assert answer(post(make_access_token(expires=timezone.now() - timedelta(hours=1)))) == INVALID

    def test_p6_access_token_without_scope_of_an_unusable_application_is_refused_as_invalid(
        self, post, make_access_token
    ):
        assert answer(post(make_access_token(scope="read"))) == INVALID

    def test_p6_issuer_writes_no_audit_row_for_an_unusable_application(self, post, access_token):
        post(access_token)

        assert not IssuedToken.objects.exists()


class TestStateAtTheTimeOfTheRequest:
    def test_p4_reactivated_user_gets_tokens_again(self, post, user, access_token):
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)
        refused = post(access_token)
        get_user_model().objects.filter(pk=user.pk).update(is_active=True)

        assert (refused.status_code, post(access_token).status_code) == (401, 201)

    def test_access_token_that_loses_its_scope_is_refused_at_the_next_request(self, post, access_token):
        post(access_token)
        get_access_token_model().objects.filter(pk=access_token.pk).update(scope="read")

        assert answer(post(access_token)) == INSUFFICIENT_SCOPE


class TestAnInstAccessTokenThatHasJustExpired:
    def test_p9_leeway_setting_also_applies_to_an_inst_access_token_as_the_bearer_token(
        self, post, access_token, settings
    ):
        settings.INSTACCESS = {"LEEWAY": 60}
        issued = timezone.now()
        signed = signed_inside(post(access_token).json()["token"])

        with time_machine.travel(issued + timedelta(seconds=3600 + 50), tick=False):
            assert answer(post(signed)) == JWT_FROM_JWT
        with time_machine.travel(issued + timedelta(seconds=3600 + 70), tick=False):
            assert answer(post(signed)) == INVALID


class TestTheCostOfAuthentication:
    def test_issuer_looks_up_an_access_token_by_its_checksum(self, post, access_token):
        with CaptureQueriesContext(connection) as queries:
            post("unknown-token")

        assert queries
        assert not any("unknown-token" in query["sql"] for query in queries)

    def test_refusal_of_an_access_token_executes_only_select_statements(self, post, make_access_token):
        token = make_access_token(scope="read")
        with CaptureQueriesContext(connection) as queries:
            post(token)
            post("unknown")

        assert {query["sql"].split()[0] for query in queries} == {"SELECT"}


class TestATokenOutsideTheHeader:
    def test_p8_access_token_in_the_query_is_refused_and_not_logged(self, post, access_token, caplog):
        caplog.set_level("DEBUG")
        response = post(url=f"{ISSUE_URL}?access_token={access_token.token}")

        assert answer(response) == UNAUTHENTICATED
        assert access_token.token not in caplog.text

    def test_p8_access_token_in_a_form_is_refused_and_not_logged(self, post, access_token, caplog):
        caplog.set_level("DEBUG")
        body = f"access_token={access_token.token}".encode()
        response = post(data=body, content_type="application/x-www-form-urlencoded")

        assert answer(response) == UNAUTHENTICATED
        assert access_token.token not in caplog.text
