"""Tests of the summary and the revocation of the OAuth2 tokens with which users get InstAccess tokens."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from oauth2_provider.models import (
    get_access_token_model,
    get_application_model,
    get_device_grant_model,
    get_grant_model,
    get_id_token_model,
    get_refresh_token_model,
)

from instaccess import audit, keys, trust, users
from instaccess.audit import oauth2_tokens
from instaccess.conf import SCOPE
from instaccess.models import IssuedToken, Revocation, ServiceUser

pytestmark = pytest.mark.django_db

TOKEN_URL = "/o/token/"


@pytest.fixture
def give(user, application):
    """Return a function that creates one OAuth2 token of each kind for a user, and returns the refresh token."""

    def give_(owner: Any = user, tool: Any = application) -> Any:
        values = {"user": owner, "application": tool, "expires": timezone.now() + timedelta(hours=1), "scope": SCOPE}
        id_token = get_id_token_model().objects.create(**values)
        access_token = get_access_token_model().objects.create(
            token=secrets.token_urlsafe(), id_token=id_token, **values
        )
        get_grant_model().objects.create(code=secrets.token_urlsafe(), redirect_uri="https://tool.example", **values)
        get_device_grant_model().objects.create(
            user=owner,
            client_id=tool.client_id,
            device_code=secrets.token_urlsafe(),
            user_code=secrets.token_urlsafe(6),
            expires=values["expires"],
        )
        return get_refresh_token_model().objects.create(
            user=owner, application=tool, token=secrets.token_urlsafe(), access_token=access_token
        )

    return give_


@pytest.fixture
def grace(db):
    return get_user_model().objects.create_user("grace")


def revoke(*owners: Any, reason: str = "laptop lost", by: Any = "help desk") -> Any:
    uuids = [users.user_uuid(owner) for owner in owners]
    tokens = audit.revocable_tokens().filter(user_uuid__in=uuids)
    return audit.revoke_with_oauth2_tokens(
        tokens, owners, keks=keys.keks_for_revocation(), reason=reason, by=by, scopes=[*map(audit.Scope.user, uuids)]
    )


def usable(*owners: Any) -> int:
    return sum(each.total for each in audit.summarize_oauth2_tokens(owners))


class TestTheSummaryOfOAuth2Tokens:
    def test_summary_of_oauth2_tokens_counts_each_kind_per_user_and_application(self, give, user, grace, application):
        other = get_application_model().objects.create(
            name="Archive", client_type="confidential", authorization_grant_type="authorization-code"
        )
        give()
        give(user, other)
        give(grace)
        give(grace)

        summary = audit.summarize_oauth2_tokens([user, grace])

        assert [(str(each.user), each.application, each.total) for each in summary] == [
            ("ada", "Archive", 5),
            ("ada", "LTI tool", 5),
            ("grace", "LTI tool", 10),
        ]
        assert summary[2].counts == dict.fromkeys(audit.OAUTH2_KINDS, 2)

    def test_summary_of_oauth2_tokens_does_not_count_expired_or_revoked_tokens(self, give, user):
        give().revoke()
        for model in (get_grant_model(), get_device_grant_model(), get_id_token_model()):
            model.objects.update(expires=timezone.now() - timedelta(seconds=1))

        assert audit.summarize_oauth2_tokens([user]) == []

    def test_summary_of_oauth2_tokens_counts_a_refresh_token_if_its_access_token_has_expired(self, give, user):
        give()
        get_access_token_model().objects.update(expires=timezone.now() - timedelta(days=1))

        [summary] = audit.summarize_oauth2_tokens([user])

        assert (summary.counts["refresh_tokens"], summary.counts["access_tokens"]) == (1, 0)

    def test_last_use_of_oauth2_tokens_is_when_the_user_last_requested_an_instaccess_token(
        self, give, user, grace, row
    ):
        refresh_token = give()
        [summary] = audit.summarize_oauth2_tokens([user])
        assert summary.last_used >= refresh_token.created
        row(age=500)
        asked = row(age=400, user=grace, user_uuid=users.user_uuid(grace), real_user=user)
        IssuedToken.objects.filter(pk=asked.pk).update(real_user_uuid=users.user_uuid(user))
        row(age=300, real_user=grace, real_user_uuid=users.user_uuid(grace))

        [summary] = audit.summarize_oauth2_tokens([user])

        assert summary.last_used == asked.issued_at

    def test_summary_of_oauth2_tokens_runs_at_most_two_more_queries_for_many_tokens(self, give, user, grace):
        give()
        with CaptureQueriesContext(connection) as few:
            audit.summarize_oauth2_tokens([user])
        for _ in range(5):
            give()
            give(grace)
        with CaptureQueriesContext(connection) as many:
            audit.summarize_oauth2_tokens([user, grace])

        # The second user may have no uuid yet. Two queries create this uuid.
        assert len(many) <= len(few) + 2

    def test_access_token_without_a_user_belongs_to_the_service_user_of_its_application(
        self, make_access_token, user, application
    ):
        make_access_token(user=None)
        assert audit.summarize_oauth2_tokens([user]) == []
        ServiceUser.objects.create(application=application, user=user)
        get_application_model().objects.create(
            name="Archive", client_type="confidential", authorization_grant_type="client-credentials"
        )

        assert usable(user) == 1
        assert audit.service_applications([user]) == ["LTI tool"]
        assert revoke(user).oauth2_tokens == 1
        assert not get_access_token_model().objects.exists()

    def test_access_token_of_a_user_does_not_belong_to_the_service_user_of_its_application(
        self, make_access_token, user, grace, application
    ):
        ServiceUser.objects.create(application=application, user=user)
        make_access_token(user=grace)

        assert (usable(user), usable(grace)) == (0, 1)


class TestTheLastUseAmongManyTokens:
    @pytest.fixture
    def used(self, give, row, user, grace) -> Any:
        """Create a token that ada requested, and later tokens that grace requested for herself and as ada.

        Returns the audit row of the token that ada requested.
        """
        give()
        used = row(age=400)
        graces = users.user_uuid(grace)
        for age in (300, 200):
            row(age=age, user=grace, user_uuid=graces)
            row(age=age, real_user=grace, real_user_uuid=graces)
        return used

    def test_last_use_of_a_user_is_found_even_if_newer_tokens_of_other_users_exceed_the_limit(
        self, used, user, monkeypatch
    ):
        monkeypatch.setattr(oauth2_tokens, "_LAST_USES", 1)

        [summary] = audit.summarize_oauth2_tokens([user])

        assert summary.last_used == used.issued_at

    def test_summary_of_oauth2_tokens_reads_at_most_five_thousand_audit_rows(self, used, user):
        with CaptureQueriesContext(connection) as queries:
            audit.summarize_oauth2_tokens([user])

        assert any("LIMIT 5000" in query["sql"] for query in queries.captured_queries)


class TestRevokingOAuth2TokensWithAFailingDatabase:
    def test_failed_revocation_of_oauth2_tokens_revokes_no_oauth2_token(self, give, user):
        give()

        def fail_on_id_tokens(execute: Any, sql: str, *args: Any) -> Any:
            if sql.startswith("DELETE") and "idtoken" in sql:
                raise OperationalError("gone")
            return execute(sql, *args)

        with connection.execute_wrapper(fail_on_id_tokens), pytest.raises(OperationalError):
            oauth2_tokens.revoke([user], reason="laptop lost", by="help desk")

        assert usable(user) == 5


class TestRevokingTokensTogetherWithOAuth2Tokens:
    def test_a21_revocation_revokes_every_usable_oauth2_token_of_the_user(self, give, row, user, grace):
        give()
        give()
        give(grace)
        token, spared = row(), row(user=grace, user_uuid=users.user_uuid(grace))

        revoked = revoke(user)

        assert (revoked.tokens, revoked.oauth2_tokens) == (1, 10)
        assert (usable(user), usable(grace)) == (0, 5)
        assert set(IssuedToken.objects.exclude(revoked_at=None)) == {token}
        assert not get_refresh_token_model().objects.filter(user=user, revoked=None).exists()
        assert get_refresh_token_model().objects.filter(user=user).count() == 2
        assert spared.revoked_at is None

    def test_a21_client_gets_no_token_with_a_revoked_access_token_refresh_token_or_code(
        self, initial_keys, give, user, application, post, client
    ):
        refresh_token = give()
        access_token, code = refresh_token.access_token, get_grant_model().objects.get().code
        application.client_secret = "secret"
        application.save()
        assert post(access_token).status_code == 201

        revoke(user)

        assert post(access_token).status_code == 401
        credentials = {"client_id": application.client_id, "client_secret": "secret"}
        for grant in (
            {"grant_type": "refresh_token", "refresh_token": refresh_token.token},
            {"grant_type": "authorization_code", "code": code, "redirect_uri": "https://tool.example"},
        ):
            response = Client().post(TOKEN_URL, grant | credentials)
            assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")

    def test_a21_revocation_records_the_operator_and_a_reason_with_the_number_of_oauth2_tokens(self, give, row, user):
        give()
        row()

        revoke(user)

        facts = ("help desk", "laptop lost (5 OAuth2 tokens revoked too)")
        assert IssuedToken.objects.values_list("revoked_by", "revocation_reason").get() == facts
        recorded = Revocation.objects.get()
        assert (recorded.kind, recorded.value) == ("user", users.user_uuid(user))
        assert (recorded.revoked_by, recorded.reason) == facts
        assert audit.row_status(IssuedToken.objects.get(), keys.keks_for_revocation()) is audit.HmacStatus.AUTHENTIC

    def test_a21_long_reason_is_shortened_so_that_the_number_of_oauth2_tokens_fits(self, give, user):
        give()

        revoke(user, reason="x" * 255)

        reason = Revocation.objects.get().reason
        assert len(reason) == 255
        assert reason.endswith("xx (5 OAuth2 tokens revoked too)")

    def test_a21_revocation_is_recorded_for_a_user_who_never_got_a_token(self, give, grace):
        give(grace)
        tokens = audit.revocable_tokens().none()

        audit.revoke_with_oauth2_tokens(tokens, [grace], keks=keys.keks_for_revocation(), reason="lost", by="root")

        assert usable(grace) == 0
        assert Revocation.objects.get().value == users.user_uuid(grace)

    def test_a21_gateways_refuse_a_token_of_a_request_that_was_in_flight_during_the_revocation(self, give, user):
        give()

        revoke(user)

        recorded = Revocation.objects.get()
        assert recorded.latest_iat == int(recorded.revoked_at.timestamp()) + 5
        assert users.user_uuid(user) in str(trust.read_revocations())

    def test_a21_log_contains_the_number_of_oauth2_tokens_and_the_operator_and_the_reason(
        self, give, user, caplog, django_capture_on_commit_callbacks
    ):
        give()
        with django_capture_on_commit_callbacks(execute=True):
            revoke(user)

        [message] = [each for each in caplog.messages if "OAuth2" in each and "users" in each]
        assert message == f"revoked 5 OAuth2 tokens of the users ['{user.pk}'] by=help desk reason='laptop lost'"

    def test_a21_revocation_also_revokes_oauth2_tokens_that_a_refresh_creates_at_the_same_time(
        self, give, user, application, monkeypatch
    ):
        refresh_token_model = get_refresh_token_model()
        give()
        revoke_one, raced = refresh_token_model.revoke, []

        def refresh_first(self: Any) -> None:
            if not raced:
                raced.append(give())
            revoke_one(self)

        monkeypatch.setattr(refresh_token_model, "revoke", refresh_first)

        assert revoke(user).oauth2_tokens == 10
        assert usable(user) == 0
