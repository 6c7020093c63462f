"""Tests of refused credentials: the responses and their order (docs/wire-contract.md §1, row by row)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_refresh_token_model

from instaccess.conf import SCOPE
from instaccess.keys import ring
from instaccess.models import IssuedToken, Key, ServiceUser, UserIdentity
from instaccess.tokens import PrivateKey, jose
from tests.conftest import ISSUE_URL
from tests.support.answers import (
    INSUFFICIENT_SCOPE,
    INVALID,
    INVALID_AS_USER_ID,
    JWT_FROM_JWT,
    METHOD_NOT_ALLOWED,
    UNAUTHENTICATED,
    answer,
    expired,
    signed_inside,
)
from tests.support.tokens import canvas_claims, signed_by_pyjwt

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

NOW = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def an_hour_ago():
    return timezone.now() - timedelta(hours=1)


class TestARequestWithoutCredentials:
    @pytest.mark.parametrize("header", [None, "", " ", "Basic YWRhOnNlY3JldA==", "Token abc", "Digest a b", "a b c"])
    def test_p1_request_without_credentials_gets_a_401_with_a_challenge(self, post, header):
        headers = {} if header is None else {"Authorization": header}

        assert answer(post(headers=headers)) == UNAUTHENTICATED

    def test_p1_scheme_that_only_begins_with_bearer_counts_as_no_credentials(self, post, access_token):
        assert answer(post(headers={"Authorization": f"BearerX {access_token.token}"})) == UNAUTHENTICATED

    def test_p1_issuer_does_not_accept_a_session_as_credentials(self, client, user):
        client.force_login(user)

        assert answer(client.post(ISSUE_URL)) == UNAUTHENTICATED

    def test_realm_setting_sets_the_realm_of_the_challenge(self, post):
        with override_settings(INSTACCESS={"REALM": "lms.example.edu"}):
            assert post()["WWW-Authenticate"] == 'Bearer realm="lms.example.edu"'


class TestAnUnusableBearerToken:
    @pytest.mark.parametrize(
        "header", ["Bearer", "Bearer ", "Bearer a b", "Bearer a b c", "Bearer a,b", "bearer a, Bearer b"]
    )
    def test_p1_issuer_refuses_a_bearer_header_that_does_not_contain_exactly_one_token(self, post, header):
        assert answer(post(headers={"Authorization": header})) == INVALID

    @pytest.mark.parametrize(
        "text", ["unknown", "a.b.c", "a.b.c.d.e", "\x00", "'; DROP TABLE", "é", "x" * 8193, "x" * 100_000]
    )
    def test_p2_issuer_refuses_an_unknown_access_token(self, client, text):
        response = client.post(ISSUE_URL, HTTP_AUTHORIZATION=f"Bearer {text}")

        assert answer(response) == INVALID

    def test_p2_issuer_refuses_two_authorization_headers_that_are_joined_into_one(self, post, access_token):
        text = access_token.token

        assert answer(post(headers={"Authorization": f"Bearer {text},Bearer {text}"})) == INVALID

    def test_p2_issuer_refuses_the_checksum_of_an_access_token(self, post, access_token):
        assert answer(post(access_token.token_checksum)) == INVALID

    def test_p2_issuer_refuses_a_deleted_access_token(self, post, access_token):
        access_token.revoke()

        assert answer(post(access_token.token)) == INVALID

    @pytest.mark.parametrize("change", [str.upper, str.swapcase, lambda text: text[:-1], lambda text: text + "="])
    def test_p2_issuer_refuses_an_access_token_whose_case_or_length_was_changed(
        self, post, make_access_token, change
    ):
        make_access_token(token="abcDEFabcDEFabcDEF")

        assert answer(post(change("abcDEFabcDEFabcDEF"))) == INVALID


class TestAnExpiredAccessToken:
    def test_p2_expired_access_token_is_refused_as_expired(self, post, make_access_token):
        token = make_access_token(expires=an_hour_ago())

        assert answer(post(token)) == expired(token.expires)

    def test_p2_refusal_of_an_expired_access_token_contains_the_expiry_in_utc_without_fractions(
        self, post, make_access_token
    ):
        with timezone.override("Europe/Berlin"):
            response = post(make_access_token(expires=datetime(2025, 11, 26, 19, 0, 0, 7, tzinfo=BERLIN)))

        assert response.json()["errors"] == [
            {"message": "Expired access token.", "expired_at": "2025-11-26T18:00:00Z"}
        ]

    def test_p2_issuer_refuses_an_access_token_as_soon_as_the_time_of_expiry_is_reached(
        self, post, make_access_token
    ):
        token = make_access_token(expires=NOW)

        with time_machine.travel(NOW - timedelta(seconds=1), tick=False):
            assert post(token).status_code == 201
        with time_machine.travel(NOW, tick=False):
            assert answer(post(token)) == expired(token.expires)


class TestAnExpiredAccessTokenWithARefreshToken:
    @pytest.fixture
    def token(self, make_access_token):
        return make_access_token(expires=an_hour_ago())

    @pytest.fixture
    def refresh_token(self, token):
        return get_refresh_token_model().objects.create(
            user=token.user, application=token.application, token="refresh", access_token=token
        )

    def test_p2_expired_access_token_that_can_be_refreshed_is_refused_as_invalid(
        self, post, token, refresh_token, caplog
    ):
        assert answer(post(token)) == INVALID
        assert "refused reason=expired " in caplog.text

    def test_p2_expired_access_token_with_a_revoked_refresh_token_is_refused_as_expired(
        self, post, token, refresh_token, caplog
    ):
        # Update the row, because `revoke` would also delete the access token.
        get_refresh_token_model().objects.update(revoked=timezone.now())

        assert answer(post(token)) == expired(token.expires)
        assert "refused reason=expired " in caplog.text

    def test_p2_issuer_ignores_the_refresh_token_of_another_access_token(
        self, post, token, refresh_token, make_access_token
    ):
        other = make_access_token(expires=an_hour_ago())

        assert answer(post(other)) == expired(other.expires)

    def test_p2_issuer_ignores_the_refresh_token_that_created_the_access_token(self, post, token, refresh_token):
        get_refresh_token_model().objects.update(access_token=None)
        get_access_token_model().objects.update(source_refresh_token=refresh_token)

        assert answer(post(token)) == expired(token.expires)

    def test_p2_expired_access_token_of_the_client_credentials_grant_is_refused_as_expired(
        self, post, application, user, make_access_token
    ):
        ServiceUser.objects.create(application=application, user=user)
        token = make_access_token(user=None, expires=an_hour_ago())

        assert answer(post(token)) == expired(token.expires)

    def test_p2_issuer_reads_refresh_tokens_only_to_refuse_an_expired_access_token(
        self, post, token, refresh_token, make_access_token
    ):
        table = get_refresh_token_model()._meta.db_table
        good, scopeless = make_access_token(), make_access_token(scope="read")
        with CaptureQueriesContext(connection) as queries:
            post(good)
            post("unknown")
            post(scopeless)
        assert not [query for query in queries if f'FROM "{table}"' in query["sql"].replace("`", '"')]

        with CaptureQueriesContext(connection) as queries:
            post(token)
        assert len([query for query in queries if f'FROM "{table}"' in query["sql"].replace("`", '"')]) == 1


class TestTheScopeOfAnAccessToken:
    @pytest.mark.parametrize(
        "scope",
        [
            "",
            "read",
            SCOPE[:-1],
            "url:POST|/api/v1/",
            SCOPE + "/",
            SCOPE.upper(),
            SCOPE.lower(),
            SCOPE.replace("POST", "GET"),
            SCOPE.replace("|", " "),
            "__all__",
            "*",
        ],
    )
    def test_p3_issuer_refuses_an_access_token_without_the_exact_scope(self, post, make_access_token, scope):
        assert answer(post(make_access_token(scope=scope))) == INSUFFICIENT_SCOPE

    @pytest.mark.parametrize("scope", [SCOPE, f"read {SCOPE}", f"{SCOPE} read", f" {SCOPE}  read "])
    def test_issuer_accepts_the_exact_scope_at_any_position(self, post, make_access_token, scope):
        assert post(make_access_token(scope=scope)).status_code == 201


class TestAnInactiveUser:
    def test_p4_issuer_refuses_the_access_token_of_an_inactive_user(self, post, user, access_token):
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)

        assert answer(post(access_token)) == INVALID


class TestAnAccessTokenWithoutUser:
    def test_p5_issuer_refuses_an_access_token_without_a_user(self, post, make_access_token):
        assert answer(post(make_access_token(user=None))) == INVALID


class TestAnAccessTokenWithoutApplication:
    def test_p6_issuer_refuses_an_access_token_without_an_application(self, post, make_access_token):
        assert answer(post(make_access_token(application=None))) == INVALID

    def test_p6_issuer_refuses_the_access_token_of_a_deleted_application(self, post, access_token, application):
        application.delete()

        assert answer(post(access_token)) == INVALID


class TestATokenOutsideTheHeader:
    @pytest.mark.parametrize("name", ["access_token", "bearer_token", "oauth_token"])
    def test_p8_issuer_ignores_an_access_token_in_the_query(self, post, access_token, name):
        assert answer(post(url=f"{ISSUE_URL}?{name}={access_token.token}")) == UNAUTHENTICATED

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_p8_issuer_ignores_an_access_token_in_a_form(self, post, access_token, content_type):
        body = form_body(content_type, access_token=access_token.token)

        assert answer(post(data=body, content_type=content_type)) == UNAUTHENTICATED

    def test_p8_issuer_ignores_an_access_token_in_the_query_if_the_header_is_invalid(self, post, access_token):
        assert answer(post("unknown", url=f"{ISSUE_URL}?access_token={access_token.token}")) == INVALID

    def test_p8_issuer_ignores_an_unknown_token_in_the_query_if_the_header_is_valid(self, post, access_token):
        assert post(access_token, url=f"{ISSUE_URL}?access_token=unknown").status_code == 201


class TestATokenInAParameterIfTheSettingAllowsParameters:
    @pytest.fixture(autouse=True)
    def _allowed(self, settings):
        settings.INSTACCESS = {"ALLOW_TOKEN_IN_PARAMETERS": True}

    def test_p8_issuer_accepts_an_access_token_in_the_query_if_the_setting_allows_parameters(
        self, post, access_token
    ):
        assert post(url=f"{ISSUE_URL}?access_token={access_token.token}").status_code == 201

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_p8_issuer_accepts_an_access_token_in_a_form_if_the_setting_allows_parameters(
        self, post, access_token, content_type
    ):
        body = form_body(content_type, access_token=access_token.token)

        assert post(data=body, content_type=content_type).status_code == 201

    def test_p8_authorization_header_takes_precedence_over_an_access_token_in_the_query(self, post, access_token):
        assert answer(post("unknown", url=f"{ISSUE_URL}?access_token={access_token.token}")) == INVALID

    @pytest.mark.parametrize("text", ["unknown", "x" * 20_000, "%00", "%ED%A0%80", "a b", "a%0D%0Ab"])
    def test_p8_issuer_refuses_an_unknown_access_token_in_a_parameter(self, post, text):
        assert answer(post(url=f"{ISSUE_URL}?access_token={text}")) == INVALID

    def test_p8_issuer_refuses_a_token_parameter_with_a_lone_surrogate(self, client):
        body = form_body("multipart", access_token="\\ud800")
        response = client.generic("POST", ISSUE_URL, body, "multipart/form-data; boundary=b; charset=unicode_escape")

        assert answer(response) in (INVALID, UNAUTHENTICATED)

    def test_p8_issuer_treats_an_empty_token_parameter_as_no_credentials(self, post):
        assert answer(post(url=f"{ISSUE_URL}?access_token=")) == UNAUTHENTICATED

    def test_p9_signed_inst_access_token_in_a_parameter_gets_a_403(self, post, access_token):
        signed = signed_inside(post(access_token).json()["token"])

        assert answer(post(url=f"{ISSUE_URL}?access_token={signed}")) == JWT_FROM_JWT


class TestAnInstAccessTokenAsTheBearerToken:
    @pytest.fixture
    def issued(self, post, access_token):
        return post(access_token).json()["token"]

    def test_p9_signed_inst_access_token_gets_a_403(self, post, issued):
        assert answer(post(signed_inside(issued))) == JWT_FROM_JWT

    def test_p9_encrypted_inst_access_token_gets_a_401(self, post, issued):
        assert answer(post(issued)) == INVALID

    def test_p9_expired_inst_access_token_gets_a_401(self, post, issued):
        with time_machine.travel(timezone.now() + timedelta(seconds=3601), tick=False):
            assert answer(post(signed_inside(issued))) == INVALID

    def test_p9_inst_access_token_with_a_modified_signature_gets_a_401(self, post, issued):
        head, body, signature = signed_inside(issued).split(".")
        other = ("A" if signature[0] != "A" else "B") + signature[1:]

        assert answer(post(f"{head}.{body}.{other}")) == INVALID

    def test_p9_unsigned_inst_access_token_gets_a_401(self, post, issued):
        _, body, _ = signed_inside(issued).split(".")
        head = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').rstrip(b"=").decode()

        assert answer(post(f"{head}.{body}.")) == INVALID
        assert answer(post(f"{head}.{body}.AA")) == INVALID

    def test_p9_inst_access_token_that_is_signed_with_a_foreign_key_gets_a_401(self, post, issued, rsa_pool):
        payload = jose.verify(signed_inside(issued), ring.current_ring().verification_keys())[0]
        kid = ring.current_ring().signing_key().kid
        forged = jose.sign(json.dumps(payload).encode(), PrivateKey(rsa_pool.take("sig")), kid=kid)

        assert answer(post(forged)) == INVALID

    def test_p9_signed_inst_access_token_of_a_deleted_user_gets_a_403(self, post, issued, user):
        signed = signed_inside(issued)
        user.delete()

        assert answer(post(signed)) == JWT_FROM_JWT

    def test_p9_refusal_of_an_inst_access_token_writes_no_audit_row(self, post, issued):
        post(signed_inside(issued))

        assert IssuedToken.objects.count() == 1

    def test_p9_issuer_accepts_an_access_token_that_is_a_jwt_of_another_issuer(
        self, post, make_access_token, rsa_pool
    ):
        jwt = jose.sign(b'{"iss":"https://idp.example","sub":"1"}', PrivateKey(rsa_pool.take("sig")), kid="theirs")

        assert post(make_access_token(token=jwt)).status_code == 201

    @pytest.mark.parametrize("changes", [{}, {"iss": "https://canvas.example"}])
    def test_p9_c12_inst_access_token_of_canvas_or_of_another_accepted_issuer_gets_a_403(
        self, post, settings, changes
    ):
        settings.INSTACCESS = {"ACCEPTED_ISSUERS": ["instructure:inst_access", "https://canvas.example"]}
        payload = canvas_claims(int(timezone.now().timestamp()), **changes)

        assert (
            answer(post(signed_by_pyjwt(payload, ring.current_ring().signing_key().private().reveal())))
            == JWT_FROM_JWT
        )

    def test_p9_inst_access_token_is_refused_even_if_the_same_string_is_a_stored_access_token(
        self, post, issued, make_access_token
    ):
        signed = signed_inside(issued)

        assert answer(post(make_access_token(token=signed))) == JWT_FROM_JWT


class TestTheOrderOfTheChecks:
    """Tests of the order of the checks, which the table in docs/wire-contract.md §1 defines."""

    def test_issuer_reports_an_inactive_user_before_an_expired_access_token(self, post, user, make_access_token):
        user.is_active = False
        user.save()

        assert answer(post(make_access_token(expires=an_hour_ago()))) == INVALID

    def test_issuer_reports_a_missing_user_before_an_expired_access_token(self, post, make_access_token):
        assert answer(post(make_access_token(user=None, expires=an_hour_ago()))) == INVALID

    def test_issuer_reports_a_missing_application_before_an_expired_access_token(self, post, make_access_token):
        assert answer(post(make_access_token(application=None, expires=an_hour_ago()))) == INVALID

    def test_issuer_reports_an_inactive_user_before_a_missing_scope(self, post, user, make_access_token):
        user.is_active = False
        user.save()

        assert answer(post(make_access_token(scope="read"))) == INVALID

    def test_issuer_reports_an_expired_access_token_before_a_missing_scope(self, post, make_access_token):
        token = make_access_token(scope="read", expires=an_hour_ago())

        assert answer(post(token)) == expired(token.expires)

    def test_issuer_reports_a_missing_scope_before_an_invalid_as_user_id(self, post, make_access_token):
        response = post(make_access_token(scope="read"), url=ISSUE_URL + "?as_user_id=4711")

        assert answer(response) == INSUFFICIENT_SCOPE

    def test_issuer_reports_an_expired_access_token_before_an_invalid_as_user_id(self, post, make_access_token):
        token = make_access_token(expires=an_hour_ago())

        assert answer(post(token, url=ISSUE_URL + "?as_user_id=4711")) == expired(token.expires)

    def test_issuer_reports_every_refusal_of_credentials_before_a_missing_key(self, post, make_access_token):
        token = make_access_token(scope="read")
        Key.objects.all().delete()
        ring.clear_cache()

        assert answer(post()) == UNAUTHENTICATED
        assert answer(post("unknown")) == INVALID
        assert answer(post(token)) == INSUFFICIENT_SCOPE
        assert answer(post(token, url=ISSUE_URL + "?as_user_id=4711")) == INSUFFICIENT_SCOPE

    def test_issuer_reports_an_invalid_as_user_id_before_a_missing_key(self, post, access_token):
        Key.objects.all().delete()
        ring.clear_cache()

        assert answer(post(access_token, url=ISSUE_URL + "?as_user_id=4711")) == INVALID_AS_USER_ID

    def test_issuer_reports_a_wrong_method_before_unknown_credentials(self, client):
        assert answer(client.get(ISSUE_URL, headers={"Authorization": "Bearer unknown"})) == METHOD_NOT_ALLOWED

    def test_refusal_of_credentials_writes_no_audit_row_and_no_identity(self, post, make_access_token, user):
        post()
        post("unknown")
        post(make_access_token(scope="read"))
        post(make_access_token(expires=an_hour_ago()))

        assert not IssuedToken.objects.exists()
        assert not UserIdentity.objects.exists()


class TestTheParameterAsUserId:
    @pytest.mark.parametrize("value", ["1", "4711", "uuid:x", "self", "-1", "1%00", "%F0%9F%92%A9"])
    def test_refusal_of_as_user_id_has_the_string_body_of_the_contract_and_no_challenge(
        self, post, access_token, value
    ):
        assert answer(post(access_token, url=f"{ISSUE_URL}?as_user_id={value}x")) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_issuer_reads_as_user_id_from_a_form(self, post, access_token, content_type):
        response = post(access_token, data=form_body(content_type, as_user_id="4711"), content_type=content_type)

        assert answer(response) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("value", ["", "%20", "%09"])
    def test_issuer_ignores_a_blank_as_user_id_in_the_query(self, post, access_token, value):
        assert post(access_token, url=f"{ISSUE_URL}?as_user_id={value}").status_code == 201

    def test_issuer_reads_as_user_id_from_the_form_if_the_query_parameter_is_blank(self, post, access_token):
        response = post(
            access_token,
            url=ISSUE_URL + "?as_user_id=",
            data=b"as_user_id=4711",
            content_type="application/x-www-form-urlencoded",
        )

        assert answer(response) == INVALID_AS_USER_ID


def form_body(content_type, **fields):
    if content_type.startswith("multipart"):
        parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
        return ("".join(parts) + "--b--\r\n").encode()
    return "&".join(f"{k}={v}" for k, v in fields.items()).encode()
