"""Tests of the user of a request: from the database, a hook or the claims, with and without a masquerade."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError, connection
from django.test import override_settings
from django.utils import timezone
from oauth2_provider.models import get_application_model

from instaccess import users
from instaccess.exceptions import InvalidToken
from instaccess.service import TokenUser
from tests.service.helpers import ADMIN, USER, ask, good, issued, now, public, refusal
from tests.support.answers import INVALID, UNAUTHENTICATED, UNAVAILABLE
from tests.support.tokens import ISSUER, canvas_claims, claims, signed_by_pyjwt

SELF = "/api/v1/users/self"


@pytest.mark.django_db
@pytest.mark.usefixtures("initial_keys")
class TestALocalUser:
    def test_service_finds_the_local_user_with_the_uuid_of_the_token(self, user):
        response = ask(issued(user))

        assert response.seen.user == user
        assert response.seen.auth.user_uuid == users.user_uuid(user)

    @pytest.mark.parametrize("path", [SELF, SELF + "/"])
    def test_users_self_endpoint_of_the_test_project_works_with_and_without_a_trailing_slash(
        self, client, user, path
    ):
        response = client.get(path, headers={"Authorization": issued(user)})

        assert (response.status_code, response.json()["login_id"]) == (200, "ada")

    def test_service_finds_the_local_user_by_the_configured_uuid_field(self, user):
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "username"}):
            assert ask(issued(user)).seen.user == user

    def test_c6_service_refuses_a_token_of_an_inactive_user(self, user):
        token = issued(user)
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)

        assert refusal(ask(token)) == INVALID

    def test_c6_service_refuses_a_token_of_a_deleted_user(self, user):
        token = issued(user)
        user.delete()

        assert refusal(ask(token)) == INVALID

    @pytest.mark.parametrize("field", [None, "username"])
    @pytest.mark.parametrize("sub", ["", "ada\x00", "\x00", "\ud800", "9" * 400, "urn:uuid:" + USER, "{}", " ", 1])
    def test_c6_service_refuses_a_token_whose_sub_is_not_a_canonical_uuid(self, token_factory, user, field, sub):
        with override_settings(INSTACCESS={"VERIFICATION_KEYS": [public(token_factory)], "USER_UUID_FIELD": field}):
            assert refusal(ask(good(token_factory, sub=sub))) == INVALID

    def test_c6_service_refuses_a_token_whose_sub_is_a_non_canonical_form_of_the_uuid(self, token_factory, user):
        canonical = users.user_uuid(user)
        with override_settings(INSTACCESS={"VERIFICATION_KEYS": [public(token_factory)]}):
            assert ask(good(token_factory, sub=canonical)).status_code == 200
            for sub in (canonical.upper(), canonical.replace("-", ""), f"urn:uuid:{canonical}", f" {canonical}"):
                assert refusal(ask(good(token_factory, sub=sub))) == INVALID

    def test_service_returns_503_if_the_database_is_unavailable(self, user, caplog):
        token = issued(user)

        def unavailable(execute: Any, sql: str, *args: Any) -> Any:
            raise OperationalError("the database is unavailable")

        with connection.execute_wrapper(unavailable):
            response = ask(token)

        assert refusal(response) == UNAVAILABLE
        assert "the service could not check the token (OperationalError)" in caplog.text


class TestTheUserHook:
    def test_user_hook_determines_the_user_of_a_request(self, service, settings):
        known = {USER: get_user_model()(username="ada")}
        settings.INSTACCESS["USER_HOOK"] = lambda claims: known.get(claims.user_uuid)

        assert ask(good(service, sub=USER)).seen.user.username == "ada"
        assert refusal(ask(good(service, sub=ADMIN))) == INVALID

    def test_user_hook_can_be_configured_by_its_import_path(self, service, settings):
        settings.INSTACCESS["USER_HOOK"] = "instaccess.service.TokenUser"

        assert isinstance(ask(good(service)).seen.user, TokenUser)

    def test_service_refuses_and_logs_the_reason_if_the_user_hook_raises_invalid_token(
        self, service, settings, caplog
    ):
        def never(claims: Any) -> Any:
            raise InvalidToken("closed today", code="closed")

        settings.INSTACCESS["USER_HOOK"] = never

        assert refusal(ask(good(service))) == INVALID
        assert "reason=closed" in caplog.text

    @pytest.mark.parametrize(
        "returned",
        [AnonymousUser(), get_user_model()(is_active=False), object()],
        ids=["anonymous", "inactive", "no user"],
    )
    def test_c6_service_refuses_a_token_if_the_user_hook_returns_no_active_user(self, service, settings, returned):
        settings.INSTACCESS["USER_HOOK"] = lambda claims: returned

        assert refusal(ask(good(service))) == INVALID

    def test_user_hook_receives_the_real_user_of_a_masquerade_in_the_claims(self, service, settings):
        seen: list[Any] = []
        settings.INSTACCESS["USER_HOOK"] = lambda claims: seen.append(claims) or TokenUser(claims)

        ask(good(service, masq_sub=ADMIN, masq_shard=1))

        assert seen[0].masquerading_user_uuid == ADMIN


@pytest.mark.django_db
@pytest.mark.usefixtures("initial_keys")
class TestAMasquerade:
    @pytest.fixture
    def admin(self, db: None) -> Any:
        return get_user_model().objects.create_user("boss")

    def test_request_auth_contains_the_real_user_of_a_masquerade(self, user, admin):
        seen = ask(issued(user, real_user=admin)).seen

        assert (seen.user, seen.auth.real_user) == (user, admin)
        assert seen.auth.masquerading_user_uuid == users.user_uuid(admin)

    def test_c11_service_refuses_a_masquerade_by_an_unknown_user(self, user, admin):
        token = issued(user, real_user=admin)
        admin.delete()

        assert refusal(ask(token)) == INVALID

    def test_c11_service_refuses_a_masquerade_by_an_inactive_user(self, user, admin, caplog):
        token = issued(user, real_user=admin)
        get_user_model().objects.filter(pk=admin.pk).update(is_active=False)

        assert refusal(ask(token)) == INVALID
        assert "reason=unknown_masquerader" in caplog.text

    @pytest.mark.parametrize("claim", [{"masq_sub": ADMIN}, {"masq_shard": 1}])
    def test_c11_service_ignores_one_masquerade_claim_without_the_other_claim(self, token_factory, user, claim):
        with override_settings(INSTACCESS={"VERIFICATION_KEYS": [public(token_factory)]}):
            auth = ask(good(token_factory, sub=users.user_uuid(user), **claim)).seen.auth

        assert (auth.masquerading_user_uuid, auth.masquerading_user_shard_id, auth.real_user) == (None, None, None)

    @pytest.mark.parametrize("claims_", [{"masq_sub": "", "masq_shard": 1}, {"masq_sub": ADMIN, "masq_shard": None}])
    def test_c11_service_refuses_invalid_masquerade_claims(self, token_factory, user, claims_):
        with override_settings(INSTACCESS={"VERIFICATION_KEYS": [public(token_factory)]}):
            assert refusal(ask(good(token_factory, sub=users.user_uuid(user), **claims_))) == INVALID


@pytest.mark.django_db
class TestTheApplicationOfAToken:
    @pytest.fixture
    def token(self, token_factory, user, application, settings) -> str:
        """Return a token of a service user, for a service whose database contains the tables of the issuer."""
        settings.INSTACCESS = {"VERIFICATION_KEYS": [public(token_factory)]}
        payload = claims(now(), sub=users.user_uuid(user), client_id=application.client_id, instructure_service=True)
        return "Bearer " + signed_by_pyjwt(payload, token_factory.signing)

    def test_c15_service_accepts_a_token_of_a_usable_application(self, token, user):
        assert ask(token).seen.user == user

    def test_c15_service_refuses_a_token_of_a_deleted_application(self, token, application, caplog):
        application.delete()

        assert refusal(ask(token)) == INVALID
        assert "reason=unusable_client" in caplog.text

    def test_c15_service_refuses_a_token_of_an_unusable_application(self, token, monkeypatch, caplog):
        monkeypatch.setattr(get_application_model(), "is_usable", lambda self, request: False)

        assert refusal(ask(token)) == INVALID
        assert "reason=unusable_client" in caplog.text

    def test_c15_is_usable_method_of_the_application_receives_the_request_to_the_service(self, token, monkeypatch):
        requests: list[Any] = []

        def is_usable(self: Any, request: Any) -> bool:
            requests.append((request.http_method, request.uri, request.headers["Authorization"]))
            return True

        monkeypatch.setattr(get_application_model(), "is_usable", is_usable)

        assert ask(token).status_code == 200
        assert requests == [("GET", "http://testserver/", token)]

    def test_c15_service_refuses_a_token_of_a_deleted_application_even_if_the_user_hook_returns_a_user(
        self, token, application, settings
    ):
        settings.INSTACCESS["USER_HOOK"] = TokenUser
        application.delete()

        assert refusal(ask(token)) == INVALID

    @pytest.mark.parametrize("client_id", ["unknown", "a\x00b", "\ud800", 10_000_000_000_107])
    def test_c15_service_refuses_a_token_of_an_unknown_application(self, token, token_factory, user, client_id):
        assert refusal(ask(good(token_factory, sub=users.user_uuid(user), client_id=client_id))) == INVALID

    def test_c15_service_refuses_a_token_whose_client_id_has_the_wrong_letter_case(
        self, token, token_factory, user, application
    ):
        client_id = application.client_id.swapcase()

        assert refusal(ask(good(token_factory, sub=users.user_uuid(user), client_id=client_id))) == INVALID

    @pytest.mark.parametrize("issuer", ["https://canvas.example", "urn:canvas"])
    def test_c15_service_looks_up_no_application_for_a_token_of_another_issuer(
        self, token, token_factory, user, settings, issuer
    ):
        settings.INSTACCESS["ACCEPTED_ISSUERS"] = [ISSUER, issuer]
        payload = canvas_claims(now(), iss=issuer, sub=users.user_uuid(user), masq_sub=...)

        auth = ask("Bearer " + signed_by_pyjwt(payload, token_factory.signing)).seen.auth

        assert auth.client_id == "10000000000107"

    def test_c15_service_returns_503_if_the_database_of_the_application_is_unavailable(self, token):
        def unavailable(execute: Any, sql: str, *args: Any) -> Any:
            raise OperationalError("the database is unavailable")

        with connection.execute_wrapper(unavailable):
            assert refusal(ask(token)) == UNAVAILABLE


@pytest.mark.django_db
@pytest.mark.usefixtures("initial_keys")
class TestTheUsersSelfEndpoint:
    """Tests of `/api/v1/users/self`, a protected endpoint of the test project."""

    def get(self, client: Any, authorization: str | None = None) -> Any:
        return client.get(SELF, headers={"Authorization": authorization} if authorization else {})

    def test_users_self_returns_the_user_of_an_inst_access_token(self, client, user):
        response = self.get(client, issued(user))

        assert response.status_code == 200
        assert response.json() == {
            "id": user.pk,
            "name": "ada",
            "sortable_name": "ada",
            "short_name": "ada",
            "login_id": "ada",
            "uuid": users.user_uuid(user),
        }

    def test_users_self_returns_the_user_of_an_access_token(self, client, access_token):
        assert self.get(client, f"Bearer {access_token.token}").json()["login_id"] == "ada"

    def test_users_self_refuses_a_request_without_credentials_with_the_body_of_canvas(self, client):
        assert refusal(self.get(client)) == UNAUTHENTICATED
        assert refusal(self.get(client, "Basic YTpi")) == UNAUTHENTICATED

    def test_users_self_refuses_unknown_tokens_expired_tokens_and_tokens_without_a_user_as_canvas_does(
        self, client, make_access_token, user
    ):
        expired = make_access_token(expires=timezone.now() - timedelta(hours=1)).token
        for bearer in ("unknown", "a.b.c", expired, make_access_token(user=None).token):
            assert refusal(self.get(client, f"Bearer {bearer}")) == INVALID

    def test_users_self_refuses_the_access_token_and_the_inst_access_token_of_an_inactive_user(
        self, client, access_token, user
    ):
        token = issued(user)
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)

        assert refusal(self.get(client, f"Bearer {access_token.token}")) == INVALID
        assert refusal(self.get(client, token)) == INVALID
