"""POST /api/v1/inst_access_tokens: contract §1, row by row, literally."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.http import QueryDict
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from oauth2_provider.models import get_access_token_model

from instaccess import jose, keyring
from instaccess.conf import SCOPE
from instaccess.models import IssuedToken, Key, UserIdentity
from tests.conftest import ISSUE_URL
from tests.support.answers import (
    BAD_REQUEST,
    CHALLENGE,
    EXPIRED,
    INSUFFICIENT_SCOPE,
    INVALID,
    INVALID_AS_USER_ID,
    JWT_FROM_JWT,
    METHOD_NOT_ALLOWED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    answer,
    claims_of,
    signed_inside,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

NOW = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC)


def an_hour_ago():
    return timezone.now() - timedelta(hours=1)


class TestSuccess:
    def test_p12_answers_201_with_the_token_and_no_other_key(self, post, access_token):
        response = post(access_token)

        assert response.status_code == 201
        assert list(response.json()) == ["token"]
        assert response.content == b'{"token":"%s"}' % response.json()["token"].encode()

    def test_p12_may_be_kept_by_nobody(self, post, access_token):
        response = post(access_token)

        assert response["Cache-Control"] == "no-store"
        assert response["Content-Type"].startswith("application/json")
        assert "WWW-Authenticate" not in response
        assert not response.cookies

    def test_p12_the_audit_row_does_not_hold_the_token(self, post, access_token):
        token = post(access_token).json()["token"]

        row = IssuedToken.objects.values().get()
        stored = repr(row)
        assert access_token.token not in stored
        for part in (*token.split("."), *signed_inside(token).split(".")):
            assert part not in stored

    def test_the_header_says_how_it_is_encrypted(self, post, access_token):
        token = post(access_token).json()["token"]

        assert token.count(".") == 4
        assert jose_header(token) == {
            "alg": "RSA-OAEP",
            "enc": "A128CBC-HS256",
            "cty": "JWT",
            "kid": keyring.current().encryption_key().kid,
        }

    def test_the_inner_header_says_how_it_is_signed(self, post, access_token):
        signed = signed_inside(post(access_token).json()["token"])

        assert jose_header(signed) == {"typ": "JWT", "alg": "RS256", "kid": keyring.current().signing_key().kid}

    def test_the_claims_are_those_of_the_contract(self, post, make_access_token, user):
        with time_machine.travel(NOW, tick=False):
            claims = claims_of(post(make_access_token()).json()["token"])

        row = IssuedToken.objects.get()
        assert claims == {
            "iss": "instructure:inst_access",
            "jti": str(row.jti),
            "iat": int(NOW.timestamp()),
            "exp": int(NOW.timestamp()) + 3600,
            "sub": str(UserIdentity.objects.get(user=user).uuid),
            "acct": row.account_uuid,
            "canvas_domain": "testserver",
            "debug_user_global_id": str(user.pk),
        }

    def test_the_json_spelling_of_the_address_is_the_same_endpoint(self, post, access_token):
        assert post(access_token, url=ISSUE_URL + ".json").status_code == 201

    @pytest.mark.parametrize("suffix", ["/", ".json/"])
    def test_a_trailing_slash_changes_nothing(self, post, access_token, suffix):
        assert post(access_token, url=ISSUE_URL + suffix).status_code == 201

    @pytest.mark.parametrize("suffix", ["%0A", ".json%0A", ".xml", "x", "/1", "//"])
    def test_another_address_is_not_the_endpoint(self, post, access_token, suffix):
        assert post(access_token, url=ISSUE_URL + suffix).status_code == 404

    def test_two_tokens_have_nothing_in_common_but_the_user(self, post, access_token):
        first, second = (claims_of(post(access_token).json()["token"]) for _ in range(2))

        assert first["jti"] != second["jti"]
        assert first["sub"] == second["sub"]

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
    def test_the_scheme_is_spelled_in_any_case(self, post, access_token, scheme):
        assert post(headers={"Authorization": f"{scheme} {access_token.token}"}).status_code == 201


class TestWhatClientsSendBesides:
    @pytest.mark.parametrize(
        "accept", ["*/*", "text/html", "application/xml", "text/html;q=1, */*;q=0.1", "nonsense", ""]
    )
    def test_accept_never_matters(self, post, access_token, accept):
        response = post(access_token, headers={"Accept": accept})

        assert response.status_code == 201
        assert response["Content-Type"].startswith("application/json")

    @pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense"])
    def test_p10_accept_never_matters_to_a_refusal_either(self, post, accept):
        assert answer(post(headers={"Accept": accept})) == UNAUTHENTICATED

    @pytest.mark.parametrize(
        "query", ["?format=html", "?format=api", "?format=xml", "?_method=DELETE", "?a=%GG", "?%00"]
    )
    def test_p10_the_query_never_matters(self, post, access_token, query):
        assert post(access_token, url=ISSUE_URL + query).status_code == 201

    @pytest.mark.parametrize("query", ["?a=%GG", "?a=%00", "?a=%FF", "?" + "&".join(f"a{n}=1" for n in range(2000))])
    def test_p10_a_stranger_with_an_odd_query_is_a_stranger(self, post, query):
        assert answer(post(url=ISSUE_URL + query)) == UNAUTHENTICATED

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/json", b""),
            ("application/json", b'{"unfinished":'),
            ("application/json", b'{"as_user_id": "1"}'),
            ("application/xml", b"<as_user_id>1</as_user_id>"),
            ("text/plain", b"as_user_id=1"),
            ("multipart/form-data", b"no boundary"),
            ("multipart/form-data; boundary=x", b"not the boundary"),
            ("multipart/form-data; boundary=" + "x" * 2000, b""),
            ("application/x-www-form-urlencoded", b"%GG&=&&%00"),
            ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(2000))),
            ("application/x-www-form-urlencoded", b"a=" + b"x" * 3_000_000),
            ("application/x-www-form-urlencoded; charset=utf-16", b"a=1"),
            ("application/octet-stream", bytes(range(256))),
            ("", b"x"),
            ("nonsense", b"x"),
        ],
    )
    def test_p10_the_body_never_matters(self, client, access_token, content_type, body):
        url = ISSUE_URL + "?a=b"
        headers = {"Authorization": f"Bearer {access_token.token}"}

        assert client.generic("POST", url, body, content_type, headers=headers).status_code == 201
        assert answer(client.generic("POST", url, body, content_type)) == UNAUTHENTICATED

    @pytest.mark.parametrize("charset", ["utf-16", "utf-7", "unicode_escape", "cp037", "unknown"])
    def test_p10_the_charset_of_a_body_does_not_change_how_the_query_reads(self, client, access_token, charset):
        response = client.generic(
            "POST",
            ISSUE_URL + "?as_user_id=4711",
            b"{}",
            content_type=f"application/json; charset={charset}",
            headers={"Authorization": f"Bearer {access_token.token}"},
        )

        assert answer(response) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("charset", ["punycode", "utf-16", "rot13", "unicode_escape", "unknown"])
    def test_p10_a_form_is_read_as_utf_8_whatever_charset_its_sender_names(self, client, access_token, charset):
        """Punycode, for one, takes five minutes for a megabyte."""
        headers = {"Authorization": f"Bearer {access_token.token}"}
        field = 'Content-Disposition: form-data; name="as_user_id"'
        for value, expected in (("4711", 401), ("-" + "b" * 1_000_000, 401), (str(access_token.user.pk), 201)):
            body = f"--b\r\n{field}\r\n\r\n{value}\r\n--b--\r\n".encode()
            content_type = f"multipart/form-data; boundary=b; charset={charset}"
            response = client.generic("POST", ISSUE_URL, body, content_type, headers=headers)

            assert response.status_code == expected

    def test_a_form_that_a_middleware_has_made_of_something_else_counts(self, client, access_token, settings):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.json_to_form"]
        target = get_user_model().objects.create(username="target")
        get_user_model().objects.filter(pk=access_token.user.pk).update(is_superuser=True)
        headers = {"Authorization": f"Bearer {access_token.token}"}
        body = json.dumps({"as_user_id": str(target.pk)})
        response = client.post(ISSUE_URL, body, content_type="application/json", headers=headers)

        assert response.status_code == 201
        assert IssuedToken.objects.get().user == target

    def test_a_query_that_a_middleware_has_replaced_stays_for_those_behind_it(self, client, access_token, settings):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.own_query"]
        headers = {"Authorization": f"Bearer {access_token.token}"}
        form = "application/x-www-form-urlencoded"
        response = client.post(f"{ISSUE_URL}?x=2", "a=b", content_type=form, headers=headers)

        assert response["X-Query"] == "{'mine': ['1']}"

    def test_a_query_of_thousands_of_parameters_is_refused_as_django_refuses_it(self, post, access_token):
        query = "?" + "&".join(f"a{n}=1" for n in range(2000))

        assert answer(post(access_token, url=ISSUE_URL + query)) == BAD_REQUEST

    @given(
        st.binary(max_size=200),
        st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]),
    )
    @hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_p10_whatever_the_body_is_a_stranger_gets_json(self, post, body, content_type):
        assert answer(post(data=body, content_type=content_type)) == UNAUTHENTICATED

    @given(st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=60))
    @hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_p10_whatever_the_authorization_header_is_a_stranger_gets_a_401(self, client, header):
        response = client.post(ISSUE_URL, HTTP_AUTHORIZATION=header)

        assert answer(response) in (UNAUTHENTICATED, INVALID)

    def test_an_uploaded_file_is_neither_kept_nor_gathered_in_memory(self, post, access_token):
        response = post(
            access_token, data=multipart(b"x" * 6_000_000), content_type="multipart/form-data; boundary=b"
        )

        request = response.wsgi_request
        assert response.status_code == 201
        assert not request.FILES
        assert all(handler.chunk_size <= 2**16 for handler in request.upload_handlers)
        assert request.upload_handlers


class TestNoCredentials:
    @pytest.mark.parametrize("header", [None, "", " ", "Basic YWRhOnNlY3JldA==", "Token abc", "Digest a b", "a b c"])
    def test_p1_asks_for_some(self, post, header):
        headers = {} if header is None else {"Authorization": header}

        assert answer(post(headers=headers)) == UNAUTHENTICATED

    def test_p1_a_scheme_that_only_begins_like_ours_is_another(self, post, access_token):
        assert answer(post(headers={"Authorization": f"BearerX {access_token.token}"})) == UNAUTHENTICATED

    def test_p1_a_session_is_no_credential(self, client, user):
        client.force_login(user)

        assert answer(client.post(ISSUE_URL)) == UNAUTHENTICATED

    def test_the_realm_is_a_setting(self, post):
        with override_settings(INSTACCESS={"REALM": "lms.example.edu"}):
            assert post()["WWW-Authenticate"] == 'Bearer realm="lms.example.edu"'


class TestABearerWeCannotUse:
    @pytest.mark.parametrize(
        "header", ["Bearer", "Bearer ", "Bearer a b", "Bearer a b c", "Bearer a,b", "bearer a, Bearer b"]
    )
    def test_p1_is_invalid_when_it_is_not_exactly_one_token(self, post, header):
        assert answer(post(headers={"Authorization": header})) == INVALID

    @pytest.mark.parametrize(
        "text", ["unknown", "a.b.c", "a.b.c.d.e", "\x00", "'; DROP TABLE", "é", "x" * 8193, "x" * 100_000]
    )
    def test_p2_is_invalid_when_nobody_knows_it(self, client, text):
        response = client.post(ISSUE_URL, HTTP_AUTHORIZATION=f"Bearer {text}")

        assert answer(response) == INVALID

    def test_p2_two_headers_in_one_are_invalid_even_if_both_are_good(self, post, access_token):
        text = access_token.token

        assert answer(post(headers={"Authorization": f"Bearer {text},Bearer {text}"})) == INVALID

    def test_p2_the_checksum_of_a_token_is_not_the_token(self, post, access_token):
        assert answer(post(access_token.token_checksum)) == INVALID

    def test_p2_a_deleted_token_is_invalid(self, post, access_token):
        access_token.revoke()

        assert answer(post(access_token.token)) == INVALID

    @pytest.mark.parametrize("change", [str.upper, str.swapcase, lambda text: text[:-1], lambda text: text + "="])
    def test_p2_another_spelling_is_another_token(self, post, make_access_token, change):
        make_access_token(token="abcDEFabcDEFabcDEF")

        assert answer(post(change("abcDEFabcDEFabcDEF"))) == INVALID


class TestAnExpiredAccessToken:
    def test_p2_is_told_so(self, post, make_access_token):
        assert answer(post(make_access_token(expires=an_hour_ago()))) == EXPIRED

    def test_p2_expires_to_the_second(self, post, make_access_token):
        token = make_access_token(expires=NOW)

        with time_machine.travel(NOW - timedelta(seconds=1), tick=False):
            assert post(token).status_code == 201
        with time_machine.travel(NOW, tick=False):
            assert answer(post(token)) == EXPIRED


class TestScope:
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
    def test_p3_anything_but_the_exact_one_is_insufficient(self, post, make_access_token, scope):
        assert answer(post(make_access_token(scope=scope))) == INSUFFICIENT_SCOPE

    @pytest.mark.parametrize("scope", [SCOPE, f"read {SCOPE}", f"{SCOPE} read", f" {SCOPE}  read "])
    def test_the_exact_one_is_enough_wherever_it_stands(self, post, make_access_token, scope):
        assert post(make_access_token(scope=scope)).status_code == 201


class TestAnInactiveUser:
    def test_p4_is_refused(self, post, user, access_token):
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)

        assert answer(post(access_token)) == INVALID


class TestAnAccessTokenWithoutUser:
    def test_p5_is_refused(self, post, make_access_token):
        assert answer(post(make_access_token(user=None))) == INVALID


class TestAnAccessTokenWithoutApplication:
    def test_p6_is_refused(self, post, make_access_token):
        assert answer(post(make_access_token(application=None))) == INVALID

    def test_p6_is_refused_when_the_application_was_deleted(self, post, access_token, application):
        application.delete()

        assert answer(post(access_token)) == INVALID


class TestATokenOutsideTheHeader:
    @pytest.mark.parametrize("name", ["access_token", "bearer_token", "oauth_token"])
    def test_p8_is_not_seen_in_the_query(self, post, access_token, name):
        assert answer(post(url=f"{ISSUE_URL}?{name}={access_token.token}")) == UNAUTHENTICATED

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_p8_is_not_seen_in_a_form(self, post, access_token, content_type):
        body = form_body(content_type, access_token=access_token.token)

        assert answer(post(data=body, content_type=content_type)) == UNAUTHENTICATED

    def test_p8_is_not_seen_beside_a_bad_header(self, post, access_token):
        assert answer(post("unknown", url=f"{ISSUE_URL}?access_token={access_token.token}")) == INVALID

    def test_p8_does_not_spoil_a_good_header(self, post, access_token):
        assert post(access_token, url=f"{ISSUE_URL}?access_token=unknown").status_code == 201


class TestATokenOutsideTheHeaderWhereThatIsAllowed:
    @pytest.fixture(autouse=True)
    def _allowed(self, settings):
        settings.INSTACCESS = {"ALLOW_TOKEN_IN_PARAMETERS": True}

    def test_p8_is_taken_from_the_query(self, post, access_token):
        assert post(url=f"{ISSUE_URL}?access_token={access_token.token}").status_code == 201

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_p8_is_taken_from_a_form(self, post, access_token, content_type):
        body = form_body(content_type, access_token=access_token.token)

        assert post(data=body, content_type=content_type).status_code == 201

    def test_p8_the_header_goes_first(self, post, access_token):
        assert answer(post("unknown", url=f"{ISSUE_URL}?access_token={access_token.token}")) == INVALID

    @pytest.mark.parametrize("text", ["unknown", "x" * 20_000, "%00", "%ED%A0%80", "a b", "a%0D%0Ab"])
    def test_p8_an_unknown_one_is_invalid(self, post, text):
        assert answer(post(url=f"{ISSUE_URL}?access_token={text}")) == INVALID

    def test_p8_a_lone_surrogate_is_only_unknown(self, client):
        body = form_body("multipart", access_token="\\ud800")
        response = client.generic("POST", ISSUE_URL, body, "multipart/form-data; boundary=b; charset=unicode_escape")

        assert answer(response) in (INVALID, UNAUTHENTICATED)

    def test_p8_an_empty_one_is_none(self, post):
        assert answer(post(url=f"{ISSUE_URL}?access_token=")) == UNAUTHENTICATED

    def test_p9_an_inst_access_token_there_is_refused_as_in_the_header(self, post, access_token):
        signed = signed_inside(post(access_token).json()["token"])

        assert answer(post(url=f"{ISSUE_URL}?access_token={signed}")) == JWT_FROM_JWT


class TestAnInstAccessTokenAsBearer:
    @pytest.fixture
    def issued(self, post, access_token):
        return post(access_token).json()["token"]

    def test_p9_gets_a_403_when_it_is_decrypted(self, post, issued):
        assert answer(post(signed_inside(issued))) == JWT_FROM_JWT

    def test_p9_gets_a_401_while_it_is_encrypted(self, post, issued):
        assert answer(post(issued)) == INVALID

    def test_p9_gets_a_401_when_it_has_expired(self, post, issued):
        with time_machine.travel(timezone.now() + timedelta(seconds=3601), tick=False):
            assert answer(post(signed_inside(issued))) == INVALID

    def test_p9_gets_a_401_when_it_was_tampered_with(self, post, issued):
        head, body, signature = signed_inside(issued).split(".")
        other = ("A" if signature[0] != "A" else "B") + signature[1:]

        assert answer(post(f"{head}.{body}.{other}")) == INVALID

    def test_p9_gets_a_401_when_it_is_not_signed(self, post, issued):
        _, body, _ = signed_inside(issued).split(".")
        head = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').rstrip(b"=").decode()

        assert answer(post(f"{head}.{body}.")) == INVALID
        assert answer(post(f"{head}.{body}.AA")) == INVALID

    def test_p9_gets_a_401_when_somebody_else_signed_it(self, post, issued, rsa_pool):
        payload = jose.verify(signed_inside(issued), keyring.current().verification_keys())[0]
        kid = keyring.current().signing_key().kid
        forged = jose.sign(json.dumps(payload).encode(), rsa_pool.take("sig"), kid=kid)

        assert answer(post(forged)) == INVALID

    def test_p9_stays_refused_after_its_user_is_gone(self, post, issued, user):
        signed = signed_inside(issued)
        user.delete()

        assert answer(post(signed)) == JWT_FROM_JWT

    def test_p9_writes_no_row(self, post, issued):
        post(signed_inside(issued))

        assert IssuedToken.objects.count() == 1

    def test_p9_an_access_token_that_is_a_jwt_of_another_issuer_is_looked_up(self, post, make_access_token, rsa_pool):
        jwt = jose.sign(b'{"iss":"https://idp.example","sub":"1"}', rsa_pool.take("sig"), kid="theirs")

        assert post(make_access_token(token=jwt)).status_code == 201

    def test_p9_an_access_token_row_does_not_make_an_inst_access_token_good(self, post, issued, make_access_token):
        signed = signed_inside(issued)

        assert answer(post(make_access_token(token=signed))) == JWT_FROM_JWT


class TestTheOrderOfTheChecks:
    """Where several things are wrong, the contract's table says which one is told."""

    def test_an_inactive_user_goes_before_expiry(self, post, user, make_access_token):
        user.is_active = False
        user.save()

        assert answer(post(make_access_token(expires=an_hour_ago()))) == INVALID

    def test_no_user_goes_before_expiry(self, post, make_access_token):
        assert answer(post(make_access_token(user=None, expires=an_hour_ago()))) == INVALID

    def test_no_application_goes_before_expiry(self, post, make_access_token):
        assert answer(post(make_access_token(application=None, expires=an_hour_ago()))) == INVALID

    def test_an_inactive_user_goes_before_the_scope(self, post, user, make_access_token):
        user.is_active = False
        user.save()

        assert answer(post(make_access_token(scope="read"))) == INVALID

    def test_expiry_goes_before_the_scope(self, post, make_access_token):
        assert answer(post(make_access_token(scope="read", expires=an_hour_ago()))) == EXPIRED

    def test_the_scope_goes_before_as_user_id(self, post, make_access_token):
        response = post(make_access_token(scope="read"), url=ISSUE_URL + "?as_user_id=4711")

        assert answer(response) == INSUFFICIENT_SCOPE

    def test_expiry_goes_before_as_user_id(self, post, make_access_token):
        response = post(make_access_token(expires=an_hour_ago()), url=ISSUE_URL + "?as_user_id=4711")

        assert answer(response) == EXPIRED

    def test_every_refusal_goes_before_a_missing_key(self, post, make_access_token):
        token = make_access_token(scope="read")
        Key.objects.all().delete()
        keyring.forget()

        assert answer(post()) == UNAUTHENTICATED
        assert answer(post("unknown")) == INVALID
        assert answer(post(token)) == INSUFFICIENT_SCOPE
        assert answer(post(token, url=ISSUE_URL + "?as_user_id=4711")) == INSUFFICIENT_SCOPE

    def test_as_user_id_goes_before_a_missing_key(self, post, access_token):
        Key.objects.all().delete()
        keyring.forget()

        assert answer(post(access_token, url=ISSUE_URL + "?as_user_id=4711")) == INVALID_AS_USER_ID

    def test_the_method_goes_before_the_credentials(self, client):
        assert answer(client.get(ISSUE_URL, headers={"Authorization": "Bearer unknown"})) == METHOD_NOT_ALLOWED

    def test_a_refusal_writes_nothing(self, post, make_access_token, user):
        post()
        post("unknown")
        post(make_access_token(scope="read"))
        post(make_access_token(expires=an_hour_ago()))

        assert not IssuedToken.objects.exists()
        assert not UserIdentity.objects.exists()


class TestOtherMethods:
    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
    @pytest.mark.parametrize("accept", ["text/html", "*/*"])
    def test_p11_are_answered_405_in_json_with_allow(self, client, access_token, method, accept):
        headers = {"Authorization": f"Bearer {access_token.token}", "Accept": accept}
        response = client.generic(method, ISSUE_URL, headers=headers)

        assert answer(response) == METHOD_NOT_ALLOWED
        assert response["Allow"] == "POST, OPTIONS"

    def test_p11_head_is_answered_405_without_a_body(self, client):
        response = client.head(ISSUE_URL)

        assert (response.status_code, response.content, response["Allow"]) == (405, b"", "POST, OPTIONS")

    def test_p11_a_method_override_header_is_ignored(self, client, access_token):
        headers = {"Authorization": f"Bearer {access_token.token}", "X-HTTP-Method-Override": "POST"}

        assert answer(client.get(ISSUE_URL, headers=headers)) == METHOD_NOT_ALLOWED

    def test_p11_options_says_what_is_allowed_to_anybody(self, client):
        response = client.options(ISSUE_URL)

        assert (response.status_code, response.content) == (204, b"")
        assert response["Allow"] == "POST, OPTIONS"
        assert response["Cache-Control"] == "no-store"

    def test_p11_no_method_but_post_issues(self, client, access_token):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"):
            client.generic(method, ISSUE_URL, headers={"Authorization": f"Bearer {access_token.token}"})

        assert not IssuedToken.objects.exists()


class TestAHostThatIsNotOurs:
    @pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "a b", "testserver:x", "[::1", ""])
    @override_settings(MIDDLEWARE=[])
    def test_is_refused_in_json_before_anything_is_looked_up(
        self, post, access_token, host, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            response = post(access_token, headers={"Host": host})

        assert answer(response) == BAD_REQUEST


class TestCanvasDomain:
    @pytest.mark.parametrize(
        ("host", "secure", "domain"),
        [
            ("canvas.example.edu", False, "canvas.example.edu"),
            ("Canvas.Example.EDU", False, "canvas.example.edu"),
            ("canvas.example.edu:80", False, "canvas.example.edu"),
            ("canvas.example.edu:443", True, "canvas.example.edu"),
            ("canvas.example.edu:8443", True, "canvas.example.edu:8443"),
            ("canvas.example.edu:443", False, "canvas.example.edu:443"),
            ("canvas.example.edu:80", True, "canvas.example.edu:80"),
        ],
    )
    def test_is_the_host_of_the_request_with_a_port_that_is_not_the_default(
        self, post, access_token, host, secure, domain
    ):
        token = post(access_token, headers={"Host": host}, secure=secure).json()["token"]

        assert claims_of(token)["canvas_domain"] == domain
        assert IssuedToken.objects.get().canvas_domain == domain

    def test_another_spelling_of_the_host_is_not_another_account(self, post, access_token):
        spellings = ["canvas.example.edu", "CANVAS.example.edu", "canvas.example.edu:8443", "canvas.example.edu."]
        accounts = {
            claims_of(post(access_token, headers={"Host": host}).json()["token"])["acct"] for host in spellings
        }

        assert len(accounts) == 1

    def test_a_trailing_dot_is_left_out(self, post, access_token):
        token = post(access_token, headers={"Host": "canvas.example.edu.:8443"}).json()["token"]

        assert claims_of(token)["canvas_domain"] == "canvas.example.edu:8443"

    def test_a_host_longer_than_dns_allows_is_the_clients_fault(self, post, access_token):
        host = ".".join(["a" * 60] * 6) + ".example.edu"

        assert answer(post(access_token, headers={"Host": host})) == BAD_REQUEST

    def test_forwarded_host_is_ignored_unless_django_is_told_to_trust_it(self, post, access_token):
        headers = {"Host": "canvas.example.edu", "X-Forwarded-Host": "other.example.edu"}
        token = post(access_token, headers=headers).json()["token"]

        assert claims_of(token)["canvas_domain"] == "canvas.example.edu"


class TestWhereARequestCameFrom:
    def test_is_the_peer_without_proxies(self, post, access_token):
        post(access_token, headers={"X-Forwarded-For": "203.0.113.9"}, REMOTE_ADDR="198.51.100.7")

        assert IssuedToken.objects.get().ip_address == "198.51.100.7"

    @pytest.mark.parametrize(
        ("hops", "forwarded", "address"),
        [
            (1, "203.0.113.9", "203.0.113.9"),
            (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
            (2, "6.6.6.6, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
            (2, "203.0.113.9", "198.51.100.7"),
            (1, "2001:db8::1", "2001:db8::1"),
            (1, "<script>", None),
        ],
    )
    def test_is_counted_from_the_right_behind_proxies_of_ours(self, post, access_token, hops, forwarded, address):
        with override_settings(INSTACCESS={"TRUSTED_PROXIES": hops}):
            response = post(access_token, headers={"X-Forwarded-For": forwarded}, REMOTE_ADDR="198.51.100.7")

        assert response.status_code == 201
        assert IssuedToken.objects.get().ip_address == address

    @pytest.mark.parametrize("peer", ["", "unix:", "nonsense"])
    def test_may_be_unknown(self, post, access_token, peer):
        assert post(access_token, REMOTE_ADDR=peer).status_code == 201
        assert IssuedToken.objects.get().ip_address is None


class TestAHostileUserAgent:
    @pytest.mark.parametrize(
        "text",
        [
            "a\x00b",
            "a\r\nSet-Cookie: x=1",
            "\x1b[31mred\x1b[0m",
            "\x9b31mred",
            "<script>alert(1)</script>",
            "x" * 100_000,
            "é\xff",
            "%s %(x)s {0}",
        ],
    )
    def test_a5_is_stored_without_control_characters(self, client, access_token, text):
        response = client.post(ISSUE_URL, HTTP_AUTHORIZATION=f"Bearer {access_token.token}", HTTP_USER_AGENT=text)

        assert response.status_code == 201
        stored = IssuedToken.objects.get().user_agent
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in stored)
        assert len(stored) == min(len(text), 512)

    def test_a5_none_is_an_empty_one(self, client, access_token):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION=f"Bearer {access_token.token}")

        assert IssuedToken.objects.get().user_agent == ""


class TestAsUserId:
    @pytest.mark.parametrize("value", ["1", "4711", "uuid:x", "self", "-1", "1%00", "%F0%9F%92%A9"])
    def test_is_refused_with_a_string_and_without_a_challenge(self, post, access_token, value):
        assert answer(post(access_token, url=f"{ISSUE_URL}?as_user_id={value}x")) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_is_read_from_a_form_too(self, post, access_token, content_type):
        response = post(access_token, data=form_body(content_type, as_user_id="4711"), content_type=content_type)

        assert answer(response) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("value", ["", "%20", "%09"])
    def test_is_ignored_when_it_is_blank(self, post, access_token, value):
        assert post(access_token, url=f"{ISSUE_URL}?as_user_id={value}").status_code == 201

    def test_a_blank_one_in_the_query_does_not_hide_one_in_the_form(self, post, access_token):
        response = post(
            access_token,
            url=ISSUE_URL + "?as_user_id=",
            data=b"as_user_id=4711",
            content_type="application/x-www-form-urlencoded",
        )

        assert answer(response) == INVALID_AS_USER_ID


class TestUnencrypted:
    @pytest.fixture(autouse=True)
    def _debug(self, settings):
        settings.DEBUG = True
        settings.INSTACCESS = {"ALLOW_UNENCRYPTED": True}

    @pytest.mark.parametrize("value", ["1", "true", "t", "yes", "y", "on", "TRUE", "%20on"])
    def test_returns_the_bare_signed_token_in_development(self, post, access_token, value):
        token = post(access_token, url=f"{ISSUE_URL}?unencrypted={value}").json()["token"]

        assert token.count(".") == 2
        assert claims_of(token)["jti"] == str(IssuedToken.objects.get().jti)
        assert IssuedToken.objects.get().encryption_kid == ""

    def test_is_read_from_a_form_too(self, post, access_token):
        body = b"unencrypted=1"
        response = post(access_token, data=body, content_type="application/x-www-form-urlencoded")

        assert response.json()["token"].count(".") == 2

    @pytest.mark.parametrize("value", ["", "0", "false", "no", "off", "2", "maybe", "11"])
    def test_any_other_value_is_ignored(self, post, access_token, value):
        assert post(access_token, url=f"{ISSUE_URL}?unencrypted={value}").json()["token"].count(".") == 4

    def test_is_silently_ignored_without_debug(self, post, access_token, settings):
        settings.DEBUG = False

        assert post(access_token, url=ISSUE_URL + "?unencrypted=1").json()["token"].count(".") == 4

    def test_is_silently_ignored_without_the_setting(self, post, access_token, settings):
        settings.INSTACCESS = {}

        assert post(access_token, url=ISSUE_URL + "?unencrypted=1").json()["token"].count(".") == 4


class TestWithoutKeys:
    @pytest.fixture(autouse=True)
    def _no_keys(self, initial_keys):
        Key.objects.all().delete()
        keyring.forget()

    def test_k5_the_answer_is_503_and_says_when_to_try_again(self, post, access_token):
        response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert int(response["Retry-After"]) > 0

    def test_k5_the_log_names_the_command(self, post, access_token, caplog):
        post(access_token)

        assert "instaccess_init" in caplog.text

    def test_k5_no_row_is_written_and_no_key_made(self, post, access_token):
        post(access_token)

        assert not IssuedToken.objects.exists()
        assert not Key.objects.exists()

    def test_k5_init_mends_it(self, post, access_token):
        from instaccess import keys

        post(access_token)
        keys.init()

        assert post(access_token).status_code == 201


class TestWithoutACurrentKey:
    @pytest.mark.parametrize("use", [Key.Use.SIGNING, Key.Use.ENCRYPTION])
    def test_k8_the_answer_is_503_and_none_is_made_up(self, post, access_token, use):
        Key.objects.filter(use=use, status=Key.Status.CURRENT).delete()
        keyring.forget()
        left = set(Key.objects.values_list("kid", "status"))

        assert answer(post(access_token)) == UNAVAILABLE
        assert set(Key.objects.values_list("kid", "status")) == left
        assert not IssuedToken.objects.exists()

    @pytest.mark.parametrize("status", [Key.Status.PAST, Key.Status.REVOKED, Key.Status.FUTURE])
    def test_k8_a_key_of_another_status_does_not_stand_in(self, post, access_token, status):
        Key.objects.filter(use=Key.Use.SIGNING, status=Key.Status.CURRENT).update(status=status)
        keyring.forget()

        assert answer(post(access_token)) == UNAVAILABLE


class TestWithAWrongKeyEncryptionKey:
    @pytest.fixture(autouse=True)
    def _wrong_kek(self, initial_keys, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}
        keyring.forget()

    def test_o6_the_answer_is_503(self, post, access_token):
        response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "Retry-After" in response

    def test_o6_the_log_names_the_setting(self, post, access_token, caplog):
        post(access_token)

        assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in caplog.text

    def test_o6_the_keys_stay_as_they_are(self, post, access_token):
        before = list(Key.objects.order_by("pk").values())
        post(access_token)

        assert list(Key.objects.order_by("pk").values()) == before
        assert not IssuedToken.objects.exists()

    def test_o6_the_right_one_mends_it(self, post, access_token, settings):
        post(access_token)
        settings.INSTACCESS = {}
        keyring.forget()

        assert post(access_token).status_code == 201


class TestWithoutTheGatewaysHalfOfTheEncryptionKey:
    """The issuer encrypts with the public half: what became of the private one is not its affair."""

    @pytest.mark.parametrize("sealed", ["", "flipped"])
    def test_k7_tokens_are_issued(self, post, access_token, sealed):
        Key.objects.filter(use=Key.Use.ENCRYPTION).update(sealed_private_jwk=sealed)
        keyring.forget()

        assert post(access_token).status_code == 201


class TestWithASealedKeyOfAnotherRow:
    def test_k7_the_answer_is_503(self, post, access_token):
        current, future = (Key.objects.get(use="sig", status=status) for status in ("current", "future"))
        Key.objects.filter(pk=current.pk).update(sealed_private_jwk=future.sealed_private_jwk)
        keyring.forget()

        assert answer(post(access_token)) == UNAVAILABLE

    def test_k7_an_altered_public_half_is_no_key_to_encrypt_under(self, post, access_token, rsa_pool):
        stranger = rsa_pool.take("enc").export_public(as_dict=True)
        row = Key.objects.get(use="enc")
        Key.objects.filter(pk=row.pk).update(public_jwk={**stranger, "use": "enc", "kid": row.kid})
        keyring.forget()

        assert answer(post(access_token)) == UNAVAILABLE


class TestABadSetting:
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
    def test_is_a_503_and_a_log_line_that_names_it(self, post, access_token, setting, caplog):
        with override_settings(INSTACCESS=setting):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert next(iter(setting)) in caplog.text
        assert not IssuedToken.objects.exists()

    def test_is_a_503_where_it_is_needed_for_the_refusal_itself(self, post, caplog):
        with override_settings(INSTACCESS={"REALM": 'a"b'}):
            response = post()

        assert answer(response) == UNAVAILABLE
        assert "REALM" in caplog.text


class TestWithTheDatabaseDown:
    def test_o1_authentication_answers_503_and_says_when_to_try_again(self, post, access_token, caplog):
        with connection.execute_wrapper(down):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert int(response["Retry-After"]) > 0
        assert "OperationalError" in caplog.text

    def test_o1_a_failure_of_the_audit_answers_503(self, post, access_token):
        post(access_token)
        with connection.execute_wrapper(down_for("INSERT")):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "Retry-After" in response
        assert IssuedToken.objects.count() == 1

    def test_o1_a_failure_to_read_the_keys_answers_503(self, post, access_token):
        with connection.execute_wrapper(down_for("instaccess_key")):
            assert answer(post(access_token)) == UNAVAILABLE

    def test_o1_it_is_back_by_itself(self, post, access_token):
        with connection.execute_wrapper(down):
            post(access_token)

        assert post(access_token).status_code == 201

    def test_o1_a_stranger_without_credentials_costs_no_query(self, post, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert answer(post()) == UNAUTHENTICATED


@pytest.mark.django_db(transaction=True)
class TestAWarmIssue:
    def test_takes_two_queries_one_to_authenticate_and_one_to_insert(self, post, access_token):
        post(access_token)
        with CaptureQueriesContext(connection) as queries:
            assert post(access_token).status_code == 201

        verbs = [query["sql"].split()[0] for query in queries]
        assert verbs == ["SELECT", "INSERT"]

    def test_takes_no_more_with_a_field_of_the_user_as_uuid(self, post, access_token):
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "username"}):
            post(access_token)
            with CaptureQueriesContext(connection) as queries:
                assert post(access_token).status_code == 201

        assert len(queries) == 2


class TestWhatTheLogSays:
    def test_an_issue_is_told_with_its_jti(self, post, access_token, application, caplog):
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
    def test_a_refusal_is_told_with_its_precise_reason(self, post, make_access_token, columns, reason, caplog):
        post(make_access_token(**columns))

        assert f"reason={reason}" in caplog.text

    def test_one_refusal_is_one_line(self, client, caplog):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION="Bearer a\r\nreason=forged b")

        lines = [record.getMessage() for record in caplog.records if record.name == "instaccess.issuer"]
        assert len(lines) == 1
        assert "\n" not in lines[0]


class TestAnUnexpectedFault:
    def test_is_a_503_with_the_traceback_in_the_log(self, post, access_token, caplog):
        def hook(user, application):
            raise ZeroDivisionError("the hook")

        with override_settings(INSTACCESS={"CLAIMS_HOOK": hook}):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "ZeroDivisionError: the hook" in caplog.text
        assert not IssuedToken.objects.exists()

    def test_is_a_503_even_for_an_attribute_error_while_authenticating(self, post, access_token, monkeypatch):
        def broken(self, scopes):
            raise AttributeError("a model of the project's own")

        monkeypatch.setattr(get_access_token_model(), "allow_scopes", broken)

        assert answer(post(access_token)) == UNAVAILABLE

    def test_the_realm_and_the_challenge_belong_to_refusals_only(self, post, access_token):
        Key.objects.all().delete()
        keyring.forget()

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


def jose_header(token):
    segment = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def form_body(content_type, **fields):
    if content_type.startswith("multipart"):
        parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
        return ("".join(parts) + "--b--\r\n").encode()
    return "&".join(f"{k}={v}" for k, v in fields.items()).encode()


def multipart(content):
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


def json_to_form(get_response: Any) -> Any:
    """A middleware such as projects have."""

    def middleware(request: Any) -> Any:
        request.POST = QueryDict(mutable=True)
        request.POST.update(json.loads(request.body))
        return get_response(request)

    return middleware


def own_query(get_response: Any) -> Any:
    """Another one."""

    def middleware(request: Any) -> Any:
        request.GET = QueryDict("mine=1")
        response = get_response(request)
        response["X-Query"] = str(dict(request.GET))
        return response

    return middleware
