"""Tests of POST requests to /api/v1/inst_access_tokens that get a token (docs/wire-contract.md §1)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import QueryDict
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instaccess.keys import ring
from instaccess.models import IssuedToken, UserIdentity
from tests.conftest import ISSUE_URL
from tests.support.answers import (
    BAD_REQUEST,
    INVALID,
    INVALID_AS_USER_ID,
    UNAUTHENTICATED,
    answer,
    claims_of,
    signed_inside,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

NOW = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC)


class TestTheResponseWithAToken:
    def test_p12_issuer_returns_201_with_the_token_as_the_only_member(self, post, access_token):
        response = post(access_token)

        assert response.status_code == 201
        assert list(response.json()) == ["token"]
        assert response.content == b'{"token":"%s"}' % response.json()["token"].encode()

    def test_p12_response_with_a_token_forbids_caching_and_sets_no_cookies(self, post, access_token):
        response = post(access_token)

        assert response["Cache-Control"] == "no-store"
        assert response["Content-Type"].startswith("application/json")
        assert "WWW-Authenticate" not in response
        assert not response.cookies

    def test_p12_audit_row_does_not_contain_the_token(self, post, access_token):
        token = post(access_token).json()["token"]

        row = IssuedToken.objects.values().get()
        stored = repr(row)
        assert access_token.token not in stored
        for part in (*token.split("."), *signed_inside(token).split(".")):
            assert part not in stored

    def test_outer_header_of_a_token_names_the_algorithms_and_the_encryption_key(self, post, access_token):
        token = post(access_token).json()["token"]

        assert token.count(".") == 4
        assert jose_header(token) == {
            "alg": "RSA-OAEP",
            "enc": "A128CBC-HS256",
            "cty": "JWT",
            "kid": ring.current_ring().encryption_key().kid,
        }

    def test_inner_header_of_a_token_names_the_algorithm_and_the_signing_key(self, post, access_token):
        signed = signed_inside(post(access_token).json()["token"])

        assert jose_header(signed) == {"typ": "JWT", "alg": "RS256", "kid": ring.current_ring().signing_key().kid}

    def test_issued_token_has_exactly_the_claims_of_the_wire_contract(self, post, make_access_token, user):
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

    def test_issuer_accepts_the_url_with_a_json_suffix(self, post, access_token):
        assert post(access_token, url=ISSUE_URL + ".json").status_code == 201

    @pytest.mark.parametrize("suffix", ["/", ".json/"])
    def test_issuer_accepts_the_url_with_a_trailing_slash(self, post, access_token, suffix):
        assert post(access_token, url=ISSUE_URL + suffix).status_code == 201

    @pytest.mark.parametrize("suffix", ["%0A", ".json%0A", ".xml", "x", "/1", "//"])
    def test_issuer_returns_404_for_a_similar_url(self, post, access_token, suffix):
        assert post(access_token, url=ISSUE_URL + suffix).status_code == 404

    def test_two_tokens_of_a_user_have_the_same_sub_and_different_jtis(self, post, access_token):
        first, second = (claims_of(post(access_token).json()["token"]) for _ in range(2))

        assert first["jti"] != second["jti"]
        assert first["sub"] == second["sub"]

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
    def test_issuer_accepts_the_bearer_scheme_in_any_case(self, post, access_token, scheme):
        assert post(headers={"Authorization": f"{scheme} {access_token.token}"}).status_code == 201


class TestIrrelevantPartsOfARequest:
    @pytest.mark.parametrize(
        "accept", ["*/*", "text/html", "application/xml", "text/html;q=1, */*;q=0.1", "nonsense", ""]
    )
    def test_issuer_ignores_the_accept_header(self, post, access_token, accept):
        response = post(access_token, headers={"Accept": accept})

        assert response.status_code == 201
        assert response["Content-Type"].startswith("application/json")

    @pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense"])
    def test_p10_issuer_sends_refusals_in_json_for_any_accept_header(self, post, accept):
        assert answer(post(headers={"Accept": accept})) == UNAUTHENTICATED

    @pytest.mark.parametrize(
        "query", ["?format=html", "?format=api", "?format=xml", "?_method=DELETE", "?a=%GG", "?%00"]
    )
    def test_p10_issuer_ignores_unknown_parameters_in_the_query(self, post, access_token, query):
        assert post(access_token, url=ISSUE_URL + query).status_code == 201

    @pytest.mark.parametrize("query", ["?a=%GG", "?a=%00", "?a=%FF", "?" + "&".join(f"a{n}=1" for n in range(2000))])
    def test_p10_unusual_query_without_credentials_gets_a_401(self, post, query):
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
    def test_p10_issuer_ignores_a_body_of_any_content_type(self, client, access_token, content_type, body):
        url = ISSUE_URL + "?a=b"
        headers = {"Authorization": f"Bearer {access_token.token}"}

        assert client.generic("POST", url, body, content_type, headers=headers).status_code == 201
        assert answer(client.generic("POST", url, body, content_type)) == UNAUTHENTICATED

    @pytest.mark.parametrize("charset", ["utf-16", "utf-7", "unicode_escape", "cp037", "unknown"])
    def test_p10_charset_of_the_body_does_not_change_how_the_issuer_reads_the_query(
        self, client, access_token, charset
    ):
        response = client.generic(
            "POST",
            ISSUE_URL + "?as_user_id=4711",
            b"{}",
            content_type=f"application/json; charset={charset}",
            headers={"Authorization": f"Bearer {access_token.token}"},
        )

        assert answer(response) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("charset", ["punycode", "utf-16", "rot13", "unicode_escape", "unknown"])
    def test_p10_issuer_reads_a_form_as_utf_8_for_any_charset(self, client, access_token, charset):
        """The app must ignore the charset, because decoding a megabyte of Punycode takes five minutes."""
        headers = {"Authorization": f"Bearer {access_token.token}"}
        field = 'Content-Disposition: form-data; name="as_user_id"'
        for value, expected in (("4711", 401), ("-" + "b" * 1_000_000, 401), (str(access_token.user.pk), 201)):
            body = f"--b\r\n{field}\r\n\r\n{value}\r\n--b--\r\n".encode()
            content_type = f"multipart/form-data; boundary=b; charset={charset}"
            response = client.generic("POST", ISSUE_URL, body, content_type, headers=headers)

            assert response.status_code == expected

    def test_issuer_uses_a_form_that_a_middleware_has_replaced(self, client, access_token, settings):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.json_to_form"]
        target = get_user_model().objects.create(username="target")
        get_user_model().objects.filter(pk=access_token.user.pk).update(is_superuser=True)
        headers = {"Authorization": f"Bearer {access_token.token}"}
        body = json.dumps({"as_user_id": str(target.pk)})
        response = client.post(ISSUE_URL, body, content_type="application/json", headers=headers)

        assert response.status_code == 201
        assert IssuedToken.objects.get().user == target

    def test_issuer_keeps_the_query_that_a_middleware_has_set(self, client, access_token, settings):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.own_query"]
        headers = {"Authorization": f"Bearer {access_token.token}"}
        form = "application/x-www-form-urlencoded"
        response = client.post(f"{ISSUE_URL}?x=2", "a=b", content_type=form, headers=headers)

        assert response["X-Query"] == "{'mine': ['1']}"

    def test_issuer_returns_400_for_a_query_with_thousands_of_parameters(self, post, access_token):
        query = "?" + "&".join(f"a{n}=1" for n in range(2000))

        assert answer(post(access_token, url=ISSUE_URL + query)) == BAD_REQUEST

    @given(
        st.binary(max_size=200),
        st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]),
    )
    @hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_p10_request_with_any_body_and_without_credentials_gets_a_401_in_json(self, post, body, content_type):
        assert answer(post(data=body, content_type=content_type)) == UNAUTHENTICATED

    @given(st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=60))
    @hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_p10_any_authorization_header_without_a_known_token_gets_a_401(self, client, header):
        response = client.post(ISSUE_URL, HTTP_AUTHORIZATION=header)

        assert answer(response) in (UNAUTHENTICATED, INVALID)

    def test_issuer_neither_stores_an_uploaded_file_nor_keeps_the_file_in_memory(self, post, access_token):
        response = post(
            access_token, data=multipart(b"x" * 6_000_000), content_type="multipart/form-data; boundary=b"
        )

        request = response.wsgi_request
        assert response.status_code == 201
        assert not request.FILES
        assert all(handler.chunk_size <= 2**16 for handler in request.upload_handlers)
        assert request.upload_handlers


class TestUnencryptedTokens:
    @pytest.fixture(autouse=True)
    def _debug(self, settings):
        settings.DEBUG = True
        settings.INSTACCESS = {"ALLOW_UNENCRYPTED": True}

    @pytest.mark.parametrize("value", ["1", "true", "t", "yes", "y", "on", "TRUE", "%20on"])
    def test_unencrypted_parameter_returns_the_signed_token_in_development(self, post, access_token, value):
        token = post(access_token, url=f"{ISSUE_URL}?unencrypted={value}").json()["token"]

        assert token.count(".") == 2
        assert claims_of(token)["jti"] == str(IssuedToken.objects.get().jti)
        assert IssuedToken.objects.get().encryption_kid == ""

    def test_issuer_reads_the_unencrypted_parameter_from_a_form(self, post, access_token):
        body = b"unencrypted=1"
        response = post(access_token, data=body, content_type="application/x-www-form-urlencoded")

        assert response.json()["token"].count(".") == 2

    @pytest.mark.parametrize("value", ["", "0", "false", "no", "off", "2", "maybe", "11"])
    def test_issuer_encrypts_the_token_if_the_unencrypted_parameter_is_not_true(self, post, access_token, value):
        assert post(access_token, url=f"{ISSUE_URL}?unencrypted={value}").json()["token"].count(".") == 4

    def test_issuer_ignores_the_unencrypted_parameter_if_debug_is_off(self, post, access_token, settings):
        settings.DEBUG = False

        assert post(access_token, url=ISSUE_URL + "?unencrypted=1").json()["token"].count(".") == 4

    def test_issuer_ignores_the_unencrypted_parameter_unless_the_setting_allows_unencrypted_tokens(
        self, post, access_token, settings
    ):
        settings.INSTACCESS = {}

        assert post(access_token, url=ISSUE_URL + "?unencrypted=1").json()["token"].count(".") == 4


@pytest.mark.django_db(transaction=True)
class TestIssuingWithWarmCaches:
    def test_issuing_with_warm_caches_takes_one_query_to_authenticate_and_one_to_insert(self, post, access_token):
        post(access_token)
        with CaptureQueriesContext(connection) as queries:
            assert post(access_token).status_code == 201

        verbs = [query["sql"].split()[0] for query in queries]
        assert verbs == ["SELECT", "INSERT"]

    def test_issuing_with_warm_caches_takes_two_queries_if_a_user_field_contains_the_uuid(self, post, access_token):
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "username"}):
            post(access_token)
            with CaptureQueriesContext(connection) as queries:
                assert post(access_token).status_code == 201

        assert len(queries) == 2


def jose_header(token):
    segment = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def multipart(content):
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


def json_to_form(get_response: Any) -> Any:
    """Return a middleware that replaces the form with the members of the JSON body."""

    def middleware(request: Any) -> Any:
        request.POST = QueryDict(mutable=True)
        request.POST.update(json.loads(request.body))
        return get_response(request)

    return middleware


def own_query(get_response: Any) -> Any:
    """Return a middleware that replaces the query, and copies the query that the view leaves to a response header."""

    def middleware(request: Any) -> Any:
        request.GET = QueryDict("mine=1")
        response = get_response(request)
        response["X-Query"] = str(dict(request.GET))
        return response

    return middleware
